"""No measurement depends on the batches or on how many sessions a run takes."""

import pytest
import torch
from measured_run import measured_run

from lit_purify.attacks import PGD, PGDEOT
from lit_purify.callbacks import (
    AttackAgreement,
    AttackMagnitude,
    BaseClassifierCurve,
    CertifiedRobustness,
    CompressionRate,
    DistanceTrajectories,
    ImageQuality,
    MaskingDiagnostics,
    OutputVariability,
    RobustnessPrediction,
)
from lit_purify.diffusion import Purifier

MEASURED = {
    "agreement": (lambda: AttackAgreement(eot=PGDEOT(eps=0.1, steps=2, draws=2)), 1e-9),
    "base_curve": (lambda: BaseClassifierCurve(rates=[0, 0.5, 1]), 0),
    "certified": (lambda: CertifiedRobustness(n0=3, n=12, alpha=0.1, radii=[0.05]), 0),
    "compression": (CompressionRate, 1e-5),
    "distances": (lambda: DistanceTrajectories(levels=["8/255"]), 1e-6),
    "magnitude": (AttackMagnitude, 1e-6),
    "masking": (lambda: MaskingDiagnostics(samples=5), 1e-4),
    "prediction": (lambda: RobustnessPrediction(eps=["1/255"], noise="fresh", draws=2), 1e-6),
    "quality": (lambda: ImageQuality(features="classifier"), 1e-5),
    "variance": (lambda: OutputVariability(inputs=2, draws=2), 1e-12),
}
"""Measurement and how exactly numbers of other batches are the same; Jacobians have their own."""
ROUNDING = {"masking/derivative_error": 1e-2}
"""What is itself no more than rounding, and the size it stays below."""

pytestmark = pytest.mark.filterwarnings("ignore:the Fréchet distance compares")


class Noisy(Purifier):
    """f_xi(x) = 0.9 x + 0.1 xi, which breaks on the given sample, once."""

    smoothing_sigma = 0.1 / 0.9

    def __init__(self, at=None):
        super().__init__()
        self.at = at

    def purify(self, images, noise, indices):
        if self.at is not None and self.at in indices:
            self.at = None
            raise RuntimeError("this purifier fails")
        return 0.9 * images + 0.1 * noise.normal(indices, "forward", 1, like=images)

    def settings(self):
        return {"purifier": "Noisy"}  # a run that broke goes on without the failure


@pytest.fixture(scope="module", params=MEASURED)
def case(request, npz, tmp_path_factory):
    """(tolerance, a function that measures into a folder, an undisturbed run)."""
    make, tolerance = MEASURED[request.param]

    def run(folder, *, at=None, **options):
        attack = PGD(eps="2/255", steps=3, rel_stepsize=0.3)
        return measured_run(folder, npz, Noisy(at), make(), attack=attack, **options)

    return tolerance, run, run(tmp_path_factory.mktemp("whole"))


@pytest.mark.parametrize("batch_size", [1, 7])
def test_batches_do_not_matter(case, tmp_path, batch_size):
    tolerance, run, whole = case
    found = run(tmp_path, batch_size=batch_size)
    assert all(metric["n"] for metric in whole.metrics.values())
    for row, expected in zip(found.rows, whole.rows, strict=True):
        assert row.keys() == expected.keys()
        for name, value in expected.items():
            size = ROUNDING.get(name, 1e-15)
            near = value if value is None else pytest.approx(value, rel=tolerance, abs=size)
            assert row[name] == near, name
    for name, statistics in whole.metrics.items():
        if name not in ROUNDING:
            near = pytest.approx(statistics, rel=max(tolerance, 1e-9), abs=1e-12)
            assert found.metrics[name] == near, name
    tensors, expected = found.tensors, whole.tensors
    for name in tensors.keys() - ROUNDING.keys():
        close = {"rtol": max(tolerance, 1e-6), "atol": 1e-6, "equal_nan": True}
        torch.testing.assert_close(tensors[name], expected[name], **close)


def test_a_resumed_run_is_the_undisturbed_one(case, tmp_path):
    """Also its pictures and what is logged: they are of all images, not of this session's."""
    _, run, whole = case
    pictures = {path.name for path in whole.folder.glob("*.png")}
    with pytest.raises(RuntimeError, match="this purifier fails"):
        run(tmp_path, at=6)
    assert not list(tmp_path.glob("*.png"))
    resumed = run(tmp_path, resume=True)
    assert resumed.logged == pytest.approx(whole.logged, rel=1e-6, nan_ok=True)
    for picture in tmp_path.glob("*.png"):
        picture.unlink()
    # Nothing is missing any more: nothing is evaluated, all is known, and it is drawn again.
    final = run(tmp_path, at=0, resume=True)
    assert final.logged == {}
    assert final.summary == resumed.summary == whole.summary
    for name in ("records/rows.jsonl", "records/tensors.safetensors", *pictures):
        assert (tmp_path / name).read_bytes() == (whole.folder / name).read_bytes(), name
