"""What is wrong with the input, in one line; what is a defect keeps its traceback."""

from __future__ import annotations

import errno
import re
import sys

from jsonargparse import ArgumentError

from lit_purify.cli.hints import hint
from lit_purify.types import InputError

STATUS = 2
"""Exit status of a command whose input is wrong."""

MISCONFIGURATION = "MisconfigurationException"
"""Lightning's, by its name: commands without a trainer do not import it."""

_FILE_SYSTEM = {
    *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM),
    *(errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.EIO),
}
"""What a disk or its owner can refuse."""


def tell(error: Exception) -> int:
    """Say what was wrong with the input, and return the exit status; raise what is a defect."""
    line = explanation(error)
    if line is None:
        raise error
    print("error:", _shortened(line + hint(str(error))), file=sys.stderr)
    return STATUS


def explanation(error: BaseException | None) -> str | None:
    """What was wrong with the input, in one line; ``None`` where the error is a defect."""
    if error is None or isinstance(error, InputError):
        return None if error is None else " ".join(str(error).split())
    # jsonargparse wraps what a constructor raised into a dump of the whole configuration.
    if (cause := explanation(error.__cause__ or error.__context__)) is not None:
        return cause
    if isinstance(error, OSError) and error.errno in _FILE_SYSTEM:
        where = f": {error.filename}" if error.filename else ", in the folder of the run"
        return (
            f"{error.strerror}{where}; make room, or choose another folder by "
            "--trainer.default_root_dir; a run goes on where it stopped by --resume RUN_FOLDER"
        )
    if isinstance(error, ArgumentError) or type(error).__name__ == MISCONFIGURATION:
        return readable(str(error))
    return None


def readable(message: str) -> str:
    """A message of the parser's in one line, without its lists of types."""
    text = re.sub(r"Does not validate against any.*?Errors:\s+- ", "", message, flags=re.S)
    text = re.sub(r"\s+(- Expected a <class 'NoneType'>|Given value type:).*", "", text, flags=re.S)
    return " ".join(text.split())


def _shortened(line: str, length: int = 1000) -> str:
    """The line without its middle, where it repeats a very long input."""
    return line if len(line) <= length else f"{line[: length // 2]} ... {line[-length // 2 :]}"
