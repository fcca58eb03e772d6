"""What was appended is there, bit for bit, after whatever stopped its process; merged, it is the
same bytes from however many processes and sessions, and however often it was interrupted."""

import errno
import json
import math
import multiprocessing
import os
import signal
import sys
from contextlib import closing, suppress
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from lit_purify.records import Column, MemoryStore, RunStore, SampleTable, store
from lit_purify.records.header import FORMAT, VERSION
from lit_purify.records.store import ROWS, TENSORS
from lit_purify.types import InputError

RUN = "a1b2"
N = 12
FLOATS = [
    *(0.1, 1 / 3, -0.0, 5e-324, -2.5e-310, sys.float_info.min, sys.float_info.max),
    *(math.inf, 1e300, float(torch.tensor(1e-45)), 2.0**53 + 2, math.nan),
]
GENERATOR = torch.Generator().manual_seed(0)
COLUMNS = {
    "index": Column(torch.arange(N)),
    "label": Column(torch.arange(N) - 2**62),
    "fixed/ok": Column(torch.arange(N) % 3 == 0),
    "fixed/rate": Column(torch.tensor(FLOATS, dtype=torch.float64)),
    "attack/rate": Column(torch.rand(N, generator=GENERATOR), torch.arange(N) % 5 > 0),
    "base/adversarial": Column(torch.rand(N, 3, 4, 2, generator=GENERATOR).transpose(2, 3)),
    "a/half": Column(torch.rand(N, 2, generator=GENERATOR).bfloat16()),
}
ALL = SampleTable(COLUMNS)
SPLIT = ([[8, 9], [2, 3], [4]], [[10, 11], [0, 1]], [[5, 6, 7]])
FULL = "No space left|File too large"

by_fork = pytest.mark.skipif(
    "fork" not in multiprocessing.get_all_start_methods(), reason="a process by fork"
)


def batch(*indices, **changes):
    """The samples of a batch, with some columns changed."""
    rows = torch.tensor(indices)
    columns = {name: column.take(rows) for name, column in COLUMNS.items()}
    return SampleTable(columns | changes)


def fill(folder, *ranks, run=RUN):
    """What processes leave that stop before the merge, each after its batches."""
    for rank, batches in enumerate(ranks):
        with closing(RunStore(folder, run, rank)) as open_store:
            for indices in batches:
                open_store.append(batch(*indices))
    return folder


def merge(folder):
    with closing(RunStore(folder, RUN)) as open_store:
        return open_store.merge()


def read(folder):
    with closing(RunStore(folder, RUN)) as open_store:
        return open_store.read()


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def bits(table):
    """Names, types, shapes and bytes."""
    return {
        (name, part): (values.dtype, values.shape, values.contiguous().view(torch.uint8).tolist())
        for name, column in table.columns.items()
        for part, values in column._asdict().items()
        if values is not None
    }


@pytest.fixture
def folder(tmp_path):
    return fill(tmp_path / "records", *SPLIT)


@pytest.fixture(scope="module")
def merged(tmp_path_factory):
    """The files of an undisturbed merge."""
    folder = fill(tmp_path_factory.mktemp("merged"), *SPLIT)
    merge(folder)
    return content(folder)


class TestWhatIsKeptOfABatch:
    """Counts of a measurement in the middle of a batch."""

    PART = {"index": torch.tensor([2, 3]), "a/sum": torch.tensor([[1.5, 2], [3, 4]])}  # noqa: RUF012

    def test_the_last_that_was_kept_until_the_batch_is_recorded(self, tmp_path):
        with closing(RunStore(tmp_path, RUN)) as one:
            assert one.empty
            one.keep(2, {"index": torch.tensor([2, 3])})
            one.keep(2, self.PART)
            assert not one.empty
        with closing(RunStore(tmp_path, RUN, 1)) as other:  # of another process or session
            found = other.kept(2)
            assert found.keys() == self.PART.keys()
            assert all(torch.equal(found[name], self.PART[name]) for name in found)
            assert other.kept(4) == {}
            assert other.done() == frozenset()
            other.append(batch(2, 3))
            assert other.kept(2) == {}

    def test_a_merge_leaves_none(self, folder, merged):
        with closing(RunStore(folder, RUN)) as one:
            one.keep(50, self.PART)
        merge(folder)
        assert content(folder) == merged

    def test_of_another_run_it_is_refused(self, tmp_path):
        with closing(RunStore(tmp_path, "c3")) as one:
            one.keep(2, self.PART)
        with closing(RunStore(tmp_path, RUN)) as other, pytest.raises(InputError, match="another"):
            other.kept(2)

    def test_in_memory_there_is_none(self):
        one = MemoryStore()
        one.keep(2, self.PART)
        assert one.kept(2) == {}


class TestRoundTrip:
    def test_bits(self, folder):
        assert bits(read(folder)) == bits(merge(folder)) == bits(read(folder)) == bits(ALL)
        assert load_file(folder / TENSORS).keys() == {*COLUMNS, "where/attack/rate"}

    def test_rows_are_strict_json(self, folder):
        merge(folder)
        lines = (folder / ROWS).read_text().splitlines()
        assert [json.loads(line, parse_constant=pytest.fail) for line in lines] == [*ALL.rows()]
        names = [name for name, column in COLUMNS.items() if column.values.ndim == 1]
        assert list(json.loads(lines[1]))[:2] == ["index", "label"]
        assert json.loads(lines[1]).keys() == set(names)
        assert json.loads(lines[0]).keys() == set(names) - {"attack/rate"}

    def test_a_batch_is_on_the_disk_before_append_returns(self, tmp_path):
        with closing(RunStore(tmp_path, RUN)) as open_store:
            assert open_store.done() == frozenset()
            for index in range(3):
                open_store.append(batch(index))
                with closing(RunStore(tmp_path, RUN, 1)) as other:
                    assert other.done() == open_store.done() == set(range(index + 1))

    def test_a_process_keeps_its_own_in_memory(self):
        memory = MemoryStore({"a/half"})
        assert len(memory.collect()) == 0
        for indices in ((3, 2), (7,)):
            memory.append(batch(*indices))
        kept = batch(2, 3, 7)
        del kept.columns["base/adversarial"]
        assert bits(memory.collect()) == bits(kept)


class TestMerge:
    @pytest.mark.parametrize(
        "ranks",
        [
            [[list(range(N))]],
            [[[i] for i in reversed(range(N))]],
            [[[i] for i in range(rank, N, 4)] for rank in range(4)],
        ],
    )
    def test_it_is_the_same_from_however_many_processes(self, tmp_path, merged, ranks):
        merge(fill(tmp_path, *ranks))
        assert content(tmp_path) == merged
        assert set(merged) == {ROWS, TENSORS}

    def test_a_merged_run_goes_on(self, tmp_path, merged):
        folder = fill(tmp_path / "records", [[0, 1], [8, 9, 10, 11]])
        merge(folder)
        fill(folder, [[4, 5]], [[2, 3], [6, 7]])
        assert bits(read(folder)) == bits(ALL)
        merge(folder)
        assert content(folder) == merged

    def test_merging_again_changes_nothing_and_mends_the_rows(self, folder, merged):
        for _ in range(2):
            assert bits(merge(folder)) == bits(ALL)
            assert content(folder) == merged
            (folder / ROWS).unlink()

    def test_of_nothing(self, tmp_path):
        assert len(merge(tmp_path)) == 0
        assert content(tmp_path) == {ROWS: b""}

    def test_what_killed_processes_left_is_removed(self, folder, merged):
        for name in (".rows.jsonl.17.tmp", ".batch_00000003.safetensors.18.tmp", ".rank_7.lock"):
            (folder / name).write_bytes(b"half")
        merge(folder)
        assert content(folder) == merged

    def test_the_first_process_merges_and_the_others_know_nothing(self, folder, merged):
        before = content(folder)
        with closing(RunStore(folder, RUN, 1)) as other:
            assert len(other.collect()) == 0
        assert content(folder) == before
        with closing(RunStore(folder, RUN)) as first:
            assert bits(first.collect()) == bits(ALL)
        assert content(folder) == merged


class TestTwice:
    def test_identical_samples_count_once(self, folder, merged):
        fill(folder, [[1, 7], [3]], [[11, 4]])
        assert bits(merge(folder)) == bits(ALL)
        assert content(folder) == merged

    @pytest.mark.parametrize("earlier", [False, True])
    def test_contradictory_ones_are_refused(self, folder, earlier):
        if earlier:
            merge(folder)
        with closing(RunStore(folder, RUN)) as open_store:
            open_store.append(batch(7, 4, **{"label": Column(torch.tensor([5, 5]))}))
            before = content(folder)
            for attempt in (open_store.read, open_store.merge):
                with pytest.raises(InputError, match=r"index 4 .*label") as caught:
                    attempt()
                assert str(folder) in str(caught.value)
                assert content(folder) == before


@pytest.fixture
def merge_until(monkeypatch):
    """A function that merges until so many file operations have happened; whether that was all."""

    def merge_until(folder, operations):
        left = operations

        def limited(function):
            def wrapped(*args, **kwargs):
                nonlocal left
                left -= 1
                if left == -1:  # later ones are those of a context that is left
                    raise KeyboardInterrupt
                return function(*args, **kwargs)

            return wrapped

        with closing(RunStore(folder, RUN)) as open_store, monkeypatch.context() as patch:
            patch.setattr(store, "write_whole", limited(store.write_whole))
            patch.setattr(Path, "unlink", limited(Path.unlink))
            with suppress(KeyboardInterrupt):
                open_store.merge()
                return True
        return False

    return merge_until


class TestInterrupted:
    @pytest.mark.parametrize("earlier", [False, True])
    def test_anywhere(self, tmp_path, merged, merge_until, earlier):
        """``earlier``: into the merged records of a first session."""
        for operations in range(100):
            folder = tmp_path / str(operations)
            if earlier:
                merge(fill(folder, [[8, 9]], [[5, 6, 7]]))
                fill(folder, [[2, 3], [4]], [[10, 11], [0, 1]])
            else:
                fill(folder, *SPLIT)
            finished = merge_until(folder, operations)
            assert bits(read(folder)) == bits(ALL)  # nothing is lost in between
            assert bits(merge(folder)) == bits(ALL)
            assert content(folder) == merged
            if finished:
                break
        assert operations > 7  # two files, at least four batches

    def test_twice_in_a_row_with_more_batches_in_between(self, tmp_path, merged, merge_until):
        for first in range(0, 14, 2):
            for second in range(1, 14, 4):
                folder = fill(tmp_path / f"{first} {second}", [[8, 9], [2, 3]], [[10, 11]])
                merge_until(folder, first)
                fill(folder, [[4]], [[0, 1]], [[5, 6, 7]])
                merge_until(folder, second)
                assert bits(merge(folder)) == bits(ALL)
                assert content(folder) == merged


def header(**changes):
    return {"header": json.dumps({"format": FORMAT, "version": VERSION, "run": RUN} | changes)}


DAMAGE = {
    **{f"cut to {size}": ("damaged", size) for size in (0, 4, 20, -1)},
    "no header": (FORMAT, None),
    "half a header": ("damaged", {"header": "{"}),
    "a header of another kind": (FORMAT, {"header": "[]"}),
    "foreign": (FORMAT, header(format="other")),
    "of another version": (f"version {VERSION + 1}", header(version=VERSION + 1)),
    "of another run": ("another configuration", header(run="other")),
}


class TestDamaged:
    @pytest.mark.parametrize("name", [TENSORS, "batch_00000005.safetensors"])
    @pytest.mark.parametrize("damage", DAMAGE)
    def test_it_is_refused_and_named(self, folder, name, damage):
        keyword, change = DAMAGE[damage]
        if name == TENSORS:
            merge(folder)
        path = folder / name
        if isinstance(change, int):
            path.write_bytes(path.read_bytes()[:change])
        else:
            save_file(load_file(path), path, change)
        before = content(folder)
        with closing(RunStore(folder, RUN)) as open_store:
            for attempt in (open_store.done, open_store.read, open_store.merge):
                with pytest.raises(InputError, match=f"{name} .*{keyword}"):
                    attempt()
        assert content(folder) == before

    def test_a_batch_that_is_deleted_is_evaluated_again(self, folder, merged):
        (folder / "batch_00000005.safetensors").unlink()
        with closing(RunStore(folder, RUN)) as open_store:
            assert open_store.done() == set(range(N)) - {5, 6, 7}
            open_store.append(batch(5, 6, 7))
        merge(folder)
        assert content(folder) == merged

    def test_a_file_without_indices(self, tmp_path):
        save_file({"label": torch.zeros(2)}, tmp_path / "batch_00000000.safetensors", header())
        with (
            closing(RunStore(tmp_path, RUN)) as open_store,
            pytest.raises(InputError, match="index"),
        ):
            open_store.done()

    def test_a_second_batch_of_a_sample_does_not_replace_the_first(self, folder):
        before = content(folder)
        with (
            closing(RunStore(folder, RUN)) as open_store,
            pytest.raises(InputError, match="index 5"),
        ):
            open_store.append(batch(5, 0))
        assert content(folder) == before


class TestOneWriter:
    @pytest.mark.parametrize("rank", [0, 2])
    def test_the_run_is_refused_while_a_process_of_it_writes(self, tmp_path, rank):
        first = RunStore(tmp_path, RUN, rank)
        for again in {0, rank}:
            with pytest.raises(InputError, match="another process"):
                RunStore(tmp_path, RUN, again)
        first.append(batch(0))
        first.close()
        assert content(tmp_path).keys() == {"batch_00000000.safetensors"}  # and no lock
        fill(tmp_path, [[1]])
        assert len(read(tmp_path)) == 2

    def test_the_processes_of_a_run_write_side_by_side(self, tmp_path):
        stores = [RunStore(tmp_path, RUN, rank) for rank in range(3)]
        for rank, open_store in enumerate(stores):
            open_store.append(batch(rank))
        assert bits(stores[2].read()) == bits(batch(0, 1, 2))
        for open_store in stores:
            open_store.close()

    @by_fork
    def test_a_killed_process_holds_nothing(self, tmp_path):
        here, there = multiprocessing.Pipe()

        def write():
            open_store = RunStore(tmp_path, RUN)
            open_store.append(batch(0))
            there.send("recorded")
            signal.pause()

        process = multiprocessing.get_context("fork").Process(target=write, daemon=True)
        process.start()
        assert here.poll(60)
        with pytest.raises(InputError, match="another process"):
            RunStore(tmp_path, RUN)
        process.kill()
        process.join()
        fill(tmp_path, [[1]])
        assert bits(read(tmp_path)) == bits(batch(0, 1))


class TestFullDisk:
    @by_fork
    @pytest.mark.parametrize("room", [0, 1, 40, "all but one"])
    def test_a_batch_that_does_not_fit_leaves_no_trace(self, tmp_path, room):
        resource = pytest.importorskip("resource")
        name = "batch_00000001.safetensors"
        size = len(content(fill(tmp_path / "other", [[1]]))[name])
        folder = tmp_path / "records"

        def limit(room):
            resource.setrlimit(resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))

        def run():
            with closing(RunStore(folder, RUN)) as open_store:
                open_store.append(batch(0))
                before = content(folder)
                limit(size - 1 if room == "all but one" else room)
                for _ in range(3):  # however often one tries
                    with pytest.raises(OSError, match=FULL) as caught:
                        open_store.append(batch(1))
                    assert caught.value.filename == str(folder / name)
                    assert content(folder) == before
                limit(resource.RLIM_INFINITY)
                open_store.append(batch(1))  # room again

        process = multiprocessing.get_context("fork").Process(target=run, daemon=True)
        process.start()
        process.join(60)
        assert process.exitcode == 0
        assert bits(read(folder)) == bits(batch(0, 1))

    def test_a_disk_that_is_full_only_when_it_is_asked_to_keep(self, tmp_path, monkeypatch):
        """File systems over a network may say so first at fsync, when all seemed written."""

        def full(descriptor):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        with closing(RunStore(tmp_path, RUN)) as open_store:
            open_store.append(batch(0))
            before = content(tmp_path)
            with monkeypatch.context() as patch:
                patch.setattr(os, "fsync", full)
                with pytest.raises(OSError, match=FULL):
                    open_store.append(batch(1))
            assert content(tmp_path) == before
            open_store.append(batch(1))
            assert open_store.done() == {0, 1}
