"""What the records of a run are records of: ``records/header.json``."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, TypedDict

from lit_purify.records.files import write_whole
from lit_purify.types import InputError

FORMAT = "lit_purify records"
VERSION = 2
"""Version 1 had one row per image, protocol and seed, and a journal per process."""

Status = Literal["running", "interrupted", "failed", "finished"]


class Header(TypedDict):
    """The header of a run's records.

    Attributes:
        format, version: of the records.
        status: what became of the run; ``running`` also where its process was killed.
        run: hash of ``identity``, which every file of the records repeats.
        identity: everything that decides the numbers: ``config`` of the command line, ``settings``.
        samples: how many samples the run has in all; ``None`` if unknown.
        sessions: when, on what and with which versions the run was started and resumed; of one
            that came to its end, how long each process worked on batches, and how long the first
            one took for each part of the attack, per image that the part was given.
    """

    format: str
    version: int
    status: Status
    run: str
    identity: dict[str, Any]
    samples: int | None
    sessions: list[dict[str, Any]]


def new_header(identity: Mapping[str, Any], samples: int | None) -> Header:
    """The header of a run that starts."""
    plain = json.loads(json.dumps(identity, default=str))
    text = json.dumps(plain, sort_keys=True).encode()
    return Header(
        format=FORMAT,
        version=VERSION,
        status="running",
        run=hashlib.sha256(text).hexdigest(),
        identity=plain,
        samples=samples,
        sessions=[],
    )


def write_header(folder: Path, header: Header) -> None:
    """Write the header of the records in a folder."""
    write_whole(_path(folder), (json.dumps(header, indent=2) + "\n").encode())


def read_header(folder: Path) -> Header | None:
    """The header of the records in a folder; ``None`` where there are none.

    Raises:
        InputError: it is damaged, foreign or of another version.
    """
    path = _path(folder)
    if not path.exists():
        return None
    try:
        header: Header = json.loads(path.read_bytes())
    except ValueError as error:
        raise InputError(f"{path} is damaged ({error}); restore the file") from None
    check_format(header, path)
    identity = header.get("identity")
    if not isinstance(identity, dict) or not {"config", "settings"} <= identity.keys():
        raise InputError(f"{path} does not say what the records are of; restore the file")
    if missing := Header.__annotations__.keys() - header.keys():
        raise InputError(f"{path} lacks {', '.join(sorted(missing))}; restore the file")
    return header


def check_format(header: object, path: Path) -> None:
    """Raise :class:`InputError` unless a file is of this format and version."""
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise InputError(f"{path} is not a file of {FORMAT}; move it out of the folder")
    if header.get("version") != VERSION:
        raise InputError(
            f"{path} has version {header.get('version')!r} of the records; this lit_purify reads "
            f"version {VERSION}; use the lit_purify that wrote it"
        )


def differences(old: object, new: object, name: str = "") -> Iterator[str]:
    """Each place where two nested values differ, in words.

    Example:
        >>> list(differences({"attack": {"eps": 1}, "seed": 0}, {"attack": {"eps": 2}, "seed": 0}))
        ['attack.eps was 1 and now is 2']
    """
    if isinstance(old, dict) and isinstance(new, dict):
        for key in [*old, *(key for key in new if key not in old)]:
            yield from differences(old.get(key), new.get(key), f"{name}.{key}" if name else key)
    elif old != new:
        yield f"{name} was {json.dumps(old)} and now is {json.dumps(new)}"


def _path(folder: Path) -> Path:
    return folder / "header.json"
