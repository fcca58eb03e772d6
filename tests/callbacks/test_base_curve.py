"""The curve of a linear classifier, whose images fall at a budget known beforehand."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from known_budgets import BUDGETS, EPS, EXACT, Linear, linear, npz_file
from measured_run import MeasuredRun, measured_run
from PIL import Image
from run_files import RunFiles
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny import IdentityPurifier, ScalingPurifier

from lit_purify.attacks import PGD, Attack
from lit_purify.callbacks import BaseClassifierCurve, CompressionRate
from lit_purify.callbacks.base_curve import RATES
from lit_purify.classifiers import Classifier
from lit_purify.classifiers.wrap import from_module
from lit_purify.cli import main
from lit_purify.functional import wilson_interval
from lit_purify.records import read_summary
from lit_purify.types import InputError


@pytest.fixture(scope="module")
def npz(tmp_path_factory: pytest.TempPathFactory) -> str:
    return npz_file(tmp_path_factory.mktemp("data") / "images.npz")


@pytest.fixture
def run(npz: str) -> Callable[..., MeasuredRun]:
    """Draws a curve into a folder."""

    def run(
        folder: Path,
        *,
        attack: Attack = EXACT,
        protocols: Any = ("base",),
        purifier: Any = None,
        classifier: Classifier | None = None,
        more: Any = (),
        **options: Any,
    ) -> MeasuredRun:
        purifier, classifier = purifier or IdentityPurifier(), classifier or linear()
        callbacks = (*more, BaseClassifierCurve(**options))
        own: Any = {"classifier": classifier, "data": tiny.TwoClasses, "protocols": protocols}
        return measured_run(folder, npz, purifier, *callbacks, attack=attack, **own)

    return run


def curve_of(folder: Path) -> list[dict[str, Any]]:
    """The columns of the curve, one row per image."""
    return [{key: row[key] for key in row if "base_curve" in key} for row in RunFiles(folder).rows]


def test_each_image_falls_at_its_budget(run: Any, tmp_path: Path) -> None:
    found = run(tmp_path)
    assert len(found.of("base_curve/")) == len(RATES)
    for rate in RATES:
        name = f"base_curve/robust_accuracy_{rate:.2f}"
        stands = [budget > rate * EPS for budget in BUDGETS]
        assert found.column(name) == stands, rate
        metric = found.metrics[name]
        assert metric["value"] == np.mean(stands)
        assert (metric["low"], metric["high"]) == wilson_interval(sum(stands), len(BUDGETS))


def test_the_ends_are_metrics_of_the_run(run: Any, tmp_path: Path) -> None:
    # The second attack finds some images only from its own random start.
    for attack in (EXACT, PGD(eps=EPS, steps=2, rel_stepsize=0.2)):
        found = run(tmp_path / str(attack.rel_stepsize), attack=attack)
        for rate, own in (("1.00", "robust"), ("0.00", "clean")):
            name = f"base_curve/robust_accuracy_{rate}"
            assert found.metrics[name] == found.metrics[f"base/{own}_accuracy"]
            assert found.column(name) == found.column(f"base/{own}_accuracy")
    weaker = found.column("base_curve/robust_accuracy_1.00")
    assert sum(weaker) > sum(budget > EPS for budget in BUDGETS)


def test_the_protocols_do_not_matter(run: Any, tmp_path: Path) -> None:
    run(tmp_path / "base")
    settings = run(tmp_path / "none", protocols=()).settings
    assert curve_of(tmp_path / "none") == curve_of(tmp_path / "base")
    assert settings["base_curve_eps"] == EPS
    assert settings["base_curve_success"] == "after the last iteration"


def test_an_eps_of_its_own(run: Any, tmp_path: Path) -> None:
    found = run(tmp_path, attack=PGD(steps=2, rel_stepsize=2), eps=EPS)
    assert found.settings["eps"] == 8 / 255
    assert found.settings["base_curve_eps"] == EPS
    stands = [budget > 0.2 * EPS for budget in BUDGETS]
    assert found.column("base_curve/robust_accuracy_0.20") == stands


def test_an_attack_that_stops_early_is_named(run: Any, tmp_path: Path) -> None:
    found = run(tmp_path, attack=PGD(eps=EPS, steps=2, rel_stepsize=2, early_stop=True))
    assert found.settings["base_curve_success"] == "at any iteration"
    whole = found.metrics["base/robust_accuracy_any_iteration"]
    assert found.metrics["base_curve/robust_accuracy_1.00"] == whole


def test_rates_have_two_decimals_or_the_four_they_need(run: Any, tmp_path: Path) -> None:
    found = run(tmp_path, rates=[0.5, 0.125, 0.15344, 0.5, 2]).summary
    labels = {name: shown["label"] for name, shown in found["labels"].items() if "curve" in name}
    assert list(labels.items()) == [
        ("base_curve/robust_accuracy_0.125", "Accuracy at 12.5 % of the budget"),
        ("base_curve/robust_accuracy_0.1534", "Accuracy at 15.34 % of the budget"),
        ("base_curve/robust_accuracy_0.50", "Accuracy at 50 % of the budget"),
        ("base_curve/robust_accuracy_2.00", "Accuracy at 200 % of the budget"),
    ]
    assert found["metrics"]["base_curve/robust_accuracy_2.00"]["value"] == 0


@pytest.fixture
def measured(run: Any, tmp_path: Path) -> Path:
    """A finished run of a purifier whose compression rate is 0.3004."""
    folder, purifier = tmp_path / "measured", ScalingPurifier(factor=0.3004)
    more = [CompressionRate()]
    run(folder, rates=[1], protocols=("fixed",), purifier=purifier, more=more)
    return folder


def edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = folder / "summary.json"
    summary = json.loads(path.read_text())
    change(summary)
    path.write_text(json.dumps(summary))


class TestRuns:
    def test_their_rates_join(self, run: Any, measured: Path, tmp_path: Path) -> None:
        found = run(tmp_path / "new", rates=[0, 1], runs=[str(measured)])
        assert found.settings["base_curve_rates"] == [0, 0.3004, 1]
        assert found.settings["base_curve_runs"] == [str(measured)]
        stands = [budget > 0.3004 * EPS for budget in BUDGETS]
        assert found.column("base_curve/robust_accuracy_0.3004") == stands

    def test_they_may_have_stopped_early(self, run: Any, tmp_path: Path) -> None:
        early = PGD(eps=EPS, steps=2, rel_stepsize=2, early_stop=True)
        run(
            tmp_path / "measured",
            **{"rates": [1], "protocols": ("fixed",), "attack": early, "more": [CompressionRate()]},
            purifier=ScalingPurifier(factor=0.3004),
        )
        found = run(tmp_path / "new", rates=[0, 1], runs=[str(tmp_path / "measured")])
        assert found.settings["base_curve_rates"] == [0, 0.3004, 1]

    def test_of_another_figure(self, run: Any, measured: Path, tmp_path: Path) -> None:
        edit(measured, lambda s: s["metrics"].update({"my/rate": {"value": 0.42}}))
        found = run(tmp_path / "new", rates=[], runs=[str(measured)], rate_name="my/rate")
        assert found.settings["base_curve_rates"] == [0.42]

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            (lambda s: s.update(status="interrupted"), "--resume"),
            (lambda s: s["metrics"].pop("uniform/compression_rate"), "uniform/compression_rate"),
            (
                lambda s: s["metrics"]["fixed/robust_accuracy"].update(value=None),
                "fixed/robust_accuracy",
            ),
            (lambda s: s.pop("metrics"), "metrics"),
            (lambda s: s["settings"].update(eps=4 / 255), "eps"),
        ],
    )
    def test_what_cannot_be_compared_is_refused(
        self, run: Any, measured: Path, tmp_path: Path, change: Any, words: str
    ) -> None:
        edit(measured, change)
        with pytest.raises(InputError, match=words) as caught:
            run(tmp_path / "new", runs=[str(measured)])
        assert "\n" not in str(caught.value)
        assert not list((tmp_path / "new").rglob("*.png"))

    def test_another_classifier_is_refused(self, run: Any, measured: Path, tmp_path: Path) -> None:
        weights = tmp_path / "weights"
        weights.write_text("other")
        other = from_module(Linear(), 2, (3, 32, 32), file=weights)
        run(tmp_path / "unknown", runs=[str(measured)], classifier=other)  # it may be the same
        edit(measured, lambda s: s["settings"]["models"]["classifier"].update(sha256="0" * 64))
        with pytest.raises(InputError, match="another classifier"):
            run(tmp_path / "new", runs=[str(measured)], classifier=other)


def test_budgets_are_checked_against_the_attack(run: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="budget"):
        run(tmp_path, rates=[11])
    with pytest.raises(InputError, match="eps 0"):
        run(tmp_path, attack=PGD(eps=0, steps=1))


def test_through_the_command_line(tmp_path: Path) -> None:
    """The overlay adds to the callbacks of its base; picture and figures are in TensorBoard."""
    more = ["--measure.base_curve.rates", "[0,0.5,1]"]
    args = tiny.command("test", "cifar_fixed.yaml", tmp_path, "--model.protocols", "[fixed]", *more)
    args[3:3] = ["--config", str(tiny.CONFIGS / "measure" / "base_curve.yaml")]
    with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()):
        assert main(args) == 0
    folder = tiny.run_folder(tmp_path)
    metrics = read_summary(folder / "summary.json")["metrics"]
    assert {"uniform/compression_rate", "base_curve/robust_accuracy_0.50"} <= set(metrics)
    assert "Accuracy at 50 % of the budget" in out.getvalue()
    with Image.open(folder / "base_curve.png") as picture:
        extrema = picture.convert("L").getextrema()
    assert extrema[0] < 64 < 192 < extrema[1]
    events = EventAccumulator(str(folder))
    events.Reload()
    assert "base_curve" in events.Tags()["images"]
    *_, last = events.Scalars("base_curve/robust_accuracy_0.50")  # of all images
    assert last.value == pytest.approx(metrics["base_curve/robust_accuracy_0.50"]["value"])
