"""Files that are fetched: from a server on this machine, whole, broken or wrong, and from disk."""

import errno
import hashlib
import multiprocessing
import os
import random
import shutil
import threading
from collections import namedtuple
from pathlib import Path

import pooch
import pytest
import requests
import urllib3
from file_server import serving
from processes import PATIENCE

from lit_purify.checkpoints import download
from lit_purify.checkpoints.download import WrongHash, fault, fetch_file
from lit_purify.types import InputError

CONTENT = random.Random(0).randbytes(3_000_000)  # "3,000,000 bytes" in messages
SHA256 = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"
MD5 = f"md5:{hashlib.md5(CONTENT).hexdigest()}"
PAGE = b"\n <!DOCTYPE html><title>Sign in</title>"
TIMEOUT = 0.3
PIECE = 2**16
"""Bytes that are read at a time."""


@pytest.fixture
def server():
    with serving(CONTENT) as found:
        yield found


@pytest.fixture
def target(tmp_path):
    return tmp_path / "cache" / "weights.pth"


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(download, "TIMEOUT", TIMEOUT)


def get(source, target, known_hash=SHA256, size=3_000_000):
    fetch_file(str(source), target, known_hash=known_hash, size=size)


def refused(match, *args, **kwargs):
    with pytest.raises(InputError, match=match) as caught:
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
    @pytest.mark.parametrize("size", [len(CONTENT), None])
    def test_from_a_server(self, server, target, known_hash, size):
        get(server.url, target, known_hash, size)
        assert left(target) == WHOLE
        assert server.requests == [None]

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

    def test_what_is_there_is_not_fetched_again(self, server, target):
        get(server.url, target)
        get(server.url, target)
        assert server.requests == [None]

    def test_a_damaged_one_is_replaced(self, server, target):
        target.parent.mkdir()
        target.write_bytes(CONTENT[:-1])
        get(server.url, target)
        assert left(target) == WHOLE

    def test_others_may_read_it_as_any_other_file(self, server, target, tmp_path):
        get(server.url, target)
        (tmp_path / "other").touch()
        assert target.stat().st_mode == (tmp_path / "other").stat().st_mode

    def test_nothing_goes_to_the_standard_error(self, server, target, capsys):
        get(server.url, target)
        printed = capsys.readouterr()
        assert printed.err == ""
        assert printed.out == f"downloading {server.url}\n"

    def test_the_log_of_pooch_is_as_before(self, server, target):
        level = pooch.get_logger().level
        get(server.url, target)
        assert pooch.get_logger().level == level


class TestBrokenConnections:
    def test_it_goes_on_by_itself_while_more_comes(self, server, target):
        server.cut_after = [3 * PIECE, 2 * PIECE]
        get(server.url, target)
        assert left(target) == WHOLE
        assert server.requests == [None, f"bytes={3 * PIECE}-", f"bytes={5 * PIECE}-"]

    def test_a_later_call_goes_on(self, server, target, monkeypatch):
        monkeypatch.setattr(download, "RETRIES", 0)
        server.cut_after = [3 * PIECE]
        message = refused("broke off", server.url, target)
        assert f"{3 * PIECE:,} of 3,000,000 bytes are kept, and the next try goes on" in message
        assert left(target) == {"weights.pth.part": CONTENT[: 3 * PIECE]}
        get(server.url, target)
        assert left(target) == WHOLE
        assert server.requests == [None, f"bytes={3 * PIECE}-"]

    def test_no_more_than_so_often(self, server, target, monkeypatch):
        monkeypatch.setattr(download, "RETRIES", 3)
        server.cut_after = [PIECE] * 10
        refused("broke off", server.url, target)
        assert len(server.requests) == 4
        assert left(target) == {"weights.pth.part": CONTENT[: 4 * PIECE]}

    @pytest.mark.parametrize("known_hash", [SHA256, None])
    def test_what_cannot_be_continued_is_not_kept(self, server, target, known_hash):
        server.ranges = known_hash is None  # pieces of an unknown file might not belong together
        server.cut_after = [3 * PIECE]
        assert "kept" not in refused("broke off", server.url, target, known_hash)
        assert left(target) == {}
        get(server.url, target, known_hash)
        assert left(target) == WHOLE
        assert server.requests == [None, None]

    @pytest.mark.parametrize("known_hash", [SHA256, None])
    @pytest.mark.parametrize("size", [len(CONTENT), None])
    def test_a_library_that_does_not_count(self, server, target, monkeypatch, size, known_hash):
        """urllib3 1.26 ends as if all had come."""
        real = urllib3.response.HTTPResponse.__init__

        def lenient(*args, **kwargs):
            real(*args, **(kwargs | {"enforce_content_length": False}))

        monkeypatch.setattr(urllib3.response.HTTPResponse, "__init__", lenient)
        server.cut_after = [3 * PIECE, 2 * PIECE]
        if known_hash is None:
            refused("the connection to 127.0.0.1 broke off", server.url, target, None, size)
            assert left(target) == {}
        else:
            get(server.url, target, known_hash, size)
            assert left(target) == WHOLE
            assert server.requests == [None, f"bytes={3 * PIECE}-", f"bytes={5 * PIECE}-"]

    def test_a_server_that_cannot_continue_starts_over(self, server, target, monkeypatch):
        target.parent.mkdir()
        target.with_name("weights.pth.part").write_bytes(CONTENT[:1000])
        server.ranges = False
        get(server.url, target)
        assert left(target) == WHOLE
        assert server.requests == ["bytes=1000-"]

    def test_a_server_that_continues_elsewhere_is_asked_for_everything(self, server, target):
        target.parent.mkdir()
        target.with_name("weights.pth.part").write_bytes(CONTENT[:1000])
        server.shift = 5
        get(server.url, target)
        assert left(target) == WHOLE
        assert server.requests == ["bytes=1000-", None]

    @pytest.mark.parametrize("size", [len(CONTENT), None])
    @pytest.mark.parametrize("extra", [0, 7])
    def test_a_part_that_is_complete_or_too_long(self, server, target, size, extra):
        target.parent.mkdir()
        target.with_name("weights.pth.part").write_bytes(CONTENT + bytes(extra))
        get(server.url, target, size=size)
        assert left(target) == WHOLE
        if size is not None:
            assert server.requests == ([None] if extra else [])

    def test_pieces_that_do_not_belong_together_are_not_kept(self, server, target):
        target.parent.mkdir()
        target.with_name("weights.pth.part").write_bytes(bytes(1000))
        refused("its SHA-256 is not the expected one; nothing of it is kept", server.url, target)
        assert left(target) == {}
        get(server.url, target)
        assert left(target) == WHOLE

    def test_a_part_outlives_a_server_that_is_away(self, server, target):
        target.parent.mkdir()
        part = target.with_name("weights.pth.part")
        part.write_bytes(CONTENT[:1000])
        for server.status, server.ranges in ((503, False), (404, False)):
            assert "1,000 of 3,000,000 bytes are kept" in refused(
                f"answers {server.status}", server.url, target
            )
        server.status, server.content = 200, PAGE
        refused("web page", server.url, target, size=None)
        assert part.read_bytes() == CONTENT[:1000]

    @pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
    def test_an_interruption(self, server, target, monkeypatch, stop):
        class Bar:
            def __enter__(self):
                return self.advance

            def __exit__(self, *args):
                pass

            def advance(self, number):
                raise stop

        monkeypatch.setattr(download, "_progress", lambda *_: Bar())
        with pytest.raises(stop):
            get(server.url, target)
        kept = {"weights.pth.part": CONTENT[:PIECE]} if stop is KeyboardInterrupt else {}
        assert left(target) == kept


class TestWrongFiles:
    @pytest.mark.parametrize("known_hash", [SHA256, MD5])
    def test_another_content(self, server, target, known_hash):
        server.content = CONTENT[::-1]
        algorithm = "MD5" if known_hash == MD5 else "SHA-256"
        refused(f"its {algorithm} is not the expected one", server.url, target, known_hash)
        assert left(target) == {}

    @pytest.mark.parametrize("length", [True, False])
    @pytest.mark.parametrize("content", [CONTENT[:-1], CONTENT + b"x"])
    def test_another_size(self, server, target, content, length):
        server.content, server.length = content, length
        message = refused("cut off or another file; nothing", server.url, target, known_hash=None)
        assert f"{len(content):,} bytes, expected 3,000,000" in message
        assert left(target) == {}

    @pytest.mark.parametrize("known_hash", [SHA256, None])
    @pytest.mark.parametrize("content_type", ["text/html; charset=utf-8", "application/zip"])
    def test_a_web_page(self, server, target, known_hash, content_type):
        server.content, server.content_type = PAGE, content_type
        refused("is a web page, not weights", server.url, target, known_hash, size=None)
        assert left(target) == {}

    def test_an_empty_answer(self, server, target):
        server.content = b""
        refused("0 bytes, expected 3,000,000", server.url, target)
        assert left(target) == {}

    @pytest.mark.parametrize(
        ("content", "match"),
        [
            (PAGE, "web page"),
            (CONTENT[:-1], "2,999,999 bytes, expected 3,000,000"),
            (CONTENT[::-1], "not the expected one"),
        ],
    )
    def test_copies_of_this_disk(self, tmp_path, target, content, match):
        source = tmp_path / "copy.pth"
        source.write_bytes(content)
        refused(match, source, target)
        assert left(target) == {}
        assert source.read_bytes() == content

    def test_no_hash_is_wrong_where_none_is_known(self, server, target, monkeypatch):
        def retrieve(*args, **kwargs):
            raise ValueError("something else")

        monkeypatch.setattr(pooch, "retrieve", retrieve)
        assert "hash" not in refused("something else", server.url, target, known_hash=None).lower()

    def test_a_wrong_one_does_not_replace_what_is_there(self, server, target):
        target.parent.mkdir()
        target.write_bytes(b"old")
        server.content = CONTENT[::-1]
        refused("not the expected one", server.url, target)
        assert left(target) == {"weights.pth": b"old"}


def check(path):
    """Stands for a reader of weights: it goes by the suffix, and by the first byte."""
    assert path.suffix == ".pth"
    if path.read_bytes()[:1] != CONTENT[:1]:
        raise InputError(f"{str(path)!r} cannot be read. Look at it.")


class TestChecks:
    """What has no known hash is read before it has its name."""

    def fetch(self, source, target, known_hash=None):
        fetch_file(str(source), target, known_hash=known_hash, size=None, check=check)

    @pytest.mark.parametrize("there", [None, b"junk", CONTENT[:1]])
    def test_passed(self, server, target, there):
        if there is not None:
            target.parent.mkdir()
            target.write_bytes(there)
        self.fetch(server.url, target)
        assert left(target) == (WHOLE if there != CONTENT[:1] else {"weights.pth": there})
        assert server.requests == ([None] if there != CONTENT[:1] else [])

    @pytest.mark.parametrize("there", [None, b"old junk"])
    @pytest.mark.parametrize("kind", ["server", "path"])
    def test_refused(self, server, target, tmp_path, kind, there):
        before = {}
        if there is not None:
            target.parent.mkdir()
            target.write_bytes(there)
            before = {"weights.pth": there}
        source = tmp_path / "copy"
        server.content = b"junk"
        source.write_bytes(b"junk")
        with pytest.raises(InputError) as caught:
            self.fetch(server.url if kind == "server" else source, target)
        assert str(caught.value) == (
            f"what came is of no use, and not kept ({str(target)!r} cannot be read. Look at it)"
        )
        assert left(target) == before

    def test_a_known_hash_is_enough(self, server, target):
        server.content = b"other"
        self.fetch(server.url, target, f"sha256:{hashlib.sha256(b'other').hexdigest()}")
        assert left(target) == {"weights.pth": b"other"}

    def test_what_a_killed_process_left_is_not_continued(self, server, target):
        target.parent.mkdir()
        for name in ("weights.part.pth", "weights.pth.part"):
            target.with_name(name).write_bytes(b"torn")
        self.fetch(server.url, target)
        assert server.requests == [None]
        assert left(target) == WHOLE | {"weights.pth.part": b"torn"}


class TestNoConnection:
    def test_not_found(self, server, target):
        server.status = 404
        refused("127.0.0.1 answers 404 Not Found", server.url, target)
        assert left(target) == {}

    def test_no_server(self, server, target):
        url = server.url.replace("127.0.0.1", "127.0.0.2")
        refused(r"no connection to 127.0.0.2 \(Connection refused\)", url, target)
        assert left(target) == {}

    def test_no_such_host(self, target):
        refused("no connection to nowhere.invalid", "http://nowhere.invalid/x", target)
        assert left(target) == {}

    def test_no_answer(self, server, target):
        server.silence = 2 * TIMEOUT
        refused(f"no answer from 127.0.0.1 within {TIMEOUT} s", server.url, target)
        assert left(target) == {}

    @pytest.mark.parametrize("known_hash", [SHA256, None])
    @pytest.mark.parametrize("source", ["http://[::1", "https://[x]/y", "file://[::1/x"])
    def test_addresses_that_cannot_be_taken_apart(self, target, source, known_hash):
        message = refused(
            "is no address .*: expected http, https, file", source, target, known_hash
        )
        assert repr(source) in message
        assert left(target) == {}

    @pytest.mark.parametrize("known_hash", [SHA256, None])
    def test_a_server_that_points_to_no_address(self, server, target, known_hash, monkeypatch):
        def get_redirected(*args, **kwargs):
            raise ValueError("Invalid IPv6 URL")

        monkeypatch.setattr(requests, "get", get_redirected)
        with pytest.raises(InputError, match=r"the transfer failed \(Invalid IPv6 URL") as caught:
            get(server.url, target, known_hash)
        assert not isinstance(caught.value, WrongHash)
        assert left(target) == {}

    @pytest.mark.parametrize("source", ["http://", "ftp://host/x", "s3://bucket/x", "none.pth", ""])
    def test_sources_that_are_none(self, target, source, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        refused("no connection|of a kind that is known|there is no file", source, target)
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

    def test_no_room(self, server, target, monkeypatch):
        usage = namedtuple("usage", "free")(len(CONTENT) - 1)
        monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
        refused("room for 2,999,999 bytes, and 3,000,000 are needed", server.url, target)
        assert left(target) == {}

    def test_the_room_that_is_needed_is_that_of_the_rest(self, server, target, monkeypatch):
        target.parent.mkdir()
        target.with_name("weights.pth.part").write_bytes(CONTENT[:1000])
        usage = namedtuple("usage", "free")(len(CONTENT) - 1000)
        monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
        get(server.url, target)
        assert left(target) == WHOLE

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is full")
    def test_a_disk_that_fills_up(self, server, target, monkeypatch):
        real = Path.open

        def full(path, mode="r", *args, **kwargs):
            path = Path("/dev/full") if path.suffix == ".part" else path
            return real(path, mode, *args, **kwargs)

        monkeypatch.setattr(Path, "open", full)
        refused("No space left on device", server.url, target)
        assert left(target) == {}


def test_several_threads_end_with_one_download(server, target):
    errors = []

    def run():
        try:
            get(server.url, target)
        except InputError as error:  # pragma: no cover
            errors.append(error)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert left(target) == WHOLE
    assert server.requests == [None]


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
    for known_hash in (SHA256, MD5, None):
        assert fault(path, known_hash=known_hash, size=len(CONTENT)) is None
    assert fault(path, known_hash=SHA256, size=1) == "it has 3,000,000 bytes, expected 1"
    found = fault(path, known_hash="md5:" + 32 * "0", size=None)
    assert found == f"MD5 {MD5[4:16]}..., expected 000000000000..."
    assert "cannot be read" in fault(tmp_path, known_hash=SHA256, size=None)


def test_a_proxy_is_respected(server, target, monkeypatch):
    """The address is asked of the proxy, which is how a closed network reaches the outside."""
    monkeypatch.setenv("http_proxy", server.url.removesuffix("/weights.pth"))
    monkeypatch.delenv("no_proxy", raising=False)
    get("http://nowhere.invalid/weights.pth", target)
    assert server.paths == ["http://nowhere.invalid/weights.pth"]
    assert requests.utils.getproxies()["http"]
