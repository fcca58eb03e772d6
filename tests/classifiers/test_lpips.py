"""LPIPS against torchmetrics, with an AlexNet of random weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torchmetrics.functional.image.lpips import _LPIPS
from torchvision.models import alexnet

from lit_purify.classifiers import LPIPSFeatures
from lit_purify.types import InputError


def test_its_squared_distance_is_lpips(tmp_path: Path) -> None:
    with torch.random.fork_rng():
        oracle = _LPIPS(net="alex", pnet_rand=True)
    with torch.device("meta"):
        shapes = {name: value.shape for name, value in alexnet().features.state_dict().items()}
    generator = torch.Generator().manual_seed(1)
    state = {name: 0.05 * torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    file = tmp_path / "alexnet.pth"
    torch.save({f"features.{name}": value for name, value in state.items()}, file)
    slices = {name.split(".", 1)[1]: value for name, value in oracle.net.named_parameters()}
    for name, value in state.items():
        slices[name].data = value
    a, b = torch.rand(2, 2, 3, 48, 40, generator=generator)
    features = LPIPSFeatures(file=file)
    found = (features(a) - features(b)).square().sum(1)
    want = oracle(a, b, normalize=True).flatten()
    assert (want > 1e-3).all()
    torch.testing.assert_close(found, want, rtol=1e-4, atol=0)
    assert "alexnet.pth" in features.source


def test_another_network_is_refused(tmp_path: Path) -> None:
    torch.save({"features.0.weight": torch.zeros(2)}, tmp_path / "other.pth")
    with pytest.raises(InputError, match="AlexNet"):
        LPIPSFeatures(file=tmp_path / "other.pth")
    with pytest.raises(InputError, match="missing"):
        LPIPSFeatures(file=tmp_path / "missing.pth")
