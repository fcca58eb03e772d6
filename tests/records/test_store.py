"""Merging journals: sorted, each sample once, the same bytes however often it is interrupted."""

import json
import random
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from lit_purify.report.journal import Journal
from safetensors.torch import load_file

from lit_purify.records.store import (
    ROWS,
    TENSORS,
    journal_path,
    merge,
    read_rows,
    read_tensors,
    records_folder,
)
from lit_purify.report import records
from lit_purify.types import InputError

RUN = "a1b2"
IMAGES = torch.rand(12, 3, 2, 2, generator=torch.Generator().manual_seed(0))


def row(index, protocol="fixed", seed=0, **columns):
    return {"index": index, "protocol": protocol, "seed": seed, "label": 3, **columns}


def batch(*indices):
    """Rows and tensors of a batch of samples."""
    rows = [row(i, p, ok=i % 3 == 0, rate=1 / (i + 7)) for i in indices for p in ("base", "fixed")]
    index = torch.tensor(indices)
    return rows, {"index": index, "base/adversarial": IMAGES[index], "a/x": 1 - IMAGES[index]}


ALL_ROWS = batch(*range(12))[0]


def fill(folder, *ranks, run=RUN):
    """Journals of the batches of each rank."""
    folder.mkdir(parents=True, exist_ok=True)
    for rank, batches in enumerate(ranks):
        journal = Journal(journal_path(folder, rank), run)
        for indices in batches:
            journal.append(*batch(*indices))
        journal.close()
    return folder


SPLIT = ([[8, 9], [2, 3], [4]], [[10, 11], [0, 1]], [[5, 6, 7]])


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def folder(tmp_path):
    return fill(tmp_path / "records", *SPLIT)


@pytest.fixture(scope="module")
def merged(tmp_path_factory):
    """The files of an undisturbed merge."""
    folder = fill(tmp_path_factory.mktemp("merged"), *SPLIT)
    merge(folder, RUN)
    return content(folder)


class TestMerge:
    def test_rows_are_sorted_and_complete(self, folder):
        assert read_rows(folder, RUN) == ALL_ROWS
        assert merge(folder, RUN) == ALL_ROWS
        lines = (folder / ROWS).read_text().splitlines()
        assert [json.loads(line) for line in lines] == ALL_ROWS
        assert read_rows(folder, RUN) == ALL_ROWS

    def test_by_index_then_seed_then_protocol(self, tmp_path):
        rows = [row(i, p, s) for i in (2, 10, 1) for p in ("transfer", "base") for s in (1, 0)]
        random.Random(0).shuffle(rows)
        journal = Journal(journal_path(tmp_path, 0), RUN)
        journal.append(rows, {})
        journal.close()
        names = [(r["index"], r["seed"], r["protocol"]) for r in merge(tmp_path, RUN)]
        assert names == [
            (i, s, p) for i in (1, 2, 10) for s in (0, 1) for p in ("base", "transfer")
        ]

    def test_tensors_are_those_appended_in_the_order_of_the_index(self, folder):
        before = read_tensors(folder, RUN)
        merge(folder, RUN)
        for tensors in (before, read_tensors(folder, RUN), load_file(folder / TENSORS)):
            assert set(tensors) == {"index", "base/adversarial", "a/x"}
            assert tensors["index"].tolist() == list(range(12))
            assert torch.equal(tensors["base/adversarial"], IMAGES)
            assert torch.equal(tensors["a/x"], 1 - IMAGES)

    def test_only_the_two_files_are_left(self, folder):
        merge(folder, RUN)
        assert set(content(folder)) == {ROWS, TENSORS}

    def test_it_is_the_same_from_however_many_processes_and_sittings(self, tmp_path, merged):
        splits = [
            [[list(range(12))]],
            [[[i] for i in reversed(range(12))]],
            [[[i] for i in range(rank, 12, 4)] for rank in range(4)],
        ]
        for number, ranks in enumerate(splits):
            folder = fill(tmp_path / str(number), *ranks)
            merge(folder, RUN)
            assert content(folder) == merged

    def test_a_merged_run_goes_on(self, tmp_path, merged):
        folder = fill(tmp_path / "records", [[0, 1], [8, 9, 10, 11]])
        merge(folder, RUN)
        fill(folder, [[4, 5]], [[2, 3], [6, 7]])
        assert read_rows(folder, RUN) == ALL_ROWS
        merge(folder, RUN)
        assert content(folder) == merged

    def test_merging_again_changes_nothing(self, folder, merged):
        for _ in range(2):
            assert merge(folder, RUN) == ALL_ROWS
            assert content(folder) == merged

    def test_without_tensors_there_is_no_file_of_them(self, tmp_path):
        journal = Journal(journal_path(tmp_path, 0), RUN)
        journal.append([row(0)], {})
        journal.close()
        merge(tmp_path, RUN)
        assert set(content(tmp_path)) == {ROWS}
        assert read_tensors(tmp_path, RUN) == {}

    def test_of_nothing(self, tmp_path):
        assert merge(tmp_path, RUN) == []
        assert (tmp_path / ROWS).read_bytes() == b""

    def test_what_killed_processes_left_is_removed(self, folder, merged):
        for name in (".rows.jsonl.17.tmp", ".00000003.safetensors.18.tmp", ".rank_7.jsonl.lock"):
            (folder / name).write_bytes(b"half")
        merge(folder, RUN)
        assert content(folder) == merged

    def test_a_torn_line_and_its_tensors_are_left_out(self, tmp_path):
        folder = fill(tmp_path / "records", [[0, 1], [2, 3]])
        path = journal_path(folder, 0)
        path.write_bytes(path.read_bytes()[:-5])
        assert merge(folder, RUN) == batch(0, 1)[0]
        assert load_file(folder / TENSORS)["index"].tolist() == [0, 1]
        assert set(content(folder)) == {ROWS, TENSORS}

    def test_a_batch_that_is_repeated_after_its_line_was_torn(self, folder, merged):
        path = journal_path(folder, 1)
        path.write_bytes(path.read_bytes()[:-5])
        fill(folder, [[0], [1]])  # in smaller batches, by another process
        merge(folder, RUN)
        assert content(folder) == merged

    def test_where_the_records_of_a_run_are(self, tmp_path):
        assert records_folder(tmp_path) == tmp_path / "records"
        assert journal_path(tmp_path, 2) == tmp_path / "rank_2.jsonl"


class TestTwice:
    def test_identical_rows_count_once(self, folder, merged):
        fill(folder, [], [[2, 3], [7, 0]])
        assert merge(folder, RUN) == ALL_ROWS
        assert content(folder) == merged

    @pytest.mark.parametrize(
        "changed", [row(4, rate=2.0), row(4, ok=None), row(4), {**row(4), "label": 5}]
    )
    def test_different_rows_are_refused(self, folder, changed):
        journal = Journal(journal_path(folder, 3), RUN)
        journal.append([changed], {})
        journal.close()
        before = content(folder)
        for attempt in (read_rows, merge):
            with pytest.raises(InputError, match="second row for index 4, protocol fixed, seed 0"):
                attempt(folder, RUN)
            assert content(folder) == before

    def test_the_message_names_the_file_of_the_second(self, folder):
        merge(folder, RUN)
        journal = Journal(journal_path(folder, 5), RUN)
        journal.append([row(11, "base")], {})
        journal.close()
        with pytest.raises(InputError, match=r"rank_5.jsonl has a second row .* delete the line"):
            merge(folder, RUN)

    def test_rows_of_another_protocol_or_seed_are_others(self, tmp_path):
        rows = [row(0, p, s, rate=10.0 * s) for p in ("base", "fixed") for s in (0, 1)]
        journal = Journal(journal_path(tmp_path, 0), RUN)
        journal.append(rows, {})
        journal.close()
        assert len(merge(tmp_path, RUN)) == 4


class Power:
    """Lets a number of file operations happen; fails at the next one, before or after it."""

    def __init__(self, operations, *, after):
        self.left = operations
        self.after = after

    def wrap(self, function):
        def wrapped(*args, **kwargs):
            self.left -= 1
            last = self.left == -1  # operations are nested: write_whole removes its temporary file
            if last and not self.after:
                raise KeyboardInterrupt
            result = function(*args, **kwargs)
            if last:
                raise KeyboardInterrupt
            return result

        return wrapped

    def install(self, patch):
        patch.setattr(records, "write_whole", self.wrap(records.write_whole))
        patch.setattr(Path, "unlink", self.wrap(Path.unlink))


class TestInterrupted:
    @pytest.mark.parametrize("after", [False, True])
    @pytest.mark.parametrize("earlier", [False, True])
    def test_anywhere(self, tmp_path, merged, monkeypatch, earlier, after):
        """``earlier``: into the merged records of a first sitting."""
        for operations in range(100):
            folder = tmp_path / str(operations)
            if earlier:
                fill(folder, [[8, 9]], [[5, 6, 7]])
                merge(folder, RUN)
                fill(folder, [[2, 3], [4]], [[10, 11], [0, 1]])
            else:
                fill(folder, *SPLIT)
            finished = False
            with monkeypatch.context() as patch:
                Power(operations, after=after).install(patch)
                with suppress(KeyboardInterrupt):
                    merge(folder, RUN)
                    finished = True
            assert read_rows(folder, RUN) == ALL_ROWS  # nothing is lost in between
            assert torch.equal(read_tensors(folder, RUN)["base/adversarial"], IMAGES)
            assert merge(folder, RUN) == ALL_ROWS
            assert content(folder) == merged
            if finished:
                break
        assert operations > 7  # two files, at least two journals and four pieces

    def test_twice_in_a_row(self, tmp_path, merged, monkeypatch):
        for first in range(0, 14, 2):
            for second in range(1, 14, 4):
                folder = fill(tmp_path / f"{first} {second}", *SPLIT)
                for operations in (first, second):
                    with monkeypatch.context() as patch:
                        Power(operations, after=False).install(patch)
                        with suppress(KeyboardInterrupt):
                            merge(folder, RUN)
                merge(folder, RUN)
                assert content(folder) == merged

    def test_and_resumed_before_it_is_merged(self, tmp_path, merged, monkeypatch):
        """A merge that stopped among the journals; then more batches are recorded."""
        for operations in range(10):
            folder = fill(tmp_path / str(operations), [[8, 9], [2, 3]], [[10, 11]], [[5, 6, 7]])
            with monkeypatch.context() as patch:
                Power(operations, after=False).install(patch)
                with suppress(KeyboardInterrupt):
                    merge(folder, RUN)
            fill(folder, [[4]], [[0, 1]])
            assert merge(folder, RUN) == ALL_ROWS
            assert content(folder) == merged


class TestDamaged:
    @pytest.mark.parametrize("line", [b"{", b"3", b"", b"\xff", b'{"index": 1}'])
    def test_rows(self, folder, line):
        merge(folder, RUN)
        lines = (folder / ROWS).read_bytes().split(b"\n")
        lines[4] = line
        (folder / ROWS).write_bytes(b"\n".join(lines))
        with pytest.raises(InputError, match=r"line 5 of .*rows.jsonl is damaged; restore"):
            read_rows(folder, RUN)

    @pytest.mark.parametrize("size", [0, 4, 20, -1])
    def test_tensors(self, folder, size):
        merge(folder, RUN)
        path = folder / TENSORS
        path.write_bytes(path.read_bytes()[:size])
        for attempt in (merge, read_tensors):
            with pytest.raises(InputError, match=r"tensors.safetensors is .*damaged .*; restore"):
                attempt(folder, RUN)

    def test_a_piece(self, folder):
        piece = folder / "00000005.safetensors"
        piece.write_bytes(piece.read_bytes()[:-1])
        before = content(folder)
        with pytest.raises(InputError, match=r"00000005.safetensors is .*damaged"):
            merge(folder, RUN)
        assert content(folder) == before

    def test_a_piece_that_is_gone(self, folder):
        (folder / "00000005.safetensors").unlink()
        before = content(folder)
        with pytest.raises(InputError, match=r"00000005.safetensors is missing"):
            merge(folder, RUN)
        assert content(folder) == before

    def test_a_journal(self, folder):
        path = journal_path(folder, 1)
        path.write_bytes(path.read_bytes().replace(b'"rows"', b'"rwos"', 1))
        before = content(folder)
        with pytest.raises(InputError, match=r"line 2 of .*rank_1.jsonl is damaged"):
            merge(folder, RUN)
        assert content(folder) == before

    def test_a_journal_of_another_run(self, folder):
        Journal(journal_path(folder, 3), "other").close()
        before = content(folder)
        with pytest.raises(InputError, match=r"rank_3.jsonl belongs to a run of another config"):
            merge(folder, RUN)
        assert content(folder) == before
