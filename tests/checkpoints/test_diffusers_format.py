"""What diffusers saves is loaded as diffusers loads it, or refused."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, DDPMPipeline, DDPMScheduler, UNet2DModel
from oracles import fill
from safetensors.torch import save_file

from lit_purify.checkpoints import load_denoiser
from lit_purify.diffusion import CosineSchedule, LinearSchedule, Schedule, ddpm_unet
from lit_purify.types import InputError

FORMER = {".to_q.": ".query.", ".to_k.": ".key.", ".to_v.": ".value.", ".to_out.0.": ".proj_attn."}


def network(**changes: Any) -> UNet2DModel:
    config = {
        "sample_size": 16,
        "block_out_channels": (8, 16),
        "layers_per_block": 1,
        "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
        "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
        "attention_head_dim": 4,
        "norm_num_groups": 4,
    }
    with torch.random.fork_rng():
        return fill(UNet2DModel(**{**config, **changes}), seed=3, std=0.2).eval()


def scheduler(folder: Path, **changes: Any) -> None:
    DDPMScheduler(**changes).save_pretrained(folder)


def edit(file: Path, **changes: Any) -> None:
    content = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps({**content, **changes}), encoding="utf-8")


def same_output(path: Path, oracle: UNet2DModel) -> None:
    denoiser = load_denoiser(str(path))
    x = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    as_ours = oracle.to(memory_format=torch.channels_last)
    layout = x.contiguous(memory_format=torch.channels_last)
    for t in (1, 500):
        assert torch.equal(denoiser(x, t), as_ours(layout, t - 1).sample)
    assert denoiser.image_shape == (3, 16, 16)


@pytest.mark.parametrize("safe", [True, False])
def test_a_folder(tmp_path: Path, safe: bool) -> None:
    folder = tmp_path / "mine"
    network().save_pretrained(folder, safe_serialization=safe)
    same_output(folder, UNet2DModel.from_pretrained(folder))
    suffix = "safetensors" if safe else "bin"
    file = folder / f"diffusion_pytorch_model.{suffix}"
    denoiser = load_denoiser(str(folder))
    assert denoiser.source == "mine"
    assert denoiser.file == file
    assert denoiser.num_train_steps == 1000
    assert not denoiser.training
    assert not any(p.requires_grad for p in denoiser.parameters())
    same_output(file, network())


def test_a_pipeline(tmp_path: Path) -> None:
    DDPMPipeline(network(), DDPMScheduler()).save_pretrained(tmp_path / "pipeline")
    same_output(tmp_path / "pipeline", network())
    same_output(tmp_path / "pipeline" / "unet", network())
    assert load_denoiser(str(tmp_path / "pipeline")).source == "pipeline"


@pytest.mark.parametrize("convolutions", [False, True])
def test_former_names_of_attention(tmp_path: Path, convolutions: bool) -> None:
    network().save_pretrained(tmp_path)
    state = {}
    for name, x in network().state_dict().items():
        for today, former in FORMER.items():
            if today in name:
                name = name.replace(today, former)
                x = x[:, :, None, None] if convolutions and x.ndim == 2 else x
        state[name] = x.clone()
    assert any(".proj_attn." in name for name in state)
    save_file(state, tmp_path / "diffusion_pytorch_model.safetensors")
    same_output(tmp_path, network())


@pytest.mark.parametrize("change", [{"out_channels": 6}, {"sample_size": None}])
def test_variants(tmp_path: Path, change: dict[str, Any]) -> None:
    network(**change).save_pretrained(tmp_path)
    denoiser = load_denoiser(str(tmp_path))
    assert denoiser(torch.zeros(1, 3, 16, 16), 1).shape[1] == change.get("out_channels", 3)
    assert denoiser.image_shape == (None if "sample_size" in change else (3, 16, 16))


def test_tensors_of_google_ddpm_cifar10_32_need_no_config(tmp_path: Path) -> None:
    """Under the names its file has, which is older than today's."""
    source = ddpm_unet()
    state = {}
    for name, x in source.network.state_dict().items():
        for today, former in FORMER.items():
            name = name.replace(today, former)
        state[name] = x
    torch.save(state, tmp_path / "google.bin")
    denoiser = load_denoiser(str(tmp_path / "google.bin"))
    x = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert torch.equal(denoiser(x, 77), source.eval()(x, 77))
    assert denoiser.image_shape == (3, 32, 32)
    assert denoiser.source == "google"


class TestSchedules:
    @pytest.mark.parametrize("place", ["", "scheduler"])
    def test_another_length_is_taken_over(self, tmp_path: Path, place: str) -> None:
        network().save_pretrained(tmp_path)
        scheduler(tmp_path / place, num_train_timesteps=200)
        assert load_denoiser(str(tmp_path)).num_train_steps == 200

    def test_of_another_class(self, tmp_path: Path) -> None:
        """The training schedule is the same whatever samples."""
        network().save_pretrained(tmp_path)
        DDIMScheduler().save_pretrained(tmp_path)
        assert load_denoiser(str(tmp_path)).num_train_steps == 1000

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"beta_schedule": "scaled_linear"}, "'scaled_linear'; 'linear' and 'squaredcos_cap"),
            ({"rescale_betas_zero_snr": True}, "rescale_betas_zero_snr = True.*give load_denoiser"),
            ({"beta_start": 0.5}, "scheduler_config.json.*beta_start is 0.5"),
            ({"prediction_type": "v_prediction"}, "prediction_type = 'v_prediction'"),
            ({"trained_betas": [0.1, 0.2]}, "trained_betas"),
        ],
    )
    @pytest.mark.parametrize("beside", [True, False])
    def test_others_are_refused(
        self, tmp_path: Path, change: dict[str, Any], message: str, beside: bool
    ) -> None:
        network().save_pretrained(tmp_path / "unet")
        scheduler(tmp_path / ("unet" if beside else "scheduler"), **change)
        with pytest.raises(InputError, match=message):
            load_denoiser(str(tmp_path))

    @pytest.mark.parametrize(
        ("change", "schedule"),
        [
            ({"beta_schedule": "squaredcos_cap_v2"}, CosineSchedule(1000)),
            (
                {"beta_schedule": "squaredcos_cap_v2", "num_train_timesteps": 4000},
                CosineSchedule(),
            ),
            ({"beta_end": 0.03}, LinearSchedule(1000, 1e-4, 0.03)),
            ({"beta_start": 0.0002, "num_train_timesteps": 50}, LinearSchedule(50, 2e-4, 0.02)),
        ],
    )
    def test_others_that_are_known(
        self, tmp_path: Path, change: dict[str, Any], schedule: Schedule
    ) -> None:
        """As diffusers computes them, but for the rounding of its float32."""
        network().save_pretrained(tmp_path)
        scheduler(tmp_path, **change)
        loaded = load_denoiser(str(tmp_path)).schedule
        assert loaded == schedule
        betas = DDPMScheduler(**change).betas
        torch.testing.assert_close(loaded.betas.float(), betas, rtol=2e-5, atol=2**-24)

    def test_one_of_the_users_own(self, tmp_path: Path) -> None:
        network().save_pretrained(tmp_path)
        scheduler(tmp_path, beta_schedule="sigmoid")
        loaded = load_denoiser(str(tmp_path), schedule=CosineSchedule(300))
        assert loaded.schedule == CosineSchedule(300)
        edit(tmp_path / "scheduler_config.json", prediction_type="sample")
        with pytest.raises(InputError, match="prediction_type"):
            load_denoiser(str(tmp_path), schedule=CosineSchedule(300))

    @pytest.mark.parametrize("steps", [0, "many", None, 1.5])
    def test_a_length_that_is_none(self, tmp_path: Path, steps: object) -> None:
        network().save_pretrained(tmp_path)
        scheduler(tmp_path)
        edit(tmp_path / "scheduler_config.json", num_train_timesteps=steps)
        with pytest.raises(InputError, match="num_train_timesteps"):
            load_denoiser(str(tmp_path))


class TestRefused:
    FILE = "diffusion_pytorch_model.safetensors"

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        """A sound folder, to be spoiled."""
        network().save_pretrained(tmp_path)
        return tmp_path

    def test_no_config(self, folder: Path, refusal) -> None:
        (folder / "config.json").unlink()
        for path in (folder, folder / self.FILE):
            with refusal(path, "config.json beside"):
                load_denoiser(str(path))

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            ({"_class_name": "UNet2DConditionModel"}, "_class_name"),
            ({"time_embedding_type": "fourier"}, "time_embedding_type"),
            ({"num_class_embeds": 10}, "num_class_embeds"),
            ({"center_input_sample": True}, "center_input_sample"),
            ({"block_out_channels": [8, 15]}, "cannot build"),
            ({"block_out_channels": None}, "cannot build"),
            ({"attention_head_dim": 0}, "cannot build"),
            ({"down_block_types": ["Unknown", "DownBlock2D"]}, "cannot build"),
            ({"sample_size": "large"}, "cannot build"),
            ({"block_out_channels": [8, 32]}, "has shape (16,) instead of (32,)"),
        ],
    )
    def test_networks_of_another_kind(
        self, folder: Path, change: dict[str, Any], words: str, refusal
    ) -> None:
        edit(folder / "config.json", **change)
        with refusal(folder, words):
            load_denoiser(str(folder))

    @pytest.mark.parametrize("content", ["", "[1]", "{", '"text"', "\udcff"])
    def test_a_damaged_config(self, folder: Path, content: str, refusal) -> None:
        (folder / "config.json").write_bytes(content.encode(errors="surrogateescape"))
        with refusal(folder / "config.json", "not a readable configuration"):
            load_denoiser(str(folder))

    def test_outputs_that_are_no_noise(self, tmp_path: Path, refusal) -> None:
        network(out_channels=4).save_pretrained(tmp_path)
        with refusal(tmp_path, "out_channels = 4"):
            load_denoiser(str(tmp_path))

    def test_a_tensor_under_its_former_name_is_missing(self, folder: Path, refusal) -> None:
        state = {name: x.clone() for name, x in network().state_dict().items()}
        del state["mid_block.attentions.0.to_k.weight"]
        save_file(state, folder / self.FILE)
        with refusal(folder, "mid_block.attentions.0.to_k.weight is missing"):
            load_denoiser(str(folder))
