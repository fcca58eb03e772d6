"""``python -m lit_purify weights``: what it prints, its exit status, and what is left behind."""

import dataclasses
import hashlib
import importlib
import subprocess
import sys

import pytest
import torch
from weights_files import saved

from lit_purify.cli import main
from lit_purify.cli import weights as command
from lit_purify.weights import WEIGHTS, Weights

CONTENT = saved(torch.arange(2**18, dtype=torch.uint8))
SIZE = len(CONTENT)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def entries(server, monkeypatch):
    """A registry of three files on this machine's server: the last has no published hash."""
    importlib.import_module("lit_purify.callbacks")  # which looks for an entry of its own
    for name in list(WEIGHTS):
        monkeypatch.delitem(WEIGHTS, name)
    for name in ("one", "two", "three"):
        known = {"size": len(CONTENT), "hash": f"sha256:{SHA256}"} if name != "three" else {}
        weights = Weights(
            name=name,
            file_name=f"{name}.pth",
            url=f"{server.url}?{name}",
            used_for=f"tests of {name}",
            licence="MIT",
            **known,
        )
        monkeypatch.setitem(WEIGHTS, name, weights)
    return WEIGHTS


def files(cache):
    return {path.name for path in cache.glob("*") if path.suffix != ".lock"}


def run(capsys, *args):
    """Exit status, lines of the output, and the one line of an error."""
    status = main(["weights", *args])
    printed = capsys.readouterr()
    lines = printed.err.splitlines()
    assert len(lines) == (status != 0)
    assert "Traceback" not in printed.err
    return status, printed.out.splitlines(), lines[0] if lines else ""


class TestFetch:
    def test_the_last_line_is_the_path(self, entries, capsys, cache):
        status, lines, _ = run(capsys, "fetch", "one")
        assert status == 0
        assert lines[-1] == str(cache / "one.pth")
        assert lines[-2] == f"one: verified, SHA-256 {SHA256}"
        assert (cache / "one.pth").read_bytes() == CONTENT

    def test_all(self, entries, capsys, cache):
        assert run(capsys, "fetch", "all")[0] == 0
        assert files(cache) == {"one.pth", "two.pth", "three.pth", "three.pth.sha256"}

    def test_all_leaves_out_what_must_be_converted(self, entries, capsys, cache, monkeypatch):
        monkeypatch.setitem(WEIGHTS, "one", dataclasses.replace(WEIGHTS["one"], is_pickle=True))
        assert run(capsys, "fetch", "all")[0] == 0
        assert files(cache) == {"two.pth", "three.pth", "three.pth.sha256"}

    def test_all_does_not_stop_at_the_first_that_fails(self, entries, capsys, cache, monkeypatch):
        cache.mkdir()
        (cache / "one.pth").mkdir()
        (cache / "two.pth").mkdir()
        status, lines, error = run(capsys, "fetch", "all")
        assert status == 2
        assert "one could not be fetched" in error
        assert error.endswith("(and so two)")
        assert lines[-1] == str(cache / "three.pth")

    @pytest.mark.parametrize("content", [CONTENT, CONTENT[::-1]], ids=["whole", "wrong"])
    @pytest.mark.parametrize("how", ["server", "address", "file", "mirror"])
    def test_from_elsewhere(self, entries, capsys, server, tmp_path, cache, how, content):
        server.content = content
        copy = tmp_path / "mirror" / "one.pth"
        copy.parent.mkdir()
        copy.write_bytes(content)
        more = {
            "server": [],
            "address": ["--from", f"{server.url}/elsewhere"],
            "file": ["--from", str(copy)],
            "mirror": ["--mirror", str(copy.parent)],
        }
        status, lines, error = run(capsys, "fetch", "one", *more[how])
        paths = {"server": ["/weights.pth?one"], "address": ["/weights.pth/elsewhere"]}
        assert server.paths == paths.get(how, [])
        assert copy.read_bytes() == content
        if content == CONTENT:
            assert (status, lines[-1]) == (0, str(cache / "one.pth"))
        else:
            assert status == 2
            assert error.startswith("error: one could not be fetched")
            for word in ("SHA-256", "nothing of it is kept", f"{server.url}?one", SHA256):
                assert word in error
            assert files(cache) == set()

    @pytest.mark.parametrize(
        ("args", "words"),
        [
            ([], ["list", "fetch", "verify"]),
            (["fech"], ["fech", "fetch"]),
            (["fetch"], ["expects names", "one, two, three", "all"]),
            (["fetch", "on"], ["no weights 'on'", "did you mean one?"]),
            (["fetch", "one", "tow"], ["no weights 'tow'", "did you mean two"]),
            (["fetch", "one", "two", "--from", "x"], ["--from is one file", "2 names"]),
            (["fetch", "one", "--from", "x", "--mirror", "y"], ["exclude each other"]),
            (["fetch", "one", "--from", "none.pth"], ["there is no file none.pth"]),
            (["fetch", "one", "--from", "http://[::1"], ["'http://[::1' is no address"]),
            (["fetch", "one", "--mirror", "http://[::1"], ["'http://[::1/one.pth' is no address"]),
            (["fetch", "one", "--form", "none.pth"], ["--form"]),
            (["verify", "x"], ["no weights 'x'"]),
        ],
    )
    def test_wrong_arguments(self, entries, capsys, server, args, words, monkeypatch):
        monkeypatch.setattr(command, "_NAMES", ", ".join(WEIGHTS))
        status, _, error = run(capsys, *args)
        assert status == 2
        assert error.startswith("error: ")
        for word in words:
            assert word in error
        assert server.requests == []

    def test_an_interruption(self, entries, capsys, monkeypatch):
        def interrupted(*args, **kwargs):
            raise KeyboardInterrupt

        monkeypatch.setattr(command, "fetch", interrupted)
        assert main(["weights", "fetch", "one"]) == 130
        assert capsys.readouterr().err == "interrupted; the same command goes on with it\n"


class TestList:
    def test_every_file_with_its_state(self, entries, capsys, cache):
        cache.mkdir()
        (cache / "one.pth").write_bytes(CONTENT)
        (cache / "two.pth").write_bytes(CONTENT[:-1])
        status, lines, _ = run(capsys, "list")
        assert status == 0
        (one,) = [line for line in lines if "tests of one" in line]
        (two,) = [line for line in lines if "tests of two" in line]
        (three,) = [line for line in lines if "tests of three" in line]
        assert one.split()[0] == "one"
        assert f"{SIZE / 1000:.1f} kB here" in " ".join(one.split())
        assert f"damaged: {SIZE - 1:,}" in two
        assert "not known absent" in " ".join(three.split())
        text = "\n".join(lines)
        for weights in WEIGHTS.values():
            assert f"{weights.name}:\n    {weights.url}\n" in text  # whole, to be copied
            assert str(weights.path) in text
        (cache / "two.pth").rename(cache / "two.pth.part").write_bytes(CONTENT[: SIZE // 2])
        assert "50 % here" in " ".join(run(capsys, "list")[1])

    def test_of_the_real_ones(self, capsys, monkeypatch, tmp_path):
        monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
        status, lines, _ = run(capsys, "list")
        assert status == 0
        for weights in WEIGHTS.values():
            assert any(weights.name in line and "absent" in line for line in lines)
            assert f"    {weights.url}" in lines


@pytest.mark.parametrize(("action", "lines"), [("list", 1), ("verify", 0)])
def test_a_reader_that_has_enough(action, lines, monkeypatch):
    """``weights list | head -1``"""
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)  # the last lines come at the end
    with subprocess.Popen(
        [sys.executable, "-m", "lit_purify", "weights", action],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as running:
        for _ in range(lines):
            assert running.stdout.readline()
        running.stdout.close()
        errors = running.stderr.read()
    assert errors == b""
    if lines == 0:  # else all may be in the pipe before it is closed
        assert running.returncode in (1, 141)  # rich's, ours


class TestVerify:
    def test_nothing_is_here(self, entries, capsys):
        status, lines, _ = run(capsys, "verify")
        assert status == 0
        assert lines == ["one: absent", "two: absent", "three: absent"]

    def test_whole(self, entries, capsys, cache):
        run(capsys, "fetch", "all")
        status, (one, two, three), _ = run(capsys, "verify")
        assert status == 0
        assert one == f"one: verified, SHA-256 {SHA256}"
        assert two.startswith("two: verified")
        assert three.startswith("three: no hash was published to compare with")
        (cache / "three.pth.sha256").unlink()
        assert "none is recorded yet" in run(capsys, "verify", "three")[1][0]

    @pytest.mark.parametrize("content", [CONTENT[:-1], CONTENT[::-1], b"<html>"])
    @pytest.mark.parametrize("name", ["one", "three"])
    def test_damaged(self, entries, capsys, cache, content, name):
        run(capsys, "fetch", "all")
        (cache / f"{name}.pth").write_bytes(content)
        status, lines, error = run(capsys, "verify")
        assert status == 2
        assert f"{name}: damaged" in lines
        assert f"{cache / name}.pth is damaged or another file" in error
        assert error.endswith(f"'python -m lit_purify weights fetch {name}'")
        assert run(capsys, "verify", "two")[0] == 0

    def test_a_named_one_that_is_absent(self, entries, capsys):
        status, _, error = run(capsys, "verify", "two")
        assert status == 2
        assert "two: not on this machine; 'python -m lit_purify weights fetch two'" in error


class TestHelp:
    @pytest.mark.parametrize(
        ("args", "words"),
        [
            (["weights", "--help"], ["list", "fetch", "verify", "LIT_PURIFY_CACHE"]),
            (["weights", "fetch", "--help"], ["--from", "--mirror", "inception_fid"]),
            (["weights", "verify", "--help"], ["NAME"]),
        ],
    )
    def test_it_tells(self, args, words, capsys):
        with pytest.raises(SystemExit) as stop:
            main(args)
        assert stop.value.code == 0
        text = " ".join(capsys.readouterr().out.split())
        for word in words:
            assert word in text
