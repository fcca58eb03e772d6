"""Networks that collapse are found and begun anew; those that learn are left alone."""

import math
import warnings

import pytest
import tiny
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader

from lit_purify.callbacks import EMA
from lit_purify.data import sources
from lit_purify.data.arrays import ImageArrays
from lit_purify.diffusion import Denoiser, small_unet
from lit_purify.modules import DenoiserTraining
from lit_purify.modules.collapse import WINDOW, CollapseWatch
from lit_purify.types import InputError


class Fragile(Denoiser):
    """Predicts w x_t, until a step changes w by more than 0.03: from then on it predicts zero.

    AdamW changes w by about the learning rate.
    """

    def __init__(self):
        super().__init__()
        self.w = torch.nn.Parameter(torch.zeros(()))
        self.register_buffer("last", torch.zeros(()))
        self.register_buffer("alive", torch.ones(()))

    def forward(self, x_t, t):
        if self.training:
            self.alive *= (self.w.detach() - self.last).abs() <= 0.03
            self.last.copy_(self.w.detach())
        return self.alive * self.w * x_t


def grey(n=4):
    """Images that are 0 on the [-1, 1] scale: the noise is x_t / sqrt(1 - alpha_bar)."""
    return DataLoader(ImageArrays(torch.full((n, 3, 8, 8), 0.5), None), batch_size=4)


def training(denoiser, rate, **options):
    return DenoiserTraining(denoiser, learning_rate=rate, warmup_steps=1, **options)


def parameters(module):
    return torch.stack([module.denoiser.w.detach(), module.denoiser.alive])


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """(module, checkpoint folder, warnings) of a training that is begun anew twice."""
    folder = tmp_path_factory.mktemp("fragile")
    module, saved = (
        training(Fragile(), 0.1),
        ModelCheckpoint(folder, "{step}", every_n_train_steps=50, save_top_k=-1),
    )
    trainer = tiny.trainer(folder, EMA(decay=0.9), saved, max_steps=500, enable_checkpointing=True)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer.fit(module, grey())
    return module, folder, [str(w.message) for w in caught if "collapsed" in str(w.message)]


def test_it_is_begun_anew_at_half_the_rate_until_it_lives(run):
    module, *_ = run
    assert module.restarts == 2
    assert module.first_step == 4 * WINDOW  # found in the second window of each
    assert parameters(module)[1] == 1
    assert parameters(module)[0] > 0.5


def test_every_restart_is_named(run):
    _, _, said = run
    assert len(said) == 2
    for message, rates in zip(said, (("0.1", "0.05"), ("0.05", "0.025")), strict=True):
        assert all(rate in message for rate in rates)


@pytest.mark.parametrize("step", [150, 200, 250, 450])
def test_resumed_before_and_after_a_restart_it_ends_the_same(run, step, tmp_path):
    module, folder, _ = run
    resumed = training(Fragile(), 0.1)
    trainer = tiny.trainer(tmp_path, EMA(decay=0.9), max_steps=500)
    trainer.fit(resumed, grey(), ckpt_path=folder / f"step={step}.ckpt")
    assert torch.equal(parameters(resumed), parameters(module))
    assert (resumed.first_step, resumed.restarts) == (module.first_step, module.restarts)


def test_the_average_forgets_what_collapsed(tmp_path):
    """Of a network that has just been begun anew it is the weights themselves."""
    module, average = training(Fragile(), 0.1, decay_share=0.0), EMA(decay=0.9)
    trainer = tiny.trainer(tmp_path, average, max_steps=2 * WINDOW + 1)
    trainer.fit(module, grey())
    assert module.first_step == 2 * WINDOW
    assert 0 < parameters(module)[0] < 0.06  # one step at a rate of 0.05


def test_it_stops_where_lower_rates_do_not_help(tmp_path):
    class Dead(Fragile):
        def forward(self, x_t, t):
            return 0 * self.w * x_t

    with (
        pytest.warns(UserWarning, match="collapsed"),
        pytest.raises(InputError, match="learning_rate"),
    ):
        tiny.trainer(tmp_path, max_steps=10 * WINDOW).fit(training(Dead(), 0.1), grey())


def test_a_loss_that_is_not_finite_is_a_collapse():
    watch = CollapseWatch()
    assert not watch.full
    for loss in (*[1.0] * (WINDOW - 1), math.nan):
        watch.add(torch.tensor(loss))
    assert watch.full
    assert watch.collapsed(watch.close(), due=False)


def fit_unet(denoiser, folder, *, rate, warmup, steps):
    pixels = torch.from_numpy(sources.embedded()[0]).permute(0, 3, 1, 2)
    module = DenoiserTraining(denoiser, learning_rate=rate, warmup_steps=warmup)
    images = DataLoader(ImageArrays(pixels, None), batch_size=4)
    tiny.trainer(folder, max_steps=steps, gradient_clip_val=1.0).fit(module, images)
    return module


@pytest.mark.slow
def test_a_unet_that_learned_and_collapsed_is_found(tmp_path):
    """Its loss falls to 0.84 while the rate is still low, and is 1.00 from step 100 on."""
    torch.manual_seed(0)
    with pytest.warns(UserWarning, match="after 200 steps at a learning_rate of 0.3"):
        module = fit_unet(
            small_unet(**tiny.ARCHITECTURE), tmp_path, rate=0.3, warmup=300, steps=201
        )
    assert module.restarts == 1


@pytest.mark.slow
def test_the_shipped_network_is_left_alone(tmp_path):
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*collapsed.*")
        module = fit_unet(small_unet(), tmp_path, rate=1e-3, warmup=500, steps=201)
    assert module.restarts == 0
    assert module.trainer.callback_metrics["train/loss"] < 0.9
