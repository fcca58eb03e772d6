"""The learning rate of a training: warm-up, constant, cosine to zero at its end."""

from __future__ import annotations

import math

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Timer


def rate_factor(step: int, done: float, *, warmup_steps: int, decay_share: float) -> float:
    """By what the peak rate is multiplied.

    Args:
        step: optimizer steps taken since the weights were drawn.
        done: share of the training that is done; from 1 on the rate is zero.
        warmup_steps: steps of linear warm-up.
        decay_share: share of the training, at its end, in which the rate falls by a half cosine.

    Example:
        >>> rates = [rate_factor(k, k / 8, warmup_steps=2, decay_share=0.5) for k in range(9)]
        >>> [round(rate, 2) for rate in rates]
        [0.5, 1.0, 1.0, 1.0, 1.0, 0.85, 0.5, 0.15, 0.0]
    """
    warm = min(1.0, (step + 1) / max(1, warmup_steps))
    left = max(0.0, 1 - done)
    falling = left / decay_share if left < decay_share else float(left > 0)
    return warm * 0.5 * (1 - math.cos(math.pi * falling))


def share_done(trainer: Trainer, step: int) -> float:
    """How much of a training is done: of its steps or of its time, where that is more.

    Steps are counted to ``max_steps`` or ``max_epochs``, time to ``max_time``, which goes on where
    it was when a training is resumed. All processes get the answer of the first.
    """
    done = step / max(1, trainer.estimated_stepping_batches)
    timers = [c for c in trainer.callbacks if isinstance(c, Timer)]  # type: ignore[attr-defined]
    for timer in timers:
        left = timer.time_remaining()
        if left is not None:
            spent = timer.time_elapsed()
            done = max(done, spent / (spent + left) if left > 0 else 1.0)
    return trainer.strategy.broadcast(done) if timers else done
