"""Training of the denoiser: closed-form losses, the law of the steps, a fit, a resume."""

import math
from collections import Counter

import pytest
import tiny
import torch
from lightning.pytorch import Callback, LightningDataModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from oracles import ALPHA_BAR, cosine_alpha_bar, random_unet
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import DataLoader

from lit_purify.callbacks import EMA
from lit_purify.data.arrays import ImageArrays
from lit_purify.diffusion import CosineSchedule, Denoiser, LinearSchedule
from lit_purify.modules import DenoiserTraining
from lit_purify.types import InputError


class ConstantDataDenoiser(Denoiser):
    """The perfect predictor where every image is x0 = c (on the [-1, 1] scale)."""

    def __init__(self, c, schedule=None, alpha_bar=ALPHA_BAR.__getitem__):
        super().__init__()
        self.c = c
        self.schedule = schedule or LinearSchedule()
        self.of_step = alpha_bar
        self.unused = torch.nn.Parameter(torch.zeros(()))

    def forward(self, x_t, t):
        alpha_bar = torch.tensor([self.of_step(s) for s in t.tolist()], dtype=torch.float64)
        alpha_bar = alpha_bar.to(x_t).view(-1, 1, 1, 1)
        return (x_t - alpha_bar.sqrt() * self.c) / (1 - alpha_bar).sqrt()


class ZeroDenoiser(Denoiser):
    def forward(self, x_t, t):
        return torch.zeros_like(x_t)


class RecordingTraining(DenoiserTraining):
    """Writes down the draws of every training step."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.draws = {}

    def loss(self, image, t, noise):
        if self.training:
            self.draws[self.global_step] = (t, noise)
        return super().loss(image, t, noise)


def trainer(max_steps, folder, *, accelerator="cpu", **options):
    return Trainer(
        accelerator=accelerator,
        max_steps=max_steps,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        default_root_dir=folder,
        **options,
    )


def loader(n, batch_size):
    images = tiny.images_and_labels(n)[0].permute(0, 2, 3, 1).numpy()
    return DataLoader(ImageArrays(images, None), batch_size=batch_size)


def test_images_that_the_denoiser_does_not_take_are_refused_before_them(tmp_path):
    class Small(LightningDataModule):
        image_shape = (3, 16, 16)

        def train_dataloader(self):
            raise AssertionError

    with pytest.raises(InputError, match=r"\(3, 32, 32\)"):
        trainer(1, tmp_path).fit(DenoiserTraining(tiny.denoiser()), Small())


class TestLoss:
    @pytest.mark.parametrize(
        ("schedule", "alpha_bar"),
        [
            (LinearSchedule(), ALPHA_BAR.__getitem__),
            (CosineSchedule(1050), lambda t: cosine_alpha_bar(t, 1050)),
        ],
    )
    def test_the_perfect_predictor_of_constant_data_has_none(self, schedule, alpha_bar):
        """Of images noised by the schedule that the network says it has."""
        denoiser = ConstantDataDenoiser(0.4, schedule, alpha_bar)
        module = DenoiserTraining(denoiser).double()
        exact = torch.tensor([alpha_bar(t) for t in range(1001)], dtype=torch.float64)
        torch.testing.assert_close(module.alpha_bar[:1001], exact, rtol=1e-6, atol=0)
        module.alpha_bar = exact
        image = torch.full((5, 3, 8, 8), 0.7, dtype=torch.float64)  # 2 x 0.7 - 1 = 0.4
        noise = torch.randn(image.shape, generator=torch.Generator().manual_seed(0)).double()
        loss = module.loss(image, torch.tensor([1, 10, 100, 500, 1000]), noise)
        assert loss.shape == (5,)
        assert loss.max() < 1e-10  # the prediction passes through float32

    def test_predicting_nothing_costs_the_variance_of_the_noise(self):
        image = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
        noise = torch.randn(image.shape, generator=torch.Generator().manual_seed(1))
        loss = DenoiserTraining(ZeroDenoiser()).loss(image, torch.tensor([1, 9, 99, 999]), noise)
        torch.testing.assert_close(loss, noise.square().mean((1, 2, 3)))


class TestSteps:
    def draw(self, n, focus):
        module = DenoiserTraining(ZeroDenoiser(), focus=focus)
        return module.draw_steps(n, torch.Generator().manual_seed(0))

    @pytest.mark.parametrize(
        ("focus", "limit", "share"),
        [
            # uniform parts up to each limit, weighed by their shares
            ([(150, 0.65), (300, 0.2)], 150, 0.65 + 0.2 * 150 / 300 + 0.15 * 150 / 1000),
            ([(150, 0.65), (300, 0.2)], 300, 0.65 + 0.2 + 0.15 * 300 / 1000),
            ([(150, 0.65), (300, 0.2)], 10, 0.65 * 10 / 150 + 0.2 * 10 / 300 + 0.15 * 10 / 1000),
            ([(300, 1.0)], 300, 1.0),
            ([(300, 1.0)], 1, 1 / 300),
            ([], 250, 0.25),
        ],
    )
    def test_shares_follow_focus(self, focus, limit, share):
        """Of strata, each part has at most the two at its ends in part."""
        n = 100_000
        found = (self.draw(n, focus) <= limit).double().mean().item()
        assert abs(found - share) <= 2 * (len(focus) + 1) / n

    def test_a_batch_has_one_step_of_every_stratum(self):
        k = torch.arange(100)
        assert torch.equal((self.draw(100, []) - 1) // 10, k)
        steps = self.draw(100, [(150, 0.5)])  # 50 draws over 150 steps, 50 over 1000
        assert torch.equal((steps[:50] - 1) // 3, k[:50])
        assert torch.equal((steps[50:] - 1) // 20, k[:50])

    def test_draws_within_a_stratum_are_uniform(self):
        module = DenoiserTraining(ZeroDenoiser(), focus=[])
        generator = torch.Generator().manual_seed(0)
        n = 4000
        steps = torch.stack([module.draw_steps(10, generator) for _ in range(n)])
        within = (steps - 1).double() / 100 - torch.arange(10)
        assert (within.mean(0) - 0.495).abs().max() < 5 * math.sqrt(1 / 12 / n)
        assert (within.var(0) - 1 / 12).abs().max() < 5 * math.sqrt(1 / 180 / n)

    def test_every_step_of_the_schedule_is_reached_and_no_other(self):
        steps = self.draw(100_000, [])
        assert steps.unique().tolist() == list(range(1, 1001))

    @pytest.mark.parametrize(
        "focus",
        [[(300, 1.1)], [(300, 0.6), (100, 0.5)], [(300, -0.1)], [(0, 0.5)], [(1001, 0.5)]],
    )
    def test_shares_and_limits_are_checked(self, focus):
        with pytest.raises(InputError, match="focus"):
            DenoiserTraining(ZeroDenoiser(), focus=focus)


class TestFit:
    def test_a_few_steps_lower_the_loss(self, tmp_path):
        module = DenoiserTraining(random_unet(32), learning_rate=1e-2, warmup_steps=1)
        image = tiny.images_and_labels(8, seed=1)[0]
        t = torch.tensor([1, 20, 50, 100, 150, 300, 600, 1000])
        noise = torch.randn(image.shape, generator=torch.Generator().manual_seed(0))
        before = module.loss(image, t, noise).mean().item()
        trainer(25, tmp_path, limit_val_batches=0).fit(module, loader(32, 8))
        after = module.loss(image, t, noise).mean().item()
        assert after < 0.9 * before  # measured: 0.81

    def test_the_rate_warms_up_and_falls_to_zero(self, tmp_path):
        module = DenoiserTraining(
            tiny.denoiser(), learning_rate=0.01, warmup_steps=4, decay_share=0.5
        )
        trainer(20, tmp_path, limit_train_batches=1).fit(module, loader(4, 4), loader(4, 4))
        (rate,) = module.lr_schedulers().lr_lambdas
        assert [rate(step) for step in range(4)] == [0.25, 0.5, 0.75, 1.0]
        assert rate(10) == 1.0
        assert rate(15) == pytest.approx(0.5)  # half way through the cosine
        assert rate(20) == 0.0

    def test_the_draws_hang_on_the_seed_alone(self, tmp_path):
        runs = []
        for seed, disturb in ((0, 1), (0, 2), (1, 1)):
            torch.manual_seed(disturb)
            module = RecordingTraining(tiny.denoiser(), seed=seed)
            trainer(2, tmp_path).fit(module, loader(8, 4), loader(4, 4))
            runs.append(module.draws)
        for step in range(2):
            for first, second, other in zip(*(run[step] for run in runs), strict=True):
                assert torch.equal(first, second)
                assert not torch.equal(first, other)
        assert not torch.equal(runs[0][0][1], runs[0][1][1])  # another draw at every step

    def test_a_resumed_run_has_the_draws_of_the_uninterrupted_one(self, tmp_path):
        whole = RecordingTraining(tiny.denoiser())
        trainer(6, tmp_path).fit(whole, loader(8, 4), loader(4, 4))
        stopped, first = RecordingTraining(tiny.denoiser()), trainer(3, tmp_path)
        first.fit(stopped, loader(8, 4), loader(4, 4))
        first.save_checkpoint(tmp_path / "stopped.ckpt")
        resumed = RecordingTraining(tiny.denoiser())
        trainer(6, tmp_path).fit(
            resumed, loader(8, 4), loader(4, 4), ckpt_path=tmp_path / "stopped.ckpt"
        )
        assert sorted(stopped.draws) == [0, 1, 2]
        assert sorted(resumed.draws) == [3, 4, 5]
        for step, (t, noise) in (stopped.draws | resumed.draws).items():
            assert torch.equal(t, whole.draws[step][0])
            assert torch.equal(noise, whole.draws[step][1])

    @pytest.mark.parametrize("steps", [4, 5])
    def test_the_last_weights_are_validated_and_saved(self, steps, tmp_path):
        saved = ModelCheckpoint(tmp_path, monitor="val/loss", save_top_k=-1, save_last=True)
        run = tiny.trainer(
            tmp_path,
            saved,
            enable_checkpointing=True,
            max_steps=steps,
            val_check_interval=2,
            check_val_every_n_epoch=None,
        )
        run.fit(DenoiserTraining(tiny.denoiser()), loader(8, 4), loader(13, 13))
        last = torch.load(tmp_path / "last.ckpt", weights_only=True)
        assert last["global_step"] == steps

    def test_the_optimizer_leaves_clipping_to_the_trainer_in_low_precision(self, tmp_path):
        module = DenoiserTraining(random_unet(32), learning_rate=1e-3)
        run = trainer(2, tmp_path, precision="bf16-mixed", gradient_clip_val=1e-3)
        run.fit(module, loader(8, 4))
        squares = [p.grad.square().sum() for p in module.denoiser.parameters()]
        assert sum(squares).sqrt() == pytest.approx(1e-3, rel=1e-3)

    def test_no_step_waits_for_the_device(self, tmp_path):
        """No number is read from it, and all weights are updated and averaged at once."""
        calls = Counter()

        class Counting(TorchDispatchMode):
            def __torch_dispatch__(self, function, types, args=(), kwargs=None):
                if 2 <= run.global_step < 6:
                    calls[function.overloadpacket.__name__] += 1
                return function(*args, **(kwargs or {}))

        run = tiny.trainer(tmp_path, EMA(), max_steps=7, gradient_clip_val=1.0)
        with Counting():
            run.fit(DenoiserTraining(tiny.denoiser()), loader(24, 4))
        assert calls["_fused_adamw_"] == calls["_foreach_lerp_"] == 4
        assert calls["_local_scalar_dense"] == calls["nonzero"] == 0

    def test_a_last_validation_batch_of_one_image_leaves_the_loss_finite(self, tmp_path):
        module = DenoiserTraining(ConstantDataDenoiser(0.0))
        run = trainer(1, tmp_path)
        run.validate(module, loader(5, 4), verbose=False)  # batches of 4 and of 1
        assert math.isfinite(run.callback_metrics["val/loss"])

    def test_a_short_schedule_is_validated_at_the_steps_it_has(self, tmp_path):
        module = DenoiserTraining(ConstantDataDenoiser(0.0, LinearSchedule(60)), focus=[])
        run = trainer(1, tmp_path)
        run.validate(module, loader(14, 14), verbose=False)
        logged = {name for name in run.callback_metrics if name.startswith("val/loss_t")}
        assert logged == {f"val/loss_t{t}" for t in (1, 5, 10, 20, 30, 50)}

    def test_the_validation_loss_is_that_of_purification_depths(self, tmp_path):
        module = DenoiserTraining(ZeroDenoiser())
        run = trainer(1, tmp_path)
        run.validate(module, loader(13, 13), verbose=False)
        noise = torch.randn(13, 3, 32, 32, generator=torch.Generator().manual_seed(0))
        variance = noise.square().mean((1, 2, 3))
        # rows are t = 1, 5, 10, 20, 30, 50, 75, 100, 150, 200, ...: 5 to 150 are rows 1 to 8
        torch.testing.assert_close(run.callback_metrics["val/loss"], variance[1:9].mean())
        torch.testing.assert_close(run.callback_metrics["val/loss_t50"], variance[5])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_on_a_gpu_graphs_train_as_eager_execution_does(tmp_path):
    class Losses(Callback):
        def __init__(self):
            self.found = []

        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            self.found.append(outputs["loss"].item())

    losses = []
    for compile in (False, True):
        watch = Losses()
        module = DenoiserTraining(random_unet(32), learning_rate=1e-3, compile=compile)
        run = trainer(12, tmp_path, callbacks=[EMA(), watch], accelerator="gpu")
        run.fit(module, loader(32, 8), loader(12, 8))
        losses.append(watch.found)
    assert len(losses[0]) == 12
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)
