"""Images that a linear classifier of two classes loses at known budgets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from lit_purify.attacks import PGD
from lit_purify.classifiers import Classifier
from lit_purify.classifiers.wrap import from_module

EPS = 0.1
BUDGETS = [-0.01, 0.002, 0.012, 0.027, 0.027, 0.06, 0.09, 0.14]
"""The l_inf budget at which each image falls; the first is wrong from the start."""
EXACT = PGD(eps=EPS, steps=2, rel_stepsize=2)
"""Two steps reach the far corner of the ball from everywhere in it."""


class Linear(nn.Module):
    """Class 0 where w (x - 1/2) > 0, with ||w||_1 = 1."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(5)
        weight = torch.randn(3 * 32 * 32, generator=generator, dtype=torch.float64)
        self.weight = nn.Parameter(weight / weight.abs().sum())

    def forward(self, images: Tensor) -> Tensor:
        score = (images.double() - 0.5).flatten(1) @ self.weight
        return torch.stack([score, torch.zeros_like(score)], 1)


def linear() -> Classifier:
    return from_module(Linear(), 2, (3, 32, 32))


def npz_file(path: Path) -> str:
    """Images of class 0 that stand up to BUDGETS: margin / ||w||_1."""
    weight = Linear().weight.detach().numpy()
    rng = np.random.default_rng(0)
    images = []
    for budget in BUDGETS:
        x = 0.05 * rng.standard_normal(weight.shape).clip(-2, 2)
        x += (budget - x @ weight) * np.sign(weight)
        images.append((0.5 + x).reshape(3, 32, 32).transpose(1, 2, 0).astype(np.float32))
    stack = np.stack(images)
    assert stack.min() >= 2 * EPS
    assert stack.max() <= 1 - 2 * EPS  # no attack is clipped
    np.savez(path, images=stack, labels=np.zeros(len(BUDGETS), int))
    return str(path)
