"""Files that are fetched: from a server on this machine, whole, broken or wrong, and from disk."""

import errno
import hashlib
import io
import multiprocessing
import os
import shutil
from collections import namedtuple
from pathlib import Path

import pytest
import requests
import torch
import urllib3
from processes import PATIENCE
from weights_files import saved

from lit_purify.types import InputError
from lit_purify.weights import download
from lit_purify.weights.download import WrongContent, fault, fetch_file

CONTENT = saved(torch.randint(256, (500_000,), generator=torch.Generator().manual_seed(0)).byte())
SIZE = len(CONTENT)
SHA256 = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"
MD5 = f"md5:{hashlib.md5(CONTENT).hexdigest()}"
PAGE = b"\n <!DOCTYPE html><title>Sign in</title>"
TIMEOUT = 0.3
PIECE = 2**16
"""Bytes that are read at a time."""


@pytest.fixture
def target(tmp_path):
    return tmp_path / "cache" / "weights.pth"


@pytest.fixture
def part(target):
    """Where the beginning of a broken transfer is, in a folder that is there."""
    target.parent.mkdir()
    return target.with_name("weights.pth.part")


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(download, "TIMEOUT", TIMEOUT)


def get(source, target, known_hash=SHA256, size=SIZE):
    fetch_file(str(source), target, known_hash=known_hash, size=size)


def refused(match, *args, error=InputError, **kwargs):
    with pytest.raises(error, match=match) as caught:
        get(*args, **kwargs)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def left(target):
    """What is in the folder, but for the empty file that processes lock."""
    if not target.parent.exists():
        return {}
    files = {path.name: path.read_bytes() for path in target.parent.iterdir()}
    assert files.pop(f".{target.name}.lock", b"") == b""
    return files


WHOLE = {"weights.pth": CONTENT}


class TestWholeFiles:
    @pytest.mark.parametrize("known_hash", [SHA256, MD5, None])
    @pytest.mark.parametrize("size", [SIZE, None])
    def test_from_a_server_once(self, server, target, known_hash, size, capsys, tmp_path):
        for _ in range(2):
            get(server.url, target, known_hash, size)
        assert left(target) == WHOLE
        assert server.requests == [None]
        assert capsys.readouterr() == (f"downloading {server.url}\n", "")
        (tmp_path / "other").touch()
        assert target.stat().st_mode == (tmp_path / "other").stat().st_mode

    @pytest.mark.parametrize("length", [True, False])
    @pytest.mark.parametrize("ranges", [True, False])
    def test_from_servers_that_announce_less(self, server, target, ranges, length):
        server.ranges, server.length = ranges, length
        get(server.url, target)
        assert left(target) == WHOLE

    @pytest.mark.parametrize("kind", ["path", "file://"])
    def test_from_this_disk(self, tmp_path, target, kind):
        source = tmp_path / "my copy.pth"
        source.write_bytes(CONTENT)
        get(source if kind == "path" else source.as_uri(), target)
        assert left(target) == WHOLE
        assert source.read_bytes() == CONTENT

    @pytest.mark.parametrize("known_hash", [SHA256, None])
    def test_a_damaged_one_is_replaced(self, server, target, known_hash):
        target.parent.mkdir()
        target.write_bytes(CONTENT[:-1])
        get(server.url, target, known_hash)
        assert left(target) == WHOLE

    def test_the_proxy_of_a_closed_network_is_asked(self, server, target, monkeypatch):
        monkeypatch.setenv("http_proxy", server.url.removesuffix("/weights.pth"))
        monkeypatch.delenv("no_proxy", raising=False)
        get("http://nowhere.invalid/weights.pth", target)
        assert server.paths == ["http://nowhere.invalid/weights.pth"]


class TestBrokenConnections:
    @pytest.fixture(params=[True, False])
    def counting(self, request, monkeypatch):
        """With a library that counts what came, and with urllib3 1.26, which ends as if all had."""
        real = urllib3.response.HTTPResponse.__init__

        def init(*args, **kwargs):
            real(*args, **(kwargs | {"enforce_content_length": request.param}))

        monkeypatch.setattr(urllib3.response.HTTPResponse, "__init__", init)

    @pytest.mark.parametrize("size", [SIZE, None])
    def test_it_goes_on_by_itself_while_more_comes(self, server, target, counting, size):
        server.cut_after = [3 * PIECE, 2 * PIECE]
        get(server.url, target, size=size)
        assert left(target) == WHOLE
        assert server.requests == [None, f"bytes={3 * PIECE}-", f"bytes={5 * PIECE}-"]

    @pytest.mark.parametrize("retries", [0, 2])
    def test_a_later_call_goes_on(self, server, target, monkeypatch, retries):
        monkeypatch.setattr(download, "RETRIES", retries)
        tries = retries + 1
        server.cut_after = [PIECE] * tries
        message = refused("connection to 127.0.0.1 failed", server.url, target)
        assert f"{tries * PIECE:,} of {SIZE:,} bytes are kept" in message
        assert left(target) == {"weights.pth.part": CONTENT[: tries * PIECE]}
        get(server.url, target)
        assert left(target) == WHOLE
        assert server.requests[tries:] == [f"bytes={tries * PIECE}-"]

    def test_pieces_of_an_unknown_file_are_not_kept(self, server, target, counting):
        server.cut_after = [3 * PIECE]
        assert "kept" not in refused(
            "connection to 127.0.0.1 failed", server.url, target, None, None
        )
        assert left(target) == {}
        get(server.url, target, None, None)
        assert left(target) == WHOLE
        assert server.requests == [None, None]

    @pytest.mark.parametrize(
        ("wrong", "asked"),
        [
            ({"ranges": False}, ["bytes=1000-"]),
            ({"shift": 5}, ["bytes=1000-", None]),
            ({"ranges": False, "cut_after": [PIECE]}, ["bytes=1000-", f"bytes={PIECE}-"]),
        ],
    )
    def test_a_server_that_cannot_continue_starts_over(self, server, target, part, wrong, asked):
        part.write_bytes(CONTENT[:1000])
        vars(server).update(wrong)
        get(server.url, target)
        assert left(target) == WHOLE
        assert server.requests == asked

    @pytest.mark.parametrize("size", [SIZE, None])
    @pytest.mark.parametrize("extra", [0, 7])
    def test_a_part_that_is_complete_or_too_long(self, server, target, part, size, extra):
        part.write_bytes(CONTENT + bytes(extra))
        get(server.url, target, size=size)
        assert left(target) == WHOLE
        if size is not None:
            assert server.requests == ([None] if extra else [])

    def test_pieces_that_do_not_belong_together_are_not_kept(self, server, target, part):
        part.write_bytes(bytes(1000))
        refused("SHA-256 .* nothing of it is kept", server.url, target, error=WrongContent)
        assert left(target) == {}
        get(server.url, target)
        assert left(target) == WHOLE

    @pytest.mark.parametrize(
        ("answer", "match"),
        [
            ({"status": 503, "ranges": False}, "503 .*1,000 of .* kept"),
            ({"status": 404, "ranges": False}, "404 .*1,000 of .* kept"),
            ({"content": PAGE, "content_type": "text/html"}, "web page"),
        ],
    )
    def test_a_part_outlives_a_server_that_is_away(self, server, target, part, answer, match):
        part.write_bytes(CONTENT[:1000])
        vars(server).update(answer, ranges=False)
        refused(match, server.url, target, size=None if "content" in answer else SIZE)
        assert part.read_bytes() == CONTENT[:1000]

    @pytest.mark.parametrize("known_hash", [SHA256, None])
    def test_an_interruption(self, server, target, monkeypatch, known_hash):
        real = requests.Response.iter_content

        def interrupted(answer, chunk_size):
            yield next(real(answer, chunk_size))
            raise KeyboardInterrupt

        monkeypatch.setattr(requests.Response, "iter_content", interrupted)
        with pytest.raises(KeyboardInterrupt):
            get(server.url, target, known_hash)
        assert left(target) == ({"weights.pth.part": CONTENT[:PIECE]} if known_hash else {})


class TestWrongFiles:
    @pytest.mark.parametrize(
        ("content", "known_hash", "size", "match"),
        [
            (CONTENT[::-1], SHA256, SIZE, "SHA-256 .*expected"),
            (CONTENT[::-1], MD5, SIZE, "MD5 .*expected"),
            (CONTENT[:-1], None, SIZE, f"{SIZE - 1:,} bytes, expected {SIZE:,}"),
            (CONTENT + b"x", SHA256, SIZE, f"{SIZE + 1:,} bytes, expected {SIZE:,}"),
            (PAGE, SHA256, None, "web page"),
            (PAGE, None, None, "web page"),
            (b"", SHA256, SIZE, f"0 bytes, expected {SIZE:,}"),
            (b"junk", None, None, r"weights\.pth' cannot be read"),
        ],
    )
    @pytest.mark.parametrize("there", [None, b"old junk"])
    @pytest.mark.parametrize("how", ["with its length", "without", "as a page", "from this disk"])
    def test_they_are_refused(
        self, server, target, tmp_path, content, known_hash, size, match, there, how
    ):
        before = {}
        if there is not None:
            target.parent.mkdir()
            target.write_bytes(there)
            before = {"weights.pth": there}
        source = tmp_path / "copy"
        source.write_bytes(content)
        server.content, server.length = content, how == "with its length"
        if how == "as a page":
            server.content_type, match = "text/html; charset=utf-8", "web page"
        where = source if how == "from this disk" else server.url
        message = refused(match, where, target, known_hash, size, error=WrongContent)
        assert "nothing of it is kept" in message
        assert ".part" not in message
        assert left(target) == before
        assert source.read_bytes() == content

    def test_a_known_hash_is_enough(self, server, target):
        server.content = b"other"
        get(server.url, target, f"sha256:{hashlib.sha256(b'other').hexdigest()}", None)
        assert left(target) == {"weights.pth": b"other"}

    def test_what_a_killed_process_left_is_not_continued(self, server, target, part):
        part.write_bytes(b"torn")
        target.with_name("weights.part.pth").write_bytes(b"torn")
        get(server.url, target, None)
        assert server.requests == [None]
        assert left(target) == WHOLE | {"weights.pth.part": b"torn"}


class TestNoConnection:
    def test_no_server(self, server, target):
        url = server.url.replace("127.0.0.1", "127.0.0.2")
        refused(r"127.0.0.2 failed \(Connection refused\)", url, target)
        assert left(target) == {}

    def test_no_answer(self, server, target):
        server.silent = True
        refused(f"127.0.0.1 within {TIMEOUT} s", server.url, target)
        assert left(target) == {}

    @pytest.mark.parametrize("known_hash", [SHA256, None])
    def test_a_server_that_points_to_no_address(self, server, target, known_hash, monkeypatch):
        def get_redirected(*args, **kwargs):
            raise ValueError("Invalid IPv6 URL")

        monkeypatch.setattr(requests, "get", get_redirected)
        message = refused("Invalid IPv6 URL", server.url, target, known_hash)
        assert "hash" not in message
        assert left(target) == {}

    @pytest.mark.parametrize("known_hash", [SHA256, None])
    @pytest.mark.parametrize(
        ("source", "match"),
        [
            ("http://nowhere.invalid/x", "connection to nowhere.invalid"),
            ("http://", "connection"),
            ("http://[::1", "no address .*expected http, https, file"),
            ("https://[x]/y", "no address"),
            ("file://[::1/x", "no address"),
            ("ftp://host/x", "unknown kind"),
            ("s3://bucket/x", "unknown kind"),
            ("none.pth", "no file none.pth"),
            ("", "no file"),
        ],
    )
    def test_sources_that_are_none(self, target, source, match, known_hash, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        refused(match, source, target, known_hash)
        assert left(target) == {}


class TestFolders:
    def test_a_file_in_the_place_of_the_folder(self, server, target):
        target.parent.write_bytes(b"")
        refused(r"cache: (File exists|Not a directory)", server.url, target)

    @pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES])
    def test_a_folder_that_cannot_be_written(self, server, target, monkeypatch, number):
        def refuse(path, *args, **kwargs):
            raise OSError(number, os.strerror(number), str(path))

        monkeypatch.setattr(Path, "mkdir", refuse)
        refused(f"cache: {os.strerror(number)}", server.url, target)
        assert server.requests == []

    @pytest.mark.parametrize("too_little", [True, False])
    def test_the_room_that_is_needed_is_that_of_the_rest(
        self, server, target, part, monkeypatch, too_little
    ):
        part.write_bytes(CONTENT[:1000])
        free = SIZE - 1000 - too_little
        monkeypatch.setattr(shutil, "disk_usage", lambda _: namedtuple("usage", "free")(free))
        if too_little:
            refused(f"room for {free:,} bytes, and {free + 1:,}", server.url, target)
            assert part.read_bytes() == CONTENT[:1000]
        else:
            get(server.url, target)
            assert left(target) == WHOLE

    def test_a_disk_that_fills_up(self, server, target, monkeypatch):
        real = Path.open

        class Full(io.FileIO):
            def write(self, content):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        def full(path, mode="r", *args, **kwargs):
            return Full(path, mode) if "a" in mode else real(path, mode, *args, **kwargs)

        monkeypatch.setattr(Path, "open", full)
        refused("No space left on device", server.url, target)
        assert left(target) == {}


def test_several_processes_end_with_one_download(server, target):
    settings = {"known_hash": SHA256, "size": None}
    context = multiprocessing.get_context("forkserver")
    running = [
        context.Process(target=fetch_file, args=(server.url, target), kwargs=settings)
        for _ in range(3)
    ]
    for process in running:
        process.start()
    for process in running:
        process.join(PATIENCE)
    assert [process.exitcode for process in running] == [0, 0, 0]
    assert left(target) == WHOLE
    assert server.requests == [None]


def test_faults(tmp_path):
    path = tmp_path / "weights.pth"
    path.write_bytes(CONTENT)
    found = fault(path, known_hash="md5:" + 32 * "0", size=None)
    assert found == f"MD5 {MD5[4:16]}..., expected 000000000000..."
    assert "cannot be read" in fault(tmp_path, known_hash=SHA256, size=None)
