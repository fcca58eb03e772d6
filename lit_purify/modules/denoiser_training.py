r"""Training of a noise predictor with the simple loss of Ho et al. (2020).

:math:`L = \mathbb{E}_{x_0, t, \epsilon} \| \epsilon - \epsilon_\theta(\sqrt{\bar\alpha_t} x_0 +
\sqrt{1 - \bar\alpha_t}\,\epsilon, t) \|^2`, averaged over pixels.

Purification to depth t* only ever asks for t <= t*, so most steps are drawn below
``focus_below``; the rest cover the whole schedule.
"""

from __future__ import annotations

import math

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.nn import functional as F

from lit_purify.data.sampler import batches_trained
from lit_purify.diffusion.denoiser import Denoiser
from lit_purify.diffusion.schedule import checked_schedule, diffuse
from lit_purify.types import Batch, InputError

VALIDATION_STEPS = (1, 5, 10, 20, 30, 50, 75, 100, 150, 200, 300, 500, 1000)
"""Steps t at which the held-out loss is logged, as far as the schedule goes."""


class DenoiserTraining(LightningModule):
    """Trains a :class:`Denoiser` on images in [0, 1].

    Args:
        denoiser: the network.
        learning_rate: peak learning rate of AdamW.
        weight_decay: decoupled weight decay.
        warmup_steps: optimizer steps of linear warm-up.
        decay_share: share of the training, at its end, in which the rate falls to zero (cosine).
        focus: pairs (highest step, share of draws): the share of the training steps t drawn
            uniformly up to that step. What is left of 1 is drawn from the whole schedule.
        seed: base seed of the steps, the flips and the noise; independent of the global RNG.
        compile: compile the network with ``torch.compile``.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        *,
        learning_rate: float = 1e-3,
        weight_decay: float = 0.0,
        warmup_steps: int = 500,
        decay_share: float = 0.3,
        focus: list[tuple[int, float]] = [(300, 0.7)],  # noqa: B006 (never mutated)
        seed: int = 0,
        compile: bool = False,
    ) -> None:
        super().__init__()
        if not all(share > 0 for _, share in focus) or sum(share for _, share in focus) > 1:
            raise InputError(f"focus needs positive shares that sum to at most 1, got {focus}")
        if not all(1 <= limit <= denoiser.num_train_steps for limit, _ in focus):
            raise InputError(
                f"the steps in focus must lie between 1 and {denoiser.num_train_steps}, the length "
                f"of the noise schedule, got {focus}"
            )
        if not (0 < learning_rate <= 1 and 0 <= weight_decay < math.inf):
            raise InputError(
                "expected a learning_rate in (0, 1] and a weight_decay of at least 0, got "
                f"{learning_rate} and {weight_decay}"
            )
        if warmup_steps < 0 or not 0 <= decay_share <= 1:
            raise InputError(
                "expected warmup_steps of at least 0 and a decay_share in [0, 1], got "
                f"{warmup_steps} and {decay_share}"
            )
        if not 0 <= seed < 2**32:
            raise InputError(f"seed must lie between 0 and 2**32 - 1, got {seed}")
        self.denoiser = denoiser
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.warmup_steps = warmup_steps
        self.decay_share = decay_share
        self.focus = focus
        self.seed = seed
        self.compile_network = compile
        schedule = checked_schedule(denoiser.schedule)
        self.register_buffer("alpha_bar", schedule.alpha_bar.float(), persistent=False)
        self.alpha_bar: Tensor

    def setup(self, stage: str) -> None:
        shape = getattr(getattr(self.trainer, "datamodule", None), "image_shape", None)
        if shape is not None:
            self.denoiser.check_shape(tuple(shape))

    def configure_model(self) -> None:
        if self.compile_network:
            self.denoiser.compile()

    def draw_steps(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw n training steps t in 1 .. T, shape (n,), int64, by the shares of ``focus``."""
        limits = [limit for limit, _ in self.focus] + [self.denoiser.num_train_steps]
        shares = [share for _, share in self.focus]
        weights = torch.tensor([*shares, max(0.0, 1.0 - sum(shares))])
        which = torch.multinomial(weights, n, replacement=True, generator=generator)
        uniform = torch.rand(n, generator=generator)
        return (uniform * torch.tensor(limits)[which]).long() + 1

    def loss(self, image: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """Squared error per sample, shape (B,), for images in [0, 1] and steps t of shape (B,)."""
        x_t = diffuse(2 * image - 1, noise, self.alpha_bar[t])
        return F.mse_loss(self.denoiser(x_t, t).float(), noise, reduction="none").mean((1, 2, 3))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        image = batch["image"]
        # One generator per batch: training resumes with the draws it would have had.
        batches = batches_trained(self.trainer)
        key = self.seed * 1_000_003 + batches * self.trainer.world_size + self.global_rank
        generator = torch.Generator().manual_seed(key)
        flip = torch.rand(len(image), generator=generator) < 0.5
        t = self.draw_steps(len(image), generator).to(image.device)
        noise = torch.randn(image.shape, generator=generator).to(image.device)
        flipped = torch.where(flip.to(image.device).view(-1, 1, 1, 1), image.flip(-1), image)
        loss = self.loss(flipped, t, noise).mean()
        self.log("train/loss", loss)
        self.log("train/learning_rate", self.lr_schedulers().get_last_lr()[0])  # type: ignore
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        image = batch["image"]
        generator = torch.Generator().manual_seed(batch_idx)
        visited = [t for t in VALIDATION_STEPS if t <= self.denoiser.num_train_steps]
        steps = torch.tensor(visited)[torch.arange(len(image)) % len(visited)]
        noise = torch.randn(image.shape, generator=generator).to(image.device)
        loss = self.loss(image, steps.to(image.device), noise)
        for t in visited:
            self._log_mean(f"val/loss_t{t}", loss, steps == t)
        # The depths of purification.
        self._log_mean("val/loss", loss, (steps >= 5) & (steps <= 150), prog_bar=True)

    def _log_mean(self, name: str, loss: Tensor, which: Tensor, *, prog_bar: bool = False) -> None:
        chosen = loss[which.to(loss.device)]
        if len(chosen):  # a last batch of one image has no other steps
            self.log(
                name,
                chosen.mean(),
                batch_size=len(chosen),
                prog_bar=prog_bar,
                on_epoch=True,
                sync_dist=True,
            )

    def configure_optimizers(self) -> OptimizerLRScheduler:
        optimizer = torch.optim.AdamW(
            self.denoiser.parameters(), self.learning_rate, weight_decay=self.weight_decay
        )
        total = int(self.trainer.estimated_stepping_batches)
        decay = max(1, round(total * self.decay_share))

        def rate(step: int) -> float:
            warm = min(1.0, (step + 1) / max(1, self.warmup_steps))
            left = min(1.0, max(0.0, (total - step) / decay))
            return warm * 0.5 * (1 - math.cos(math.pi * left))

        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }
