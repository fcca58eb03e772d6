"""Denoiser files: what is written comes back, what is wrong is named, and the shipped one works."""

import re
import sys
from importlib import resources
from types import SimpleNamespace

import pytest
import tiny
import torch
from oracles import ALPHA_BAR, draws
from published_networks import Guided, random_state, shapes_of
from safetensors.torch import load_file
from torchvision.models import resnet18

from lit_purify.checkpoints import (
    embedded_denoiser,
    load_denoiser,
    model_card,
    official_denoiser,
    save_denoiser,
)
from lit_purify.checkpoints.denoisers import OFFICIAL, PARAMETERS, TRAINED
from lit_purify.data import sources
from lit_purify.diffusion import CosineSchedule, LinearSchedule
from lit_purify.types import InputError

IMPROVED = Guided(width=32, factors=(1, 2), attention=(1,), layers=1, heads=4, convolutions=True)
ASSETS = resources.files("lit_purify") / "assets"
EMBEDDED = {name: ASSETS / f"denoiser_cifar10_{name}.safetensors" for name in ("small", "base")}
MILLIONS = {"small": 4.5, "base": 17.9}


class TestRoundTrip:
    @pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
    def test_weights_come_back_as_they_were_stored(self, tmp_path, dtype):
        path, denoiser = tmp_path / "denoiser.safetensors", tiny.denoiser()
        save_denoiser(path, denoiser, tiny.ARCHITECTURE, model_card="a card", dtype=dtype)
        assert {x.dtype for x in load_file(path).values()} == {dtype}
        loaded = load_denoiser(str(path))
        expected = denoiser.network.state_dict()
        found = loaded.network.state_dict()
        assert set(found) == set(expected)
        for name, tensor in expected.items():
            assert found[name].dtype == torch.float32
            assert torch.equal(found[name], tensor.to(dtype).float())
        assert model_card(str(path)) == "a card"
        assert not loaded.training
        assert not any(parameter.requires_grad for parameter in loaded.parameters())
        assert loaded.file == path
        assert loaded.image_shape == (3, 32, 32)
        if dtype == torch.float32:
            x = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
            assert torch.equal(loaded(x, 50), denoiser.eval()(x, 50))


class TestWrongFiles:
    """One line that names the file; damaged ones are in ``tests/broken_input/test_weights.py``."""

    def test_a_card_of_no_file(self, tmp_path, refusal):
        path = tmp_path / "nowhere.safetensors"
        with refusal(path, "not a readable safetensors file"):
            model_card(str(path))

    @pytest.mark.parametrize("prefix", ["", "module."])
    def test_weights_of_a_classifier(self, tmp_path, prefix, refusal):
        with torch.random.fork_rng():
            state = {f"{prefix}{name}": x for name, x in resnet18().state_dict().items()}
        path = tmp_path / "resnet.pth"
        torch.save(state, path)
        with refusal(path, "'conv1.weight'", "this project", "pesser", "guided", "diffusers"):
            load_denoiser(str(path))

    def test_a_folder_of_something_else(self, tmp_path, refusal):
        (tmp_path / "config.json").write_text("{}")
        with refusal(tmp_path, "no weights file of diffusers"):
            load_denoiser(str(tmp_path))


class TestImageSize:
    def test_another_one_than_the_file_says(self, tmp_path):
        path = str(tiny.denoiser_file(tmp_path))
        assert load_denoiser(path, image_size=64).image_shape == (3, 64, 64)

    @pytest.mark.parametrize("size", [0, -4, 33])
    def test_one_that_cannot_be(self, tmp_path, size):
        with pytest.raises(InputError, match=f"image_size is {size}; expected a multiple of 4"):
            load_denoiser(str(tiny.denoiser_file(tmp_path)), image_size=size)


class TestOfficial:
    @pytest.mark.parametrize("name", OFFICIAL)
    def test_it_is_fetched_by_name_and_says_what_it_is(self, tmp_path, monkeypatch, name):
        file = tiny.denoiser_file(tmp_path)
        if name in TRAINED:  # by settings that only files of its own format may have
            file = tmp_path / "guided.pt"
            torch.save(random_state(shapes_of(IMPROVED)), file)
        asked = []
        weights = SimpleNamespace(weights_file=lambda name: asked.append(name) or file)
        monkeypatch.setitem(sys.modules, "lit_purify.weights", weights)
        with pytest.raises(InputError, match=f"parameters, and {name} has"):
            official_denoiser(name=name)
        asked.clear()
        size = sum(x.numel() for x in load_denoiser(str(file)).parameters())
        monkeypatch.setitem(PARAMETERS, name, size)
        denoiser = official_denoiser(name=name)
        assert asked == [name]
        assert denoiser.source == OFFICIAL[name]
        assert denoiser.file == file
        improved = name == "improved_diffusion_cifar10"
        assert denoiser.schedule == (CosineSchedule(4000) if improved else LinearSchedule())
        assert denoiser.rescale_timesteps == improved

    def test_another_name(self):
        with pytest.raises(InputError, match=r"'ddpm'; expected ddpm_cifar10, google_"):
            official_denoiser(name="ddpm")


class TestEmbedded:
    @pytest.fixture(scope="class", params=EMBEDDED)
    def card(self, request):
        return model_card(str(EMBEDDED[request.param]))

    @pytest.mark.parametrize("name", EMBEDDED)
    def test_its_size(self, name):
        weights = sum(weight.numel() for weight in embedded_denoiser(name).parameters())
        assert round(weights / 1e6, 1) == MILLIONS[name]
        assert EMBEDDED[name].stat().st_size <= 2 * weights + 20_000  # in float16

    def test_another_name_is_refused(self):
        with pytest.raises(InputError, match="small or base"):
            embedded_denoiser("large")

    def test_the_card_says_where_it_comes_from(self, card):
        for word in ("Data: CIFAR-10 training images", "steps of batch", "Seed:", "Licence:"):
            assert word in card
        assert re.search(r"python -m lit_purify fit --config (configs/)?train_cifar_small", card)

    def test_the_card_gives_the_error_by_t(self, card):
        rows = [line.split("|") for line in card.splitlines() if line.startswith("| ")]
        errors = {int(row[1]): float(row[2]) for row in rows if row[1].strip().isdigit()}
        assert {1, 10, 50, 100, 150, 1000} <= set(errors)
        assert all(0 < error < 1 for error in errors.values())

    @pytest.mark.parametrize("name", EMBEDDED)
    @pytest.mark.parametrize(("t", "bound"), [(50, 0.4), (100, 0.3), (150, 0.2)])
    def test_it_predicts_the_noise_in_images_it_never_saw(self, t, bound, name):
        """Predicting nothing costs 1, the variance of the noise; its card says 0.19 at t = 50.

        The bounds are about twice the card's errors: sixteen images spread by far less.
        """
        denoiser = embedded_denoiser(name)
        pixels = torch.from_numpy(sources.embedded()[0][:16].copy()).permute(0, 3, 1, 2)
        x0 = 2 * pixels.float() / 255 - 1
        noise = draws(0, torch.arange(16), 2 * t, x0)
        x_t = float(ALPHA_BAR[t]) ** 0.5 * x0 + float(1 - ALPHA_BAR[t]) ** 0.5 * noise
        error = (denoiser(x_t, t) - noise).square().mean().item()
        assert error < bound
