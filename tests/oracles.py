"""What the tests compare with: written from the equations, sharing no code with the package.

Everything is float64 and plain autograd; noise is drawn by hand from eqs. 12 and 13.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lit_purify.diffusion import Denoiser, DiffusionPurifier, FixedNoise, UNetDenoiser, small_unet
from lit_purify.diffusion.recompute import activation_bytes
from lit_purify.types import Process

ALPHA_BAR = np.concatenate([[1.0], np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))])
"""Cumulative alpha of steps 0 .. 1000 in float64, of the linear schedule."""


def cosine_alpha_bar(t: int, num_train_steps: int) -> float:
    """Cumulative alpha of the squared-cosine schedule, but for its last steps."""
    start, place = (math.cos((s + 0.008) / 1.008 * math.pi / 2) for s in (0, t / num_train_steps))
    return (place / start) ** 2


def hash_by_hand(s: int, i: int, slot: int) -> int:
    """Eq. 13 in 32 bits: XOR acts bit by bit, so that products may be reduced before it."""
    keyed = zip((83492791, 73856093, 19349663), (s, i, slot), strict=True)
    products = [prime * number % 2**32 for prime, number in keyed]
    return products[0] ^ products[1] ^ products[2]


def draw(s: int, i: int, slot: int, shape: Sequence[int]) -> Tensor:
    """The Gaussian draw of one sample, float32."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(hash_by_hand(s, i, slot)))


def draws(s: int, indices: Tensor, slot: int, like: Tensor) -> Tensor:
    """The Gaussian draws of a batch."""
    rows = [draw(s, i, slot, like.shape[1:]) for i in indices.tolist()]
    return torch.stack(rows).to(like)


def reference_chain(
    denoiser: nn.Module,
    images: Tensor,
    seed: int,
    indices: Tensor,
    visited: Sequence[int],
    *,
    forward: str = "stepwise",
    variance: str | None = "fixed_large",
    eta: float = 0.0,
    clip: bool = True,
) -> list[Tensor]:
    """States of a purification, one plain loop of eqs. 1-3 with alpha' of the respaced chain.

    ``variance=None`` is DDIM (eq. 3), anything else DDPM (eq. 2). Differentiable by plain autograd.
    """
    x = 2 * images - 1
    channels = x.shape[1]
    states = [images]
    if forward == "stepwise":
        past = 0
        for t in visited:
            beta = 1 - ALPHA_BAR[t] / ALPHA_BAR[past]
            x = (1 - beta) ** 0.5 * x + beta**0.5 * draws(seed, indices, 2 * t, x)
            past = t
            states.append((x + 1) / 2)
    elif forward == "one_shot":
        t = visited[-1]
        noise = draws(seed, indices, 2 * t, x)
        x = ALPHA_BAR[t] ** 0.5 * x + (1 - ALPHA_BAR[t]) ** 0.5 * noise
        states.append((x + 1) / 2)
    for k in range(len(visited) - 1, -1, -1):
        t, s = visited[k], visited[k - 1] if k else 0
        a, b = ALPHA_BAR[t], ALPHA_BAR[s]
        beta = 1 - a / b
        output = denoiser(x, t)
        eps = output[:, :channels]
        clean = (x - (1 - a) ** 0.5 * eps) / a**0.5
        if clip:
            clean = torch.minimum(torch.maximum(clean, -torch.ones_like(x)), torch.ones_like(x))
        z = draws(seed, indices, 2 * t + 1, x) if s else torch.zeros_like(x)
        small = beta * (1 - b) / (1 - a)
        if variance is None:
            sigma = eta * small**0.5
            x = b**0.5 * clean + (1 - b - sigma**2) ** 0.5 * eps + sigma * z
        else:
            if clip:
                mean = b**0.5 * beta / (1 - a) * clean + (a / b) ** 0.5 * (1 - b) / (1 - a) * x
            else:  # eq. 2 as printed
                mean = (x - beta / (1 - a) ** 0.5 * eps) / (1 - beta) ** 0.5
            if s == 0:
                std: float | Tensor = 0.0
            elif variance == "learned_range":
                share = (output[:, channels:] + 1) / 2
                std = beta ** (share / 2) * small ** ((1 - share) / 2)
            else:
                std = (beta if variance == "fixed_large" else small) ** 0.5
            x = mean + std * z
        states.append((x + 1) / 2)
    return states


def ssim(x: Tensor, y: Tensor) -> Tensor:
    """Wang's formula for values in [0, 1], the window's weights written out, the border reflected.

    Shape (B,), float64, by plain autograd differentiable as often as one likes.
    """
    offsets = torch.arange(-5, 6, dtype=torch.float64)
    weights = torch.exp(-(offsets**2) / (2 * 1.5**2))
    weights /= weights.sum()
    c1, c2 = 0.01**2, 0.03**2

    def mean(image: Tensor) -> Tensor:
        rows = F.pad(image, (5, 5, 5, 5), mode="reflect").unfold(2, 11, 1) @ weights
        return rows.unfold(3, 11, 1) @ weights

    x, y = x.double(), y.double()
    m_x, m_y = mean(x), mean(y)
    v_x, v_y, c = mean(x * x) - m_x**2, mean(y * y) - m_y**2, mean(x * y) - m_x * m_y
    light = (2 * m_x * m_y + c1) / (m_x**2 + m_y**2 + c1)
    return (light * (2 * c + c2) / (v_x + v_y + c2)).mean((1, 2, 3))


def bilinear(old: int, new: int) -> Tensor:
    """The matrix (new, old) that interpolates a row of pixels, each seen at its centre.

    Pixel i of the new row lies at (i + 1/2) old / new - 1/2 of the old one. Before the first and
    behind the last centre the row goes on as it ends.
    """
    matrix = torch.zeros(new, old, dtype=torch.float64)
    for i in range(new):
        place = min(max((i + 0.5) * old / new - 0.5, 0.0), old - 1.0)
        left = min(int(place), old - 2)
        matrix[i, left] += 1 - (place - left)
        matrix[i, left + 1] += place - left
    return matrix


def by_matrices(images: Tensor, height: int, width: int | None = None) -> Tensor:
    """Images at another size, rows and columns one after the other; square by default."""
    down = bilinear(images.shape[2], height)
    right = bilinear(images.shape[3], width or height)
    return torch.einsum("ih,bchw,jw->bcij", down, images, right)


def reference_states(
    purifier: DiffusionPurifier, images: Tensor, seed: int, indices: Tensor, *, outside: bool = True
) -> list[Tensor]:
    """What :func:`reference_chain` gives for the settings of a purifier.

    With ``outside`` states have the size of the images, as in a trajectory; without, all but the
    first and the last have that of the chain.
    """
    sampler, size = purifier.sampler, purifier.resize_to
    inner = images if size is None else by_matrices(images, size)
    _, *states = reference_chain(
        purifier.denoiser,
        inner,
        seed,
        indices,
        purifier.timesteps,
        forward=purifier.forward_process,
        variance=getattr(sampler, "variance", None),
        eta=getattr(sampler, "eta", 0.0),
        clip=sampler.clip,
    )
    if size is not None:
        kept = 0 if outside else len(states) - 1
        states[kept:] = [by_matrices(state, images.shape[-1]) for state in states[kept:]]
    if purifier.clip_output:
        states[-1] = states[-1].clamp(0, 1)
    return [images, *states]


def assert_exact(purifier: DiffusionPurifier, images: Tensor, seed: int, indices: Tensor) -> None:
    """Same images and, for a random cotangent, same gradient as a plain loop of the equations."""
    cotangent = some_images(len(images), images.shape[1:], seed=9) - 0.5
    x = images.clone().requires_grad_()
    output = purifier.purify(x, FixedNoise(seed), indices)
    (got,) = torch.autograd.grad(output, x, cotangent)
    plain = reference_states(purifier, x, seed, indices)[-1]
    (want,) = torch.autograd.grad(plain, x, cotangent)
    torch.testing.assert_close(output, plain, rtol=0, atol=1e-12)
    assert want.norm() > 0
    assert (got - want).norm() <= 1e-10 * want.norm()


def budget_for(denoiser: nn.Module, images: Tensor, steps: int) -> float:
    """Memory in GiB that holds the activations of so many network passes and half a pass more."""
    each = activation_bytes(lambda x: denoiser(x, 10), images[:1]) * len(images)
    return (steps + 0.5) * each / 2**30 if steps else 0.0


class TinyDenoiser(Denoiser):
    """Two convolutions of known weights, in float64; smooth in the image and the step.

    Args:
        channels: image channels C.
        learns_variance: give 2C channels, the second half in (-1, 1).
        scale: size of the prediction; a large one drives the clean image out of [-1, 1].
    """

    def __init__(
        self, channels: int = 3, *, learns_variance: bool = False, scale: float = 1.0
    ) -> None:
        super().__init__()
        self.channels = channels
        self.scale = scale
        self.first = nn.Conv2d(channels, 8, 3, padding=1)
        self.second = nn.Conv2d(8, channels * (1 + learns_variance), 3, padding=1)
        fill(self.double(), seed=0, std=0.3)
        self.calls = 0

    def forward(self, x_t: Tensor, t: int | Tensor) -> Tensor:
        self.calls += 1
        steps = torch.as_tensor(t).view(-1, 1, 1, 1)
        output = self.second(torch.tanh(self.first(x_t) + steps / 100))
        noise, variance = output[:, : self.channels], output[:, self.channels :]
        return torch.cat([self.scale * noise, torch.tanh(variance)], 1)


class Waves(Denoiser):
    """Two convolutions with a wave of the step between them: every step t computes another map."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 6, 3, padding=1)
        self.second = nn.Conv2d(6, 3, 3, padding=1)

    def forward(self, x_t: Tensor, t: int | Tensor) -> Tensor:
        steps = torch.as_tensor(t).to(self.first.weight).expand(len(x_t))
        wave = torch.sin(self.first(x_t.to(self.first.weight)) + steps.view(-1, 1, 1, 1) / 7)
        return self.second(wave).to(x_t)


def waves() -> Waves:
    """Known weights, in float64, where compiled and uncompiled must agree to 1e-10."""
    network = Waves().double()
    fill(network, seed=3, std=0.2)
    return network


class GaussianDenoiser(Denoiser):
    r"""The best noise predictor for data :math:`x_0 \sim \mathcal N(\mu, \Sigma)`,

    .. math:: \epsilon^*(x_t, t) = \sqrt{1 - \bar\alpha_t}
       (\bar\alpha_t \Sigma + (1 - \bar\alpha_t) I)^{-1} (x_t - \sqrt{\bar\alpha_t} \mu).

    Args:
        mean: on the [-1, 1] scale, shape (d,), with d = C H W.
        covariance: shape (d, d).
        alpha_bar: of a step t, as a float where it is given in a tensor; that of the linear
            schedule at whole steps by default.
    """

    def __init__(
        self,
        mean: Tensor,
        covariance: Tensor,
        alpha_bar: Callable[[Any], float] = ALPHA_BAR.__getitem__,
    ) -> None:
        super().__init__()
        self.mean = mean
        self.covariance = covariance
        self.alpha_bar = alpha_bar

    def forward(self, x_t: Tensor, t: int | Tensor) -> Tensor:
        alpha_bar = float(self.alpha_bar(t[0].item() if isinstance(t, Tensor) else t))
        identity = torch.eye(len(self.mean), dtype=self.mean.dtype)
        marginal = alpha_bar * self.covariance + (1 - alpha_bar) * identity
        centred = x_t.flatten(1) - math.sqrt(alpha_bar) * self.mean
        noise = math.sqrt(1 - alpha_bar) * centred @ torch.linalg.inv(marginal)
        return noise.view_as(x_t)


class ChosenNoise(FixedNoise):
    """Zero everywhere, or in row r the k-th unit vector of the draw chosen for that row.

    Args:
        chosen: (process, t, k) for each row of the batch.
    """

    def __init__(self, chosen: Sequence[tuple[Process, int, int]] = ()) -> None:
        super().__init__(0)
        rows: dict[tuple[Process, int], list[tuple[int, int]]] = {}
        for row, (process, t, k) in enumerate(chosen):
            rows.setdefault((process, t), []).append((row, k))
        object.__setattr__(self, "rows", rows)
        object.__setattr__(self, "asked", set())

    def normal(self, indices: Tensor, process: Process, t: int, *, like: Tensor) -> Tensor:
        self.asked.add((process, t))  # type: ignore[attr-defined]
        noise = torch.zeros_like(like)
        for row, k in self.rows.get((process, t), []):  # type: ignore[attr-defined]
            noise[row].view(-1)[k] = 1
        return noise


def fill(module: nn.Module, *, seed: int, std: float) -> nn.Module:
    """Give a module known Gaussian weights, without the global RNG."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        with torch.no_grad():
            parameter.copy_(
                std * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
            )
    return module


def random_unet(image_size: int = 16) -> UNetDenoiser:
    """A U-Net of random weights that depend on nothing but the seed, in every layer."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        denoiser = small_unet(image_size=image_size, block_out_channels=(8, 16), norm_num_groups=4)
        for module in denoiser.modules():  # those that begin at zero too
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                module.reset_parameters()
    return denoiser


def some_images(n: int, shape: Sequence[int] = (3, 8, 8), *, seed: int = 0) -> Tensor:
    """Uniform images in [0, 1], float64."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(n, *shape, generator=generator, dtype=torch.float64)
