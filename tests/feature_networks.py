"""Networks whose features bound an attack."""

from __future__ import annotations

import torch
from oracles import fill
from torch import Tensor, nn

from lit_purify.classifiers import Classifier, from_module


class Matrix(nn.Module):
    """Linear features F x, which are the logits: there is no last layer."""

    def __init__(self, matrix: Tensor) -> None:
        super().__init__()
        self.matrix = nn.Parameter(matrix)

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1) @ self.matrix.to(images).T


def linear_features(rows: int = 80) -> Classifier:
    """Injective features of 64 pixels, ten times as large along one axis as along another."""
    generator = torch.Generator().manual_seed(3)
    turned, _ = torch.linalg.qr(torch.randn(rows, 64, generator=generator))
    return from_module(Matrix(turned * torch.logspace(-0.5, 0.5, 64)), rows)


def curved_features() -> Classifier:
    """Features of 3 x 8 x 8 images before a last layer, in float64."""
    network = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.Tanh(), nn.Flatten(), nn.Linear(128, 5)
    )
    return from_module(nn.Sequential(Double(), fill(network.double(), seed=4, std=0.3)), 5)


class Double(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images.double()
