"""The header of the records: which run it is, read back, and what is said of one that differs."""

import json
from pathlib import Path

import pytest
import torch
from lit_purify.report.journal import FORMAT, VERSION

from lit_purify.records.header import differences, new_header, read_header, write_header
from lit_purify.types import InputError

IDENTITY = {
    "config": {"model": {"seed": 3}, "attack": {"eps": 8 / 255}, "path": None},
    "settings": {"protocols": ["base", "fixed"], "é": True},
}


@pytest.fixture
def file(tmp_path):
    write_header(tmp_path, new_header(IDENTITY, 7))
    return tmp_path / "header.json"


def test_round_trip(tmp_path):
    header = new_header(IDENTITY, 7)
    header["sittings"].append({"started": "2026-01-01T00:00:00+00:00", "versions": {"torch": "2"}})
    write_header(tmp_path / "records", header)
    assert read_header(tmp_path / "records") == header
    header["status"] = "finished"
    write_header(tmp_path / "records", header)
    assert read_header(tmp_path / "records") == header
    assert [path.name for path in (tmp_path / "records").iterdir()] == ["header.json"]


def test_a_new_one():
    header = new_header(IDENTITY, None)
    assert header["format"] == FORMAT
    assert header["version"] == VERSION
    assert header["status"] == "running"
    assert header["identity"] == IDENTITY
    assert header["samples"] is None
    assert header["sittings"] == []


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


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", bytes(30), b'{"format": "lit_pur'])
def test_damaged(file, content):
    file.write_bytes(content)
    with pytest.raises(InputError, match=r"header.json is damaged \(.*\); restore the file"):
        read_header(file.parent)


@pytest.mark.parametrize("content", ["[]", "3", "null", '"lit_purify records"'])
def test_no_header(file, content):
    file.write_text(content)
    with pytest.raises(InputError, match=r"header.json is not a header of records"):
        read_header(file.parent)


def change(file, **values):
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


def test_foreign(file):
    change(file, format="other records")
    with pytest.raises(InputError, match=f"header.json is not a file of {FORMAT}"):
        read_header(file.parent)


@pytest.mark.parametrize("version", [VERSION + 1, str(VERSION), None])
def test_of_another_version(file, version):
    change(file, version=version)
    with pytest.raises(InputError, match=f"has version {version!r} .* reads version {VERSION}"):
        read_header(file.parent)


@pytest.mark.parametrize("key", ["status", "run", "samples", "sittings"])
def test_incomplete(file, key):
    header = json.loads(file.read_text())
    del header[key]
    file.write_text(json.dumps(header))
    with pytest.raises(InputError, match=f"header.json lacks {key}; restore"):
        read_header(file.parent)


@pytest.mark.parametrize("identity", [None, 3, []])
def test_of_nothing(file, identity):
    change(file, identity=identity)
    with pytest.raises(InputError, match=r"header.json does not say what the records are of"):
        read_header(file.parent)


def test_more_than_is_known_is_kept(file):
    change(file, remark="by hand")
    assert read_header(file.parent)["remark"] == "by hand"


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ({}, {}, []),
        ({"a": [1, 2]}, {"a": [1, 2]}, []),
        ({"a": 1}, {"a": 2}, ["a was 1 and now is 2"]),
        ({"a": "x"}, {"a": None}, ['a was "x" and now is null']),
        (
            {"a": {"b": {"c": True}}},
            {"a": {"b": {"c": False}}},
            ["a.b.c was true and now is false"],
        ),
        ({"a": [1, 2]}, {"a": [1, 3]}, ["a was [1, 2] and now is [1, 3]"]),
        ({"a": {"b": 1}}, {"a": 2}, ['a was {"b": 1} and now is 2']),
        ({"a": 1}, {}, ["a was 1 and now is null"]),
        ({}, {"b": 1}, ["b was null and now is 1"]),
        ({"b": 1, "a": 1}, {"c": 3, "a": 2}, 3),
        ({"a": None}, {}, []),
    ],
)
def test_differences(old, new, expected):
    found = list(differences(old, new))
    assert (len(found) if isinstance(expected, int) else found) == expected
