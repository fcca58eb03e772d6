"""A disk that is full: one clear line, and what was recorded is still there and goes on."""

import errno
import os
import resource
import stat
import subprocess
import sys
from contextlib import nullcontext

import pytest
import tiny
from run_files import RunFiles

from lit_purify.cli import main
from lit_purify.records.files import write_whole

LIMITS = {
    "the configuration": 1_000,
    "the header of the records": 3_000,
    "a batch": 12_000,
    "the merged records": 60_000,
}
"""Bytes a file may have, below the size of the file named."""


@pytest.fixture(scope="module")
def args(tmp_path_factory):
    """A small command, and what it records when nothing goes wrong."""
    folder = tmp_path_factory.mktemp("undisturbed")
    more = ("--data.batch_size", "1", *tiny.UNMEASURED)
    command = tiny.command("test", "cifar_fixed.yaml", folder, *more)
    assert main(command) == 0
    return command, RunFiles(tiny.run_folder(folder)).merged


@pytest.mark.slow
@pytest.mark.parametrize("what", LIMITS)
def test_full_disk(what, args, tmp_path):
    command, merged = args
    command = [*command, "--trainer.default_root_dir", str(tmp_path), "--resume", "auto"]
    full = subprocess.run(
        [sys.executable, "-m", "lit_purify", *command],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (LIMITS[what],) * 2),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert full.returncode == 2, full.stderr
    assert full.stderr.splitlines()[-1].startswith("error: File too large")
    assert full.stderr.count("error: ") == 1
    assert "Traceback" not in full.stderr
    assert main(command) == 0  # there is room again
    # Where not even the header found room there is nothing to go on with.
    header = max((tmp_path / "lightning_logs").glob("version_*/records/header.json"))
    assert RunFiles(header.parents[1]).merged == merged
    assert {path.name for path in header.parent.iterdir()} == {header.name, *merged}


@pytest.mark.parametrize(
    ("number", "tolerated"), [(errno.EINVAL, True), (errno.ENOTSUP, True), (errno.EIO, False)]
)
def test_a_folder_that_cannot_be_synced(number, tolerated, tmp_path, monkeypatch):
    """Some network file systems take fsync of files only."""
    fsync = os.fsync

    def of_files(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(number, os.strerror(number))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", of_files)
    with nullcontext() if tolerated else pytest.raises(OSError, match="Input"):
        write_whole(tmp_path / "a.json", b"{}")
    assert (tmp_path / "a.json").read_bytes() == b"{}"
