"""The rate over a training that is bounded by steps, by time, or by both."""

import math

import pytest
import tiny
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import Timer
from torch.utils.data import DataLoader

from lit_purify.data.arrays import ImageArrays
from lit_purify.modules import DenoiserTraining
from lit_purify.modules.learning_rate import rate_factor


@pytest.mark.parametrize("decay_share", [0.0, 0.3, 1.0])
def test_it_ends_at_zero_and_is_the_peak_before_the_decay(decay_share):
    def rate(done):
        return rate_factor(1000, done, warmup_steps=1, decay_share=decay_share)

    assert rate(1.0) == rate(1.5) == 0.0
    assert rate(1 - decay_share) == (1.0 if decay_share else 0.0)
    for part in (0.25, 0.5, 0.75):
        expected = 0.5 * (1 + math.cos(math.pi * part))
        assert rate(1 - decay_share * (1 - part)) == pytest.approx(expected if decay_share else 0)


class Clock(Callback):
    """One second passes in every batch; writes down the rate of every step."""

    def __init__(self):
        self.now = 0.0
        self.rates = {}

    def monotonic(self):
        return self.now

    def on_train_batch_start(self, trainer, module, *args):
        self.rates[trainer.global_step] = trainer.optimizers[0].param_groups[0]["lr"]
        self.now += 1.0


def fit(folder, monkeypatch, *, steps, seconds, resume=None, stop=None):
    """The rates of a training at a peak of 1, and its trainer; left after ``stop`` steps."""
    clock = Clock()
    monkeypatch.setattr("lightning.pytorch.callbacks.timer.time.monotonic", clock.monotonic)
    module = DenoiserTraining(tiny.denoiser(), learning_rate=1.0, warmup_steps=1, decay_share=0.5)

    class Leave(Callback):
        def on_train_batch_end(self, trainer, *args):
            if trainer.global_step == stop:
                trainer.save_checkpoint(folder / "left.ckpt")
                trainer.should_stop = True

    trainer = tiny.trainer(folder, clock, Leave(), max_steps=steps, max_time={"seconds": seconds})
    images = DataLoader(ImageArrays(tiny.images_and_labels(4)[0], None), batch_size=4)
    trainer.fit(module, images, ckpt_path=resume)
    return clock.rates, trainer


def falling(done):
    return 1.0 if done <= 0.5 else 0.5 * (1 - math.cos(math.pi * (1 - done) / 0.5))


def test_a_training_of_a_given_time_ends_with_a_finished_schedule(tmp_path, monkeypatch):
    rates, trainer = fit(tmp_path, monkeypatch, steps=-1, seconds=16)
    assert rates == pytest.approx({k: falling(k / 16) for k in range(16)})
    assert trainer.optimizers[0].param_groups[0]["lr"] == 0.0


@pytest.mark.parametrize("stop", [3, 11])
def test_it_goes_on_in_its_time_when_it_is_resumed(stop, tmp_path, monkeypatch):
    whole, _ = fit(tmp_path, monkeypatch, steps=-1, seconds=16)
    first, _ = fit(tmp_path, monkeypatch, steps=-1, seconds=16, stop=stop)
    second, trainer = fit(
        tmp_path, monkeypatch, steps=-1, seconds=16, resume=tmp_path / "left.ckpt"
    )
    assert sorted(first) == list(range(stop))
    assert first | second == pytest.approx(whole)
    assert trainer.optimizers[0].param_groups[0]["lr"] == 0.0


@pytest.mark.parametrize(("steps", "seconds", "length"), [(8, 100, 8), (100, 8, 8)])
def test_what_ends_first_counts(steps, seconds, length, tmp_path, monkeypatch):
    rates, _ = fit(tmp_path, monkeypatch, steps=steps, seconds=seconds)
    assert rates == pytest.approx({k: falling(k / length) for k in range(length)})


def test_no_time_at_all(tmp_path, monkeypatch):
    rates, trainer = fit(tmp_path, monkeypatch, steps=-1, seconds=0)
    assert rates == {}
    assert any(isinstance(c, Timer) for c in trainer.callbacks)
