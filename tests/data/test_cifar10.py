"""CIFAR10DataModule: which images, in which order, under which index."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tiny import training
from torch.utils.data import DistributedSampler, SequentialSampler

from lit_purify.data import sources
from lit_purify.data.arrays import ImageArrays
from lit_purify.data.cifar10 import CIFAR10DataModule
from lit_purify.types import InputError


def _test_batches(**arguments: Any) -> list:
    data = CIFAR10DataModule(**arguments)
    data.setup("test")
    return list(data.test_dataloader())


def _save(path: Path, n: int, size: int = 32, label: int | None = None) -> str:
    images = np.zeros((n, size, size, 3), np.uint8)
    images[:, 0, 0, 0] = np.arange(n)
    labels = np.arange(n) % 10 if label is None else np.full(n, label)
    np.savez(path, images=images, labels=labels)
    return str(path)


def test_batches_are_the_embedded_images_in_order():
    batches = _test_batches(limit=5, batch_size=2)
    images, labels = sources.embedded()
    assert [b["index"].tolist() for b in batches] == [[0, 1], [2, 3], [4]]
    assert torch.cat([b["label"] for b in batches]).tolist() == labels[:5].tolist()
    stacked = torch.cat([b["image"] for b in batches])
    assert stacked.shape == (5, 3, 32, 32)
    restored = (stacked * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    assert np.array_equal(restored, images[:5])
    (batch,) = _test_batches(indices=[900, 4, 17], limit=2)
    assert batch["index"].tolist() == [900, 4]
    assert torch.equal(batch["image"][1], stacked[4])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_holdout": -1}, "num_holdout"),
        ({"seed": -1}, "seed"),
        ({"source": "embeded"}, "'embeded'"),
        ({"train_source": "embedded"}, "'embedded'"),
    ],
)
def test_refused_arguments(arguments, message):
    with pytest.raises(InputError, match=message):
        CIFAR10DataModule(**arguments)


@pytest.mark.parametrize(
    ("wrong", "message"), [({"size": 28}, "28 x 28"), ({"label": 10}, r"0 \.\. 9")]
)
def test_another_data_set_is_refused(tmp_path, wrong, message):
    with pytest.raises(InputError, match=message):
        _test_batches(source=_save(tmp_path / "a.npz", 3, **wrong), limit=1)


def _fit(tmp_path: Path, **arguments: Any) -> CIFAR10DataModule:
    source = _save(tmp_path / "train.npz", 20)
    trainer = arguments.pop("trainer", None)
    data = CIFAR10DataModule(train_source=source, batch_size=4, **{"num_holdout": 6} | arguments)
    data.trainer = trainer
    data.setup("fit")
    return data


def test_training_shuffles_and_holds_out_the_last_images(tmp_path):
    data = _fit(tmp_path)
    train, val = data.train_dataloader(), data.val_dataloader()
    assert isinstance(train.sampler, DistributedSampler)
    assert train.sampler.shuffle
    assert isinstance(val.sampler, SequentialSampler)
    assert train.drop_last
    assert len(train) == 3
    seen = torch.cat([b["index"] for b in train])
    assert seen.unique().numel() == 12
    assert seen.max() < 14
    assert torch.cat([b["index"] for b in val]).tolist() == [14, 15, 16, 17, 18, 19]


def _order(tmp_path: Path, epoch: int = 0, processes: int = 1, rank: int = 0, **options) -> list:
    """Indices of one process in an epoch of training, in batches of one: none is dropped."""
    data = _fit(tmp_path, **options)
    data.batch_size = 1
    data.trainer = training(epoch * 14 // processes, rank=rank, world=processes)
    return torch.cat([b["index"] for b in data.train_dataloader()]).tolist()


def test_training_order_comes_from_the_seed_and_the_epoch_alone(tmp_path):
    before = torch.get_rng_state()
    first = _order(tmp_path, seed=1)
    # A resumed training goes on in the order of its epoch.
    assert first == _order(tmp_path, seed=1)
    assert first not in (_order(tmp_path, seed=2), _order(tmp_path, 1, seed=1))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("epoch", [0, 3])
def test_processes_train_on_parts_of_one_order(tmp_path, epoch):
    alone = _order(tmp_path, epoch)
    assert sorted(alone) == list(range(14))
    for processes in (2, 7):
        parts = [_order(tmp_path, epoch, processes, rank) for rank in range(processes)]
        assert parts == [alone[rank::processes] for rank in range(processes)]


@pytest.mark.parametrize(
    ("device", "free", "workers", "moved"),
    [
        ("cuda", 4 * 20 * 3072, 0, True),
        ("cuda", 4 * 14 * 3072, 0, True),
        ("cuda", 4 * 14 * 3072 - 1, 0, False),  # the 14 images take more than a quarter
        ("cuda", 2**40, 2, False),  # other processes load
        ("cpu", 0, 0, False),
    ],
)
def test_training_images_are_on_the_gpu_where_they_fit(
    device, free, workers, moved, tmp_path, monkeypatch
):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 2**41))
    monkeypatch.setattr(ImageArrays, "to", lambda images, device: ("moved", device))
    place = training()
    place.strategy = SimpleNamespace(root_device=torch.device(device))
    data = _fit(tmp_path, trainer=place, num_workers=workers)
    assert (data.train_set == ("moved", torch.device(device))) == moved


def test_too_few_training_images_are_refused(tmp_path):
    with pytest.raises(InputError, match="num_holdout"):
        _fit(tmp_path, num_holdout=17)


@pytest.mark.parametrize(("stage", "train"), [("fit", True), ("test", False)])
def test_torchvision_source(monkeypatch, stage, train):
    def stub(name: str, root: str, **arguments: bool) -> tuple[np.ndarray, np.ndarray]:
        calls.append((name, root, arguments))
        return np.zeros((8, 32, 32, 3), np.uint8), np.zeros(8, int)

    calls: list[tuple[str, str, dict[str, bool]]] = []
    monkeypatch.setattr(sources, "torchvision", stub)
    data = CIFAR10DataModule(source="torchvision", root="here", num_holdout=2, batch_size=2)
    data.setup(stage)
    assert calls == [("CIFAR10", "here", {"train": train, "download": True})]
