"""The average of several purifications against plain autograd, in float64."""

import pytest
import tiny
import torch
from defences import convnet
from oracles import TinyDenoiser, some_images
from torch.nn import functional as F

from lit_purify.defence import Defence
from lit_purify.diffusion import DiffusionPurifier, FixedNoise, StackedNoise, derive_seed
from lit_purify.modules import PurifiedClassifier
from lit_purify.purifiers import AveragedPurifier, BitDepth, Blur
from lit_purify.types import InputError

INDICES = torch.tensor([5, 2])
LABELS = torch.tensor([1, 3])
NOISE = FixedNoise(1)
CLASSIFIER = convnet().double()


def chain(budget: float = 0.0) -> DiffusionPurifier:
    return DiffusionPurifier(TinyDenoiser(), t_star=30, num_steps=3, memory_budget_gib=budget)


def averaged(draws: int = 3, average: str = "images", budget: float = 0.0) -> AveragedPurifier:
    return AveragedPurifier(chain(budget), draws=draws, average=average)


def by_hand(images: torch.Tensor, average: str, draws: int = 3) -> torch.Tensor:
    """Logits of the average, every network activation kept."""
    seeds = [NOISE.seed, *(derive_seed(NOISE.seed, "average", k) for k in range(1, draws))]
    purified = [chain(budget=9.0).purify(images, FixedNoise(seed), INDICES) for seed in seeds]
    if average == "images":
        return CLASSIFIER(torch.stack(purified).mean(0))
    return torch.stack([CLASSIFIER(image) for image in purified]).mean(0)


@pytest.mark.parametrize("budget", [0.0, 9.0])
@pytest.mark.parametrize("average", ["images", "logits"])
def test_logits_and_gradient_are_those_of_plain_autograd(average, budget):
    x = some_images(2).requires_grad_()
    defence = Defence(CLASSIFIER, averaged(average=average, budget=budget)).bind(NOISE, INDICES)
    want, got = by_hand(x, average), defence(x)
    torch.testing.assert_close(got, want, rtol=0, atol=1e-12)
    gradients = [
        torch.autograd.grad(F.cross_entropy(y, LABELS, reduction="sum"), x)[0] for y in (got, want)
    ]
    assert gradients[1].norm() > 0
    assert (gradients[0] - gradients[1]).norm() <= 1e-10 * gradients[1].norm()


@pytest.mark.parametrize("average", ["images", "logits"])
def test_one_draw_is_the_purifier_alone(average):
    images = some_images(2)
    purified, logits = averaged(1, average).answer(images, NOISE, INDICES, CLASSIFIER)
    assert torch.equal(purified, chain().purify(images, NOISE, INDICES))
    assert torch.equal(logits, CLASSIFIER(purified))


def test_averages_of_images_and_of_logits_differ_in_what_the_classifier_sees():
    images = some_images(2)
    answers = [
        averaged(average=average).answer(images, NOISE, INDICES, CLASSIFIER)
        for average in ("images", "logits")
    ]
    assert torch.equal(answers[0][0], answers[1][0])
    assert torch.equal(answers[0][0], averaged().purify(images, NOISE, INDICES))
    assert not torch.allclose(answers[0][1], answers[1][1])


def test_a_sample_gets_the_same_in_any_batch_and_order_and_with_kept_draws():
    images, purifier = some_images(2), averaged()
    whole = purifier.purify(images, NOISE, INDICES)
    alone = purifier.purify(images[1:], NOISE, INDICES[1:])
    torch.testing.assert_close(alone, whole[1:], rtol=0, atol=1e-14)
    kept = NOISE.cached(INDICES)
    assert torch.equal(purifier.purify(images.flip(0), kept, INDICES.flip(0)).flip(0), whole)
    assert torch.equal(purifier.purify(images, kept, INDICES), whole)


def test_stacked_configurations_are_averaged_each_by_itself():
    images, other, purifier = some_images(2), FixedNoise(4), averaged()
    both = purifier.purify(
        images.repeat(2, 1, 1, 1), StackedNoise([NOISE, other]), INDICES.repeat(2)
    )
    each = [purifier.purify(images, noise, INDICES) for noise in (NOISE, other)]
    torch.testing.assert_close(both, torch.cat(each), rtol=0, atol=1e-14)


def test_draws_of_a_kept_configuration_are_seen():
    kept = NOISE.cached(INDICES)
    assert not kept.drawn
    kept.derived("average", 1).normal(INDICES, "forward", 1, like=some_images(2))
    assert kept.drawn
    assert kept.derived("average", 1) is kept.derived("average", 1)


def test_the_backward_pass_holds_one_draw(monkeypatch):
    """Activations of a draw, in bytes, do not add up over the draws."""
    from lit_purify.diffusion.live_bytes import LiveBytes

    peaks = []
    for draws in (2, 6):
        x = some_images(2).requires_grad_()
        with LiveBytes() as live:
            output = averaged(draws, budget=9.0).purify(x, NOISE, INDICES)
            torch.autograd.grad(output.sum(), x)
        peaks.append(live.peak)
    assert peaks[1] < 1.2 * peaks[0]


@pytest.mark.parametrize("average", ["images", "logits"])
def test_gradients_by_state(average):
    """That at the input is the defence's; that at the output is that of adding to every draw."""

    def loss(logits):
        return F.cross_entropy(logits, LABELS, reduction="none")

    images = some_images(2)
    x = images.clone().requires_grad_()
    (want,) = torch.autograd.grad(loss(by_hand(x, average)).sum(), x)
    first, last = averaged(average=average).state_gradients(
        images, NOISE, INDICES, loss, CLASSIFIER
    )
    torch.testing.assert_close(first.image, want, rtol=1e-10, atol=1e-14)
    added = torch.zeros_like(images).requires_grad_()
    _, logits = averaged(average=average).answer(
        images, NOISE, INDICES, lambda seen: CLASSIFIER(seen + added)
    )
    (want,) = torch.autograd.grad(loss(logits).sum(), added)
    torch.testing.assert_close(last.image, want, rtol=1e-10, atol=1e-14)


def test_straight_through_takes_every_draw_for_the_identity():
    x = some_images(2).requires_grad_()
    defence = Defence(CLASSIFIER, averaged(average="logits")).bind(NOISE, INDICES)
    logits = defence(x, straight_through=True)
    torch.testing.assert_close(logits, defence(x), rtol=0, atol=1e-12)
    (got,) = torch.autograd.grad(logits[:, 0].sum(), x)
    zero = torch.zeros_like(x).requires_grad_()
    _, moved = averaged(average="logits").answer(
        x.detach(), NOISE, INDICES, lambda seen: CLASSIFIER(seen + zero)
    )
    (want,) = torch.autograd.grad(moved[:, 0].sum(), zero)
    torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-15)


def test_every_draw_costs_the_steps_of_its_chain():
    assert averaged(draws=4).total_steps == 4 * 3
    assert AveragedPurifier(Blur(sigma=1.0), draws=4).total_steps == 4


def test_settings_name_what_is_averaged():
    settings = averaged(average="logits").settings()
    assert settings["purifier_options"] == {"averaged": "logits", "averaged_draws": 3}
    of_blur = AveragedPurifier(Blur(sigma=0.5), draws=2).settings()["purifier_options"]
    assert of_blur == {"sigma": 0.5, "averaged": "images", "averaged_draws": 2}
    assert settings["t_star"] == 30
    assert averaged().models().keys() == {"denoiser"}
    module = PurifiedClassifier(AveragedPurifier(BitDepth()), tiny.classifier())
    assert "rounding" in str(module.settings()["purifier_gradient"])
    assert "purifier_gradient" not in PurifiedClassifier(chain(), tiny.classifier()).settings()


@pytest.mark.parametrize(
    ("arguments", "word"),
    [({"draws": 0}, "draws"), ({"draws": 1.5}, "draws"), ({"average": "votes"}, "average")],
)
def test_wrong_arguments(arguments, word):
    with pytest.raises(InputError, match=word):
        AveragedPurifier(chain(), **arguments)
    with pytest.raises(InputError, match="Purifier"):
        AveragedPurifier(torch.nn.Identity())
    with pytest.raises(InputError, match="multiplied"):
        AveragedPurifier(averaged())
