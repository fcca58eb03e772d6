"""Agreement of attacks on defences whose gradient is known."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from measured_run import MeasuredRun, measured_run
from torch import Tensor, nn

from lit_purify.attacks import PGD, PGDEOT, Attack, Uniform
from lit_purify.callbacks import AttackAgreement
from lit_purify.classifiers import Classifier
from lit_purify.classifiers.wrap import from_module
from lit_purify.data import CIFAR10DataModule
from lit_purify.diffusion import FixedNoise, NoiseConfiguration, Purifier
from lit_purify.diffusion.noise import StackedNoise
from lit_purify.diffusion.seeds import derive_seed
from lit_purify.functional import correlation
from lit_purify.modules import PurifiedClassifier

N, PIXELS = 6, 3 * 32 * 32
FAR = PGD(eps=0.1, steps=2, rel_stepsize=2)
"""Two steps reach the far corner of the ball from everywhere in it."""
FAR_EOT = PGDEOT(eps=0.1, steps=2, rel_stepsize=2, draws=3)
SMALL = 4 / PIXELS**0.5
"""Four standard deviations of the correlation of independent directions."""


class _Linear(nn.Module):
    """Two classes, as sure of the one as of the other: the gradient is a multiple of the weight."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(5)
        signs = torch.randn(PIXELS, generator=generator, dtype=torch.float64).sign()
        self.weight = nn.Parameter(1e-5 * signs)

    def forward(self, images: Tensor) -> Tensor:
        score = (images.double() - 0.5).flatten(1) @ self.weight
        return torch.stack([score, -score], 1)


def linear() -> Classifier:
    return from_module(_Linear(), 2, (3, 32, 32))


class ByConfiguration(Purifier):
    """f_xi(x) = rule(x, xi's base seed, xi), part by part of what is purified at once."""

    def __init__(self, rule: Callable[[Tensor, int, Tensor], Tensor]) -> None:
        super().__init__()
        self.rule = rule
        self.rows = 0

    def purify(self, images: Tensor, noise: NoiseConfiguration, indices: Tensor) -> Tensor:
        self.rows += len(images)
        xi = noise.normal(indices, "forward", 1, like=images)
        configurations: Any = noise.configurations if isinstance(noise, StackedNoise) else [noise]
        parts = zip(
            images.chunk(len(configurations)),
            configurations,
            xi.chunk(len(configurations)),
            strict=True,
        )
        return torch.cat([self.rule(x, noise.seed, draw) for x, noise, draw in parts])


def adds(x: Tensor, seed: int, xi: Tensor) -> Tensor:
    return x + 0.2 * xi


def flips(x: Tensor, seed: int, xi: Tensor) -> Tensor:
    """Turns the image over, but not under the run's own noise."""
    return x if seed == 0 else 1 - x


def scatters(x: Tensor, seed: int, xi: Tensor) -> Tensor:
    """Gives every pixel a sign of its own."""
    return 0.5 + (x - 0.5) * xi.sign()


def drops(x: Tensor, seed: int, xi: Tensor) -> Tensor:
    """Drops half of the pixels and doubles the others."""
    return 0.5 + (x - 0.5) * (1 + xi.sign())


@pytest.fixture(scope="module")
def npz(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Images so far inside [0, 1] that no attack of these tests is clipped."""
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("data") / "images.npz"
    images = 0.3 + 0.4 * rng.random((N, 32, 32, 3), dtype=np.float32)
    np.savez(path, images=images, labels=np.arange(N) % 2)
    return str(path)


@pytest.fixture
def measure(npz: str, tmp_path: Path) -> Callable[..., MeasuredRun]:
    """Measures on a linear classifier behind the rule."""

    def measure(
        rule: Callable[[Tensor, int, Tensor], Tensor] | Purifier,
        *,
        attack: Attack = FAR,
        eot: PGDEOT | None = FAR_EOT,
        protocols: Any = ("fixed",),
        folder: str = "run",
        classifier: Classifier | None = None,
    ) -> MeasuredRun:
        classifier = classifier or linear()
        return measured_run(
            tmp_path / folder,
            npz,
            rule if isinstance(rule, Purifier) else ByConfiguration(rule),
            AttackAgreement(eot=eot),
            classifier=classifier,
            protocols=protocols,
            data=tiny.TwoClasses if classifier.num_classes == 2 else CIFAR10DataModule,
            attack=attack,
            batch_size=4,
        )

    return measure


def metrics_of(run: MeasuredRun) -> dict[str, dict[str, Any]]:
    return run.of("agreement/")


def rows(run: MeasuredRun) -> list[dict[str, Any]]:
    return [
        {key.removeprefix("agreement/"): row[key] for key in row if key.startswith("agreement/")}
        for row in run.rows
    ]


ALL = {"perturbation", "gradient", "perturbation_eot", "gradient_eot"}


def test_noise_that_does_not_touch_the_gradient_leaves_all_in_agreement(measure: Any) -> None:
    found = metrics_of(measure(adds))
    assert set(found) == ALL
    for metric in found.values():
        assert metric["value"] == pytest.approx(1, abs=1e-6)
        assert metric["std"] == pytest.approx(0, abs=1e-6)
        assert metric["n"] == N


def test_noise_that_turns_the_gradient_over_gives_minus_one(measure: Any) -> None:
    found = metrics_of(measure(flips))
    for name in ("perturbation", "gradient"):
        assert found[name]["value"] == pytest.approx(-1, abs=1e-6)
    # EOT and the configuration it is compared with see the same side.
    for name in ("perturbation_eot", "gradient_eot"):
        assert found[name]["value"] == pytest.approx(1, abs=1e-6)


def test_independent_directions_have_none(measure: Any) -> None:
    found = metrics_of(measure(scatters))
    for metric in found.values():
        assert abs(metric["value"]) < SMALL / N**0.5
        assert metric["std"] == pytest.approx(PIXELS**-0.5, rel=1)  # of six


def test_half_of_the_pixels_in_common(measure: Any) -> None:
    # Gradients w (1 + s), s independent signs: 1 / 2; the mean of K of them: 1 / sqrt(2 + 2 / K).
    found = metrics_of(measure(drops))
    assert found["gradient"]["value"] == pytest.approx(1 / 2, abs=SMALL / 2)
    assert found["gradient_eot"]["value"] == pytest.approx((2 + 2 / 3) ** -0.5, abs=SMALL / 2)


def test_the_start_of_an_attack_is_no_agreement(measure: Any) -> None:
    # Steps too short to leave it. From one start in common all would be 1.
    still, still_eot = PGD(eps=0.1, rel_stepsize=1e-6), PGDEOT(steps=1, rel_stepsize=1e-6)
    found = metrics_of(measure(adds, attack=still, eot=still_eot))
    for name in ("perturbation", "perturbation_eot"):
        assert abs(found[name]["value"]) < SMALL / N**0.5
    assert found["gradient"]["value"] == pytest.approx(1, abs=1e-6)
    blind = metrics_of(measure(adds, attack=Uniform(eps=0.1), eot=None, folder="blind"))
    assert abs(blind["perturbation"]["value"]) < SMALL / N**0.5


def test_the_rows_are_what_the_definition_says(measure: Any, npz: str) -> None:
    """Again by hand, one image at a time."""
    attack, eot = PGD(eps=0.1, steps=2, rel_stepsize=0.3), PGDEOT(eps=0.1, steps=2, draws=2)
    found = rows(measure(drops, attack=attack, eot=eot))
    module = PurifiedClassifier(ByConfiguration(drops), linear(), protocols=())
    data = np.load(npz)
    other = FixedNoise(derive_seed(0, "agreement", 0))
    for i in range(N):
        image = torch.from_numpy(data["images"][i]).permute(2, 0, 1)[None]
        label, index = torch.tensor([i % 2]), torch.tensor([i])
        own = module.attacked("fixed", index)
        another = module.defence.bind(other, index)
        fresh = module.attacked("fresh", index)
        first = attack(own, image, label, index, seed=0) - image
        second = attack(another, image, label, index, seed=other.seed) - image
        third = eot(fresh, image, label, index, seed=0) - image
        want = {
            "perturbation": correlation(first, second),
            "perturbation_eot": correlation(third, second),
            "gradient": correlation(
                attack.gradient(own, image, label, index)[0],
                attack.gradient(another, image, label, index)[0],
            ),
            "gradient_eot": correlation(
                eot.gradient(module.attacked("fresh", index), image, label, index)[0],
                attack.gradient(another, image, label, index)[0],
            ),
        }
        for name, value in want.items():
            assert found[i][name] == pytest.approx(value.item(), abs=1e-9), name


def test_what_the_run_found_on_fresh_noise_is_used_again(measure: Any) -> None:
    eot = PGDEOT(eps=0.1, steps=2, rel_stepsize=0.3, draws=2)
    again = PGDEOT(eps=0.1, steps=2, rel_stepsize=0.3, draws=2)
    found, purified = [], []
    for protocols in (("fixed",), ("fixed", "fresh")):
        purifier = ByConfiguration(drops)
        folder = "-".join(protocols)
        run = measure(purifier, attack=eot, eot=again, protocols=protocols, folder=folder)
        found.append(rows(run))
        purified.append(purifier.rows)
    assert found[0] == found[1]
    assert purified[1] == purified[0] + N  # for the test under fresh noise alone
    # Another attack is run for itself.
    other = measure(drops, attack=FAR, eot=eot, protocols=("fixed", "fresh"), folder="other")
    assert other.column("agreement/perturbation_eot") != run.column("agreement/perturbation_eot")


def test_a_perturbation_of_zeros_has_no_correlation(measure: Any) -> None:
    found = metrics_of(measure(adds, attack=PGD(eps=0, steps=1)))
    for name, missing in {"perturbation": N, "perturbation_eot": N, "gradient": 0}.items():
        assert found[name]["missing"] == missing
        assert found[name]["n"] == N - missing


class _Certain(_Linear):
    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images) + torch.tensor([1e9, 0])


def test_a_gradient_that_vanishes_has_no_correlation(measure: Any) -> None:
    found = metrics_of(measure(adds, classifier=from_module(_Certain(), 2, (3, 32, 32))))
    assert found["gradient"]["missing"] == N / 2  # the images of the class it is certain of
    assert found["gradient"]["value"] == pytest.approx(1, abs=1e-6)


def test_the_settings_name_everything(measure: Any) -> None:
    settings = measure(adds).settings
    assert settings["seed_agreement"] == derive_seed(0, "agreement", 0)
    assert "Pearson" in settings["agreement_measure"]
    assert settings["agreement_eot_attack"] == "PGDEOT"
    assert settings["agreement_eot_draws"] == 3
    assert settings["agreement_eot_gradient"] == "exact"
    assert settings["attack"] == "PGD"  # the run's own keep their names
    assert "draws" not in settings


def test_transfer_attacks_fixed_noise_too_and_eot_may_be_left_out(measure: Any) -> None:
    found = metrics_of(measure(adds, protocols=("transfer",), eot=None))
    assert set(found) == {"perturbation", "gradient"}
    assert found["perturbation"]["n"] == N
