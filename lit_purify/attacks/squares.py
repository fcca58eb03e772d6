r"""Proposals of the Square attack (Andriushchenko et al., 2020): perturbations to try next.

Every proposal is a function of numbers that are uniform in [-1, 1), so that who calls decides what
they are keyed by. Perturbations have the shape (B, C, H, W) and all fill the ball of radius eps;
that the images stay in [0, 1] is left to the caller.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
"""Of 10,000 iterations, those after which the share of pixels in a square halves."""

TILES = 5
"""Perturbations in l2 start as so many tiles to each side."""


INSIDE = 1 - 1e-5
"""Of the radius in l2, what is used: so far inside the ball no rounding asks for a projection."""


class Linf:
    """Algorithm 2: a square of the image takes the sign of a fair coin, each colour its own."""

    def num_start(self, shape: torch.Size) -> int:
        channels, _, width = shape
        return channels * width

    def num_move(self, shape: torch.Size) -> int:
        return 2 + shape[0]

    def start(self, clean: Tensor, uniform: Tensor, eps: float) -> Tensor:
        """Vertical stripes, a pixel wide.

        Args:
            clean: the clean images.
            uniform: shape (B, :meth:`num_start`).
            eps: radius of the ball.
        """
        signs = _signs(uniform).view(len(clean), clean.shape[1], 1, clean.shape[3])
        return (clean + eps * signs).clamp(0, 1)

    def move(
        self, images: Tensor, clean: Tensor, uniform: Tensor, eps: float, share: float
    ) -> Tensor:
        """A square moved to an end of the ball; where that changes nothing, to the other end.

        Args:
            images: what has been found so far.
            clean: the clean images.
            uniform: shape (B, :meth:`num_move`).
            eps: radius of the ball.
            share: of the pixels, in a square.
        """
        window = Window.drawn(uniform[:, :2], side_of(share, images.shape), images)
        inside, signs = window.mask(), eps * _signs(uniform[:, 2:, None, None])
        moved = torch.where(inside, (clean + signs).clamp(0, 1), images)
        same = (moved == images).flatten(1).all(1).view(-1, 1, 1, 1)
        return torch.where(inside & same, (clean - signs).clamp(0, 1), moved)


class L2:
    """Algorithm 3: one window gives all its length to another one, which takes a new shape.

    Computed in float64, as sums in float32 depend on the size of the batch.
    """

    def num_start(self, shape: torch.Size) -> int:
        channels, height, width = shape
        return 2 * (height // (tile := _tile(shape))) * (width // tile) * channels

    def num_move(self, shape: torch.Size) -> int:
        return 5 + shape[0]

    def start(self, clean: Tensor, uniform: Tensor, eps: float) -> Tensor:
        """Tiles of random signs and orientations; as :meth:`Linf.start`."""
        count, channels, height, width = clean.shape
        side = _tile(clean.shape[1:])
        down, across = height // side, width // side
        signs, turns = _signs(uniform).view(count, 2, channels, down, across, 1, 1).unbind(1)
        bump = opposites(side).to(clean.device)
        tiles = signs * torch.where(turns > 0, bump, bump.mT)
        covered = tiles.transpose(3, 4).reshape(count, channels, down * side, across * side)
        top, left = (height - down * side) // 2, (width - across * side) // 2
        rest = (left, width - across * side - left, top, height - down * side - top)
        delta = _scaled(F.pad(covered, rest), (1, 2, 3), eps * INSIDE)
        return (clean + delta).clamp(0, 1).to(clean)

    def move(
        self, images: Tensor, clean: Tensor, uniform: Tensor, eps: float, share: float
    ) -> Tensor:
        """As :meth:`Linf.move`; a window has an odd side of at least three where there is room."""
        delta = images.double() - clean
        side = max(3, side_of(share, delta.shape))
        side = min(side + (side % 2 == 0), *delta.shape[2:])
        taker, giver = (Window.drawn(uniform[:, k : k + 2], side, delta) for k in (0, 2))
        emptied = delta.masked_fill(taker.mask() | giver.mask(), 0)
        unused = ((eps * INSIDE) ** 2 - delta.square().sum((1, 2, 3), keepdim=True)).clamp(min=0)
        freed = (delta.square() - emptied.square()).sum((2, 3), keepdim=True)
        length = (freed + unused / delta.shape[1]).sqrt()
        bump = opposites(side).to(delta.device)
        turns, signs = uniform[:, 4, None, None, None], _signs(uniform[:, 5:, None, None])
        shape = signs * torch.where(turns < 0, bump, bump.mT)
        shape = shape + _scaled(taker.read(delta), (2, 3))
        moved = taker.written(emptied, _scaled(shape, (2, 3)) * length)
        return (clean + moved).clamp(0, 1).to(clean)


class Window(NamedTuple):
    """A square window of every image, shape (side, side), at a place of its own.

    Attributes:
        rows: of its pixels, shape (B, side).
        columns: likewise.
        size: height and width of the images.
    """

    rows: Tensor
    columns: Tensor
    size: tuple[int, int]

    @classmethod
    def drawn(cls, uniform: Tensor, side: int, images: Tensor) -> Window:
        """At a place that two numbers for every image decide, shape (B, 2)."""
        height, width = images.shape[2:]
        room = torch.tensor([height - side + 1, width - side + 1], device=images.device)
        corner = ((uniform + 1) / 2 * room).long().minimum(room - 1)  # rounding may reach the end
        places = corner[:, :, None] + torch.arange(side, device=images.device)
        return cls(places[:, 0], places[:, 1], (height, width))

    def mask(self) -> Tensor:
        """Which pixels lie in it, shape (B, 1, H, W)."""
        down, across = (
            F.one_hot(places, length).any(1)
            for places, length in zip((self.rows, self.columns), self.size, strict=True)
        )
        return (down[:, :, None] & across[:, None, :])[:, None]

    def read(self, images: Tensor) -> Tensor:
        """What is in it, shape (B, C, side, side)."""
        return images[self._places(images)]

    def written(self, images: Tensor, values: Tensor) -> Tensor:
        """The images with other values in it."""
        return images.index_put(self._places(images), values)

    def _places(self, images: Tensor) -> tuple[Tensor, ...]:
        count, channels = (torch.arange(n, device=images.device) for n in images.shape[:2])
        return (
            count[:, None, None, None],
            channels[:, None, None],
            self.rows[:, None, :, None],
            self.columns[:, None, None, :],
        )


def share_at(iteration: int, iterations: int, first: float) -> float:
    """Share of the pixels in a square: ``first``, and half of it after each of HALVINGS.

    Args:
        iteration: counted from 0.
        iterations: in all; the schedule, made for 10,000, is stretched to them.
        first: share at the start.
    """
    stretched = iteration * 10_000 // iterations
    return first / 2 ** sum(stretched > limit for limit in HALVINGS)


def side_of(share: float, shape: torch.Size) -> int:
    """Side of a square that holds about a share of the pixels of (..., H, W), at least 1."""
    height, width = shape[-2:]
    return min(max(1, round(math.sqrt(share * height * width))), height, width)


def opposites(side: int) -> Tensor:
    """Two bumps of opposite sign beside each other, l2 norm 1, shape (side, side), float64."""
    left = side // 2
    both = torch.cat([_bump(side, left), -_bump(side, side - left)], 1)
    return both / both.norm()


def _bump(height: int, width: int) -> Tensor:
    r"""Eq. 2 of the paper: pyramids on each other, highest in the middle; height >= width.

    .. math:: \eta_{rs} = \sum_{k=0}^{M} \frac{1}{(n + 1 - k)^2}, \qquad
       n = \lfloor h_1 / 2 \rfloor, \quad
       M = n - \max(|r - \lfloor h_1 / 2 \rfloor - 1|, |s - \lfloor h_2 / 2 \rfloor - 1|)
    """
    n = height // 2
    terms = torch.arange(1, n + 2, dtype=torch.float64).pow(-2)
    sums = torch.cat([torch.zeros(1, dtype=torch.float64), terms.cumsum(0)])
    rows, columns = ((torch.arange(k) - k // 2).abs() for k in (height, width))
    return sums[n + 1] - sums[torch.maximum(rows[:, None], columns)]


def _tile(shape: torch.Size) -> int:
    return max(1, min(shape[-2:]) // TILES)


def _signs(uniform: Tensor) -> Tensor:
    return torch.where(uniform < 0, -1.0, 1.0)


def _scaled(values: Tensor, dims: tuple[int, ...], length: float = 1.0) -> Tensor:
    """Values at an l2 norm of ``length`` over some dimensions; zeros stay zeros."""
    norm = torch.linalg.vector_norm(values, dim=dims, keepdim=True)
    return values * (length / norm.where(norm > 0, 1))
