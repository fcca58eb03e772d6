"""A journal: what was appended is there, bit for bit, after whatever stopped its process."""

import errno
import json
import math
import multiprocessing
import os
import signal
import struct
import sys
import time
from pathlib import Path

import pytest
import torch
from lit_purify.report.journal import FORMAT, VERSION, Journal, read_journal
from safetensors.torch import load_file

from lit_purify.types import InputError

RUN = "a1b2"
FLOATS = [
    *(0.1, 1 / 3, -0.0, 0.0, 5e-324, -2.5e-310, sys.float_info.min, sys.float_info.max),
    *(math.pi, 1e300, float(torch.tensor(0.1)), float(torch.tensor(1e-45)), 2.0**53 + 2),
]

by_fork = pytest.mark.skipif(
    "fork" not in multiprocessing.get_all_start_methods(), reason="a process by fork"
)


def row(index, protocol="fixed", **columns):
    return {"index": index, "protocol": protocol, "seed": 0, "label": 3, **columns}


def batch(k):
    """The rows of the k-th batch of a journal."""
    return [row(2 * k, ok=True, rate=FLOATS[k]), row(2 * k + 1, ok=False, rate=None)]


def write(path, *batches, run=RUN):
    journal = Journal(path, run)
    for rows in batches:
        journal.append(rows, {})
    journal.close()
    return path.read_bytes()


def read(path, run=RUN):
    return [entry["rows"] for entry in read_journal(path, run)]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "rank_0.jsonl"


class TestRoundTrip:
    def test_rows(self, path):
        rows = [[row(k, "base", ok=k % 2 == 0, name="é\n\u2028", none=None)] for k in range(3)]
        write(path, *rows)
        assert read(path) == rows

    def test_floats_are_the_same_bits(self, path):
        write(path, [row(k, rate=value) for k, value in enumerate(FLOATS)])
        (rows,) = read(path)
        for value, found in zip(FLOATS, rows, strict=True):
            assert struct.pack("<d", found["rate"]) == struct.pack("<d", value)

    def test_kinds_stay_what_they_are(self, path):
        columns = {"ok": True, "prediction": 1, "rate": 1.0, "none": None}
        write(path, [row(0, **columns)])
        ((found,),) = read(path)
        assert [type(found[name]) for name in columns] == [bool, int, float, type(None)]

    def test_a_batch_is_one_line_after_the_header(self, path):
        content = write(path, batch(0), batch(1))
        header, *lines = content.splitlines()
        assert json.loads(header) == {"format": FORMAT, "version": VERSION, "run": RUN}
        assert [json.loads(line)["rows"] for line in lines] == [batch(0), batch(1)]

    def test_it_is_on_the_disk_before_append_returns(self, path):
        journal = Journal(path, RUN)
        for k in range(3):
            journal.append(batch(k), {})
            assert read(path) == [batch(j) for j in range(k + 1)]
        journal.close()

    def test_it_goes_on_where_it_stopped(self, path):
        first = write(path, batch(0))
        whole = write(path, batch(1))
        assert whole.startswith(first)
        assert read(path) == [batch(0), batch(1)]
        assert write(path) == whole  # opening alone changes nothing

    def test_tensors_lie_beside_it(self, path):
        images = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
        tensors = {"index": torch.tensor([7, 8]), "fixed/adversarial": images.transpose(2, 3)}
        journal = Journal(path, RUN)
        journal.append([row(7), row(8)], tensors)
        journal.close()
        (entry,) = read_journal(path, RUN)
        found = load_file(path.parent / entry["tensors"])
        assert found.keys() == tensors.keys()
        for name, tensor in tensors.items():
            assert torch.equal(found[name], tensor)

    def test_what_is_no_number_is_refused_and_not_half_written(self, path):
        journal = Journal(path, RUN)
        journal.append(batch(0), {})
        with pytest.raises(ValueError, match="not JSON compliant"):
            journal.append([row(2, rate=math.nan)], {})
        journal.append(batch(1), {})
        journal.close()
        assert read(path) == [batch(0), batch(1)]

    def test_a_missing_journal_has_no_batches(self, path):
        assert read(path) == []
        assert not path.exists()


class TestTorn:
    def test_at_every_byte(self, path):
        content = write(path, *map(batch, range(3)))  # some 500 bytes
        ends = [place + 1 for place, byte in enumerate(content) if byte == 10]
        assert len(ends) == 4
        for size in range(len(content) + 1):
            whole = max(0, sum(end <= size for end in ends) - 1)  # lines, less the header
            path.write_bytes(content[:size])
            assert read(path) == [batch(k) for k in range(whole)], size
            assert path.read_bytes() == content[:size]  # reading repairs nothing
            # What was torn off is evaluated again, and the journal is as if nothing had happened.
            assert write(path, *map(batch, range(whole, 3))) == content, size

    def test_a_torn_line_that_is_valid_by_itself_was_not_acknowledged(self, path):
        content = write(path, batch(0), batch(1))
        path.write_bytes(content[:-1])
        assert read(path) == [batch(0)]

    def test_an_empty_file(self, path):
        path.touch()
        assert read(path) == []
        write(path, batch(0))
        assert read(path) == [batch(0)]


DAMAGE = {
    "no JSON": b"{",
    "no text": b"\xff\xfe\x00",
    "zeros": bytes(40),
    "blank": b"",
    "a number": b"3",
    "a list": b"[]",
    "no rows": b"{}",
    "rows of another kind": b'{"tensors":null,"rows":{}}',
    "a row of another kind": b'{"tensors":null,"rows":[3]}',
    "a row without index": b'{"tensors":null,"rows":[{"protocol":"fixed","seed":0}]}',
    "a row without protocol": b'{"tensors":null,"rows":[{"index":0,"seed":0}]}',
    "a row without seed": b'{"tensors":null,"rows":[{"index":0,"protocol":"fixed"}]}',
    "an index of text": b'{"tensors":null,"rows":[{"index":"0","protocol":"fixed","seed":0}]}',
}


class TestDamaged:
    @pytest.mark.parametrize("damage", DAMAGE)
    def test_a_line_in_the_middle(self, path, damage):
        content = write(path, *map(batch, range(3)))
        lines = content.split(b"\n")
        lines[2] = DAMAGE[damage]
        path.write_bytes(damaged := b"\n".join(lines))
        for attempt in (lambda: read(path), lambda: Journal(path, RUN)):
            with pytest.raises(InputError, match=r"line 3 of .*rank_0.jsonl is damaged; delete"):
                attempt()
            assert path.read_bytes() == damaged
        del lines[2]  # what the message says
        path.write_bytes(b"\n".join(lines))
        assert write(path, batch(1)).count(b"\n") == 4
        assert read(path) == [batch(0), batch(2), batch(1)]

    @pytest.mark.parametrize("damage", ["no JSON", "no text", "zeros", "blank", "a list"])
    def test_the_first_line(self, path, damage):
        content = write(path, batch(0))
        path.write_bytes(DAMAGE[damage] + content[content.index(b"\n") :])
        with pytest.raises(InputError, match=r"line 1 of .*rank_0.jsonl is damaged"):
            read(path)

    @pytest.mark.parametrize("content", [b'{"a": 1}\n', b'{"format": "other", "version": 1}\n'])
    def test_another_file(self, path, content):
        path.write_bytes(content)
        with pytest.raises(InputError, match=f"rank_0.jsonl is not a file of {FORMAT}; move it"):
            Journal(path, RUN)
        assert path.read_bytes() == content

    def test_another_version(self, path):
        content = json.dumps({"format": FORMAT, "version": VERSION + 1, "run": RUN}) + "\n"
        path.write_text(content)
        with pytest.raises(
            InputError, match=f"has version {VERSION + 1} .* reads version {VERSION}"
        ):
            Journal(path, RUN)
        assert path.read_text() == content

    def test_another_run(self, path):
        content = write(path, batch(0), run="other")
        with pytest.raises(InputError, match=r"rank_0.jsonl belongs to a run of another config"):
            Journal(path, RUN)
        assert path.read_bytes() == content

    def test_a_refused_journal_is_not_held(self, path):
        write(path, batch(0), run="other")
        with pytest.raises(InputError, match="another config"):
            Journal(path, RUN)
        assert [file.name for file in path.parent.iterdir()] == [path.name]
        write(path, batch(1), run="other")
        assert read(path, "other") == [batch(0), batch(1)]


def _in_fork(function):
    """Run a function in another process; its exit status."""
    process = multiprocessing.get_context("fork").Process(target=function)
    process.start()
    process.join(60)
    assert process.exitcode is not None
    return process.exitcode


class TestOneWriter:
    def test_a_second_is_refused_while_the_first_writes(self, path):
        journal = Journal(path, RUN)
        with pytest.raises(InputError, match=r"is being written by another process.* wait for it"):
            Journal(path, RUN)
        journal.append(batch(0), {})
        journal.close()
        write(path, batch(1))
        assert read(path) == [batch(0), batch(1)]

    def test_reading_needs_no_lock(self, path):
        journal = Journal(path, RUN)
        journal.append(batch(0), {})
        assert read(path) == [batch(0)]
        journal.close()

    def test_journals_of_other_ranks_are_others(self, path):
        journals = [Journal(path.with_name(f"rank_{rank}.jsonl"), RUN) for rank in range(3)]
        for rank, journal in enumerate(journals):
            journal.append(batch(rank), {})
            journal.close()
        assert read(path.with_name("rank_2.jsonl")) == [batch(2)]

    def test_closing_leaves_the_journal_alone(self, path):
        write(path, batch(0))
        assert [file.name for file in path.parent.iterdir()] == [path.name]

    @by_fork
    def test_another_process_is_refused(self, path):
        journal = Journal(path, RUN)

        def second():
            with pytest.raises(InputError, match="another process"):
                Journal(path, RUN)

        assert _in_fork(second) == 0
        journal.append(batch(0), {})
        journal.close()
        assert _in_fork(lambda: write(path, batch(1))) == 0
        assert read(path) == [batch(0), batch(1)]

    @by_fork
    def test_a_killed_process_holds_nothing(self, path):
        def first():
            journal = Journal(path, RUN)
            journal.append(batch(0), {})
            path.with_name("ready").touch()
            time.sleep(60)

        process = multiprocessing.get_context("fork").Process(target=first)
        process.start()
        while not path.with_name("ready").exists():
            assert process.is_alive()
            time.sleep(0.01)
        with pytest.raises(InputError, match="another process"):
            Journal(path, RUN)
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        write(path, batch(1))
        assert read(path) == [batch(0), batch(1)]


class TestFullDisk:
    @by_fork
    @pytest.mark.parametrize("room", [0, 1, 40, "all but one"])
    def test_a_batch_that_does_not_fit_leaves_no_trace(self, path, room):
        resource = pytest.importorskip("resource")
        content = write(path, batch(0), batch(1))
        size = len(json.dumps({"tensors": None, "rows": batch(2)}, separators=(",", ":"))) + 1
        limit = len(content) + (size - 1 if room == "all but one" else room)

        def run():
            journal = Journal(path, RUN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
            for _ in range(3):  # it stays readable however often one tries
                with pytest.raises(OSError, match=r"File too large|No space left") as caught:
                    journal.append(batch(2), {})
                assert caught.value.errno in (errno.EFBIG, errno.ENOSPC)
                assert caught.value.filename == str(path)
                assert path.read_bytes() == content
            resource.setrlimit(
                resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
            )
            journal.append(batch(2), {})  # room again
            journal.close()

        assert _in_fork(run) == 0
        assert read(path) == [batch(0), batch(1), batch(2)]
        assert path.read_bytes().startswith(content)

    @by_fork
    def test_tensors_that_do_not_fit_leave_no_trace(self, path):
        resource = pytest.importorskip("resource")
        content = write(path, batch(0))

        def run():
            journal = Journal(path, RUN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (len(content) + 1000, -1))
            with pytest.raises(OSError, match="File too large") as caught:
                journal.append(batch(1), {"index": torch.arange(2), "x": torch.zeros(2, 1000)})
            assert "safetensors" in str(caught.value.filename)
            journal.close()

        assert _in_fork(run) == 0
        assert [file.name for file in path.parent.iterdir()] == [path.name]
        assert path.read_bytes() == content

    def test_a_disk_that_is_full_only_when_it_is_asked_to_keep(self, path, monkeypatch):
        """File systems over a network may say so first at fsync, when all seemed written."""

        def full(descriptor):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        content = write(path, batch(0))
        journal = Journal(path, RUN)
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            for _ in range(2):
                with pytest.raises(OSError, match="No space left") as caught:
                    journal.append(batch(1), {})
                assert caught.value.filename == str(path)
                assert path.read_bytes() == content
        journal.append(batch(1), {})
        journal.close()
        assert read(path) == [batch(0), batch(1)]

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
    def test_a_device_without_room(self, path):
        content = write(path, batch(0))
        journal = Journal(path, RUN)
        sound = journal._file
        with Path("/dev/full").open("ab", buffering=0) as full:
            journal._file = full
            with pytest.raises(OSError, match="No space left"):
                journal.append(batch(1), {})
        journal._file = sound
        journal.append(batch(1), {})
        journal.close()
        assert path.read_bytes().startswith(content)
        assert read(path) == [batch(0), batch(1)]
