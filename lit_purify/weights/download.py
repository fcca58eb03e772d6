"""Files from elsewhere: transferred, checked, and only then given their name.

pooch downloads and shows how far it is. What is kept of a transfer that broke off, and which
content may have the name, is decided here.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from filelock import FileLock

from lit_purify.types import InputError
from lit_purify.weights.content import is_web_page

TIMEOUT = 30.0
"""Seconds without a byte after which a connection is given up."""

RETRIES = 5
"""How often a broken transfer is taken up again by itself, as long as each time changes more."""

WEB_PAGE = "it is a web page, not weights: an error, a login or a confirmation"

_CHUNK = 2**16  # bytes; what came of one is lost when a connection breaks


class WrongContent(InputError):
    """What came is not the file that was expected."""


def fetch_file(source: str, path: Path, *, known_hash: str | None, size: int | None) -> None:
    """Bring a weights file under its name, whole and checked, or leave nothing there.

    Of several processes on a machine one transfers. A file of another content that has the name
    already is replaced, once the right one is here. Where the hash is known, a transfer that breaks
    off leaves ``<path>.part``, and the next call goes on from there.

    Args:
        source: an address (``http``, ``https``, ``file``) or the path of a local file, which is
            copied.
        path: where the file will be.
        known_hash: ``md5:`` or ``sha256:`` and hex digits; ``None`` where none is known: then the
            file must be readable as weights.
        size: bytes; ``None`` where it is not known.

    Raises:
        WrongContent: what came has another size or hash, is a web page or cannot be read.
        InputError: what failed, and what is kept; not what to do.
    """
    import requests

    part = path.with_name(f"{path.name}.part")
    if known_hash is None:  # nothing says that two pieces belong together; readers want the suffix
        part = path.with_name(f"{path.stem}.part{path.suffix}")
    try:
        local = _local_path(source)
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_name(f".{path.name}.lock")):
            if path.is_file() and fault(path, known_hash=known_hash, size=size) is None:
                return  # another process was first
            try:
                if local is not None:
                    shutil.copyfile(local, part)
                else:
                    _download(source, part, size=size, resume=known_hash is not None)
                if (wrong := fault(part, known_hash=known_hash, size=size)) is not None:
                    part.unlink()
                    raise _wrong(wrong.replace(str(part), str(path)).rstrip("."))
                part.replace(path)
            finally:
                if known_hash is None or _bytes_in(part) == 0:
                    part.unlink(missing_ok=True)
    except InputError:
        raise
    except requests.RequestException as error:
        raise InputError(f"{_network_reason(error, source)}{_kept(part, size)}") from error
    except OSError as error:
        where = error.filename or path.parent
        raise InputError(f"{where}: {error.strerror or error}{_kept(part, size)}") from error
    except ValueError as error:  # such as of an address that a server points to
        raise InputError(f"the transfer failed ({error}){_kept(part, size)}") from error


def fault(path: Path, *, known_hash: str | None, size: int | None) -> str | None:
    """What is wrong with the content of a weights file; ``None`` where it is the expected one.

    A file of which no hash is known must be readable as weights.
    """
    try:
        found = path.stat().st_size
        with path.open("rb") as file:
            if is_web_page(file.read(64)):
                return WEB_PAGE
        if size is not None and found != size:
            return f"it has {found:,} bytes, expected {size:,}"
        if known_hash is None:
            from lit_purify.weights.files import load_content  # which loads PyTorch

            load_content(path)
            return None
        algorithm, _, expected = known_hash.partition(":")
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, algorithm).hexdigest()
    except OSError as error:
        return f"it cannot be read: {error.strerror}"
    except InputError as error:
        return f"it cannot be read as weights: {error}"
    if digest != expected:
        name = {"md5": "MD5", "sha256": "SHA-256"}[algorithm]
        return f"{name} {digest[:12]}..., expected {expected[:12]}..."
    return None


def _local_path(source: str) -> Path | None:
    """The path that a source names; ``None`` where it is an address on the network."""
    try:
        address = urlsplit(source)
        if address.scheme in ("http", "https"):
            return None
        if address.scheme != "file" and "://" in source:
            raise ValueError(f"unknown kind {address.scheme!r}")
    except ValueError as error:
        raise InputError(
            f"{source!r} is no address ({error}); expected http, https, file or the path of a file"
        ) from error
    is_file = address.scheme == "file"
    path = Path(url2pathname(address.path) if is_file else source).expanduser()
    if not path.is_file():
        raise InputError(f"there is no file {path}")
    return path


def _download(url: str, part: Path, *, size: int | None, resume: bool) -> None:
    from requests.exceptions import ChunkedEncodingError, ConnectionError, Timeout

    print(f"downloading {url}", flush=True)
    if not resume or _bytes_in(part) > (size or float("inf")):
        part.unlink(missing_ok=True)
    # pooch's own retries would wait, and transfer anew what was refused for its content.
    for remaining in reversed(range(RETRIES + 1)):
        before = _bytes_in(part)
        if before == size:
            return
        try:
            _receive(url, part, size=size)
            return
        except (ConnectionError, ChunkedEncodingError, Timeout):
            if not (resume and remaining and _bytes_in(part) != before):
                raise


def _receive(url: str, part: Path, *, size: int | None) -> None:
    """One request: all of the file, or what is missing in ``part``."""
    from pooch import HTTPDownloader
    from requests.exceptions import ChunkedEncodingError, ConnectionError

    start = _bytes_in(part)
    # Encoded content would have another length, and no ranges.
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
    announced: int | None = None

    def before_the_content(answer: Any, *_: Any, **__: Any) -> None:
        nonlocal announced
        begins = 0
        if answer.status_code == 206:
            given = re.match(r"bytes (\d+)-", answer.headers.get("Content-Range", ""))
            begins = int(given[1]) if given else -1
        if start and (answer.status_code == 416 or begins not in (0, start)):
            file.truncate(0)
            raise ConnectionError("the server cannot continue")
        if answer.is_redirect or not answer.ok:
            return
        if answer.headers.get("Content-Type", "").startswith("text/html"):
            raise _wrong(WEB_PAGE)
        if "Content-Encoding" not in answer.headers:
            announced = begins + int(answer.headers.get("Content-Length", 0)) or None
        if None not in (announced, size) and announced != size:
            raise _wrong(f"it has {announced:,} bytes, expected {size:,}")
        needed, free = (announced or size or 0) - begins, shutil.disk_usage(part.parent).free
        if needed > free:
            raise InputError(
                f"{part.parent} has room for {free:,} bytes, and {needed:,} are needed; make room, "
                "or choose another folder by LIT_PURIFY_CACHE"
            )
        if begins == 0:
            file.truncate(0)

    with part.open("ab") as file:
        download = HTTPDownloader(
            progressbar=sys.stderr.isatty(),
            chunk_size=_CHUNK,
            timeout=TIMEOUT,
            headers=headers,
            hooks={"response": before_the_content},
        )
        download(url, file, None)
    if announced is not None and _bytes_in(part) < announced:  # urllib3 1.26 does not tell
        raise ChunkedEncodingError(f"{_bytes_in(part)} of {announced} bytes came")


def _wrong(reason: str) -> WrongContent:
    return WrongContent(f"what came is damaged or another file ({reason}); nothing of it is kept")


def _network_reason(error: Exception, source: str) -> str:
    import requests

    host = urlsplit(source).hostname or source
    if isinstance(error, requests.HTTPError) and error.response is not None:
        return f"{host} answers {error.response.status_code} {error.response.reason}"
    if isinstance(error, requests.Timeout):
        return f"no answer from {host} within {TIMEOUT:g} s"
    root: BaseException = error
    while (inner := root.__cause__ or root.__context__) is not None:
        root = inner
    reason = getattr(root, "strerror", None) or str(root) or type(root).__name__
    return f"the connection to {host} failed ({reason})"


def _kept(part: Path, size: int | None) -> str:
    found = _bytes_in(part)
    of = f" of {size:,}" if size else ""
    return f" ({found:,}{of} bytes are kept, and the next try goes on from there)" if found else ""


def _bytes_in(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0
