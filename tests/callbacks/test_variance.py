"""What purifiers of known variance are found to depend on, and what may not matter."""

from __future__ import annotations

import errno
import math
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from measured_run import MeasuredRun, measured_run
from oracles import ALPHA_BAR, GaussianDenoiser, draws, hash_by_hand
from tiny import IdentityPurifier, ScalingPurifier
from torch import Tensor

from lit_purify.callbacks import OutputVariability, variance
from lit_purify.callbacks.replay import Replay
from lit_purify.data import CIFAR10DataModule
from lit_purify.diffusion import (
    DDIMSampler,
    DiffusionPurifier,
    NoiseConfiguration,
    Purifier,
    derive_seed,
)
from lit_purify.modules import PurifiedClassifier
from lit_purify.records import Column, SampleTable

COUNT, M, N, EPS, SEED = 7, 4, 3, 8 / 255, 5
NAMES = {
    *(f"variance/{name}" for name in ("total", "input", "internal", "internal_unbiased", "snr")),
    *(f"direction/{name}" for name in ("fixed_noise", "fixed_input")),
    *(f"centroid/l2_{name}" for name in ("inputs", "fixed_noise", "fixed_input", "both")),
}


class Affine(Purifier):
    """f_xi(x) = c x + sigma xi, which counts the rows of its passes."""

    def __init__(self, *, factor: float = 1.0, sigma: float = 0.0) -> None:
        super().__init__()
        self.factor = factor
        self.sigma = sigma
        self.passes: list[int] = []

    def purify(self, images: Tensor, noise: NoiseConfiguration, indices: Tensor) -> Tensor:
        self.passes.append(len(images))
        return self.factor * images + self.sigma * noise.normal(indices, "forward", 1, like=images)


def run(
    npz: str, purifier: Purifier, folder: Path, *, rows_per_pass: int = 128, batch_size: int = 3
) -> MeasuredRun:
    callback = OutputVariability(inputs=M, draws=N, eps=EPS, rows_per_pass=rows_per_pass)
    options: dict[str, Any] = {"protocols": (), "seed": SEED, "batch_size": batch_size}
    return measured_run(folder, npz, purifier, callback, **options)


def measure(npz: str, purifier: Purifier, folder: Path, **options: Any) -> dict[str, np.ndarray]:
    """Every number by image, as it was recorded; nan where there is none."""
    found = run(npz, purifier, folder, **options)
    columns = {name: np.array(found.column(name), dtype=float) for name in NAMES}
    assert all(len(values) == COUNT for values in columns.values())
    return columns


def inputs_by_hand() -> np.ndarray:
    """The perturbed inputs, float32 as the callback makes them, (COUNT, M, pixels)."""
    images = tiny.images_and_labels(COUNT)[0]
    rows = []
    for index, image in enumerate(images):
        for m in range(M):
            seed = hash_by_hand(derive_seed(SEED, "variance/input", m), index, 0)
            uniform = torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(seed))
            rows.append(image + EPS * (uniform * 2 - 1))
    return torch.stack(rows).double().view(COUNT, M, -1).numpy()


def noise_by_hand() -> np.ndarray:
    """The draws of the noise, (COUNT, N, pixels)."""
    like = torch.zeros(COUNT, 3, 32, 32)
    seeds = [derive_seed(SEED, "variance/noise", n) for n in range(N)]
    noise = [draws(seed, torch.arange(COUNT), 2, like) for seed in seeds]
    return torch.stack(noise, 1).double().flatten(2).numpy()


def test_the_identity(npz: str, tmp_path: Path) -> None:
    found = measure(npz, IdentityPurifier(), tmp_path)
    x = inputs_by_hand()
    assert found["variance/input"] == pytest.approx(x.var(1).mean(1), rel=1e-10)
    assert (found["variance/internal"] == 0).all()
    assert found["centroid/l2_fixed_noise"] == pytest.approx(found["centroid/l2_inputs"], rel=1e-15)
    distances = np.linalg.norm(x - x.mean(1, keepdims=True), axis=2).mean(1)
    assert found["centroid/l2_inputs"] == pytest.approx(distances, rel=1e-10)
    missing = ("variance/snr", "direction/fixed_noise", "direction/fixed_input")
    metrics = MeasuredRun(tmp_path).metrics
    for name in missing:
        assert np.isnan(found[name]).all()
        assert metrics[name]["value"] is None
        assert (metrics[name]["n"], metrics[name]["missing"]) == (0, COUNT)
    assert metrics["variance/total"]["n"] == COUNT


def test_scaling_by_c(npz: str, tmp_path: Path) -> None:
    """Its variance is c^2 that of the inputs, which is eps^2 / 3 but for M - 1 in place of M."""
    c = 0.25
    found = measure(npz, ScalingPurifier(factor=c), tmp_path)
    x = inputs_by_hand()
    y = (torch.from_numpy(x).float() * c).double().numpy()  # a quarter is exact in float32
    assert found["variance/input"] == pytest.approx(y.var(1).mean(1), rel=1e-10)
    assert found["variance/input"] == pytest.approx(
        np.full(COUNT, c**2 * EPS**2 / 3 * (M - 1) / M), rel=0.05
    )
    assert (found["variance/internal"] == 0).all()
    assert found["direction/fixed_input"] == pytest.approx(np.ones(COUNT), abs=1e-12)
    units = y - x
    units /= np.linalg.norm(units, axis=2, keepdims=True)
    pairs = (units @ units.transpose(0, 2, 1)).sum((1, 2)) - M
    assert found["direction/fixed_noise"] == pytest.approx(pairs / (M * (M - 1)), rel=1e-10)
    assert found["centroid/l2_fixed_noise"] == pytest.approx(
        c * found["centroid/l2_inputs"], rel=1e-10
    )


def test_noise_that_is_added(npz: str, tmp_path: Path) -> None:
    """Internal variance sigma^2, SNR eps^2 / (3 sigma^2), both known beforehand."""
    sigma = 0.06
    found = measure(npz, Affine(sigma=sigma), tmp_path)
    x, b = inputs_by_hand(), sigma * noise_by_hand()
    y = x[:, :, None] + b[:, None]
    # The purifier rounds to float32.
    assert found["variance/total"] == pytest.approx(y.var((1, 2)).mean(1), rel=1e-6)
    assert found["variance/internal"] == pytest.approx(b.var(1).mean(1), rel=1e-6)
    assert found["variance/internal_unbiased"] == pytest.approx(b.var(1, ddof=1).mean(1), rel=1e-6)
    assert found["variance/snr"] == pytest.approx(x.var(1).mean(1) / b.var(1).mean(1), rel=1e-6)
    pixels = 3 * 32 * 32 * COUNT
    spread = sigma**2 * math.sqrt(2 / ((N - 1) * pixels))
    assert abs(found["variance/internal_unbiased"].mean() - sigma**2) < 5 * spread
    units = b / np.linalg.norm(b, axis=2, keepdims=True)
    pairs = (units @ units.transpose(0, 2, 1)).sum((1, 2)) - N
    assert found["direction/fixed_input"] == pytest.approx(pairs / (N * (N - 1)), abs=1e-6)
    assert found["direction/fixed_noise"] == pytest.approx(np.ones(COUNT), abs=1e-6)
    away = np.linalg.norm(b - b.mean(1, keepdims=True), axis=2).mean(1)
    assert found["centroid/l2_fixed_input"] == pytest.approx(away, rel=1e-6)
    overall = y - y.mean((1, 2), keepdims=True)
    assert found["centroid/l2_both"] == pytest.approx(
        np.linalg.norm(overall, axis=3).mean((1, 2)), rel=1e-6
    )


def test_total_is_the_sum_of_its_parts(npz: str, tmp_path: Path) -> None:
    found = measure(npz, Affine(factor=0.7, sigma=0.05), tmp_path)
    assert found["variance/total"] == pytest.approx(
        found["variance/input"] + found["variance/internal"], rel=1e-15
    )


def test_a_gaussian_prior(npz: str, tmp_path: Path) -> None:
    """DDIM of data N(mu, lambda I) in closed form, noised in one draw z.

    f(x) = b + r (sqrt(a) x + sqrt(1 - a) z / 2) with r the product of sqrt(m_s / m_t) cos(theta_t -
    theta_s), in [0, 1] pixels, a = alpha_bar at t*. So the SNR is that of x_t*, whatever r.
    """
    t_star, variance = 100, 0.3
    pixels = 3 * 32 * 32
    denoiser = GaussianDenoiser(torch.zeros(pixels), variance * torch.ones(1))
    denoiser.forward = lambda x, t: (  # type: ignore[method-assign, assignment]
        math.sqrt(1 - ALPHA_BAR[t]) / (ALPHA_BAR[t] * variance + 1 - ALPHA_BAR[t]) * x
    )
    model = DiffusionPurifier(
        denoiser,
        t_star=t_star,
        num_steps=4,
        forward_process="one_shot",
        sampler=DDIMSampler(clip=False),
    )
    found = measure(npz, model, tmp_path)

    path = [0, *model.timesteps]
    angles = [
        math.atan2(math.sqrt(1 - ALPHA_BAR[t]), math.sqrt(ALPHA_BAR[t] * variance)) for t in path
    ]
    a = ALPHA_BAR[t_star]
    r = math.sqrt(variance / (a * variance + 1 - a))
    for one, two in zip(angles[1:], angles[:-1], strict=True):
        r *= math.cos(one - two)
    like = torch.zeros(COUNT, 3, 32, 32)
    seeds = [derive_seed(SEED, "variance/noise", n) for n in range(N)]
    z = [draws(seed, torch.arange(COUNT), 2 * t_star, like) for seed in seeds]
    noise = torch.stack(z, 1).double().flatten(2).numpy()
    internal = r**2 * (1 - a) / 4 * noise.var(1).mean(1)
    signal = r**2 * a * inputs_by_hand().var(1).mean(1)
    assert found["variance/internal"] == pytest.approx(internal, rel=1e-5)
    assert found["variance/input"] == pytest.approx(signal, rel=1e-5)
    assert found["variance/snr"] == pytest.approx(signal / internal, rel=1e-5)
    # What the draws have in expectation, with (M - 1) / M and (N - 1) / N.
    expected = 4 / 3 * EPS**2 * a / (1 - a) * ((M - 1) / M) / ((N - 1) / N)
    assert found["variance/snr"].mean() == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize(
    ("batch_size", "rows_per_pass"), [(1, 128), (7, 128), (3, 1), (3, 3), (7, 16)]
)
def test_batches_and_passes_do_not_matter(
    npz: str, tmp_path: Path, batch_size: int, rows_per_pass: int
) -> None:
    """The noise is the same to the bit, the figures to 1e-12; nothing is purified twice."""
    want = measure(npz, Affine(factor=0.7, sigma=0.05), tmp_path / "want")
    purifier = Affine(factor=0.7, sigma=0.05)
    found = measure(
        npz, purifier, tmp_path / "found", batch_size=batch_size, rows_per_pass=rows_per_pass
    )
    for name in NAMES:
        assert found[name] == pytest.approx(want[name], rel=1e-12, abs=1e-15), name
    batches = math.ceil(COUNT / batch_size)  # whose clean images the module purifies itself
    tried, passes = purifier.passes[:3], purifier.passes[3:]
    assert tried == [2, 1, 1]  # before the test
    assert sum(passes) - COUNT == COUNT * M * N
    assert max(passes) <= max(rows_per_pass, batch_size)
    if rows_per_pass == 128:  # as many configurations at once as fit
        assert len(passes) == 2 * batches


def test_summary_settings_and_picture(npz: str, tmp_path: Path) -> None:
    whole = run(npz, Affine(factor=0.7, sigma=0.05), tmp_path)
    settings = {key: whole.settings[key] for key in whole.settings if "variance" in key}
    assert settings == {"variance_eps": EPS, "variance_inputs": M, "variance_draws": N}
    assert set(whole.metrics) >= NAMES
    for name in NAMES:
        metric, values = whole.metrics[name], np.array(whole.column(name))
        assert metric["value"] == pytest.approx(values.mean(), rel=1e-12)
        assert metric["std"] == pytest.approx(values.std(ddof=1), rel=1e-9)
    assert (tmp_path / "variance.png").stat().st_size > 10_000


@pytest.mark.parametrize("source", ["embedded", "npz"])
def test_the_papers_values_stand_beside_its_own_images_alone(
    npz: str, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = []
    monkeypatch.setattr(variance, "variance_figure", lambda *_, **options: drawn.append(options))
    data = CIFAR10DataModule(source=npz if source == "npz" else source)
    trainer: Any = SimpleNamespace(datamodule=data)
    module = PurifiedClassifier(IdentityPurifier(), tiny.classifier())
    table = SampleTable({name: Column(torch.ones(1)) for name in NAMES})
    for eps in ("8/255", "4/255"):
        OutputVariability(eps=eps).figures(trainer, module, table)
    assert [options["paper"] for options in drawn] == [source == "embedded", False]


def test_a_replay_computes_once_and_reads_to_the_bit() -> None:
    computed = []

    def compute() -> Iterator[Tensor]:
        for k in range(4):
            computed.append(k)
            yield torch.rand(2, 3, generator=torch.Generator().manual_seed(k)).mT

    with Replay(compute, torch.device("cpu")) as tensors:
        first = list(tensors)
        assert computed == [0, 1, 2, 3]
        for _ in range(2):
            for again, tensor in zip(tensors, first, strict=True):
                assert torch.equal(again, tensor)
    assert computed == [0, 1, 2, 3]
    with Replay(compute, torch.device("cpu")) as tensors:
        next(iter(tensors))
        with pytest.raises(RuntimeError, match="before the first"):
            iter(tensors)


def test_a_replay_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with Replay(lambda: iter([torch.zeros(1000)]), torch.device("cpu")) as tensors:
        assert len(list(tensors)) == len(list(tensors)) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full:
        def write(self, data: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        def close(self) -> None: ...

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(tempfile, "TemporaryFile", Full)
    with (
        pytest.raises(OSError, match="No space left") as caught,
        Replay(lambda: iter([torch.zeros(2)]), torch.device("cpu")) as tensors,
    ):
        list(tensors)
    assert caught.value.filename == str(tmp_path)
