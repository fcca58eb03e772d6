r"""Training of a noise predictor with the simple loss of Ho et al. (2020).

:math:`L = \mathbb{E}_{x_0, t, \epsilon} \| \epsilon - \epsilon_\theta(\sqrt{\bar\alpha_t} x_0 +
\sqrt{1 - \bar\alpha_t}\,\epsilon, t) \|^2`, averaged over pixels.

Purification to depth t* only ever asks for t <= t*, so most steps are drawn below
``focus``; the rest cover the whole schedule.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities import rank_zero_warn
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.nn import functional as F

from lit_purify.data.sampler import batches_trained
from lit_purify.diffusion.denoiser import Denoiser
from lit_purify.diffusion.schedule import checked_schedule, diffuse
from lit_purify.modules.collapse import WINDOW, CollapseWatch
from lit_purify.modules.learning_rate import rate_factor, share_done
from lit_purify.types import Batch, InputError

MAX_RESTARTS = 3
"""A network that collapses at an eighth of the learning rate has something else wrong."""

VALIDATION_STEPS = (1, 5, 10, 20, 30, 50, 75, 100, 150, 200, 300, 500, 1000)
"""Steps t at which the held-out loss is logged, as far as the schedule goes."""


class DenoiserTraining(LightningModule):
    """Trains a :class:`Denoiser` on images in [0, 1].

    A network that collapses to a constant output is begun anew, with its first weights and half
    the learning rate, and a warning says so.

    Args:
        denoiser: the network.
        learning_rate: peak learning rate of AdamW.
        weight_decay: decoupled weight decay.
        warmup_steps: optimizer steps of linear warm-up.
        decay_share: share of the training, at its end, in which the rate falls to zero (cosine).
            It is counted in steps or, with ``trainer.max_time``, in time, whichever ends first.
        focus: pairs (highest step, share of draws): the share of the training steps t drawn
            uniformly up to that step. What is left of 1 is drawn from the whole schedule. Within
            a batch the draws are stratified.
        seed: base seed of the steps, the flips and the noise; independent of the global RNG.
        compile: compile the network with ``torch.compile``; on a single NVIDIA GPU its passes are
            CUDA graphs.

    Attributes:
        first_step: optimizer steps taken before the weights were last begun anew, 0 for never.
        restarts: how often they were.
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
        self.first_step = 0
        self.restarts = 0
        self._watch = CollapseWatch()
        self._first_weights: dict[str, Tensor] = {}

    def setup(self, stage: str) -> None:
        if stage == "fit":  # before a checkpoint is loaded
            state = self.denoiser.state_dict()
            self._first_weights = {name: x.to("cpu", copy=True) for name, x in state.items()}
        shape = getattr(getattr(self.trainer, "datamodule", None), "image_shape", None)
        if shape is not None:
            self.denoiser.check_shape(tuple(shape))
        if self.compile_network:
            # One process on a GPU: a CUDA graph for each pass, not hundreds of launches.
            alone = self.trainer.world_size == 1
            graphs = alone and self.trainer.strategy.root_device.type == "cuda"
            self.denoiser.compile(mode="reduce-overhead" if graphs else None)

    def draw_steps(self, n: int, generator: torch.Generator) -> Tensor:
        """Draw n training steps t in 1 .. T by the shares of ``focus``, on the generator's device.

        Draw i is the quantile of a uniform number in [i / n, (i + 1) / n), so the steps of a batch
        are spread over the schedule as evenly as they can be.

        Returns:
            Steps in the order of ``focus``, shape (n,), int64.
        """
        limits = [limit for limit, _ in self.focus] + [self.denoiser.num_train_steps]
        shares = [share for _, share in self.focus]
        shares.append(max(0.0, 1.0 - sum(shares)))
        device = generator.device
        uniform = torch.rand(n, generator=generator, device=device)
        rank = (torch.arange(n, device=device) + uniform) / n
        steps = torch.zeros_like(rank)
        below = 0.0
        for limit, share in zip(limits, shares, strict=True):
            if share > 0:
                within = ((rank - below) / share * limit).floor().clamp(max=limit - 1)
                steps = torch.where(rank >= below, within, steps)
            below += share
        return steps.long() + 1

    def loss(self, image: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """Squared error per sample, shape (B,), for images in [0, 1] and steps t of shape (B,)."""
        x_t = diffuse(2 * image - 1, noise, self.alpha_bar[t])
        return F.mse_loss(self.denoiser(x_t, t).float(), noise, reduction="none").mean((1, 2, 3))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        image = batch["image"]
        # One generator per batch: training resumes with the draws it would have had.
        batches = batches_trained(self.trainer)
        key = self.seed * 1_000_003 + batches * self.trainer.world_size + self.global_rank
        device = image.device
        generator = torch.Generator(device).manual_seed(key)
        flip = torch.rand(len(image), generator=generator, device=device) < 0.5
        t = self.draw_steps(len(image), generator)
        noise = torch.randn(image.shape, generator=generator, device=device)
        flipped = torch.where(flip.view(-1, 1, 1, 1), image.flip(-1), image)
        loss = self.loss(flipped, t, noise).mean()
        self._watch.add(loss)
        self.log("train/loss", loss)
        # Filled in there: a number that is copied to a GPU waits for the steps before.
        rate = self._optimizer().param_groups[0]["lr"]
        self.log("train/learning_rate", torch.full((), rate, device=device))
        return loss

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        if self._watch.full:
            loss = self.trainer.strategy.broadcast(self._watch.close())
            # A window after the warm-up, a network has begun to learn if it can at all.
            steps = self.trainer.global_step - self.first_step
            if self._watch.collapsed(loss, due=steps >= self.warmup_steps + WINDOW):
                self._restart(loss)

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        # Having it stop validates and saves the last weights, wherever in an interval they come.
        if self.trainer.global_step >= self.trainer.estimated_stepping_batches:
            self.trainer.should_stop = True

    def _restart(self, loss: float) -> None:
        """Begin anew with half the learning rate.

        Raises:
            InputError: it has been halved often enough.
        """
        step = self.trainer.global_step
        rate = self.learning_rate / 2**self.restarts
        what = (
            f"the network has collapsed to a constant output: after {step - self.first_step} steps "
            f"at a learning_rate of {rate:g} the loss is {loss:.3g}, where predicting nothing "
            "costs 1"
        )
        if self.restarts == MAX_RESTARTS:
            raise InputError(
                f"{what}; expected it to learn at this rate; check the images, or lower "
                "--model.learning_rate or raise --model.warmup_steps"
            )
        self.first_step = step
        self.restarts += 1
        rank_zero_warn(f"{what}; it begins anew at step {step}, at {rate / 2:g}")
        self._watch = CollapseWatch()
        self.denoiser.load_state_dict(self._first_weights)
        optimizer = self._optimizer()
        optimizer.zero_grad()
        optimizer.state.clear()
        for group in optimizer.param_groups:
            group["lr"] = self.learning_rate * self._rate(step)

    def _optimizer(self) -> torch.optim.Optimizer:
        return self.optimizers(use_pl_optimizer=False)  # type: ignore[return-value]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["collapse"] = {
            "first_step": self.first_step,
            "restarts": self.restarts,
            "watch": self._watch.state_dict(),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if "collapse" in checkpoint:  # older ones tell of none
            state = checkpoint["collapse"]
            self.first_step, self.restarts = state["first_step"], state["restarts"]
            self._watch.load_state_dict(state["watch"])

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
            self.denoiser.parameters(),
            self.learning_rate,
            weight_decay=self.weight_decay,
            fused=True,
        )
        # Gradients of float16 are unscaled before they are clipped, not by the optimizer.
        optimizer._step_supports_amp_scaling = False
        # A function: of a method, the scheduler would put attributes into the checkpoint.
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: self._rate(step))
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }

    def _rate(self, step: int) -> float:
        factor = rate_factor(
            step - self.first_step,
            share_done(self.trainer, step),
            warmup_steps=self.warmup_steps,
            decay_share=self.decay_share,
        )
        return factor / 2**self.restarts
