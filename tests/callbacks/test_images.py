"""The grids of images: which images they show, and of what shape."""

import pytest
import tiny
import torch
from run_files import RunFiles
from tiny import FailingPurifier, IdentityPurifier, ScalingPurifier
from torch import nn
from torch.utils.data import DataLoader

from lit_purify.attacks import PGD
from lit_purify.callbacks import AdversarialExamples, ImageGrid, Records, images
from lit_purify.classifiers import from_module
from lit_purify.data import CIFAR10DataModule
from lit_purify.modules import PurifiedClassifier
from lit_purify.types import InputError


@pytest.fixture
def grids(monkeypatch):
    """The columns of every grid that is drawn; it is drawn all the same."""
    drawn = []

    def spy(columns, rows, draw=images.image_grid):
        drawn.append(columns)
        return draw(columns, rows)

    monkeypatch.setattr(images, "image_grid", spy)
    return drawn


def test_columns_before_and_behind_the_purifier(npz, tmp_path, grids):
    module = PurifiedClassifier(
        ScalingPurifier(factor=0.5), tiny.classifier(), protocols=("base", "transfer")
    )
    data = CIFAR10DataModule(source=npz, batch_size=4)
    _, seen = tiny.evaluate(module, data, ImageGrid(count=2), folder=tmp_path)
    base, transfer = grids
    assert list(base) == ["clean", "adversarial", "difference"]
    clean, attacked = tiny.images_and_labels(7)[0][:2], seen.adversarial("fixed")[:2]
    assert torch.equal(base["adversarial"], seen.adversarial("base")[:2])
    assert torch.equal(transfer["clean"], clean)
    assert torch.equal(transfer["adversarial"], attacked)
    assert torch.equal(transfer["difference purified"], 0.5 * attacked - 0.5 * clean)
    assert {path.stem for path in tmp_path.glob("*.png")} == {"images_base", "images_transfer"}


@pytest.mark.parametrize("lost", [False, True])
def test_a_resumed_run_draws_the_first_images_or_lets_them_be(npz, tmp_path, grids, lost):
    def run(purifier, *, resume=False):
        module = PurifiedClassifier(purifier, tiny.classifier(), protocols=("fixed",))
        attack = AdversarialExamples(PGD(steps=1))
        trainer = tiny.trainer(tmp_path, attack, ImageGrid(), Records(resume=resume))
        trainer.test(module, CIFAR10DataModule(source=npz, batch_size=3), verbose=False)

    with pytest.raises(RuntimeError, match="fails"):
        run(FailingPurifier(at=6))
    assert RunFiles(tmp_path).batches == [0, 3]
    grids.clear()
    if lost:  # as where another process did the second batch while the first was killed
        (tmp_path / "records" / "batch_00000000.safetensors").unlink()
    run(FailingPurifier(at=7), resume=True)
    shown = [columns["clean"] for columns in grids]
    assert len(shown) == lost
    everything = tiny.images_and_labels(7)[0]
    for clean in shown:
        assert torch.equal(clean, everything[:3])
    # This purifier changes nothing.
    recorded = RunFiles(tmp_path).tensors
    eight_bits = {
        "clean": everything,
        "purified": everything,
        "fixed": recorded["fixed/adversarial"],
    }
    for name, wanted in eight_bits.items():
        assert torch.equal(recorded[f"image/{name}"], (255 * wanted).round().byte())


def test_what_eight_bits_cannot_hold():
    odd = torch.tensor([-1.0, 0.2, 2.0, torch.nan, torch.inf, -torch.inf])
    assert images._in_8_bits(odd).tolist() == [0, 51, 255, 0, 255, 0]


def run_of_channels(channels, folder):
    """A test of images of so many channels, from a loader that knows no data set."""
    image = torch.linspace(0, 1, channels * 64).view(channels, 8, 8)
    samples = [
        {"image": image, "label": torch.tensor(i), "index": torch.tensor(i)} for i in range(3)
    ]
    network = nn.Sequential(nn.Flatten(), nn.Linear(channels * 64, 3))
    module = PurifiedClassifier(
        IdentityPurifier(), from_module(network, 3, (channels, 8, 8)), protocols=("fixed",)
    )
    trainer = tiny.trainer(folder, AdversarialExamples(PGD(steps=1)), ImageGrid())
    trainer.test(module, DataLoader(samples, batch_size=2), verbose=False)


def test_grey_images(tmp_path, grids):
    run_of_channels(1, tmp_path)
    (columns,) = grids  # of the first batch alone
    assert columns["clean"].shape == (2, 1, 8, 8)
    assert (tmp_path / "images_fixed.png").exists()


def test_images_that_no_grid_can_show(tmp_path):
    with pytest.raises(InputError, match="channels"):
        run_of_channels(4, tmp_path)
