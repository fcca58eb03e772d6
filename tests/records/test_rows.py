"""Numbers of a run sample by sample, as it leaves them and as an export keeps them."""

import gzip

import pytest

from lit_purify.records.rows import PACKED, ROWS, read_numbers
from lit_purify.types import InputError

LINES = b'{"index": 3, "ok": true, "x": 0.5}\n{"index": 7, "ok": false, "x": null}\n{"index": 9}\n'


def folder(path, name, content):
    (path / "records").mkdir(parents=True)
    (path / "records" / name).write_bytes(content)
    return path


@pytest.mark.parametrize(("name", "pack"), [(ROWS, bytes), (PACKED, gzip.compress)])
def test_what_is_no_number_is_left_out(tmp_path, name, pack):
    run = folder(tmp_path, name, pack(LINES))
    assert read_numbers(run, "ok") == {3: 1.0, 7: 0.0}
    assert read_numbers(run, "x") == {3: 0.5}
    assert read_numbers(run, "y") == {}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        (ROWS, LINES[:-4]),
        (PACKED, gzip.compress(LINES, mtime=0)[:-9]),
        (PACKED, b"x"),
        ("other", b""),
        (ROWS, b"7\n"),
        (ROWS, b'{"ok": true}\n'),
        (ROWS, b'{"index": 3, "ok": []}\n'),
    ],
)
def test_what_cannot_be_read_is_refused(tmp_path, name, content):
    with pytest.raises(InputError, match="rows"):
        read_numbers(folder(tmp_path, name, content), "ok")
