"""Spectra of purifiers whose Jacobian is known, through the Trainer."""

import math

import numpy as np
import pytest
import tiny
import torch
from measured_run import measured_run
from oracles import TinyDenoiser, fill
from tiny import Float64Denoiser, IdentityPurifier, ScalingPurifier
from torch import nn

from lit_purify.callbacks import CompressionRate, JacobianSpectrum
from lit_purify.classifiers.wrap import from_module
from lit_purify.data import CIFAR10DataModule
from lit_purify.diffusion import DDPMSampler, DiffusionPurifier, FixedNoise, Purifier
from lit_purify.functional import singular_values
from lit_purify.modules import PurifiedClassifier
from lit_purify.types import InputError

SHAPE = (3, 4, 4)
N = 48  # values of an image
MODES = ["dense", "matrix_free"]


class SmallImages(CIFAR10DataModule):
    """Images of 4 x 4 pixels, whose Jacobian is quickly had."""

    image_shape = SHAPE


class LinearPurifier(Purifier):
    """f_xi(x) = A x + xi, with singular values 0.01 .. 2 in known directions."""

    def __init__(self, breaks_at=None):
        super().__init__()
        self.breaks_at = breaks_at
        generator = torch.Generator().manual_seed(0)
        left, right = torch.randn(2, N, N, generator=generator, dtype=torch.float64)
        self.left, self.right = torch.linalg.qr(left).Q, torch.linalg.qr(right).Q
        self.values = torch.logspace(math.log10(2), -2, N, dtype=torch.float64)
        self.matrix = self.left @ torch.diag(self.values) @ self.right.T

    def purify(self, images, noise, indices):
        if self.breaks_at in indices.tolist():
            raise RuntimeError("this purifier fails")
        rows = images.flatten(1) @ self.matrix.to(images).T
        return rows.view_as(images) + noise.normal(indices, "forward", 1, like=images)

    def settings(self):
        return {"purifier": "LinearPurifier"}  # a run that broke goes on without the failure


class Rounding(torch.autograd.Function):
    """Rounds, and lets gradients through; it has no rule of forward mode."""

    @staticmethod
    def forward(ctx, x):
        return x.round()

    @staticmethod
    def backward(ctx, gradient):
        return gradient


class RoundingPurifier(Purifier):
    """As a JPEG does it."""

    def purify(self, images, noise, indices):
        return Rounding.apply(images)


def chain():
    """A diffusion purifier that is smooth, so that small perturbations show its derivative."""
    return DiffusionPurifier(
        Float64Denoiser(TinyDenoiser()), t_star=60, num_steps=2, sampler=DDPMSampler(clip=False)
    )


@pytest.fixture(scope="module")
def npz(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "images.npz"
    rng = np.random.default_rng(0)
    np.savez(path, images=rng.random((7, 4, 4, 3), dtype=np.float32), labels=np.arange(7))
    return str(path)


@pytest.fixture
def run(npz):
    """A function that measures a purifier into a folder."""

    def run(purifier, folder, *, batch_size=3, resume=False, indices=None, more=(), **options):
        with torch.random.fork_rng():
            network = nn.Sequential(nn.Flatten(), nn.Linear(N, 10))
        classifier = from_module(fill(network, seed=1, std=0.2), 10, SHAPE)
        options = {"images": 3, "top_k": 2, "probes": 4, "lanczos_steps": 20, **options}
        return measured_run(
            folder,
            npz,
            purifier,
            *(*more, JacobianSpectrum(**options)),
            **{"classifier": classifier, "protocols": (), "seed": 5, "data": SmallImages},
            **{"batch_size": batch_size, "indices": indices, "resume": resume},
        )

    return run


def numbers(run):
    """Index -> what is recorded of it, by the name without its beginning."""
    found = {}
    for row in run.rows:
        own = {name: value for name, value in row.items() if name.startswith("jacobian/")}
        found[row["index"]] = {name.removeprefix("jacobian/"): x for name, x in own.items()}
    return found


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("factor", [0.2, 1.0, 3.0])
def test_scaling(run, tmp_path, mode, factor):
    purifier = IdentityPurifier() if factor == 1 else ScalingPurifier(factor=factor)
    whole = run(purifier, tmp_path, mode=mode, predict_compression=True)
    found = whole.of("jacobian/")
    assert found["share_below_0.25"]["value"] == (factor < 0.25)
    assert found["share_above_1"]["value"] == (factor > 1)
    assert found["largest"]["value"] == pytest.approx(factor, rel=1e-6)
    assert found["frobenius"]["value"] == pytest.approx(factor * math.sqrt(N), rel=1e-6)
    for name in ("share_below_0.25", "share_above_1", "largest", "frobenius"):
        assert (found[name]["n"], found[name]["missing"]) == (3, 0)
    predicted = found["uniform_compression_rate"]
    assert predicted["value"] == pytest.approx(factor, rel=1e-6)
    assert predicted["n"] == 7
    values = whole.tensors["jacobian/singular_values"]
    assert values[:3].allclose(torch.tensor(factor), rtol=1e-6)


@pytest.mark.parametrize("differentiation", ["forward", "reverse"])
def test_a_known_matrix(run, tmp_path, differentiation):
    purifier = LinearPurifier()
    found = run(purifier, tmp_path, mode="dense", differentiation=differentiation)
    rows, tensors = numbers(found), found.tensors
    want = purifier.values
    for row in [rows[index] for index in range(3)]:
        assert row["share_below_0.25"] == pytest.approx(float((want < 0.25).double().mean()))
        assert row["share_above_1"] == pytest.approx(float((want > 1).double().mean()))
        assert row["largest"] == pytest.approx(2, rel=1e-6)
        assert row["frobenius"] == pytest.approx(float(want.norm()), rel=1e-6)
    assert rows[3] == {}
    values = tensors["jacobian/singular_values"]
    assert values.shape == (7, N)
    np.testing.assert_allclose(values[:3], want.expand(3, N), rtol=1e-4)
    assert values[3:].isnan().all()
    for name, truth in (("right", purifier.right), ("left", purifier.left)):
        vectors = tensors[f"jacobian/{name}_vectors"]
        assert vectors.shape == (7, 2, *SHAPE)
        overlap = (vectors[:3].flatten(2).double() @ truth[:, :2]).abs()
        np.testing.assert_allclose(overlap, torch.eye(2).expand(3, 2, 2), atol=1e-4)
    pushed = tensors["jacobian/right_vectors"][0].flatten(1).double() @ purifier.matrix.T
    left = tensors["jacobian/left_vectors"][0].flatten(1).double() * values[0, :2, None]
    np.testing.assert_allclose(pushed, left, atol=1e-5)  # signs included


@pytest.mark.parametrize("differentiation", ["forward", "reverse"])
def test_without_the_matrix(run, tmp_path, differentiation):
    purifier = LinearPurifier()
    found = run(
        purifier, tmp_path, mode="matrix_free", differentiation=differentiation, rows_per_pass=3
    )
    rows, tensors = numbers(found), found.tensors
    truths = {
        "share_below_0.25": float((purifier.values < 0.25).double().mean()),
        "share_above_1": float((purifier.values > 1).double().mean()),
        "frobenius": float(purifier.values.norm()),
    }
    for row in [rows[index] for index in range(3)]:
        assert row["largest"] == pytest.approx(2, rel=1e-6)
        for name, truth in truths.items():
            assert row[f"{name}_low"] <= truth <= row[f"{name}_high"]
            assert row[f"{name}_low"] <= row[name] <= row[f"{name}_high"]
    shares = tensors["jacobian/density_shares"]
    assert shares.shape == tensors["jacobian/density_values"].shape == (7, 4, 20)
    np.testing.assert_allclose(shares[:3].nansum(2), 1, atol=1e-6)
    assert tensors["jacobian/singular_values"].shape == (7, 2)
    # The probes of every image are its own.
    assert len({row["frobenius"] for row in rows.values() if "frobenius" in row}) == 3


@pytest.mark.parametrize("mode", MODES)
def test_batches_and_order_do_not_matter(run, tmp_path, mode):
    first = [4, 0, 6, 2]  # of these the first two are measured
    options = {"mode": mode, "images": 2, "predict_compression": True, "indices": first}
    options |= {"probes": 2, "lanczos_steps": 6}
    one, all_ = (run(chain(), tmp_path / str(size), batch_size=size, **options) for size in (1, 4))
    assert {index for index, row in numbers(one).items() if "largest" in row} == {0, 4}
    for row, other in zip(one.rows, all_.rows, strict=True):
        assert tiny.same_row(row, other, rel=1e-6)
    together = all_.tensors
    for name, values in one.tensors.items():
        torch.testing.assert_close(values, together[name], rtol=1e-5, atol=1e-6, equal_nan=True)


@pytest.mark.parametrize("mode", MODES)
def test_resume(run, tmp_path, mode):
    want = run(LinearPurifier(), tmp_path / "whole", mode=mode, batch_size=2)
    with pytest.raises(RuntimeError, match="this purifier fails"):
        run(LinearPurifier(breaks_at=2), tmp_path / "broken", mode=mode, batch_size=2)
    got = run(LinearPurifier(), tmp_path / "broken", mode=mode, batch_size=2, resume=True)
    assert got.metrics == want.metrics
    for name in ("rows.jsonl", "tensors.safetensors"):
        files = (found.folder / "records" / name for found in (got, want))
        assert len({file.read_bytes() for file in files}) == 1
    assert (tmp_path / "broken" / "jacobian_spectrum.png").exists()


def test_it_is_the_jacobian_of_the_runs_chain_and_noise(run, npz, tmp_path):
    purifier = chain()
    row = numbers(run(purifier, tmp_path, mode="dense", images=1))[0]
    image = torch.from_numpy(np.load(npz)["images"][:1]).permute(0, 3, 1, 2).double()
    matrix = torch.autograd.functional.jacobian(
        lambda x: purifier.purify(x, FixedNoise(5), torch.tensor([0])), image
    )
    values = singular_values(matrix.view(N, N))
    assert row["largest"] == pytest.approx(float(values[0]), rel=1e-5)
    assert row["frobenius"] == pytest.approx(float(values.norm()), rel=1e-5)


def test_the_prediction_alone_is_the_compression_rate_of_small_perturbations(run, tmp_path):
    more = [CompressionRate(eps=1e-2)]
    found = run(chain(), tmp_path, images=0, predict_compression=True, more=more)
    measured = found.column("uniform/compression_rate")
    predicted = found.column("jacobian/uniform_compression_rate")
    assert predicted == pytest.approx(measured, rel=2e-3)
    assert len(set(measured)) == 7
    assert set(found.of("jacobian/")) == {"uniform_compression_rate"}
    assert {name for name in found.tensors if "jacobian" in name} == {
        "jacobian/uniform_compression_rate"
    }
    assert not list(tmp_path.glob("jacobian_*.png"))


@pytest.mark.parametrize("mode", MODES)
def test_pictures_and_settings(run, tmp_path, mode):
    settings = run(LinearPurifier(), tmp_path, mode=mode, images=None).settings
    for name in ("spectrum", "vectors"):
        assert (tmp_path / f"jacobian_{name}.png").stat().st_size > 10_000
    assert settings["jacobian_mode"] == mode
    assert settings["jacobian_images"] == 7
    assert settings["jacobian_differentiation"] == "forward mode"
    assert ("jacobian_probes" in settings) == (mode == "matrix_free")


def test_a_purifier_without_forward_mode(run, tmp_path):
    with pytest.raises(InputError, match="reverse"):
        run(RoundingPurifier(), tmp_path / "forward", mode="dense")
    assert not (tmp_path / "forward" / "records" / "rows.jsonl").exists()
    found = run(
        RoundingPurifier(), tmp_path / "reverse", mode="matrix_free", differentiation="reverse"
    )
    assert found.metrics["jacobian/largest"]["value"] == pytest.approx(1, rel=1e-6)
    assert found.settings["jacobian_differentiation"] == "reverse mode"


def test_what_is_refused(run, tmp_path, npz):
    with pytest.raises(InputError, match="top_k"):
        run(IdentityPurifier(), tmp_path, top_k=48)
    module = PurifiedClassifier(
        IdentityPurifier(), from_module(nn.Flatten(), N, SHAPE), protocols=()
    )
    data = SmallImages(source=npz, batch_size=2)
    data.setup("test")
    with pytest.raises(InputError, match="datamodule"):
        tiny.trainer(tmp_path, JacobianSpectrum()).test(module, data.test_dataloader())
