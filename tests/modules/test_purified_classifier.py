"""The evaluated defence: hand counts, protocols and the noise of each, invariance to batching."""

import pytest
import tiny
import torch
from lightning.pytorch import LightningDataModule
from tiny import FailingPurifier, IdentityPurifier, NoisyPurifier, ScalingPurifier, evaluate
from torch import nn

from lit_purify.attacks import PGD
from lit_purify.callbacks import CompressionRate
from lit_purify.classifiers import from_module
from lit_purify.data import CIFAR10DataModule
from lit_purify.diffusion import (
    DiffusionPurifier,
    FixedNoise,
    FreshNoise,
    ddpm_unet,
    derive_seed,
    randomness,
)
from lit_purify.modules import PurifiedClassifier
from lit_purify.types import InputError

ALL = ("base", "blind", "fixed", "transfer", "fresh")


@pytest.fixture(scope="module")
def npz(tmp_path_factory):
    return str(tiny.npz_file(tmp_path_factory.mktemp("data") / "images.npz", 7))


def data(npz, batch_size=7, **options):
    return CIFAR10DataModule(source=npz, batch_size=batch_size, **options)


def defence(purifier, protocols=ALL, seed=0, **options):
    return PurifiedClassifier(
        purifier, tiny.classifier(), protocols=protocols, seed=seed, **options
    )


def accuracies(metrics):
    return {name for name in metrics if "accuracy" in name}


def diffusion():
    return DiffusionPurifier(tiny.Float64Denoiser(tiny.denoiser()), t_star=20, num_steps=2)


class Declared(LightningDataModule):
    """Says its images' shape, and must not be asked for one."""

    def __init__(self, shape):
        super().__init__()
        self.image_shape = shape

    def test_dataloader(self):
        raise AssertionError

    predict_dataloader = test_dataloader


def sized(image_shape=(3, 32, 32), **options):
    denoiser = tiny.denoiser()
    denoiser.image_shape = image_shape
    return DiffusionPurifier(denoiser, t_star=2, **options)


@pytest.mark.parametrize(
    ("shape", "purifier", "message"),
    [
        ((3, 16, 16), sized(), r"\(3, 32, 32\)"),
        ((1, 32, 32), sized(), r"\(3, 32, 32\)"),
        ((3, 30, 34), sized(resize_to=32), "square"),
        ((3, 34, 34), sized(None), "multiples of 4"),
    ],
)
@pytest.mark.parametrize("stage", ["test", "predict"])
def test_a_purifier_for_other_images_is_refused_before_them(
    shape, purifier, message, stage, tmp_path
):
    module = PurifiedClassifier(purifier, from_module(nn.Flatten(), 10), protocols=[])
    with pytest.raises(InputError, match=message):
        getattr(tiny.trainer(tmp_path), stage)(module, Declared(shape))


def test_a_bare_network_is_to_be_wrapped():
    with pytest.raises(InputError, match=r"Flatten.*from_module\(module, num_classes\)"):
        PurifiedClassifier(IdentityPurifier(), nn.Flatten())


def test_a_purifier_that_is_not_used_may_be_for_other_images(tmp_path):
    module = PurifiedClassifier(sized(), from_module(nn.Flatten(), 10), protocols=["base"])
    with pytest.raises(AssertionError):  # the data are asked for images
        tiny.trainer(tmp_path).test(module, Declared((3, 16, 16)))


class TestCounting:
    def test_every_accuracy_is_the_hand_count(self, npz):
        module = defence(NoisyPurifier(), seed=3)
        metrics, seen = evaluate(module, data(npz, 3))
        images, labels = tiny.images_and_labels(7)
        classifier, indices = tiny.classifier(), torch.arange(7)

        def right(images, seed):
            if seed is not None:
                xi = FixedNoise(seed).normal(indices, "forward", 1, like=images)
                images = images + 0.2 * xi
            pairs = zip(classifier(images), labels, strict=True)
            return sum(int(logits.argmax() == label) for logits, label in pairs) / 7

        attacked, other = seen.adversarial, derive_seed(3, "transfer", 0)
        by_hand = {
            "base/clean_accuracy": 5 / 7,  # by construction
            "purified/clean_accuracy": right(images, 3),
            "base/robust_accuracy": right(attacked("base"), None),
            "blind/robust_accuracy": right(attacked("base"), 3),
            "fixed/robust_accuracy": right(attacked("fixed"), 3),
            "transfer/robust_accuracy": right(attacked("fixed"), other),
            "fresh/robust_accuracy": right(attacked("fresh"), derive_seed(3, "fresh/test", 0)),
        }
        rest = {f"{surface}/robust_accuracy_any_iteration" for surface in ("base", "fixed")}
        assert accuracies(metrics) == set(by_hand) | rest
        for name, share in by_hand.items():
            assert metrics[name] == pytest.approx(share), name
        assert len(set(by_hand.values())) >= 3  # or it could not tell the protocols apart

    def test_the_identity_changes_nothing(self, npz):
        metrics, seen = evaluate(defence(IdentityPurifier()), data(npz, 3))
        assert metrics["purified/clean_accuracy"] == metrics["base/clean_accuracy"]
        for protocol in ("blind", "fixed", "transfer", "fresh"):
            assert metrics[f"{protocol}/robust_accuracy"] == metrics["base/robust_accuracy"]
        assert torch.equal(seen.adversarial("base"), seen.adversarial("fixed"))
        assert torch.equal(seen.adversarial("base"), seen.adversarial("fresh"))

    def test_a_second_test_of_the_same_module_starts_over(self, npz):
        module = defence(IdentityPurifier())
        attack = PGD(steps=2)
        first, _ = evaluate(module, data(npz), CompressionRate(), attack=attack)
        second, _ = evaluate(module, data(npz), CompressionRate(), attack=attack)
        assert first == second

    def test_an_attack_of_no_strength_changes_nothing(self, npz):
        metrics, seen = evaluate(defence(IdentityPurifier()), data(npz), attack=PGD(eps=0))
        assert metrics["base/robust_accuracy"] == metrics["base/clean_accuracy"]
        assert torch.equal(seen.adversarial("fixed"), tiny.images_and_labels(7)[0])

    def test_any_iteration_counts_a_sample_fooled_on_the_way(self, npz):
        # Steps far beyond the ball's radius swing between its corners: some leave a success again.
        attack = PGD(eps=0.1, steps=6, rel_stepsize=2, random_start=False)
        module = defence(IdentityPurifier(), ("base",))
        metrics, _ = evaluate(module, data(npz), attack=attack)
        standing = torch.ones(7, dtype=torch.bool)
        images, labels = tiny.images_and_labels(7)
        for steps in range(7):
            x = images
            if steps:
                partial = PGD(eps=0.1, steps=steps, rel_stepsize=2, random_start=False)
                x = partial(
                    module.attacked("base", torch.arange(7)), images, labels, torch.arange(7)
                )
            standing &= tiny.classifier()(x).argmax(1) == labels
        found = metrics["base/robust_accuracy_any_iteration"]
        assert found == pytest.approx(standing.float().mean().item())


class TestProtocols:
    def run(self, npz, protocol, *, batch_size=7, seed=5, steps=4):
        module = defence(NoisyPurifier(), (protocol,), seed=seed)
        _, seen = evaluate(module, data(npz, batch_size), attack=PGD(eps=0.03, steps=steps))
        return seen

    def seeds_of_the_test(self, seen, surface):
        """Seeds under which the adversarial images of the only batch were purified in the test."""
        images = seen.adversarial(surface)
        return [seed for x, seed, _, _ in seen.test_calls if torch.equal(x, images)]

    @pytest.mark.parametrize(
        ("protocol", "surface", "attacked", "tested"),
        [
            ("base", "base", set(), []),
            ("blind", "base", set(), [5]),
            ("fixed", "fixed", {5}, [5]),
            ("transfer", "fixed", {5}, [derive_seed(5, "transfer", 0)]),
        ],
    )
    def test_the_noise_of_attack_and_test(self, npz, protocol, surface, attacked, tested):
        seen = self.run(npz, protocol)
        assert set(seen.batches[0]["adversarial"]) == {surface}
        assert {seed for _, seed, _, _ in seen.attack_calls} == attacked
        assert self.seeds_of_the_test(seen, surface) == tested
        for _, seed, indices, xi in seen.attack_calls + seen.test_calls:
            by_hand = FixedNoise(seed).normal(indices, "forward", 1, like=xi)
            assert torch.equal(xi, by_hand)
        images = seen.adversarial(surface)
        assert torch.equal(images, self.run(npz, surface).adversarial(surface))
        tested_alone = torch.equal(seen.outcomes[0][f"{protocol}/adversarial"].image, images)
        assert tested_alone == (protocol == "base")

    def test_fresh_draws_anew_at_every_pass_and_apart_from_the_test(self, npz):
        seen = self.run(npz, "fresh", batch_size=3, steps=4)
        attacks = [seed for _, seed, _, _ in seen.attack_calls]
        assert len(attacks) == 3 * 4  # batches of 3, 3 and 1
        assert len(set(attacks)) == 4  # one a pass, the same for every batch
        clean = torch.cat([batch["image"] for batch in seen.batches])
        tests = {seed for x, seed, i, _ in seen.test_calls if not torch.equal(x, clean[i])}
        assert len(tests) == 1
        assert not tests & {*attacks, 5}
        assert 5 not in attacks

    @pytest.mark.parametrize(
        ("options", "keyword"),
        [
            ({"protocols": ("fixd",)}, "protocols"),
            ({"seed": -1}, "base seed"),
            ({"test_draws": 0}, "test_draws"),
        ],
    )
    def test_arguments_are_checked(self, options, keyword):
        with pytest.raises(InputError, match=keyword):
            defence(IdentityPurifier(), **options)

    def test_without_a_protocol_only_clean_images_are_measured(self, npz):
        metrics, seen = evaluate(defence(IdentityPurifier(), ()), data(npz))
        assert accuracies(metrics) == {"base/clean_accuracy", "purified/clean_accuracy"}
        assert metrics["base/clean_accuracy"] == metrics["purified/clean_accuracy"]
        assert seen.batches[0]["adversarial"] == {}

    def test_the_classifier_alone_is_attacked_without_a_purification(self, npz):
        module = defence(FailingPurifier(at=0), ("base",))
        metrics, _ = evaluate(module, data(npz, 3))
        whole, _ = evaluate(defence(IdentityPurifier()), data(npz, 3))
        assert metrics == {name: whole[name] for name in whole if name.startswith("base/")}

    def test_a_protocol_given_twice_counts_once(self):
        assert defence(IdentityPurifier(), ("fixed", "fixed")).protocols == ("fixed",)


class TestSeveralDraws:
    """Adversarial images tested under N randomness configurations."""

    N = 9

    @pytest.fixture(scope="class")
    def both(self, npz):
        """(metrics, recorder) of single draws and of N."""
        attack = PGD(eps=0.01, steps=3)
        return [
            evaluate(defence(NoisyPurifier(), seed=5, test_draws=n), data(npz, 3), attack=attack)
            for n in (1, self.N)
        ]

    def by_hand(self, seen, surface, seeds):
        """What the classifier says of the images under each seed, (N, 7) classes."""
        index, images = torch.arange(7), seen.adversarial(surface)
        module = defence(NoisyPurifier())
        return torch.stack([module(images, FixedNoise(s), index).argmax(1) for s in seeds])

    def test_only_fresh_has_more_to_tell_of_the_same_images(self, both):
        (one, seen), (many, others) = both
        added = {"fresh/robust_accuracy_worst_of_n", "fresh/robust_accuracy_majority"}
        assert set(many) - set(one) == added
        for surface in ("base", "fixed", "fresh"):
            assert torch.equal(seen.adversarial(surface), others.adversarial(surface))
        for name in ("base/robust_accuracy", "fixed/robust_accuracy"):
            assert one[name] == many[name]

    def test_the_figures_are_those_of_the_seeds(self, both):
        metrics, seen = both[1]
        labels = torch.cat([batch["label"] for batch in seen.batches])
        fresh = [FreshNoise(5, "test", passes=k).next_configuration().seed for k in range(self.N)]
        transfer = [derive_seed(5, "transfer", k) for k in range(self.N)]
        right = self.by_hand(seen, "fixed", transfer) == labels
        assert metrics["transfer/robust_accuracy"] == pytest.approx(right.float().mean().item())
        said = self.by_hand(seen, "fresh", fresh)
        right = said == labels
        assert metrics["fresh/robust_accuracy"] == pytest.approx(right.float().mean().item())
        worst = right.all(0).float().mean().item()
        assert metrics["fresh/robust_accuracy_worst_of_n"] == pytest.approx(worst)
        most = [said[:, i].bincount().argmax().item() for i in range(7)]  # nine votes, no ties here
        assert metrics["fresh/robust_accuracy_majority"] == pytest.approx(
            sum(int(a == b) for a, b in zip(most, labels.tolist(), strict=True)) / 7
        )
        # The sample shows something: single draws disagree.
        assert worst < right.float().mean() < 1


class TestEarlyStop:
    def run(self, npz, protocols, *, early_stop):
        attack = PGD(eps=0.03, steps=6, early_stop=early_stop)
        return evaluate(defence(NoisyPurifier(), protocols), data(npz), attack=attack)

    def test_only_what_is_known_is_reported(self, npz):
        metrics, _ = self.run(npz, ALL, early_stop=True)
        assert accuracies(metrics) == {
            "base/clean_accuracy",
            "purified/clean_accuracy",
            "base/robust_accuracy_any_iteration",
            "fixed/robust_accuracy_any_iteration",
            "blind/robust_accuracy",  # it tests the images that were returned
            "transfer/robust_accuracy",  # so does it
            "fresh/robust_accuracy",  # a fresh success is none to stop at: the attack ran on
        }

    def test_success_at_any_iteration_does_not_change(self, npz):
        stopped, _ = self.run(npz, ("base", "fixed"), early_stop=True)
        whole, _ = self.run(npz, ("base", "fixed"), early_stop=False)
        for surface in ("base", "fixed"):
            name = f"{surface}/robust_accuracy_any_iteration"
            assert stopped[name] == whole[name]
        assert stopped["fixed/robust_accuracy_any_iteration"] < 5 / 7  # something was fooled

    def test_the_images_returned_are_the_ones_that_fooled(self, npz):
        metrics, seen = self.run(npz, ("fixed",), early_stop=True)
        standing = seen.correct("fixed/adversarial").float().mean().item()
        assert metrics["fixed/robust_accuracy_any_iteration"] == pytest.approx(standing)

    def test_fresh_is_attacked_to_the_end(self, npz):
        _, stopped = self.run(npz, ("fresh",), early_stop=True)
        _, whole = self.run(npz, ("fresh",), early_stop=False)
        assert torch.equal(stopped.adversarial("fresh"), whole.adversarial("fresh"))


class TestBatching:
    @pytest.fixture(scope="class")
    def runs(self, npz):
        """The same evaluation at three batch sizes."""
        sizes = (1, 3, 7)
        return [evaluate(defence(diffusion()), data(npz, n), CompressionRate()) for n in sizes]

    def test_metrics_do_not_depend_on_it(self, runs):
        (whole, _), *others = runs
        for metrics, _ in others:
            assert metrics == pytest.approx(whole, rel=1e-5, abs=0)

    def test_adversarial_images_do_not_depend_on_it(self, runs):
        (_, whole), *others = runs
        for surface in ("base", "fixed", "fresh"):
            expected = whole.adversarial(surface)
            moved = (expected - tiny.images_and_labels(7)[0]).abs().amax((1, 2, 3))
            torch.testing.assert_close(moved, torch.full((7,), 1 / 255), rtol=0, atol=1e-6)
            for _, seen in others:
                images = seen.adversarial(surface)
                torch.testing.assert_close(images, expected, rtol=0, atol=1e-6)

    def test_a_sample_meets_the_same_fate_among_others(self, runs, npz):
        """Its dataset index keys everything, not its position or company."""
        chosen = [4, 1, 6]
        _, whole = runs[-1]
        _, seen = evaluate(defence(diffusion()), data(npz, 2, indices=chosen))
        for surface in ("base", "fixed", "fresh"):
            images = seen.adversarial(surface)
            torch.testing.assert_close(
                images, whole.adversarial(surface)[chosen], rtol=0, atol=1e-6
            )

    def test_the_seed_decides(self, npz):
        first, again, other = (
            evaluate(defence(NoisyPurifier(), ("fixed",), seed), data(npz))[1].adversarial("fixed")
            for seed in (0, 0, 1)
        )
        assert torch.equal(first, again)
        assert not torch.equal(first, other)


class TestCalling:
    def test_logits_under_given_and_under_bound_randomness(self):
        module = defence(NoisyPurifier())
        images, _ = tiny.images_and_labels(4)
        indices = torch.tensor([9, 2, 5, 0])
        xi = FixedNoise(1).normal(indices, "forward", 1, like=images)
        expected = tiny.classifier()(images + 0.2 * xi)
        assert torch.equal(module(images, FixedNoise(1), indices), expected)
        with randomness(FixedNoise(1), indices):
            assert torch.equal(module(images), expected)

    def test_settings_and_models_name_everything(self):
        module = defence(diffusion(), seed=4, test_draws=3)
        expected = {"t_star": 20, "num_steps": 2, "seed": 4, "test_draws": 3}
        expected |= {"seed_transfer": [derive_seed(4, "transfer", k) for k in range(3)]}
        expected |= {"protocols": list(ALL)}
        assert module.settings() == module.settings() | expected
        assert set(module.models()) == {"denoiser", "classifier"}

    def test_a_metric_is_registered_once(self, npz):
        with pytest.raises(InputError, match="measured twice"):
            evaluate(defence(IdentityPurifier()), data(npz), CompressionRate(), CompressionRate())

    def test_the_trajectory_of_predict_ends_in_the_purified_image(self):
        module = defence(ScalingPurifier(factor=0.5))
        images, _ = tiny.images_and_labels(2)
        batch = {"image": images, "label": torch.zeros(2), "index": torch.arange(2)}
        first, last = module.predict_step(batch, 0)
        assert torch.equal(first.image, images)
        assert torch.equal(last.image, 0.5 * images)


class TestWhatDoesNotFit:
    def test_missing_adversarial_images_are_explained(self, npz):
        with pytest.raises(InputError, match="AdversarialExamples"):
            tiny.trainer(None).test(defence(IdentityPurifier()), data(npz), verbose=False)

    @pytest.mark.parametrize(
        ("classes", "size", "words"),
        [(100, 32, ["10 classes", "100"]), (10, 224, ["(3, 32, 32)", "(3, 224, 224)"])],
    )
    def test_a_classifier_of_other_classes_or_images(self, npz, classes, size, words):
        network = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, classes))
        other = from_module(network, classes, (3, size, size))
        module = PurifiedClassifier(IdentityPurifier(), other)
        with pytest.raises(InputError) as caught:
            tiny.trainer(None).test(module, data(npz), verbose=False)
        for word in words:
            assert word in str(caught.value)

    def test_a_denoiser_without_weights(self):
        purifier = DiffusionPurifier(ddpm_unet(block_out_channels=(32, 32), seed=None))
        with pytest.raises(InputError, match=r"purifier\.denoiser"):
            PurifiedClassifier(purifier, tiny.classifier())
