"""Which folder a command writes to: a new one, or that of a run it goes on with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.loggers import TensorBoardLogger

from lit_purify.records import records_folder
from lit_purify.records.header import read_header
from lit_purify.types import InputError

AUTO = "auto"
"""Value of ``--resume`` that looks for the newest run of the same configuration."""

LOGS = "lightning_logs"

_SECTIONS = ("seed_everything", "model", "attack", "data")
_TRAINER = ("precision", "deterministic", "callbacks")
_HARDWARE = ("batch_size", "num_workers", "memory_budget_gib", "root")


def with_run_config(args: Sequence[str]) -> list[str]:
    """Arguments in which ``--resume FOLDER`` brings the folder's own configuration.

    It comes first, so that what else is given is compared with it.

    Raises:
        InputError: the folder does not hold a run.
    """
    args = list(args)
    for place, word in enumerate(args):
        if word == "--resume" and place + 1 < len(args):
            value = args[place + 1]
        elif word.startswith("--resume="):
            value = word.partition("=")[2]
        else:
            continue
        if value in (AUTO, "null"):
            continue
        config = Path(value) / "config.yaml"
        if not config.is_file():
            raise InputError(
                f"there is no run in {value}: it holds no config.yaml; give the folder that a run "
                "printed, such as lightning_logs/version_0, or auto"
            )
        return [args[0], "--config", str(config), *args[1:]]
    return args


def deciding(config: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a command's configuration that decides the numbers.

    Left out is what may change between the sittings of a run: batch size, devices, loggers.
    """
    part = {name: config.get(name) for name in _SECTIONS}
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


def run_logger(trainer: Trainer, folder: Path | None = None) -> TensorBoardLogger:
    """The logger of a run, which decides its folder; every process must ask.

    Args:
        trainer: the trainer of the run, whose ``default_root_dir`` a new folder is made in.
        folder: that of an earlier run, to go on with.
    """
    if folder is None and trainer.is_global_zero:
        folder = new_run(Path(trainer.default_root_dir).resolve())
    if folder is None:  # the first process tells the others which it is
        return TensorBoardLogger(trainer.default_root_dir)
    return TensorBoardLogger(folder.parent.parent, folder.parent.name, folder.name)


def _version(folder: Path) -> int:
    number = folder.name.removeprefix("version_")
    return int(number) if number.isdecimal() else -1
