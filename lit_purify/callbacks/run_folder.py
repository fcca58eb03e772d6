"""Where a run writes: ``lightning_logs/version_N``, or where its logger says."""

from __future__ import annotations

import re
from contextlib import suppress
from itertools import count
from pathlib import Path

from lightning.pytorch import Trainer
from lightning.pytorch.loggers import TensorBoardLogger

from lit_purify.records.discovery import LOGS
from lit_purify.types import InputError

_BEFORE_THE_WORK = ("config.yaml", "hparams.yaml", "events.out.tfevents.")
"""How the names of the files begin that a run has before it has found anything."""


def run_folder(trainer: Trainer) -> Path:
    """The run's folder, the same on every rank.

    The ranks agree on it by a broadcast, so every one of them must ask: in ``setup``, never behind
    a test of the rank.

    Raises:
        InputError: it is a URL.
    """
    return _local(trainer.log_dir or trainer.default_root_dir)


def new_run(root: Path) -> Path:
    """Make the folder of a new run, ``lightning_logs/version_N``; no other run gets the same."""
    logs = root / LOGS
    logs.mkdir(parents=True, exist_ok=True)
    first = max((version(path) for path in logs.glob("version_*")), default=-1) + 1
    for number in count(first):
        with suppress(FileExistsError):
            (folder := logs / f"version_{number}").mkdir()
            return folder
    raise AssertionError


def remove_unused(folder: Path) -> None:
    """Remove the folder of a run that found nothing: it holds what is there before the work."""
    files = list(folder.iterdir()) if folder.is_dir() else []
    if all(file.name.startswith(_BEFORE_THE_WORK) for file in files):
        with suppress(OSError):  # something else is there
            for file in files:
                file.unlink()
            folder.rmdir()
            folder.parent.rmdir()


def run_logger(trainer: Trainer, folder: Path | None = None) -> TensorBoardLogger:
    """The logger of a run, which decides its folder; every process must ask.

    Args:
        trainer: the trainer of the run, whose ``default_root_dir`` a new folder is made in.
        folder: that of an earlier run, to go on with.

    Raises:
        InputError: no folder can be made there.
    """
    root = _local(trainer.default_root_dir)
    if folder is None and trainer.is_global_zero:
        try:
            folder = new_run(root.resolve())
        except (OSError, ValueError) as error:
            raise InputError(
                f"no run folder can be made in {str(root)!r} ({error}); choose another place by "
                "--trainer.default_root_dir FOLDER (root in Python)"
            ) from error
    if folder is None:  # the first process tells the others which it is
        return TensorBoardLogger(root)
    return TensorBoardLogger(folder.parent.parent, folder.parent.name, folder.name)


def version(folder: Path) -> int:
    """N of a folder ``version_N``; -1 of any other."""
    number = folder.name.removeprefix("version_")
    return int(number) if number.isdecimal() else -1


def _local(folder: str) -> Path:
    """The folder, unless it is a URL, of which a folder ``s3:`` would be made here."""
    if re.match(r"[A-Za-z][\w+.-]+:/", folder):
        raise InputError(
            f"{folder} is a URL; a run writes to a folder of this machine: "
            "--trainer.default_root_dir FOLDER (root in Python), copied elsewhere afterwards"
        )
    return Path(folder)
