"""Which run a command goes on with: one whose configuration decides the same numbers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lit_purify.callbacks.run_folder import version
from lit_purify.callbacks.settings import without_hardware
from lit_purify.records import records_folder
from lit_purify.records.header import differences, read_header
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


def find_run(logs: Path, config: Mapping[str, Any]) -> tuple[Path | None, list[str]]:
    """The newest run whose configuration decides the same numbers, as ``--resume auto`` looks.

    Args:
        logs: folder that runs are written to, as ``version_N``, or itself the folder of one.
        config: the part of the configuration that :func:`deciding` leaves.

    Returns:
        Its folder, ``None`` if there is none; and of every newer run why it was passed over.
    """
    passed_over = []
    for folder in (*sorted(logs.glob("version_*"), key=version, reverse=True), logs):
        try:
            header = read_header(records_folder(folder))
        except InputError as error:  # what is damaged is not what is looked for
            passed_over.append(str(error))
            continue
        if header is None:
            continue
        found = header["identity"].get("config")
        if found == config:
            return folder, passed_over
        changes = ["it was not started by a configuration"]
        if isinstance(found, dict):
            changes = list(differences(found, json.loads(json.dumps(config))))
        passed_over.append(f"{folder} has another configuration: {'; '.join(changes[:3])}")
    return None, passed_over
