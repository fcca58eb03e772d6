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
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny import IdentityPurifier, NoisyPurifier, ScalingPurifier, evaluate
from torch import Tensor, nn

from lit_purify.attacks import PGD, Attack
from lit_purify.callbacks import BaseClassifierCurve, CompressionRate, Records, Summary
from lit_purify.callbacks.base_curve import RATES
from lit_purify.classifiers import Classifier
from lit_purify.classifiers.wrap import from_module
from lit_purify.cli import main
from lit_purify.functional import wilson_interval
from lit_purify.modules import PurifiedClassifier
from lit_purify.report.base_curve import CurvePoint, base_curve_figure
from lit_purify.report.summary import read_summary
from lit_purify.types import InputError

EPS = 0.1
BUDGETS = [-0.01, 0.002, 0.012, 0.027, 0.027, 0.06, 0.09, 0.14]
"""The l_inf budget at which each image falls; the first is wrong from the start."""
EXACT = PGD(eps=EPS, steps=2, rel_stepsize=2)
"""Two steps reach the far corner of the ball from everywhere in it."""


class _Linear(nn.Module):
    """Class 0 where w (x - 1/2) > 0."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(5)
        weight = torch.randn(3 * 32 * 32, generator=generator, dtype=torch.float64)
        self.weight = nn.Parameter(weight / weight.abs().sum())

    def forward(self, images: Tensor) -> Tensor:
        score = (images.double() - 0.5).flatten(1) @ self.weight
        return torch.stack([score, torch.zeros_like(score)], 1)


def linear() -> Classifier:
    return from_module(_Linear(), 2, (3, 32, 32))


@pytest.fixture(scope="module")
def npz(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Images of class 0 that stand up to BUDGETS: margin / ||w||_1, with ||w||_1 = 1."""
    weight = _Linear().weight.detach().numpy()
    rng = np.random.default_rng(0)
    images = []
    for budget in BUDGETS:
        x = 0.05 * rng.standard_normal(weight.shape).clip(-2, 2)
        x += (budget - x @ weight) * np.sign(weight)
        images.append((0.5 + x).reshape(3, 32, 32).transpose(1, 2, 0).astype(np.float32))
    path = tmp_path_factory.mktemp("data") / "images.npz"
    stack = np.stack(images)
    assert stack.min() >= 2 * EPS
    assert stack.max() <= 1 - 2 * EPS  # no attack is clipped
    np.savez(path, images=stack, labels=np.zeros(len(BUDGETS), int))
    return str(path)


@pytest.fixture
def run(npz: str) -> Callable[..., dict[str, Any]]:
    """The summary of a run into a folder."""

    def run(
        folder: Path,
        *,
        attack: Attack = EXACT,
        protocols: Any = ("base",),
        batch_size: int = 3,
        purifier: Any = None,
        classifier: Classifier | None = None,
        resume: bool = False,
        more: Any = (),
        **options: Any,
    ) -> dict[str, Any]:
        module = PurifiedClassifier(
            purifier or IdentityPurifier(), classifier or linear(), protocols=protocols
        )
        evaluate(
            module,
            tiny.TwoClasses(source=npz, batch_size=batch_size),
            *(*more, BaseClassifierCurve(**options), Records(resume=resume), Summary()),
            attack=attack,
            folder=folder,
        )
        return read_summary(folder / "summary.json")

    return run


def rows_of(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "records" / "rows.jsonl").read_text().splitlines()
    return [row for row in map(json.loads, lines) if row["protocol"] == "base_curve"]


def test_each_image_falls_at_its_budget(run: Any, tmp_path: Path) -> None:
    metrics = run(tmp_path)["metrics"]
    rows = rows_of(tmp_path)
    for rate in RATES:
        name = f"robust_accuracy_{rate:.2f}"
        stands = [budget > rate * EPS for budget in BUDGETS]
        assert [row[name] for row in rows] == stands, rate
        figure = metrics[f"base_curve/{name}"]
        assert figure["value"] == np.mean(stands)
        assert (figure["low"], figure["high"]) == wilson_interval(sum(stands), len(BUDGETS))
    assert len([name for name in metrics if name.startswith("base_curve/")]) == len(RATES)


def test_the_ends_are_figures_of_the_run(run: Any, tmp_path: Path) -> None:
    # An attack that finds some images only from its own random start.
    weak = PGD(eps=EPS, steps=2, rel_stepsize=0.2)
    for attack in (EXACT, weak):
        folder = tmp_path / str(attack.rel_stepsize)
        metrics = run(folder, attack=attack)["metrics"]
        assert metrics["base_curve/robust_accuracy_1.00"] == metrics["base/robust_accuracy"]
        assert metrics["base_curve/robust_accuracy_0.00"] == metrics["base/clean_accuracy"]
        lines = (folder / "records" / "rows.jsonl").read_text().splitlines()
        base = [row for row in map(json.loads, lines) if row["protocol"] == "base"]
        for one, two in zip(rows_of(folder), base, strict=True):
            assert one["robust_accuracy_1.00"] is two["robust_accuracy"]
            assert one["robust_accuracy_0.00"] is two["clean_accuracy"]
    weaker = [row["robust_accuracy_1.00"] for row in rows_of(tmp_path / "0.2")]
    assert sum(weaker) > sum(budget > EPS for budget in BUDGETS)


def test_the_protocols_do_not_matter(run: Any, tmp_path: Path) -> None:
    run(tmp_path / "base")
    settings = run(tmp_path / "none", protocols=())["settings"]
    assert rows_of(tmp_path / "none") == rows_of(tmp_path / "base")
    assert settings["base_curve_eps"] == EPS
    assert settings["base_curve_success"] == "after the last iteration"


def test_an_eps_of_its_own(run: Any, tmp_path: Path) -> None:
    settings = run(tmp_path, attack=PGD(steps=2, rel_stepsize=2), eps=EPS)["settings"]
    assert settings["eps"] == 8 / 255
    assert settings["base_curve_eps"] == EPS
    assert [row["robust_accuracy_0.20"] for row in rows_of(tmp_path)] == [
        budget > 0.2 * EPS for budget in BUDGETS
    ]


def test_an_attack_that_stops_early_is_named(run: Any, tmp_path: Path) -> None:
    early = PGD(eps=EPS, steps=2, rel_stepsize=2, early_stop=True)
    summary = run(tmp_path, attack=early)
    assert summary["settings"]["base_curve_success"] == "at any iteration"
    metrics = summary["metrics"]
    whole = metrics["base/robust_accuracy_any_iteration"]
    assert metrics["base_curve/robust_accuracy_1.00"] == whole


def test_rates_have_two_decimals_or_the_four_they_need(run: Any, tmp_path: Path) -> None:
    metrics = run(tmp_path, rates=[0.5, 0.125, 0.15344, 0.5, 2])["metrics"]
    assert [name for name in metrics if name.startswith("base_curve/")] == [
        f"base_curve/robust_accuracy_{rate}" for rate in ("0.125", "0.1534", "0.50", "2.00")
    ]
    assert metrics["base_curve/robust_accuracy_2.00"]["value"] == 0


def test_batches_do_not_matter(run: Any, tmp_path: Path) -> None:
    weak = PGD(eps=EPS, steps=2, rel_stepsize=0.2)
    for size in (len(BUDGETS), 1, 3):
        run(tmp_path / str(size), attack=weak, batch_size=size)
        assert rows_of(tmp_path / str(size)) == rows_of(tmp_path / str(len(BUDGETS)))


class _Fails(IdentityPurifier):
    """On the last image, where it is told to."""

    def __init__(self, fails: bool) -> None:
        super().__init__()
        self.fails = fails

    def purify(self, images: Tensor, noise: Any, indices: Tensor) -> Tensor:
        if self.fails and 7 in indices:
            raise RuntimeError("this purifier fails")
        return images


def test_a_stopped_run_becomes_the_undisturbed_one(run: Any, tmp_path: Path) -> None:
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    run(whole, purifier=_Fails(False))
    with pytest.raises(RuntimeError, match="this purifier fails"):
        run(stopped, purifier=_Fails(True))
    assert not (stopped / "base_curve.png").exists()
    run(stopped, purifier=_Fails(False), resume=True)
    assert rows_of(stopped) == rows_of(whole)
    assert (stopped / "base_curve.png").read_bytes() == (whole / "base_curve.png").read_bytes()
    # Where nothing was missing but the picture, it is drawn.
    (stopped / "base_curve.png").unlink()
    run(stopped, purifier=_Fails(False), resume=True)
    assert (stopped / "base_curve.png").read_bytes() == (whole / "base_curve.png").read_bytes()


@pytest.fixture
def measured(run: Any, tmp_path: Path) -> Path:
    """A finished run of a purifier whose compression rate is 0.3004."""
    folder = tmp_path / "measured"
    run(
        folder,
        rates=[1],
        protocols=("fixed",),
        purifier=ScalingPurifier(factor=0.3004),
        more=[CompressionRate()],
    )
    return folder


def edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = folder / "summary.json"
    summary = json.loads(path.read_text())
    change(summary)
    path.write_text(json.dumps(summary))


class TestRuns:
    def test_their_rates_join(self, run: Any, measured: Path, tmp_path: Path) -> None:
        summary = run(tmp_path / "new", rates=[0, 1], runs=[str(measured)])
        assert summary["settings"]["base_curve_rates"] == [0, 0.3004, 1]
        assert summary["settings"]["base_curve_runs"] == [str(measured)]
        found = summary["metrics"]["base_curve/robust_accuracy_0.3004"]["value"]
        assert found == np.mean([budget > 0.3004 * EPS for budget in BUDGETS])

    def test_of_another_figure(self, run: Any, measured: Path, tmp_path: Path) -> None:
        edit(measured, lambda s: s["metrics"].update({"my/rate": {"value": 0.42}}))
        summary = run(tmp_path / "new", rates=[], runs=[str(measured)], rate_name="my/rate")
        assert summary["settings"]["base_curve_rates"] == [0.42]

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            (lambda s: s.update(status="interrupted"), "not finished, .*interrupted.*--resume"),
            (lambda s: s["metrics"].pop("uniform/compression_rate"), "no figure uniform/compr"),
            (
                lambda s: s["metrics"]["fixed/robust_accuracy"].update(value=None),
                "no figure fixed/robust_accuracy; it has",
            ),
            (lambda s: s.pop("metrics"), "lacks metrics"),
            (lambda s: s["settings"].update(eps=4 / 255), r"eps 4/255, and the curve is for 25\.5"),
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
        other = from_module(_Linear(), 2, (3, 32, 32), file=weights)
        run(tmp_path / "unknown", runs=[str(measured)], classifier=other)  # it may be the same
        edit(measured, lambda s: s["settings"]["models"]["classifier"].update(sha256="0" * 64))
        with pytest.raises(InputError, match="another classifier"):
            run(tmp_path / "new", runs=[str(measured)], classifier=other)

    def test_no_run(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"summary\.json cannot be read \(No such file"):
            BaseClassifierCurve(runs=[str(tmp_path / "nowhere")])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"rates": []}, "one or more"),
        ({"rates": [-0.1]}, "at least 0"),
        ({"rates": [float("nan")]}, "finite"),
        ({"eps": 0}, "above 0, got 0"),
        ({"eps": "wide"}, "fraction such as 8/255"),
    ],
)
def test_what_is_no_curve_is_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        BaseClassifierCurve(**options)


def test_budgets_are_checked_against_the_attack(run: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"budget of 1\.1; expected at most 1"):
        run(tmp_path, rates=[11])
    with pytest.raises(InputError, match="eps 0, which scales to nothing"):
        run(tmp_path, attack=PGD(eps=0, steps=1))


def test_without_an_attack_it_is_refused(npz: str, tmp_path: Path) -> None:
    module = PurifiedClassifier(NoisyPurifier(), linear(), protocols=())
    trainer = tiny.trainer(tmp_path, BaseClassifierCurve())
    with pytest.raises(InputError, match="AdversarialExamples"):
        trainer.test(module, tiny.TwoClasses(source=npz), verbose=False)


class TestFigure:
    CURVE = tuple(
        CurvePoint(rate, 1 - rate, 0.9 - 0.9 * rate, 1 - 0.9 * rate) for rate in (1, 0, 0.5)
    )

    def test_axes_and_points(self, tmp_path: Path) -> None:
        measured = [CurvePoint(0.25, 0.5, 0.4, 0.6, "DDPM t* = 100")]
        figure = base_curve_figure(self.CURVE, measured, eps=8 / 255)
        (axes,) = figure.axes
        assert "(1/255)" in axes.get_xlabel()
        assert "%" in axes.get_ylabel()
        lines = {str(line.get_label()): line for line in axes.lines}
        alone = next(line for label, line in lines.items() if label.startswith("classifier alone"))
        np.testing.assert_allclose(alone.get_xdata(), [0, 4, 8], atol=1e-12)
        np.testing.assert_allclose(alone.get_ydata(), [100, 50, 0], atol=1e-12)
        (bars,) = axes.containers
        assert bars.lines[0].get_xdata() == pytest.approx([2])  # type: ignore[attr-defined]
        assert bars.lines[0].get_ydata() == pytest.approx([50])  # type: ignore[attr-defined]
        assert [text.get_text() for text in axes.texts] == ["DDPM t* = 100"]
        figure.savefig(tmp_path / "x.png")
        (above,) = axes.child_axes
        assert above.get_xlabel() == "compression rate alpha"
        assert above.get_xlim() == pytest.approx((0, 1.02))

    def test_the_papers_sigmoid(self) -> None:
        (axes,) = base_curve_figure(self.CURVE, eps=8 / 255).axes
        (line,) = [line for line in axes.lines if "paper" in str(line.get_label())]
        assert line.get_linestyle() == "--"
        x, y = np.asarray(line.get_xdata()) / 8, np.asarray(line.get_ydata())
        # Its value at 0 is the paper's clean accuracy; points of its Tables 6 and 7.
        assert y[0] == pytest.approx(94.5, abs=0.05)
        for rate, accuracy in {0.231: 23.7, 0.195: 34.9, 0.281: 10.9, 0.174: 46.5}.items():
            assert np.interp(rate, x, y) == pytest.approx(accuracy, abs=2.5)

    def test_another_norm_has_its_unit(self) -> None:
        (axes,) = base_curve_figure(self.CURVE, eps=0.5, p=2).axes
        assert axes.get_xlabel().startswith("l2 budget")
        assert "pixels in [0, 1]" in axes.get_xlabel()
        assert axes.get_xlim() == pytest.approx((0, 0.51))

    def test_nothing_to_draw(self) -> None:
        for curve, eps in (([], 0.1), (self.CURVE, 0.0)):
            with pytest.raises(ValueError, match="expected points"):
                base_curve_figure(curve, eps=eps)


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
    (event,) = events.Scalars("base_curve/robust_accuracy_0.50")
    assert event.value == pytest.approx(metrics["base_curve/robust_accuracy_0.50"]["value"])
