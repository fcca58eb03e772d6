"""g(f_xi(x)) as one call: what it is bound to, what it is asked, what it tells."""

from functools import partial

import pytest
import torch
from defences import Rule, convnet
from oracles import draws, some_images
from torch import nn

from lit_purify.defence import Defence
from lit_purify.diffusion import FixedNoise, FreshNoise, randomness
from lit_purify.types import InputError

INDICES = torch.tensor([9, 2, 5])
IMAGES = some_images(3).float()
NOISY = Rule(lambda x, noise, indices: x + 0.2 * noise.normal(indices, "forward", 1, like=x))


def logits(seed, images=IMAGES, indices=INDICES):
    """With the noise drawn by hand."""
    return convnet()(images + 0.2 * draws(seed, indices, 2, images))


@pytest.fixture
def defence():
    return Defence(convnet(), NOISY)


@pytest.fixture
def bound(defence):
    return defence.bind(FixedNoise(1), INDICES)


class TestBinding:
    def test_it_is_the_classifier_of_the_purified_image(self, bound):
        assert torch.equal(bound(IMAGES), logits(1))
        purified = IMAGES + 0.2 * draws(1, INDICES, 2, IMAGES)
        assert torch.equal(bound.purify(IMAGES), purified)

    def test_a_part_of_the_samples_in_any_order(self, bound):
        rows = torch.tensor([2, 0])
        assert torch.equal(bound(IMAGES[rows], INDICES[rows]), logits(1)[rows])

    def test_a_sample_it_is_not_bound_to_is_refused(self, bound):
        with pytest.raises(KeyError, match="not in this batch"):
            bound(IMAGES[:1], torch.tensor([3]))

    def test_a_single_index_serves_any_batch(self, defence):
        one = defence.bind(FixedNoise(1), INDICES[1:2])
        for n in (1, 3):
            images = IMAGES[:1].expand(n, -1, -1, -1)
            assert torch.equal(one(images), logits(1, images, INDICES[1:2].expand(n)))

    @pytest.mark.parametrize("given", [torch.arange(2), torch.arange(6), None])
    def test_another_number_of_indices_is_refused(self, bound, given):
        images = IMAGES if given is not None else IMAGES[:2]
        with pytest.raises(RuntimeError, match="indices"):
            bound(images, given)

    def test_the_randomness_of_a_context(self, defence):
        with randomness(FixedNoise(1), INDICES):
            assert torch.equal(defence(IMAGES), logits(1))
            assert torch.equal(defence(IMAGES[1:], INDICES[1:]), logits(1)[1:])
            assert defence.deterministic
            bound = defence.bind(FixedNoise(2), INDICES)
            assert torch.equal(bound(IMAGES), logits(2))

    @pytest.mark.parametrize("given", [[9, 2, 5], (9, 2, 5), INDICES.int(), INDICES.numpy()])
    def test_indices_may_be_any_whole_numbers(self, defence, given):
        assert torch.equal(defence.bind(FixedNoise(1), given)(IMAGES), logits(1))
        assert torch.equal(Defence(convnet(), NOISY, FixedNoise(1), given)(IMAGES), logits(1))
        bound = defence.bind(FixedNoise(1), INDICES)
        assert torch.equal(bound(IMAGES, given), logits(1))
        with randomness(FixedNoise(1), given):
            assert torch.equal(defence(IMAGES), logits(1))

    @pytest.mark.parametrize("given", [2, torch.tensor(2)])
    def test_a_number_is_a_single_index(self, defence, given):
        want = logits(1, indices=torch.tensor([2, 2, 2]))
        assert torch.equal(defence.bind(FixedNoise(1), given)(IMAGES), want)

    @pytest.mark.parametrize(
        "given", [[0.5], torch.rand(3), INDICES[None], "abc", None, [[1], [2, 3]], [True, False]]
    )
    def test_indices_that_are_none(self, defence, given):
        with pytest.raises(InputError, match=r"^[^\n]*whole numbers[^\n]*$"):
            defence.bind(FixedNoise(1), given)
        with pytest.raises(InputError, match="whole numbers"), randomness(FixedNoise(1), given):
            pass

    @pytest.mark.parametrize("ask", [lambda d: d(IMAGES), lambda d: d.deterministic])
    def test_without_randomness_it_refuses(self, defence, ask):
        with pytest.raises(RuntimeError, match="without randomness"):
            ask(defence)
        with pytest.raises(ValueError, match="noise"):
            defence.bind(None, INDICES)

    def test_a_classifier_alone_needs_none(self):
        alone = Defence(convnet())
        assert alone.deterministic
        assert torch.equal(alone(IMAGES), convnet()(IMAGES))
        assert alone.purify(IMAGES) is IMAGES
        images = IMAGES.clone().requires_grad_()
        exact, straight = (
            torch.autograd.grad(alone(images, straight_through=way)[:, 0].sum(), images)
            for way in (False, True)
        )
        assert torch.equal(*exact, *straight)

    def test_observers_of_a_classifier_alone_need_indices(self):
        told = []
        observed = Defence(convnet()).observed(lambda *call: told.append(call[2].tolist()))
        with pytest.raises(RuntimeError, match=r"bind\(None, indices\)"):
            observed(IMAGES)
        observed.bind(None, [9, 2, 5])(IMAGES)
        observed(IMAGES, INDICES)
        assert told == [[9, 2, 5], [9, 2, 5]]

    def test_networks_are_shared_frozen_and_in_evaluation_mode(self):
        network = nn.Sequential(nn.Flatten(), nn.Dropout(), nn.Linear(192, 4)).train()
        defence = Defence(network, NOISY)
        bound = defence.bind(FixedNoise(0), INDICES).observed(print)
        assert bound.classifier is network
        assert not any(module.training for module in bound.modules())
        assert not any(weight.requires_grad for weight in bound.parameters())


class TestRandomDefence:
    def seeds(self, n):
        source = FreshNoise(0, "attack")
        return [source.next_configuration().seed for _ in range(n)]

    def test_every_call_meets_the_next_configuration(self, defence):
        fresh = defence.bind(FreshNoise(0, "attack"), INDICES)
        assert not fresh.deterministic
        for seed in self.seeds(3):
            assert torch.equal(fresh(IMAGES), logits(seed))

    def test_several_draws_of_a_batch(self, defence):
        fresh = defence.bind(FreshNoise(0, "attack"), INDICES)
        want = torch.cat([logits(seed) for seed in self.seeds(4)])
        found = fresh(IMAGES.repeat(2, 1, 1, 1), draws=2)
        assert torch.equal(found, want[:6])
        assert torch.equal(fresh(IMAGES.repeat(2, 1, 1, 1), INDICES, draws=2), want[6:])


def test_any_library_can_differentiate_it(bound):
    """As a function of images, by autograd, by vjp and, along a direction, by jvp."""
    images, direction = IMAGES.clone().requires_grad_(), some_images(3, seed=1).float()
    (gradient,) = torch.autograd.grad(bound(images)[:, 1].sum(), images)
    cotangent = torch.eye(4)[1].expand(3, 4)
    found, pull = torch.func.vjp(bound, IMAGES)
    assert torch.equal(found, logits(1))
    torch.testing.assert_close(pull(cotangent)[0], gradient)
    _, moved = torch.func.jvp(bound, (IMAGES,), (direction,))
    torch.testing.assert_close(moved[:, 1].sum(), (gradient * direction).sum())


def test_observers_are_told_of_every_answer_and_stay(bound):
    told = []

    def observer(name, images, logits, indices, draws):
        told.append((name, len(images), logits.shape[0], indices.tolist(), draws))

    observed = bound.observed(partial(observer, "a")).observed(partial(observer, "b"))
    observed(IMAGES)
    observed.bind(FixedNoise(0), INDICES[:1])(IMAGES.repeat(2, 1, 1, 1), draws=6)
    bound(IMAGES)
    assert told == [
        *((name, 3, 3, [9, 2, 5], 1) for name in "ab"),
        *((name, 6, 6, [9] * 6, 6) for name in "ab"),
    ]
