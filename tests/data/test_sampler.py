"""The shared batch sampler, alone and under Lightning."""

import json

import numpy as np
import pytest
import seen_indices
import torch
from processes import finish, forks
from seen_indices import seen
from tiny import training
from torch.distributed import HashStore
from torch.utils.data import DataLoader, DistributedSampler

from lit_purify.data import ArrayDataModule
from lit_purify.data.peers import Peers
from lit_purify.data.plan import plan_batches
from lit_purify.data.sampler import SharedBatchSampler, TrainingSampler, shared_sampler


@pytest.mark.parametrize("n", [0, 1, 2, 7, 8])
@pytest.mark.parametrize("world", [1, 2, 3, 5])
def test_every_batch_goes_to_one_process(n, world):
    batches = [[2 * k, 2 * k + 1] for k in range(n)]
    samplers = [
        SharedBatchSampler(batches, Peers(HashStore(), rank, world)) for rank in range(world)
    ]
    for _ in range(2):  # also when it is asked again
        taken = [list(sampler) for sampler in samplers]
        assert taken == [batches[rank::world] for rank in range(world)]
    assert {len(sampler) for sampler in samplers} == {n}
    assert {sampler.num_items for sampler in samplers} == {2 * n}


def test_lightning_leaves_it_alone():
    sampler = SharedBatchSampler([[0, 1], [2]], Peers(HashStore()))
    assert isinstance(sampler, DistributedSampler)  # or Lightning would put its own in its place
    sampler.set_epoch(4)
    assert list(sampler) == [[0, 1], [2]]


def test_rank_outside_the_world_is_refused():
    with pytest.raises(ValueError, match="rank"):
        SharedBatchSampler([[0]], Peers(HashStore(), 2, 2))


def module(n, **options):
    images = np.arange(n, dtype=np.uint8).reshape(n, 1, 1, 1).repeat(3, axis=3)
    data = ArrayDataModule(images=images, labels=np.arange(n) % 3, **options)
    data.test_set.indices = 10 * (data.test_set.indices + 1)
    return data


@pytest.mark.parametrize("num_workers", [0, 2])
def test_the_loader_gives_the_samples_of_the_plan(num_workers):
    data = module(7, batch_size=3, num_workers=num_workers)
    data.done = frozenset({20, 70})
    loader = data.test_dataloader()
    before = torch.get_rng_state()
    batches = list(loader)
    assert torch.equal(torch.get_rng_state(), before)
    assert [batch["index"].tolist() for batch in batches] == [[10, 30], [40, 50, 60]]
    assert [batch["label"].tolist() for batch in batches] == [[0, 2], [0, 1, 2]]
    pixels = torch.cat([batch["image"] for batch in batches])[:, 0, 0, 0]
    assert (pixels * 255).round().tolist() == [0, 2, 3, 4, 5]


def test_the_sampler_of_a_loader_is_found():
    data = module(3)
    loader = data.test_dataloader()
    assert shared_sampler(loader) is loader.sampler
    assert shared_sampler(DataLoader(data.test_set)) is None
    assert shared_sampler(None) is None


@pytest.mark.parametrize("stage", ["test", "predict"])
def test_lightning_on_one_process(stage):
    assert seen(stage, 3) == [[0, 1], [2]]


@pytest.mark.slow
@pytest.mark.parametrize(("stage", "n"), [("test", 7), ("test", 1), ("predict", 5), ("predict", 1)])
def test_lightning_on_two_processes(tmp_path, stage, n):
    running = forks([stage, str(n)], tmp_path, 2, program=seen_indices.main)
    assert finish(running) == [0, 0], [run.printed for run in running]
    batches = plan_batches(range(n), 2, processes=2)
    found = [json.loads(run.printed.splitlines()[-1]) for run in running]
    assert found == [batches[rank::2] for rank in (0, 1)]


def order(trainer, n=23, batch_size=3):
    return list(TrainingSampler(range(n), batch_size=batch_size, seed=5, trainer=trainer))


@pytest.mark.parametrize("world", [1, 2])
def test_a_training_takes_up_the_rest_of_an_epoch(world):
    batches = 23 // world // 3
    for epoch in range(2):
        parts = []
        for rank in range(world):
            plain = DistributedSampler(range(23), world, rank, seed=5, drop_last=True)
            plain.set_epoch(epoch)
            whole = list(plain)
            for done in range(batches):
                place = training(epoch * batches + done, rank=rank, world=world)
                assert order(place) == whole[3 * done :]
            parts += whole
        assert len(set(parts)) == len(parts)


@pytest.mark.parametrize(("limit", "batches"), [(1.0, 7), (4, 4), (100, 7), (0.5, 3), (1, 1)])
def test_an_epoch_is_as_long_as_the_trainer_makes_it(limit, batches):
    first, second = (order(training(k * batches, limit=limit)) for k in (0, 1))
    assert first != second
    assert sorted(first) == sorted(second) == list(range(23))
    if batches > 1:
        assert order(training(batches - 1, limit=limit)) == first[3 * (batches - 1) :]


def test_without_a_trainer_the_epoch_is_the_callers():
    sampler = TrainingSampler(range(23), batch_size=3, seed=5, trainer=None)
    sampler.set_epoch(1)
    assert list(sampler) == order(training(7))
