"""Randomness keyed by (base seed, dataset index, step): eqs. 12 and 13."""

import math
import random

import numpy as np
import pytest
import torch
from defences import chain
from oracles import draw, hash_by_hand, some_images
from torch import Tensor

from lit_purify.attacks import PGD
from lit_purify.diffusion import (
    FixedNoise,
    FreshNoise,
    NoiseSource,
    derive_seed,
    randomness,
    seed_hash,
)
from lit_purify.diffusion.binding import bound_randomness
from lit_purify.types import InputError, Process

LIKE = torch.zeros(1, 3, 8, 8)
BIG = [0, 1, 51, 52, 999, 2**16 + 1, 2**32 - 1, 2**32, 2**32 + 7, 2**63 + 5, 10**30]


def test_seed_hash_is_equation_13() -> None:
    for s in BIG:
        for i in BIG:
            for t in (0, 1, 2, 200, 201, 2**33 + 1):
                assert seed_hash(s, i, t) == hash_by_hand(s, i, t)


def test_seed_hash_of_values_worked_out_on_paper() -> None:
    assert seed_hash(0, 0, 0) == 0
    assert seed_hash(1, 0, 0) == 83492791
    assert seed_hash(0, 1, 0) == 73856093
    assert seed_hash(0, 0, 1) == 19349663
    # 100 p_i = 7385609300 = 3090642004 + 2**32
    assert seed_hash(0, 100, 0) == 3090642004
    # 2**32 is 0 modulo 2**32, whatever it is multiplied by
    assert seed_hash(2**32, 2**33, 2**34) == 0
    # p_s ^ p_i, digit by digit: 4F9FFB7 ^ 466F45D = 09F0BEA
    assert seed_hash(1, 1, 0) == 0x09F0BEA


def test_base_seeds_never_share_a_draw_of_one_sample_and_step() -> None:
    # p_s is odd, so s -> p_s s is one to one modulo 2**32, and XOR with a constant is too.
    hashes = {seed_hash(s, 17, 34) for s in range(20_000)}
    assert len(hashes) == 20_000


@pytest.mark.parametrize("arguments", [(-1, 0, 0), (0, -1, 0), (0, 0, -1)])
def test_negative_keys_are_refused(arguments: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="non-negative"):
        seed_hash(*arguments)
    with pytest.raises(ValueError, match="at least 0"):
        FixedNoise(-1)


@pytest.mark.parametrize("seed", [0, 3, 2**32 + 11])
@pytest.mark.parametrize("t", [1, 50, 1000])
def test_a_draw_is_that_of_a_generator_of_its_own(seed: int, t: int) -> None:
    indices = torch.tensor([0, 5, 9999])
    for process, slot in (("forward", 2 * t), ("reverse", 2 * t + 1)):
        got = FixedNoise(seed).normal(indices, process, t, like=LIKE)  # type: ignore[arg-type]
        for row, i in zip(got, indices.tolist(), strict=True):
            assert torch.equal(row, draw(seed, i, slot, (3, 8, 8)))


def test_neighbouring_rows_of_an_image_share_one_draw(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn, randn = [], torch.randn

    def counted(*args: object, **kwargs: object) -> Tensor:
        drawn.append(args)
        return randn(*args, **kwargs)  # type: ignore[call-overload, no-any-return]

    monkeypatch.setattr(torch, "randn", counted)
    indices = torch.tensor([7, 7, 7, 2, 7])
    got = FixedNoise(3).normal(indices, "reverse", 5, like=LIKE)
    assert len(drawn) == 3
    for row, i in zip(got, indices.tolist(), strict=True):
        assert torch.equal(row, draw(3, i, 11, (3, 8, 8)))
    got[0] = 0  # each row has memory of its own
    assert torch.equal(got[1], draw(3, 7, 11, (3, 8, 8)))


def test_uniform_draws_take_the_slot_zero() -> None:
    indices = torch.tensor([4, 0])
    got = FixedNoise(3).uniform(indices, like=LIKE)
    for row, i in zip(got, indices.tolist(), strict=True):
        generator = torch.Generator().manual_seed(hash_by_hand(3, i, 0))
        assert torch.equal(row, 2 * torch.rand(3, 8, 8, generator=generator) - 1)


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 2, 2), (1, 1, 17)])
@pytest.mark.parametrize("cached", [False, True])
def test_same_bits_at_every_batch_size_and_in_every_order(
    shape: tuple[int, ...], cached: bool
) -> None:
    indices = torch.arange(100, 164)
    noise = FixedNoise(2).cached(indices) if cached else FixedNoise(2)
    like = torch.zeros(1, *shape)
    whole = torch.stack([draw(2, i, 21, shape) for i in indices.tolist()])
    for size in (1, 7, 64):
        parts = [noise.normal(part, "reverse", 10, like=like) for part in indices.split(size)]
        assert torch.equal(torch.cat(parts), whole)
    order = torch.randperm(64, generator=torch.Generator().manual_seed(0))
    assert torch.equal(noise.normal(indices[order], "reverse", 10, like=like), whole[order])
    subset = order[:11]
    assert torch.equal(noise.normal(indices[subset], "reverse", 10, like=like), whole[subset])


def test_cached_draws_are_the_plain_ones_for_every_slot_and_law() -> None:
    indices = torch.tensor([8, 3, 5])
    plain, cached = FixedNoise(1), FixedNoise(1).cached(indices)
    rows = torch.tensor([2, 0])
    for _ in range(2):  # the second time from the cache
        for like in (LIKE, LIKE[..., :4], LIKE.double()):
            assert torch.equal(
                cached.uniform(indices[rows], like=like), plain.uniform(indices[rows], like=like)
            )
            for process in ("forward", "reverse"):
                for t in (1, 2):
                    got = cached.normal(indices[rows], process, t, like=like)  # type: ignore[arg-type]
                    want = plain.normal(indices[rows], process, t, like=like)  # type: ignore[arg-type]
                    assert torch.equal(got, want)
                    assert got.dtype == like.dtype


def test_caching_for_other_samples_starts_anew() -> None:
    first = FixedNoise(1).cached(torch.tensor([0, 1]))
    assert first.cached(torch.tensor([0, 1])) is first
    other = first.cached(torch.tensor([7]))
    got = other.normal(torch.tensor([7]), "forward", 3, like=LIKE)
    assert torch.equal(got[0], draw(1, 7, 6, (3, 8, 8)))


def test_float64_states_get_the_same_draws() -> None:
    single = FixedNoise(0).normal(torch.tensor([3]), "forward", 1, like=LIKE)
    double = FixedNoise(0).normal(torch.tensor([3]), "forward", 1, like=LIKE.double())
    assert torch.equal(double, single.double())


def test_draws_are_standard_normal_and_uncorrelated() -> None:
    """Moments within five standard errors."""
    like = torch.zeros(1, 1, 100, 100)
    keys: list[tuple[int, int, Process, int]] = [
        (0, 0, "forward", 1),
        (1, 0, "forward", 1),
        (0, 1, "forward", 1),
        (0, 0, "forward", 2),
        (0, 0, "reverse", 1),
        (0, 0, "reverse", 2),
    ]
    rows = torch.cat(
        [FixedNoise(s).normal(torch.tensor([i]), p, t, like=like) for s, i, p, t in keys]
    )
    rows = rows.flatten(1).double()
    n = rows.shape[1]
    assert (rows.mean(1).abs() < 5 / math.sqrt(n)).all()
    assert ((rows.var(1) - 1).abs() < 5 * math.sqrt(2 / n)).all()
    off_diagonal = rows.corrcoef() - torch.eye(len(keys))
    assert (off_diagonal.abs() < 5 / math.sqrt(n)).all()
    flat = FixedNoise(0).uniform(torch.arange(10), like=like).flatten().double()
    assert flat.min() >= -1
    assert flat.max() <= 1
    assert flat.mean().abs() < 5 / math.sqrt(3 * len(flat))
    assert (flat.square().mean() - 1 / 3).abs() < 5 * math.sqrt(4 / 45 / len(flat))


def next_seeds(source: NoiseSource, n: int) -> list[int]:
    return [source.next_configuration().seed for _ in range(n)]


def test_fresh_streams_share_no_seed() -> None:
    source = FreshNoise(0, "attack")
    seen = set(next_seeds(source, 1000))
    assert len(seen) == source.passes == 1000
    assert seen.isdisjoint(next_seeds(FreshNoise(0, "test"), 1000))
    assert seen.isdisjoint(next_seeds(FreshNoise(1, "attack"), 1000))
    assert derive_seed(0, "transfer", 0) not in seen


def test_the_kth_pass_can_be_repeated() -> None:
    seeds = next_seeds(FreshNoise(5, "attack"), 5)
    assert [next_seeds(FreshNoise(5, "attack", k), 1)[0] for k in range(5)] == seeds
    assert next_seeds(FreshNoise(5, "attack").cached(torch.arange(3)), 1) == seeds[:1]


def test_derived_seeds_depend_on_seed_purpose_and_keys() -> None:
    arguments = [(0, "a", 0), (1, "a", 0), (0, "b", 0), (0, "a", 1), (0, "a", 2**32), (0, "ab", 0)]
    seeds = [derive_seed(*each) for each in arguments]  # type: ignore[arg-type]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**32 for seed in seeds)
    assert seeds == [derive_seed(*each) for each in arguments]  # type: ignore[arg-type]


class GlobalState:
    """The state of every global random number generator."""

    def __init__(self) -> None:
        self.torch = torch.get_rng_state()
        self.numpy = np.random.get_state()  # noqa: NPY002
        self.python = random.getstate()

    def unchanged(self) -> bool:
        now = GlobalState()
        return (
            torch.equal(self.torch, now.torch)
            and all(np.array_equal(a, b) for a, b in zip(self.numpy, now.numpy, strict=True))
            and self.python == now.python
        )


@pytest.mark.parametrize("source", [FixedNoise(0), FreshNoise(0, "attack")])
def test_an_attacked_purification_leaves_the_global_generators_alone(source: NoiseSource) -> None:
    defence = chain(source, memory_budget_gib=0)
    before = GlobalState()
    found = PGD(steps=2)(defence, some_images(2), torch.tensor([0, 1]), torch.arange(2))
    assert before.unchanged()
    assert not torch.equal(found, some_images(2).float())


def test_randomness_takes_a_list_of_indices() -> None:
    with randomness(FixedNoise(1), [5, 9]):
        source, indices = bound_randomness()
    assert indices.tolist() == [5, 9]
    assert source.cached(indices) is source


@pytest.mark.parametrize("indices", [[0.5], "3", [[1]]])
def test_randomness_takes_indices_only(indices: object) -> None:
    with pytest.raises(InputError, match="dataset indices"), randomness(FixedNoise(1), indices):  # type: ignore[arg-type]
        pass


def test_randomness_binds_nests_and_unbinds() -> None:
    one, two = torch.tensor([3, 1]), torch.tensor([9])

    def seed_and_indices() -> tuple[int, list[int]]:
        source, indices = bound_randomness()
        return source.next_configuration().seed, indices.tolist()

    def fail() -> None:
        with randomness(FixedNoise(2), two):
            assert seed_and_indices() == (2, [9])
            raise KeyError

    with randomness(FixedNoise(1), one):
        with pytest.raises(KeyError):
            fail()
        assert seed_and_indices() == (1, [3, 1])
    with pytest.raises(RuntimeError, match="without randomness"):
        bound_randomness()
