"""Certificates of a run: of a plane, whose radii are known, and through the command line."""

from __future__ import annotations

import io
import math
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from statistics import NormalDist
from typing import Any

import pytest
import tiny
import torch
from known_budgets import BUDGETS, Linear, linear, npz_file
from measured_run import MeasuredRun, measured_run
from tiny import IdentityPurifier
from torch import Tensor

from lit_purify.callbacks import CertifiedRobustness, certified
from lit_purify.cli import main
from lit_purify.diffusion import FixedNoise, NoiseConfiguration
from lit_purify.functional import clopper_pearson_lower, wilson_interval
from lit_purify.purifiers import GaussianNoise, SmoothedClassifier
from lit_purify.records.summary import read_summary
from lit_purify.types import InputError

SIGMA, N0, N, ALPHA = 0.5, 10, 40, 0.05
RADII = [0.1, 0.3, 2.0]


@pytest.fixture(scope="module")
def npz(tmp_path_factory: pytest.TempPathFactory) -> str:
    return npz_file(tmp_path_factory.mktemp("data") / "images.npz")


def run(
    folder: Path, npz: str, purifier: Any = None, *, resume: bool = False, batch_size: int = 3
) -> MeasuredRun:
    callback = CertifiedRobustness(n0=N0, n=N, alpha=ALPHA, radii=RADII, rows_per_pass=16)
    purifier = purifier or GaussianNoise(sigma=SIGMA)
    own: Any = {"classifier": linear(), "data": tiny.TwoClasses, "protocols": (), "seed": 5}
    return measured_run(
        folder, npz, purifier, callback, resume=resume, batch_size=batch_size, **own
    )


@pytest.fixture(scope="module")
def whole(npz: str, tmp_path_factory: pytest.TempPathFactory) -> MeasuredRun:
    return run(tmp_path_factory.mktemp("whole"), npz)


def test_each_image_by_the_votes_for_it(whole: MeasuredRun) -> None:
    """Cohen et al.'s procedure, from the recorded votes."""
    votes = whole.tensors["certified/votes"]
    assert votes.shape == (len(BUDGETS), 2)
    assert votes.sum(1).tolist() == [N] * len(BUDGETS)
    predictions = whole.column("certified/prediction")
    for count, prediction, row in zip(votes.tolist(), predictions, whole.rows, strict=True):
        lower = clopper_pearson_lower(count[max(prediction, 0)], N, ALPHA)
        if prediction >= 0:
            want = SIGMA * NormalDist().inv_cdf(lower)
            assert row["certified/radius"] == pytest.approx(want, rel=1e-9)
            assert want > 0
        else:
            assert row["certified/radius"] is None
        right = prediction == 0
        radius = row["certified/radius"] or -1
        for r in (0.0, *RADII):
            assert row[f"certified/accuracy_at_{r:g}"] == (right and radius >= r)
        assert row["certified/average_radius"] == (radius if right else 0)
        assert row["certified/abstained"] == (prediction == -1)
    # Two kinds of images: on the plane there is no answer, far from it there is.
    assert 0 < sum(prediction == -1 for prediction in predictions) < len(BUDGETS)


def test_no_radius_reaches_beyond_the_plane_by_chance(whole: MeasuredRun) -> None:
    """The l2 distance is the l_inf budget times ||w||_1 / ||w||_2."""
    weight = Linear().weight.detach()
    distance = [budget * float(weight.abs().sum() / weight.norm()) for budget in BUDGETS]
    radii = zip(whole.column("certified/radius"), distance, strict=True)
    assert sum(radius is not None and radius > abs(exact) for radius, exact in radii) <= 2


def test_at_radius_0_it_is_the_accuracy_of_the_smoothed_classifier(
    whole: MeasuredRun, npz: str
) -> None:
    data = tiny.TwoClasses(source=npz)
    data.setup("test")
    images = torch.stack([data.test_set[i]["image"] for i in range(len(BUDGETS))])
    smoothed = SmoothedClassifier(GaussianNoise(sigma=SIGMA), linear(), noise=FixedNoise(5))
    indices = torch.arange(len(BUDGETS))
    prediction, radius = smoothed.certify(images, indices, n0=N0, n=N, alpha=ALPHA)
    assert whole.column("certified/prediction") == prediction.tolist()
    known = [math.nan if r is None else r for r in whole.column("certified/radius")]
    assert known == pytest.approx(radius.tolist(), nan_ok=True)
    right = int((prediction == 0).sum())
    metric = whole.metrics["certified/accuracy_at_0"]
    assert metric["value"] == right / len(BUDGETS)
    assert (metric["low"], metric["high"]) == wilson_interval(right, len(BUDGETS))


def test_summary_settings_and_picture(whole: MeasuredRun) -> None:
    found = {key: whole.settings[key] for key in whole.settings if "certified" in key}
    assert found == {
        "certified_sigma": SIGMA,
        "certified_n0": N0,
        "certified_n": N,
        "certified_alpha": ALPHA,
        "certified_reversals": 1,
    }
    labels = {
        name: shown["label"]
        for name, shown in whole.summary["labels"].items()
        if name.startswith("certified/accuracy")
    }
    assert list(labels) == [f"certified/accuracy_at_{r}" for r in ("0", "0.1", "0.3", "2")]
    # Of 40 answers that agree the radius is 0.72.
    assert [f"n = {N}" in label for label in labels.values()] == [False, False, False, True]
    assert (whole.folder / "certified.png").stat().st_size > 10_000


class Breaking(GaussianNoise):
    """Counts its passes, and breaks after so many."""

    def __init__(self, after: int | None = None) -> None:
        super().__init__(sigma=SIGMA)
        self.after = after
        self.passes = 0

    def purify(self, images: Tensor, noise: NoiseConfiguration, indices: Tensor) -> Tensor:
        self.passes += 1
        if self.passes == self.after:
            raise RuntimeError("this purifier fails")
        return super().purify(images, noise, indices)

    def settings(self) -> dict[str, object]:
        return {"purifier": "GaussianNoise"}  # a run that broke goes on without the failure


def test_a_run_goes_on_in_the_middle_of_a_batch(
    whole: MeasuredRun, npz: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(certified, "_KEPT_EVERY", 0)
    straight = Breaking()
    run(tmp_path / "straight", npz, straight, batch_size=len(BUDGETS))
    broken = Breaking(after=straight.passes - 3)
    with pytest.raises(RuntimeError, match="fails"):
        run(tmp_path / "broken", npz, broken, batch_size=len(BUDGETS))
    assert len(list((tmp_path / "broken/records").glob("part_*"))) == 1
    going_on = Breaking()
    found = run(tmp_path / "broken", npz, going_on, batch_size=len(BUDGETS), resume=True)
    assert going_on.passes < straight.passes / 2
    assert found.tensors["certified/votes"].equal(whole.tensors["certified/votes"])
    assert found.rows == whole.rows
    assert not list((tmp_path / "broken/records").glob("part_*"))


def test_what_was_kept_of_another_batch_is_not_taken(
    whole: MeasuredRun, npz: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first image is the same, the others are not: the batch size has changed."""
    monkeypatch.setattr(certified, "_KEPT_EVERY", 0)
    with pytest.raises(RuntimeError, match="fails"):
        run(tmp_path, npz, Breaking(after=20), batch_size=len(BUDGETS))
    assert list((tmp_path / "records").glob("part_*"))
    found = run(tmp_path, npz, Breaking(), batch_size=3, resume=True)
    assert found.rows == whole.rows


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ({"n0": 0}, "n0"),
        ({"n": 1.5}, "n of"),
        ({"n": 9, "alpha": 0.001}, "10 or more"),
        ({"alpha": 0.0}, "alpha"),
        ({"radii": [-1]}, "radii"),
        ({"radii": [math.inf]}, "radii"),
    ],
)
def test_wrong_arguments(arguments: dict[str, Any], word: str) -> None:
    with pytest.raises(InputError, match=word):
        CertifiedRobustness(**arguments)
    CertifiedRobustness(n=10, alpha=0.001)


def test_a_radius_has_a_name_of_its_own() -> None:
    """Six digits of it."""
    assert CertifiedRobustness(radii=[0.5, 1 / 3, 0.333333, 0]).radii == [0, 0.333333, 0.5]


def test_a_purifier_that_is_no_smoothing_is_refused(npz: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="smoothing"):
        run(tmp_path, npz, IdentityPurifier())
    assert not (tmp_path / "records").exists()


@pytest.mark.parametrize("name", ["denoised_smoothing", "densepure"])
def test_overlays(name: str, tmp_path: Path) -> None:
    words = [
        *("test", "--config=cifar_fixed", f"--config={tiny.CONFIGS}/defence/{name}.yaml"),
        "--model.purifier.denoiser=lit_purify.checkpoints.load_denoiser",
        f"--model.purifier.denoiser.path={tiny.denoiser_file(tmp_path)}",
        *("--model.classifier=tiny.classifier", "--data.limit=2", "--measure.certified.n0=2"),
        *("--measure.certified.n=12", "--measure.certified.alpha=0.1"),
        *("--trainer.accelerator=cpu", f"--trainer.default_root_dir={tmp_path}"),
    ]
    with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()):
        assert main(words) == 0
    summary = read_summary(tiny.run_folder(tmp_path) / "summary.json")
    settings = summary["settings"]
    assert (settings["t_star"], settings["forward_process"]) == (145, "one_shot")
    assert settings["certified_sigma"] == pytest.approx(0.2497, abs=5e-5)
    assert settings["protocols"] == []
    several = name == "densepure"
    assert (settings["num_steps"] > 1, settings["certified_reversals"] > 1) == (several, several)
    assert summary["metrics"]["certified/accuracy_at_0.25"]["n"] == 2
    assert "Certified accuracy at radius 0.25" in out.getvalue()
