"""A file is the old one or the new one, whatever happens in between."""

import errno
import os
import threading
from pathlib import Path

import pytest

from lit_purify.records.files import write_whole


def test_it_replaces_all(tmp_path):
    path = tmp_path / "new" / "file"
    for content in (b"", b"a" * 100_000, b"\x00\xff\r\n"):
        write_whole(path, content)
        assert path.read_bytes() == content
        assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("step", [(Path, "open"), (os, "fsync"), (Path, "replace")])
def test_a_failure_leaves_the_old_one(tmp_path, monkeypatch, step):
    def full(*_args, **_kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    path = tmp_path / "file"
    write_whole(path, b"old")
    with monkeypatch.context() as patch:
        patch.setattr(*step, full)
        with pytest.raises(OSError, match="No space left") as caught:
            write_whole(path, b"new")
    assert caught.value.filename == str(path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
    write_whole(path, b"new")
    assert path.read_bytes() == b"new"


def test_a_reader_never_meets_a_part(tmp_path):
    path = tmp_path / "file"
    contents = {bytes([k]) * 50_000 for k in range(4)}
    write_whole(path, bytes(50_000))
    finished = threading.Event()

    def write():
        for content in [*contents] * 25:
            write_whole(path, content)
        finished.set()

    writer = threading.Thread(target=write)
    writer.start()
    while not finished.is_set():
        assert path.read_bytes() in contents
    writer.join()


def test_a_folder_in_its_place_is_named(tmp_path):
    with pytest.raises(IsADirectoryError) as told:
        write_whole(tmp_path, b"content")
    assert told.value.filename == str(tmp_path)
