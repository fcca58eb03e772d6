"""Files from elsewhere: downloaded or copied, checked, and only then given their name.

The transfer goes on where a broken one stopped, shows how far it is, and refuses web pages. pooch
gives the file its name if its hash is right, and else removes it.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from filelock import FileLock

from lit_purify.checkpoints.files import is_web_page
from lit_purify.types import InputError

TIMEOUT = 30.0
"""Seconds without a byte after which a connection is given up."""

RETRIES = 5
"""How often a broken transfer is taken up again by itself, as long as each time brings more."""

_CHUNK = 2**16  # bytes; what came of one is lost when a connection breaks


class WrongHash(InputError):
    """What came is not the file that was expected."""


def fetch_file(
    source: str,
    path: Path,
    *,
    known_hash: str | None,
    size: int | None,
    check: Callable[[Path], object] | None = None,
) -> None:
    """Bring a file under its name, whole and checked, or leave nothing there.

    Of several processes on a machine one transfers. A file of another content that has the name
    already is replaced, once the right one is here. A transfer that breaks off leaves
    ``<path>.part`` where the server can continue and the hash is known, so that the pieces are
    checked together; the next call goes on from there.

    Args:
        source: an address (``http``, ``https``, ``file``) or the path of a local file, which is
            copied.
        path: where the file will be.
        known_hash: ``md5:`` or ``sha256:`` and hex digits; ``None`` where none is known.
        size: bytes; ``None`` where it is not known.
        check: raises :class:`InputError` for a content that may not get the name. Called where no
            hash is known, with a path that ends as ``path`` does.

    Raises:
        WrongHash: the hash is not the known one.
        InputError: what failed, and what is kept; not what to do.
    """
    import pooch
    import requests

    local, part = _local_path(source), path.with_name(f"{path.name}.part")
    if known_hash is None:  # no call goes on from it, and readers go by the suffix
        part = path.with_name(f"{path.stem}.part{path.suffix}")
    else:
        check = None

    def take(_: str, output_file: str, __: Any) -> None:
        os.replace(part, output_file)  # noqa: PTH105

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_name(f".{path.name}.lock")), _quiet(pooch.get_logger()):
            if path.is_file() and _sound(path, known_hash, size, check):
                return  # another process was first
            # Before pooch, whose temporary file would outlive a process that is killed.
            if local is None:
                _download(source, part, size=size, resume=known_hash is not None)
            else:
                _copy(local, part, size=size)
            if check is not None:
                _check_content(part, path, check)
            if known_hash is None:  # pooch would keep what is there
                path.unlink(missing_ok=True)
            try:
                pooch.retrieve(
                    source, known_hash, fname=path.name, path=path.parent, downloader=take
                )
            except ValueError as error:
                if known_hash is None:
                    raise
                raise WrongHash(
                    f"what came is damaged or another file: its {_algorithm(known_hash)} is not "
                    "the expected one; nothing of it is kept"
                ) from error
    except InputError:
        raise
    except requests.RequestException as error:
        raise InputError(f"{_network_reason(error, source)}{_kept(part, size)}") from error
    except OSError as error:
        where = error.filename or path.parent
        raise InputError(f"{where}: {error.strerror or error}") from error
    except ValueError as error:  # such as of an address that a server points to
        raise InputError(f"the transfer failed ({error}){_kept(part, size)}") from error


def fault(path: Path, *, known_hash: str | None, size: int | None) -> str | None:
    """What is wrong with the content of a file; ``None`` where it is the expected one."""
    import pooch

    try:
        found = path.stat().st_size
        if size is not None and found != size:
            return f"it has {found:,} bytes, expected {size:,}"
        if known_hash is not None:
            name, _, expected = known_hash.partition(":")
            digest = pooch.file_hash(str(path), alg=name)
            if digest != expected:
                return f"{_algorithm(known_hash)} {digest[:12]}..., expected {expected[:12]}..."
    except OSError as error:
        return f"it cannot be read: {error.strerror}"
    return None


def _local_path(source: str) -> Path | None:
    """The path that a source names; ``None`` where it is an address on the network."""
    try:
        address = urlsplit(source)
    except ValueError as error:
        raise InputError(
            f"{source!r} is no address ({error}): expected http, https, file or the path of a file"
        ) from error
    if address.scheme in ("http", "https"):
        return None
    if address.scheme == "file":
        return Path(url2pathname(address.path))
    if "://" in source:
        raise InputError(
            f"{source!r} is no address of a kind that is known: expected http, https, file or the "
            "path of a file"
        )
    return Path(source).expanduser()


def _copy(source: Path, part: Path, *, size: int | None) -> None:
    if not source.is_file():
        raise InputError(f"there is no file {source}")
    with source.open("rb") as file:
        _check_start(file.read(64))
    found = source.stat().st_size
    _check_size(found, size)
    _check_room(part, found)
    with _removed_on_failure(part):
        shutil.copyfile(source, part)


def _download(url: str, part: Path, *, size: int | None, resume: bool) -> None:
    import requests

    print(f"downloading {url}", flush=True)
    broken = (
        requests.exceptions.ConnectionError,
        requests.exceptions.ChunkedEncodingError,
        requests.exceptions.Timeout,
    )
    for remaining in reversed(range(RETRIES + 1)):
        before = _bytes_in(part)
        try:
            _receive(url, part, size=size, resume=resume)
            return
        except broken:
            if remaining == 0 or _bytes_in(part) <= before:
                raise


def _receive(url: str, part: Path, *, size: int | None, resume: bool) -> None:
    """One request: all of the file, or what is missing in ``part``."""
    import requests

    if not resume or _bytes_in(part) > (size or float("inf")):
        part.unlink(missing_ok=True)
    start = _bytes_in(part)
    if start == size:
        return
    # Encoded content would have another length, and no ranges.
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as answer:
        continued = re.match(r"bytes (\d+)-\d+/(\d+|\*)", answer.headers.get("Content-Range", ""))
        wrong_range = answer.status_code == 206 and not (continued and int(continued[1]) == start)
        if start and (answer.status_code == 416 or wrong_range):
            part.unlink()
            _receive(url, part, size=size, resume=resume)
            return
        answer.raise_for_status()
        if answer.status_code == 206 and continued:
            total = None if continued[2] == "*" else int(continued[2])
        else:  # the server cannot continue and sends everything
            start, total = 0, _announced(answer)
        chunks = answer.iter_content(_CHUNK)
        first = next(chunks, b"")
        if start == 0:
            _check_start(first, answer.headers.get("Content-Type", ""))
        ranges = start > 0 or answer.headers.get("Accept-Ranges") == "bytes"
        _check_room(part, (total or size or 0) - start)
        with _removed_on_failure(part, unless=_connection_errors() if resume and ranges else ()):
            _check_size(total, size)
            with part.open("ab" if start else "wb") as file, _progress(url, total, start) as done:
                while first:
                    file.write(first)
                    done(len(first))
                    first = next(chunks, b"")
            found = _bytes_in(part)
            if total is not None and found < total:  # which not every version of urllib3 tells
                raise requests.exceptions.ChunkedEncodingError(f"{found} of {total} bytes came")
            _check_size(found, size)


def _announced(answer: Any) -> int | None:
    """How many bytes a server says that it sends."""
    length = answer.headers.get("Content-Length", "")
    if answer.headers.get("Content-Encoding", "identity") != "identity" or not length.isdecimal():
        return None
    return int(length) or None


def _sound(
    path: Path, known_hash: str | None, size: int | None, check: Callable[[Path], object] | None
) -> bool:
    """Whether a file has the expected content, as far as that is known."""
    if fault(path, known_hash=known_hash, size=size) is not None:
        return False
    with suppress(InputError):
        if check is not None:
            check(path)
        return True
    return False


def _check_content(part: Path, path: Path, check: Callable[[Path], object]) -> None:
    with _removed_on_failure(part):
        try:
            check(part)
        except InputError as error:
            reason = str(error).replace(str(part), str(path)).rstrip(".")
            raise InputError(f"what came is of no use, and not kept ({reason})") from error


def _check_start(start: bytes, content_type: str = "") -> None:
    if content_type.startswith("text/html") or is_web_page(start):
        raise InputError(
            "what came is a web page, not weights: an error, a login or a confirmation in place of "
            "the file; nothing of it is kept"
        )


def _check_size(found: int | None, expected: int | None) -> None:
    if None not in (found, expected) and found != expected:
        raise InputError(
            f"what came has {found:,} bytes, expected {expected:,}: it is cut off or another file; "
            "nothing of it is kept"
        )


def _check_room(part: Path, needed: int) -> None:
    free = shutil.disk_usage(part.parent).free
    if needed > free:
        raise InputError(
            f"{part.parent} has room for {free:,} bytes, and {needed:,} are needed; make room, or "
            "choose another folder by LIT_PURIFY_CACHE"
        )


def _connection_errors() -> tuple[type[BaseException], ...]:
    """What ends a transfer that can go on later."""
    import requests

    return (requests.RequestException, KeyboardInterrupt)


@contextmanager
def _removed_on_failure(
    part: Path, *, unless: tuple[type[BaseException], ...] = ()
) -> Iterator[None]:
    try:
        yield
    except BaseException as error:
        if not isinstance(error, unless) or _bytes_in(part) == 0:
            part.unlink(missing_ok=True)
        raise


@contextmanager
def _progress(url: str, total: int | None, start: int) -> Iterator[Callable[[int], None]]:
    """A bar on terminals; takes the number of bytes that came."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    console = Console(stderr=True)
    columns = BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn()
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task(url, total=total, completed=start)
        yield lambda number: bar.advance(task, number)


@contextmanager
def _quiet(logger: Any) -> Iterator[None]:
    """pooch tells its log, which is the standard error, about each download."""
    level = logger.level
    logger.setLevel("WARNING")
    try:
        yield
    finally:
        logger.setLevel(level)


def _network_reason(error: Exception, source: str) -> str:
    import requests

    host = urlsplit(source).hostname or source
    if isinstance(error, requests.HTTPError) and error.response is not None:
        return f"{host} answers {error.response.status_code} {error.response.reason}"
    if isinstance(error, requests.Timeout):
        return f"no answer from {host} within {TIMEOUT:g} s"
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return f"the connection to {host} broke off"
    root: BaseException = error
    while (inner := root.__cause__ or root.__context__) is not None:
        root = inner
    reason = getattr(root, "strerror", None) or str(root) or type(root).__name__
    return f"no connection to {host} ({reason})"


def _kept(part: Path, size: int | None) -> str:
    found = _bytes_in(part)
    if not found:
        return ""
    of = f" of {size:,}" if size else ""
    return f" ({found:,}{of} bytes are kept, and the next try goes on from there)"


def _bytes_in(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _algorithm(known_hash: str | None) -> str:
    return {"md5": "MD5", "sha256": "SHA-256"}[(known_hash or "sha256:").partition(":")[0]]
