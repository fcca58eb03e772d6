"""Exponential moving average of the weights of a training."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging

from lit_purify.types import InputError


class EMA(WeightAveraging):
    r"""Averages the weights; the average is validated, saved, and left in the network at the end.

    After step n, :math:`\bar w \leftarrow d_n \bar w + (1 - d_n) w` with
    :math:`d_n = \min(d, (1 + n) / (10 + n))`, so that a short training forgets its beginning too.
    Steps count from where the weights of a ``DenoiserTraining`` were last begun anew.

    Unlike Lightning's ``EMAWeightAveraging`` it stays on the device of the network, and all
    weights are averaged at once, without waiting for the device.

    Args:
        decay: d, in [0, 1).
    """

    def __init__(self, *, decay: float = 0.9995) -> None:
        if not 0 <= decay < 1:
            raise InputError(f"decay is {decay}; expected a number in [0, 1), such as 0.9995")
        super().__init__()
        self.decay = decay

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        if self._average_model is not None:
            # The network itself is moved only after this.
            self._average_model.to(trainer.strategy.root_device)

    @torch.no_grad()
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *args: Any, **kwargs: Any
    ) -> None:
        step = trainer.global_step
        if step == self._latest_update_step:  # gradients are accumulated, no step was taken
            return
        self._latest_update_step = step
        assert self._average_model is not None
        average, network = self._average_model.module, pl_module
        pairs = tuple(average.parameters()), tuple(network.parameters())
        n = step - getattr(network, "first_step", 0)
        if n == 1:
            torch._foreach_copy_(*pairs)
        else:
            torch._foreach_lerp_(*pairs, 1 - min(self.decay, (1 + n) / (10 + n)))
        # Buffers are statistics and constants: they are the network's.
        torch._foreach_copy_(tuple(average.buffers()), tuple(network.buffers()))
