"""Predictions of defences whose robust accuracy is known beforehand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from known_budgets import BUDGETS, EPS, EXACT, Linear, linear, npz_file
from measured_run import MeasuredRun, measured_run
from torch import Tensor

from lit_purify.attacks import PGD, Attack, LowFrequency
from lit_purify.callbacks import CompressionRate, RobustnessPrediction
from lit_purify.defence import Defence
from lit_purify.diffusion import FreshNoise, NoiseConfiguration, Purifier
from lit_purify.functional import wilson_interval
from lit_purify.paper import PAPER_EPS, paper_fit
from lit_purify.records.runs import FinishedRun, read_runs
from lit_purify.report.prediction import (
    compare,
    law_over_budgets,
    mean_absolute_errors,
    prediction_name,
    prediction_table,
    predictions,
)
from lit_purify.types import InputError

RATE = 0.3
AT = [0.04, 0.1]


class Shrink(Purifier):
    """f(x) = 1/2 + c (x - 1/2)."""

    def __init__(self, *, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def purify(self, images: Tensor, noise: NoiseConfiguration, indices: Tensor) -> Tensor:
        return 0.5 + self.factor * (images - 0.5)


class Shift(Purifier):
    """f_xi(x) = x + 0.5 xi."""

    def purify(self, images: Tensor, noise: NoiseConfiguration, indices: Tensor) -> Tensor:
        return images + 0.5 * noise.normal(indices, "forward", 1, like=images)


class Stepped(Purifier):
    """Rounds to 1/255, with the gradient of rounding, which is zero, but on one image."""

    def purify(self, images: Tensor, noise: NoiseConfiguration, indices: Tensor) -> Tensor:
        sound = (indices == 7).view(-1, 1, 1, 1)
        return torch.where(sound, images, (255 * images).round() / 255)


class Short(Attack):
    """An l2 ball, and an attack that does nothing."""

    p = 2.0

    def perturb(
        self, defence: Defence, images: Tensor, labels: Tensor, indices: Tensor, seed: int
    ) -> Tensor:
        return images


@pytest.fixture(scope="module")
def npz(tmp_path_factory: pytest.TempPathFactory) -> str:
    return npz_file(tmp_path_factory.mktemp("data") / "images.npz")


@pytest.fixture(scope="module")
def run(npz: str) -> Callable[..., MeasuredRun]:
    """Predicts into a folder, by default for the shrinking purifier and beside an exact attack."""

    def run(
        folder: Path,
        *,
        attack: Attack = EXACT,
        protocols: Any = ("fixed",),
        purifier: Purifier | None = None,
        rates: bool = True,
        **options: Any,
    ) -> MeasuredRun:
        before = [CompressionRate()] if rates else []
        callbacks = (*before, RobustnessPrediction(**{"eps": AT, **options}))
        own: Any = {"classifier": linear(), "data": tiny.TwoClasses, "protocols": protocols}
        return measured_run(
            folder, npz, purifier or Shrink(factor=RATE), *callbacks, attack=attack, **own
        )

    return run


@pytest.fixture(scope="module")
def whole(run: Any, tmp_path_factory: pytest.TempPathFactory) -> MeasuredRun:
    """A run that predicts and attacks at 0.1."""
    return run(tmp_path_factory.mktemp("whole"))  # type: ignore[no-any-return]


def stands(eps: float) -> list[bool]:
    """Which images stand behind a purifier that shrinks: it shrinks their scores as well."""
    return [budget > eps for budget in BUDGETS]


@pytest.mark.parametrize("predictor", ["first_order", "classifier_curve"])
def test_it_is_exact_where_everything_is_affine(whole: MeasuredRun, predictor: Any) -> None:
    for eps in AT:
        name = prediction_name(predictor, eps)
        assert whole.column(name) == stands(eps)
        low, high = wilson_interval(sum(stands(eps)), len(BUDGETS))
        assert whole.metrics[name]["value"] == np.mean(stands(eps))
        assert (whole.metrics[name]["low"], whole.metrics[name]["high"]) == (low, high)
    assert stands(EPS) == whole.column("fixed/robust_accuracy_any_iteration")


def test_the_radius_is_the_budget(whole: MeasuredRun) -> None:
    expected = [255 * budget for budget in BUDGETS]
    assert whole.column("prediction/radius") == pytest.approx(expected, rel=1e-4)
    assert whole.metrics["prediction/unknown"]["value"] == 0
    assert whole.metrics["prediction/zero_gradient"]["value"] == 0


def test_the_papers_law_is_read_at_the_mean_rate(whole: MeasuredRun) -> None:
    law = paper_fit()
    for eps in AT:
        found = whole.metrics[prediction_name("paper_law", eps)]
        assert found["value"] == pytest.approx(float(law(RATE * eps / PAPER_EPS)), rel=1e-4)
        assert 0 <= found["low"] <= found["value"] <= found["high"] <= 1


def test_walks_end_the_same_where_nothing_curves(run: Any, tmp_path: Path) -> None:
    found = run(tmp_path, gradients=3, rates=False, protocols=())
    for eps in AT:
        assert found.column(prediction_name("first_order", eps)) == stands(eps)
    assert found.settings["prediction_left_out"] == [
        "classifier_curve and the laws (no CompressionRate before this)"
    ]


def test_in_l2_it_takes_the_dual_norm(run: Any, tmp_path: Path) -> None:
    norm = Linear().weight.detach().norm().item()
    radii = [budget / norm for budget in BUDGETS]
    eps = sorted(radii)[4] + 1e-3
    found = run(tmp_path, attack=Short(eps=0.5), protocols=(), eps=[eps])
    assert found.column("prediction/radius") == pytest.approx(radii, rel=1e-4)
    name = prediction_name("first_order", eps, 2)
    assert found.column(name) == [radius > eps for radius in radii]
    assert found.settings["prediction_left_out"] == ["paper_law (it is of l_inf)"]


def test_fresh_noise_is_predicted_draw_by_draw(run: Any, npz: str, tmp_path: Path) -> None:
    """The gradient of a linear classifier is the same under all: the noise moves the score."""
    options: Any = {"purifier": Shift(), "protocols": (), "noise": "fresh", "draws": 5}
    found = run(tmp_path, rates=False, eps=[0.027], **options)
    source, like = FreshNoise(0, "attack"), torch.zeros(8, 3, 32, 32)
    drawn = [source.next_configuration() for _ in range(5)]
    moved = [0.5 * xi.normal(torch.arange(8), "forward", 1, like=like) for xi in drawn]
    weight = Linear().weight.detach()
    scores = torch.stack([noise.double().flatten(1) @ weight for noise in moved])
    scores += torch.tensor(BUDGETS).double()
    expected = (scores > 0.027).double().mean(0).tolist()
    assert found.column(prediction_name("first_order", 0.027)) == expected
    assert any(0 < share < 1 for share in expected)
    assert found.settings["prediction_draws"] == 5


def test_what_has_no_gradient_is_unknown(run: Any, tmp_path: Path) -> None:
    found = run(tmp_path, purifier=Stepped(), protocols=(), eps=[0.05])
    name = prediction_name("first_order", 0.05)
    # The first image is wrong in any case, the last has a gradient.
    assert found.column("prediction/unknown") == [False, *[True] * 6, False]
    assert found.column(name) == [False, True]
    assert found.metrics[name]["n"] == 2
    assert any("first-order prediction" in flag for flag in found.summary["flags"])
    said = predictions(found.summary)
    assert said["unknown"] == 6 / 8
    assert any("75.0 %" in note for note in said["notes"])


def test_without_gradients_a_purifier_need_have_none(run: Any, tmp_path: Path) -> None:
    class Cut(Shrink):
        def purify(self, images: Tensor, noise: NoiseConfiguration, indices: Tensor) -> Tensor:
            return super().purify(images, noise, indices).detach()

    with pytest.raises(InputError, match="gradients"):
        run(tmp_path / "one", purifier=Cut(factor=1.0), protocols=())
    found = run(tmp_path / "none", purifier=Cut(factor=1.0), protocols=(), gradients=0)
    assert found.column(prediction_name("classifier_curve", EPS)) == stands(EPS)
    assert not [name for name in found.metrics if "first_order" in name]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"eps": []}, "eps"),
        ({"eps": [0]}, "eps"),
        ({"gradients": -1}, "gradients"),
        ({"noise": "loud"}, "noise"),
        ({"draws": 1}, "draws"),
        ({"runs": ["nowhere"]}, "nowhere"),
    ],
)
def test_wrong_arguments_are_refused(options: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        RobustnessPrediction(**options)


def test_runs_that_it_cannot_predict_are_refused(run: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="base"):
        run(tmp_path / "base", protocols=("base",))
    diamond = type("Diamond", (Short,), {"p": 1.0})
    with pytest.raises(InputError, match="l1"):
        run(tmp_path / "l1", attack=diamond(eps=1), protocols=())
    with pytest.raises(InputError, match="lowest DCT"):
        run(tmp_path / "low", attack=LowFrequency(), protocols=())


class TestOwnLaw:
    @staticmethod
    def attacked(rate: float, eps: float, **changed: Any) -> FinishedRun:
        """A run on a law with k = 20, m = 0.15 in the product of rate and eps."""
        accuracy = 1 / (1 + np.exp(20 * (rate * eps / PAPER_EPS - 0.15)))
        settings = {"eps": eps, "attack": "PGD", "data": "cifar", **changed}
        metrics = {
            "uniform/compression_rate": {"value": rate},
            "fixed/robust_accuracy_any_iteration": {"value": float(accuracy)},
        }
        return FinishedRun(Path(f"{rate}_{eps}_{changed}"), settings, metrics, "0")

    def test_it_is_fitted_over_the_product(self) -> None:
        eps = [2 / 255, 4 / 255, 8 / 255]
        law = law_over_budgets([self.attacked(rate, e) for rate in (0.1, 0.2, 0.4) for e in eps])
        assert (law.steepness, law.middle) == pytest.approx((20, 0.15))
        assert law.points == 9

    def test_unlike_runs_are_refused(self) -> None:
        runs = [self.attacked(rate, PAPER_EPS) for rate in (0.1, 0.2, 0.3)]
        with pytest.raises(InputError, match="differ in data"):
            law_over_budgets([*runs, self.attacked(0.4, PAPER_EPS, data="other")])
        with pytest.raises(InputError, match="compression_rate"):
            law_over_budgets([*runs, runs[0]._replace(metrics={})])

    def test_a_run_predicts_by_it(self, run: Any, whole: MeasuredRun, tmp_path: Path) -> None:
        folders = [str(whole.folder)]
        for factor in (0.2, 0.05):
            other = tmp_path / str(factor)
            run(other, purifier=Shrink(factor=factor), attack=EXACT.with_eps(factor))
            folders.append(str(other))
        found = run(tmp_path / "new", protocols=(), runs=folders)
        law = law_over_budgets(read_runs(folders)[0])
        value = found.metrics[prediction_name("own_law", EPS)]["value"]
        assert value == pytest.approx(float(law(RATE * EPS / PAPER_EPS)), rel=1e-4)
        assert found.settings["prediction_law"] == [law.steepness, law.middle, law.ceiling]


class TestComparison:
    def test_image_by_image(self, whole: MeasuredRun) -> None:
        (same,), _ = read_runs([whole.folder])
        found = compare(same, same)
        truth = np.mean(stands(EPS))
        for predictor in ("first_order", "classifier_curve"):
            widest = pytest.approx(1.96**2 / (8 + 1.96**2), abs=1e-4)  # no image differs
            value, share, low, high, n = found[predictor]  # type: ignore[index]
            assert (value, share, -low, high, n) == (truth, truth, widest, widest, 8)
        law = found["paper_law"]
        predicted = whole.metrics[prediction_name("paper_law", EPS)]["value"]
        assert law.error == pytest.approx(predicted - truth)
        assert law.low < law.error < law.high
        errors = mean_absolute_errors([found, {}])
        assert errors == {
            "first_order": 0,
            "classifier_curve": 0,
            "paper_law": pytest.approx(abs(law.error)),
        }

    def test_what_cannot_be_compared_is_refused(self, whole: MeasuredRun) -> None:
        (same,), _ = read_runs([whole.folder])
        other = same._replace(settings={**same.settings, "seed": 1})
        with pytest.raises(InputError, match="differ in seed"):
            compare(same, other)
        low = same._replace(settings={**same.settings, "threat_model": "l_inf, 8 x 8"})
        with pytest.raises(InputError, match="differ in threat_model"):
            compare(same, low)
        with pytest.raises(InputError, match="nothing"):
            compare(same, same._replace(settings={**same.settings, "eps": 0.2}))

    def test_the_table_has_every_predictor_and_budget(self, whole: MeasuredRun) -> None:
        found = predictions(whole.summary)
        assert found["budgets"] == ["10.2/255", "25.5/255"]
        assert list(found["predictors"]) == ["first_order", "classifier_curve", "paper_law"]
        table = prediction_table(found)
        assert (len(table.columns), table.row_count) == (3, 3)
        entries = found["predictors"]["first_order"]["predicted"]
        assert [entry["value"] for entry in entries] == [np.mean(stands(eps)) for eps in AT]


def test_the_attack_on_the_classifier_is_the_runs_own(run: Any, tmp_path: Path) -> None:
    """A weak one leaves more."""
    weak = PGD(eps=EPS, steps=1, rel_stepsize=0.1)
    found = run(tmp_path, attack=weak, protocols=(), eps=[EPS])
    curve = found.column(prediction_name("classifier_curve", EPS))
    assert sum(curve) > sum(stands(EPS))
    assert found.column(prediction_name("first_order", EPS)) == stands(EPS)
