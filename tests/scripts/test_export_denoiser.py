"""From the checkpoint of a fit to a denoiser file."""

import runpy
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import tiny
import torch
import yaml

from lit_purify.checkpoints import load_denoiser, model_card
from lit_purify.diffusion import small_unet

SCRIPT = Path(__file__).parents[2] / "scripts" / "export_denoiser.py"


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """(checkpoint, file exported from it) of two training steps of a tiny network."""
    folder = tmp_path_factory.mktemp("fit")
    run = tiny.fit(folder, "train_cifar_small.yaml", steps=2, images=21, holdout=13)
    checkpoint, target = run / "checkpoints" / "last.ckpt", folder / "exported.safetensors"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [str(SCRIPT), str(checkpoint), str(target)])
        runpy.run_path(str(SCRIPT), run_name="__main__")
    return checkpoint, target


def test_the_weights_are_those_of_the_checkpoint(exported):
    checkpoint, target = exported
    state = torch.load(checkpoint, weights_only=True)["state_dict"]
    found = load_denoiser(str(target)).network.state_dict()
    expected = {
        name.removeprefix("denoiser.network."): tensor
        for name, tensor in state.items()
        if name.startswith("denoiser.network.")
    }
    assert set(found) == set(expected)
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor.half().float())


def test_the_card_tells_of_the_training_and_the_error_by_t(exported):
    card = model_card(str(exported[1]))
    assert "2 steps of batch 4 (8 images)" in card
    assert "0.001 (500 warm-up steps, cosine to zero over the last\n  60%)" in card
    assert "but the last 13" in card
    assert "Seed: 0 (draws), 0 (initial weights)" in card
    rows = [line.split("|") for line in card.splitlines()]
    errors = {int(row[1]): float(row[2]) for row in rows if row[1:] and row[1].strip().isdigit()}
    assert sorted(errors) == [1, 5, 10, 20]  # the holdout comes in batches of four
    assert all(error > 0 for error in errors.values())


def test_the_card_of_a_network_that_was_begun_anew(exported):
    """It counts from there, at the rate that was lowered."""
    checkpoint, _ = exported
    run = checkpoint.parent.parent
    config = yaml.safe_load((run / "config.yaml").read_text())
    state = torch.load(checkpoint, weights_only=True)
    state["collapse"] |= {"first_step": 1, "restarts": 2}
    denoiser = small_unet(block_out_channels=(8, 16), norm_num_groups=4)
    told = SimpleNamespace(name="Wide", note="by hand", options="--seed_everything 3")
    card = runpy.run_path(str(SCRIPT))["model_card"](run, config, state, denoiser, told)
    assert card.startswith("# Wide CIFAR-10 denoiser\n")
    assert "Note: by hand" in card
    assert "--config train_cifar_small --seed_everything 3" in card
    assert "1 steps of batch 4 (4 images)" in card
    assert "0.00025 (500 warm-up" in card
