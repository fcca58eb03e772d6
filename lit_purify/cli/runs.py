"""Which run a command goes on with: one whose configuration decides the same numbers."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from lit_purify.callbacks.run_folder import LOGS, version
from lit_purify.callbacks.settings import without_hardware
from lit_purify.records import records_folder
from lit_purify.records.header import read_header
from lit_purify.types import InputError

_SECTIONS = ("seed_everything", "model", "attack", "data")
_TRAINER = ("precision", "deterministic", "callbacks")


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
    return without_hardware(part)


def find_run(root: Path, config: Mapping[str, Any]) -> Path | None:
    """The newest run under a root folder whose configuration decides the same numbers."""
    for folder in sorted((root / LOGS).glob("version_*"), key=version, reverse=True):
        with suppress(InputError):  # what is damaged is not what is looked for
            header = read_header(records_folder(folder))
            if header is not None and header["identity"].get("config") == config:
                return folder
    return None
