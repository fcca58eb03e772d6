"""Data sets in torchvision's formats: which images, in which order, and what is refused."""

import layouts
import numpy as np
import pytest
import tiny
import torch
from torch import nn

from lit_purify import PGD, Defence, evaluate, from_module
from lit_purify.data import (
    ArrayDataModule,
    CIFAR100DataModule,
    FashionMNISTDataModule,
    MNISTDataModule,
    SVHNDataModule,
)
from lit_purify.data.torchvision_sets import TorchvisionDataModule
from lit_purify.modules import DenoiserTraining
from lit_purify.types import InputError

WRITE = {
    CIFAR100DataModule: layouts.cifar100,
    SVHNDataModule: layouts.svhn,
    MNISTDataModule: lambda root, patch: layouts.mnist(root),
    FashionMNISTDataModule: lambda root, patch: layouts.mnist(root, "FashionMNIST"),
}


@pytest.mark.parametrize("kind", WRITE, ids=lambda kind: kind.loader)
def test_images_are_those_of_the_files_in_their_order(kind, tmp_path, monkeypatch):
    test, train = WRITE[kind](tmp_path / "here", monkeypatch)
    data = kind(root=str(tmp_path / "here"), limit=3, batch_size=2, num_holdout=2)
    data.prepare_data()
    data.setup("test")
    batches = list(data.test_dataloader())
    assert [batch["index"].tolist() for batch in batches] == [[0, 1], [2]]
    images = torch.cat([batch["image"] for batch in batches]) * 255
    assert np.array_equal(images.round().byte().permute(0, 2, 3, 1).numpy(), test[0][:3])
    assert torch.cat([batch["label"] for batch in batches]).tolist() == test[1][:3].tolist()
    assert images.shape[1:] == data.image_shape
    given = ArrayDataModule(images=test[0], labels=test[1], limit=3)
    assert data.settings() == given.settings() | {
        "dataset": kind.dataset,
        "data": "torchvision",
        "batch_size": 2,
    }
    data.setup("fit")
    assert np.array_equal(data.train_set.images.permute(0, 2, 3, 1).numpy(), train[0][:4])
    assert data.val_set.labels.tolist() == train[1][4:].tolist()
    assert len(set(data.class_names)) == data.num_classes == len(data.class_names)


@pytest.mark.parametrize("kind", WRITE, ids=lambda kind: kind.loader)
def test_missing_files_say_what_to_type(kind, tmp_path):
    with pytest.raises(InputError, match=r"--data\.download true") as caught:
        kind(root=str(tmp_path / "none")).setup("test")
    assert "\n" not in str(caught.value)
    assert str(tmp_path / "none") in str(caught.value)
    assert not (tmp_path / "none").exists()


def test_a_failed_download_names_the_folder(tmp_path, monkeypatch):
    def fail(*args: object) -> None:
        raise OSError("no route")

    monkeypatch.setattr("torchvision.datasets.SVHN.download", fail)
    data = SVHNDataModule(root=str(tmp_path), download=True)
    with pytest.raises(InputError, match=r"no route.*test_32x32\.mat"):
        data.prepare_data()


def test_a_damaged_file_is_refused(tmp_path):
    layouts.mnist(tmp_path)
    path = tmp_path / "MNIST" / "raw" / "t10k-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:99])
    with pytest.raises(InputError, match="MNIST"):
        MNISTDataModule(root=str(tmp_path)).setup("test")


@pytest.mark.parametrize("kind", WRITE, ids=lambda kind: kind.loader)
def test_a_file_of_ones_own_claims_no_names(kind, tmp_path):
    channels, height, width = kind.image_shape
    images, labels = layouts.random_arrays(2, (height, width, channels), 10, 0)
    np.savez(tmp_path / "a.npz", images=images, labels=labels)
    data = kind(source=str(tmp_path / "a.npz"))
    data.setup("test")
    assert (data.class_names, data.dataset) == ((), "")
    assert "dataset" not in data.settings()
    with pytest.raises(InputError, match="my_images"):
        kind(source="my_images")


def test_images_in_colour_are_no_mnist(tmp_path):
    images, labels = layouts.random_arrays(2, (28, 28, 3), 10, 0)
    np.savez(tmp_path / "a.npz", images=images, labels=labels)
    with pytest.raises(InputError, match=r"RGB.*expected 28 x 28 pixels, grey"):
        MNISTDataModule(source=str(tmp_path / "a.npz")).setup("test")


def test_the_base_class_is_no_data_set():
    assert not hasattr(TorchvisionDataModule, "loader")


def test_cifar100_is_evaluated(tmp_path, monkeypatch):
    layouts.cifar100(tmp_path, monkeypatch)
    network = nn.Sequential(nn.Flatten(), nn.Linear(3072, 100))
    classifier = from_module(tiny.fill(network, seed=0, std=0.1), 100, (3, 32, 32))
    found = evaluate(
        Defence(classifier, tiny.IdentityPurifier()),
        CIFAR100DataModule(root=str(tmp_path), limit=4),
        attack=PGD(steps=1),
        root=tmp_path,
        progress=False,
    )
    assert [row["label"] for row in found.rows] == [0, 3, 6, 9]
    assert found.settings["dataset"] == "CIFAR-100"
    images, _ = layouts.random_arrays(5, (32, 32, 3), 100, 0)
    pixels = torch.from_numpy(images[:4]).permute(0, 3, 1, 2) / 255
    answers = classifier(pixels).argmax(1).tolist()
    assert [row["base/clean_prediction"] for row in found.rows] == answers


def test_grey_images_train_a_denoiser(tmp_path):
    layouts.mnist(tmp_path)
    data = MNISTDataModule(root=str(tmp_path), num_holdout=2, batch_size=2)
    module = DenoiserTraining(layouts.grey_denoiser())
    before = [weight.clone() for weight in module.denoiser.parameters()]
    tiny.trainer(tmp_path, max_steps=2).fit(module, data)
    after = list(module.denoiser.parameters())
    assert module.global_step == 2
    assert any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_a_denoiser_of_another_size_is_refused_before_training(tmp_path):
    layouts.mnist(tmp_path)
    data = MNISTDataModule(root=str(tmp_path), num_holdout=2, batch_size=2)
    with pytest.raises(InputError, match=r"\(3, 32, 32\).*\(1, 28, 28\)"):
        tiny.trainer(None, max_steps=1).fit(DenoiserTraining(tiny.denoiser()), data)
