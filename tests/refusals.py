"""Broken input through the command line: how it is made, and what a refusal is."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from weights_files import Code

from lit_purify.cli import main

Make = Callable[[Path], object]
"""Writes broken input at a path."""

IMAGES = np.full((4, 32, 32, 3), 100, np.uint8)
LABELS = np.arange(4)

# What makes a run of each command small; the broken option comes after it.
_DEFENCE = {
    "--model.purifier.denoiser": "lit_purify.checkpoints.load_denoiser",
    "--model.purifier.denoiser.path": "{sound}/tiny.safetensors",
    "--model.classifier": "tiny.classifier",
    "--model.purifier.t_star": "20",
    "--model.purifier.num_steps": "2",
    "--data.source": "{sound}/sound.npz",
    "--trainer.accelerator": "cpu",
}
SMALL = {
    "test": {
        **_DEFENCE,
        "--model.protocols": "[fixed]",
        "--attack.steps": "1",
        "--data.limit": "1",
        "--measure.compression": "null",
        "--measure.images": "null",
    },
    "predict": _DEFENCE,
    "fit": {
        "--seed_everything": "false",
        "--model.denoiser.block_out_channels": "[8,16]",
        "--model.denoiser.norm_num_groups": "4",
        "--model.compile": "false",
        "--data.train_source": "{sound}/sound.npz",
        "--data.num_holdout": "2",
        "--data.batch_size": "2",
        "--trainer.accelerator": "cpu",
        "--trainer.devices": "1",
        "--trainer.max_steps": "1",
        "--trainer.val_check_interval": "1",
        "--trainer.enable_progress_bar": "false",
        "--trainer.callbacks": "[]",
    },
}
CONFIG = {"test": "cifar_fixed", "predict": "predict", "fit": "train_cifar_small"}


def evil(beside: Path) -> Code:
    """Unpickled, it makes a folder ``executed``."""
    return Code(beside.parent / "executed")


def write(content: bytes | str) -> Make:
    """Makes a file of this content."""
    return lambda path: path.write_bytes(content.encode() if isinstance(content, str) else content)


def nothing(path: Path) -> None:
    """The path stays empty."""


def dangling(path: Path) -> None:
    """A link to what is not there."""
    path.symlink_to(path.with_name("gone"))


def unreadable(path: Path) -> None:
    """A regular file that nobody can read, not even root, for whom modes mean nothing."""
    if not Path("/proc/self/mem").is_file():
        pytest.skip("needs Linux's /proc/self/mem, a regular file that fails when read")
    path.symlink_to("/proc/self/mem")


def sound_npz() -> bytes:
    """Images and labels that are accepted."""
    buffer = io.BytesIO()
    np.savez(buffer, images=IMAGES, labels=LABELS)
    return buffer.getvalue()


class Workplace:
    """A root directory with earlier runs in it, and the arguments of sound ones."""

    def __init__(self, folder: Path) -> None:
        self.sound = folder / "sound"
        self.root = folder / "root"
        self.sound.mkdir()
        tiny.denoiser_file(self.sound)
        (self.sound / "sound.npz").write_bytes(sound_npz())
        torch.save({"state_dict": {"a": torch.zeros(1)}}, self.sound / "tensors.ckpt")
        torch.save({"state_dict": evil(self.sound)}, self.sound / "evil.ckpt")
        for command in ("test", "predict"):
            assert main(self.arguments(command)) == 0
        self.runs = self.root / "lightning_logs"
        self.before = self.content()
        names = {path.name for path in self.before}
        assert {"summary.json", "config.yaml", "purified.npz"} <= names

    def arguments(self, command: str, *more: str) -> list[str]:
        """A sound run, and what else is given."""
        options = SMALL[command] | {"--trainer.default_root_dir": str(self.root)}
        words = [w.format(sound=self.sound) for option in options.items() for w in option]
        return [command, "--config", CONFIG[command], *words, *more]

    def content(self) -> dict[Path, bytes]:
        """Every file of the earlier runs."""
        return {
            path: path.read_bytes()
            for run in ("version_0", "version_1")
            for path in sorted((self.runs / run).rglob("*"))
            if path.is_file()
        }

    def assert_untouched(self) -> None:
        """Earlier runs are as they were, no later one looks finished, no code was executed."""
        assert self.content() == self.before
        for run in set(self.runs.iterdir()) - {self.runs / "version_0", self.runs / "version_1"}:
            if (summary := run / "summary.json").exists():
                assert json.loads(summary.read_text())["status"] != "finished"
            assert not (run / "purified.npz").exists()
            shutil.rmtree(run)
        assert not [*self.sound.parent.rglob("executed")]


def the_error_line(printed: str) -> str:
    """The last line of stderr, the only one that is an error."""
    assert "Traceback" not in printed
    lines = [line for line in printed.splitlines() if line.strip()]
    assert [line for line in lines if line.startswith("error: ")] == lines[-1:], printed
    return lines[-1]


class Refuse:
    """Runs a sound command with broken input, and asserts that it is refused in one line.

    Args:
        workplace: the sound input and the earlier runs.
        folder: working directory.
        errors: gives what was printed to stderr.
    """

    def __init__(self, workplace: Workplace, folder: Path, errors: Callable[[], str]) -> None:
        self.workplace = workplace
        self.folder = folder
        self.errors = errors

    def __call__(
        self,
        command: str,
        options: str,
        word: str,
        make: Make = nothing,
        name: str = "",
        *,
        process: bool = False,
    ) -> None:
        """Run it.

        Args:
            command: subcommand.
            options: added to a sound run, each with ``--``; ``{input}`` is where ``make`` writes,
                ``{sound}`` the folder of sound files.
            word: what the line must hold.
            make: writes the broken input.
            name: its file name; empty for a folder that exists already.
            process: whether in a process of its own.
        """
        place = self.folder / "input"
        place.mkdir()
        make(place / name)
        text = options.replace("{input}", str(place / name))
        text = text.replace("{sound}", str(self.workplace.sound))
        args = self.workplace.arguments(command, *re.split(r" (?=--)", text))
        if process:
            path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
            done = subprocess.run(
                [sys.executable, "-m", "lit_purify", *args],
                env=os.environ | {"PYTHONPATH": path},
                capture_output=True,
                text=True,
                timeout=300,
                check=False,
            )
            status, printed = done.returncode, done.stderr
            assert "Traceback" not in done.stdout
        else:
            status = main(args)
            printed = self.errors()
        assert word in the_error_line(printed)
        assert status == 2
        self.workplace.assert_untouched()
        assert not [*self.folder.rglob("executed")]
