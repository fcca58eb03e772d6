"""Which folder a command writes to: a new one, or that of a run it goes on with."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.loggers import TensorBoardLogger

from lit_purify.records import records_folder
from lit_purify.records.header import read_header
from lit_purify.types import InputError

LOGS = "lightning_logs"

_SECTIONS = ("seed_everything", "model", "attack", "data")
_TRAINER = ("precision", "deterministic", "callbacks")
_HARDWARE = ("batch_size", "num_workers", "memory_budget_gib", "root")


def deciding(config: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a command's configuration that decides the numbers.

    Left out is what may change when a run is resumed: batch size, devices, loggers; and
    measurements that are off.
    """
    part = {name: config.get(name) for name in _SECTIONS}
    measured = {name: value for name, value in (config.get("measure") or {}).items() if value}
    if measured:
        part["measure"] = measured
    part["trainer"] = {name: config["trainer"].get(name) for name in _TRAINER}
    return {name: _without_hardware(value) for name, value in part.items()}


def _without_hardware(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_hardware(item) for key, item in value.items() if key not in _HARDWARE}
    return [_without_hardware(item) for item in value] if isinstance(value, list) else value


def find_run(root: Path, config: Mapping[str, Any]) -> Path | None:
    """The newest run under a root folder whose configuration decides the same numbers."""
    for folder in sorted((root / LOGS).glob("version_*"), key=_version, reverse=True):
        with suppress(InputError):  # what is damaged is not what is looked for
            header = read_header(records_folder(folder))
            if header is not None and header["identity"].get("config") == config:
                return folder
    return None


def new_run(root: Path) -> Path:
    """Make the folder of a new run, ``lightning_logs/version_N``; no other run gets the same."""
    logs = root / LOGS
    logs.mkdir(parents=True, exist_ok=True)
    first = max((_version(path) for path in logs.glob("version_*")), default=-1) + 1
    for number in count(first):
        with suppress(FileExistsError):
            (folder := logs / f"version_{number}").mkdir()
            return folder
    raise AssertionError


def remove_unused(folder: Path) -> None:
    """Remove the folder of a run that wrote nothing."""
    with suppress(OSError):  # it is not empty
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
    root = trainer.default_root_dir
    if folder is None and trainer.is_global_zero:
        try:
            folder = new_run(Path(root).resolve())
        except (OSError, ValueError) as error:
            raise InputError(
                f"no run folder can be made in {root!r} ({error}); choose another place by "
                "--trainer.default_root_dir FOLDER (root in Python)"
            ) from error
    if folder is None:  # the first process tells the others which it is
        return TensorBoardLogger(root)
    return TensorBoardLogger(folder.parent.parent, folder.parent.name, folder.name)


def _version(folder: Path) -> int:
    number = folder.name.removeprefix("version_")
    return int(number) if number.isdecimal() else -1
