"""The header of the records: which run it is, read back, and what is said of one that differs."""

import json
from pathlib import Path

import pytest
import torch

from lit_purify.records.header import (
    FORMAT,
    VERSION,
    differences,
    new_header,
    read_header,
    write_header,
)
from lit_purify.types import InputError

IDENTITY = {
    "config": {"model": {"seed": 3}, "attack": {"eps": 8 / 255}, "path": None},
    "settings": {"protocols": ["base", "fixed"], "é": True},
}


@pytest.fixture
def file(tmp_path):
    write_header(tmp_path, new_header(IDENTITY, 7))
    return tmp_path / "header.json"


def test_a_new_one():
    header = new_header(IDENTITY, None)
    assert header == {
        **{"format": FORMAT, "version": VERSION, "status": "running", "run": header["run"]},
        **{"identity": IDENTITY, "samples": None, "sessions": []},
    }


def test_round_trip(tmp_path):
    folder = tmp_path / "records"
    header = new_header(IDENTITY, 7)
    header["sessions"].append({"started": "2026-01-01T00:00:00+00:00", "versions": {"torch": "2"}})
    for status in ("running", "finished"):
        header["status"] = status
        write_header(folder, header)
        assert read_header(folder) == header
    assert [path.name for path in folder.iterdir()] == ["header.json"]


def test_the_run_is_named_by_what_decides_it_alone():
    run = new_header(IDENTITY, 7)["run"]
    assert new_header(IDENTITY, 1000)["run"] == run
    turned = {key: dict(reversed(IDENTITY[key].items())) for key in reversed(IDENTITY)}
    assert new_header(turned, 7)["run"] == run
    other = {**IDENTITY, "config": {**IDENTITY["config"], "attack": {"eps": 8 / 256}}}
    assert new_header(other, 7)["run"] != run


def test_the_identity_is_the_same_after_it_was_read(tmp_path):
    """Tuples, paths and devices have no JSON form: they compare as what is read back."""
    given = {"config": {"a": (1, 2)}, "settings": {"p": Path("x"), "d": torch.device("cpu")}}
    header = new_header(given, 1)
    write_header(tmp_path, header)
    assert read_header(tmp_path) == header == new_header(given, 1)
    assert new_header(header["identity"], 1)["run"] == header["run"]


def test_where_there_is_none(tmp_path):
    assert read_header(tmp_path) is None
    assert read_header(tmp_path / "nowhere") is None


@pytest.mark.parametrize(
    ("content", "keyword"),
    [
        *((content, "damaged") for content in (b"", b"{", b"\xff\xfe", bytes(30), b'{"format": "')),
        *((content, FORMAT) for content in (b"[]", b"3", b"null", b'"lit_purify records"')),
    ],
)
def test_what_is_no_header_is_refused(file, content, keyword):
    file.write_bytes(content)
    with pytest.raises(InputError, match=rf"header\.json .*{keyword}"):
        read_header(file.parent)


@pytest.mark.parametrize(
    ("change", "keyword"),
    [
        ({"format": "other records"}, FORMAT),
        *(({"version": version}, "version") for version in (VERSION + 1, str(VERSION), None)),
        *(({"identity": identity}, "what the records are of") for identity in (None, 3, [])),
        *(({key: ...}, f"lacks {key}") for key in ("status", "run", "samples", "sessions")),
    ],
)
def test_another_header_is_refused(file, change, keyword):
    header = json.loads(file.read_text()) | change
    file.write_text(json.dumps({key: header[key] for key in header if header[key] is not ...}))
    with pytest.raises(InputError, match=rf"header\.json .*{keyword}"):
        read_header(file.parent)


def test_more_than_is_known_is_kept(file):
    file.write_text(json.dumps({**json.loads(file.read_text()), "remark": "by hand"}))
    assert read_header(file.parent)["remark"] == "by hand"


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ({"a": [1, 2], "b": None}, {"a": [1, 2]}, []),
        ({"a": "x"}, {"a": None}, ['a was "x" and now is null']),
        (
            {"a": {"b": {"c": True}}},
            {"a": {"b": {"c": False}}},
            ["a.b.c was true and now is false"],
        ),
        ({"a": [1, 2]}, {"a": [1, 3]}, ["a was [1, 2] and now is [1, 3]"]),
        ({"a": {"b": 1}}, {"a": 2}, ['a was {"b": 1} and now is 2']),
        (
            {"b": 1, "a": 1},
            {"c": 3, "a": 2},
            ["b was 1 and now is null", "a was 1 and now is 2", "c was null and now is 3"],
        ),
    ],
)
def test_differences(old, new, expected):
    assert list(differences(old, new)) == expected
