"""What is wrong with the input, in one line; what is a defect keeps its traceback."""

from __future__ import annotations

import re
import sys

from jsonargparse import ArgumentError

from lit_purify.cli.foreign import advice, is_of_the_parser, raised_by_a_plugin
from lit_purify.cli.hints import hint
from lit_purify.types import InputError

STATUS = 2
"""Exit status of a command whose input is wrong."""

MISCONFIGURATION = "MisconfigurationException"
"""Lightning's, by its name: commands without a trainer do not import it."""

_WRAPPER = "Does not validate against any of the Union subtypes"
"""What jsonargparse makes of anything that a constructor raises, before a dump of its arguments."""


def tell(error: Exception) -> int:
    """Say what was wrong with the input, and return the exit status; raise what is a defect."""
    line = explanation(error)
    if line is None:
        raise _unwrapped(error)
    print("error:", _shortened(line + hint(str(error))), file=sys.stderr)
    return STATUS


def explanation(error: BaseException | None) -> str | None:
    """What was wrong with the input, in one line; ``None`` where the error is a defect."""
    line = _known(error)
    if line is None and error is not None and is_of_the_parser(_unwrapped(error)):
        line = readable(str(error)) if str(error).startswith(_WRAPPER) else None
    return line


def _known(error: BaseException | None) -> str | None:
    """The line of an error, or of what caused it, that says more."""
    if error is None or isinstance(error, InputError):
        return None if error is None else " ".join(str(error).split())
    if (cause := _known(error.__cause__ or error.__context__)) is not None:
        return cause
    if isinstance(error, ArgumentError) or type(error).__name__ == MISCONFIGURATION:
        return readable(str(error))
    line = advice(error)
    if line is None and (inner := _unwrapped(error)) is not error:
        line = raised_by_a_plugin(inner)
    return None if line is None else " ".join(line.split())


def _unwrapped(error: BaseException) -> BaseException:
    """What a constructor raised."""
    cause = error.__cause__ or error.__context__
    return _unwrapped(cause) if cause and str(error).startswith(_WRAPPER) else error


def readable(message: str) -> str:
    """A message of the parser's in one line, without its lists of types."""
    text = re.sub(r"Does not validate against any.*?Errors:\s+- ", "", message, flags=re.S)
    text = re.sub(r"\s+(- Expected a <class 'NoneType'>|Given value type:).*", "", text, flags=re.S)
    return " ".join(text.split())


def _shortened(line: str, length: int = 1000) -> str:
    """The line without its middle, where it repeats a very long input."""
    return line if len(line) <= length else f"{line[: length // 2]} ... {line[-length // 2 :]}"
