"""A purifier that does nothing but compress: what a compression rate alone says of a defence."""

from __future__ import annotations

from torch import Tensor

from lit_purify.diffusion.noise import NoiseConfiguration, rows_of
from lit_purify.diffusion.purifier import Purifier


class Contraction(Purifier):
    r"""Compresses perturbations of given images in every direction alike (eq. 10 as an equality),

    .. math:: f(x) = a + \alpha (x - x_0).

    A classifier behind it answers an attack of budget eps as it does one of eps times alpha.

    Args:
        anchors: a, where the clean images go to, shape (B, C, H, W).
        clean: x_0, same shape.
        rates: alpha, shape (B,).
        samples: dataset indices of the images, shape (B,). Only they may be purified.
    """

    def __init__(self, anchors: Tensor, clean: Tensor, rates: Tensor, samples: Tensor) -> None:
        super().__init__()
        self.anchors = anchors
        self.clean = clean
        self.rates = rates.view(-1, 1, 1, 1)
        self.samples = samples

    def purify(self, images: Tensor, noise: NoiseConfiguration, indices: Tensor) -> Tensor:
        rows = rows_of(indices, self.samples)
        return self.anchors[rows] + self.rates[rows] * (images - self.clean[rows])
