"""The moving average of the weights, against its recursion."""

import pytest
import tiny
import torch
from lightning.pytorch import Callback, LightningModule
from torch import nn

from lit_purify.callbacks import EMA
from lit_purify.types import InputError


class Descent(LightningModule):
    """A weight that falls by 1 in every step, and a buffer that counts the batches."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(2, dtype=torch.float64))
        self.register_buffer("batches", torch.zeros((), dtype=torch.long))

    def training_step(self, batch, batch_idx):
        self.batches += 1
        return self.weight.sum()

    def validation_step(self, batch, batch_idx):
        self.validated = self.weight.detach().clone()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 1.0)


class Seen(Callback):
    def __init__(self):
        self.weights = []

    def on_train_batch_end(self, trainer, module, *args):
        self.weights.append(module.weight[0].item())


def average(steps, decay):
    """Of the weights -1, -2, ... after every step."""
    found = -1.0
    for n in range(2, steps + 1):
        d = min(decay, (1 + n) / (10 + n))
        found = d * found + (1 - d) * -n
    return found


def fit(folder, ema, steps, **options):
    module, seen = Descent(), Seen()
    trainer = tiny.trainer(folder, ema, seen, max_steps=steps, **options)
    trainer.fit(module, range(steps), range(1))
    return module, seen


@pytest.mark.parametrize(("decay", "steps"), [(0.9995, 1), (0.9995, 30), (0.5, 30), (0.0, 3)])
def test_the_average_is_validated_and_left_in_the_network(decay, steps, tmp_path):
    module, seen = fit(tmp_path, EMA(decay=decay), steps)
    assert seen.weights == [-n for n in range(1, steps + 1)]  # training goes on undisturbed
    assert module.weight.tolist() == pytest.approx([average(steps, decay)] * 2)
    assert torch.equal(module.validated, module.weight)
    assert module.batches == steps


def test_it_takes_part_once_a_step_of_the_optimizer(tmp_path):
    module, seen = fit(tmp_path, EMA(decay=0.9), 4, accumulate_grad_batches=2, max_epochs=2)
    assert seen.weights == [0, -1, -1, -2, -2, -3, -3, -4]
    assert module.weight[0].item() == pytest.approx(average(4, 0.9))


@pytest.mark.parametrize("decay", [1.0, -0.1, float("nan")])
def test_decays_that_average_nothing_are_refused(decay):
    with pytest.raises(InputError, match="decay"):
        EMA(decay=decay)
