"""Small types shared by every room of the package."""

from __future__ import annotations

import difflib
import operator
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple, NotRequired, Protocol, TypedDict

if TYPE_CHECKING:  # the command line prints its help without PyTorch
    from torch import Tensor

Process = Literal["forward", "reverse"]
"""Which of the two halves of a purification a Gaussian draw belongs to (eq. 12)."""

Auto = Literal["auto"]
"""What a run chooses by itself."""


class AttackTrace(NamedTuple):
    """What an attack met at every iteration: of the images that it asked about, before its step.

    Attributes:
        correct: share of the answers that were correct, shape (B, I), float64. A sample that was no
            longer asked about stands if nothing before had fooled it.
        loss: mean cross-entropy of the answers, shape (B, I), float32; nan where there was none.
        gradient_norm: mean l2 norm of the gradients of a single answer that it asked for, (B, I),
            float32; nan likewise.
    """

    correct: Tensor
    loss: Tensor
    gradient_norm: Tensor


class Batch(TypedDict):
    """What travels from the data module through the attack to the measurements.

    Attributes:
        image: clean images in [0, 1], shape (B, C, H, W).
        label: class indices, shape (B,), int64.
        index: dataset indices, shape (B,), int64. They key all noise, so they must name the
            sample and not its position in the batch.
        adversarial: attacked images in [0, 1], each (B, C, H, W), keyed by what they were found
            against (``base``, ``fixed``, ``fresh``); added by the attack callback.
        attack_trace: what the attack met, with the same keys; not of attacks that do not know
            their iterations.
    """

    image: Tensor
    label: Tensor
    index: Tensor
    adversarial: NotRequired[dict[str, Tensor]]
    attack_trace: NotRequired[dict[str, AttackTrace]]


class Estimate(NamedTuple):
    """A number that a run measured.

    Attributes:
        value: the number.
        low: lower end of its 95 % interval; the value itself where it has none.
        high: upper end, likewise.
    """

    value: float
    low: float
    high: float


class Model(Protocol):
    """A network whose origin a report names.

    Attributes:
        source: where the weights come from, in words.
        file: the weights file, whose hash is reported; ``None`` where there is none.
    """

    source: str
    file: Path | None


ACCURACY = "Accuracy"
LADDER = "Ladder of attacks"
NOTED = "Noted on the way"
OTHER = "Other measurements"
"""Titles of sections in reports."""


UNTRAINED = "untrained"
"""How the source of a network with random weights begins."""


class InputError(ValueError):
    """Something the user gave is wrong: the message says what, what was expected, what to do.

    The command line prints it as one line; anything else that is raised is a defect and keeps its
    traceback.
    """


def ratio(value: float | str) -> float:
    """A number, or a fraction written as text such as ``"8/255"``.

    Raises:
        InputError: anything else.

    Example:
        >>> ratio("8/255") == 8 / 255
        True
    """
    try:
        numerator, _, denominator = str(value).partition("/")
        return float(numerator) / float(denominator or 1)
    except (ValueError, ZeroDivisionError):
        raise InputError(f"expected a number or a fraction such as 8/255, got {value!r}") from None


def described(name: str, arguments: Mapping[str, object]) -> str:
    """A class and its arguments in words.

    Example:
        >>> described("Jpeg", {"quality": 50})
        'Jpeg(quality=50)'
    """
    words = ", ".join(f"{key}={value}" for key, value in arguments.items())
    return f"{name}({words})" if words else name


def is_whole(value: object) -> bool:
    """Whether a value is an integer, also one of NumPy or PyTorch, and no truth value.

    Example:
        >>> is_whole(3), is_whole(3.0), is_whole("3"), is_whole(True)
        (True, False, False, False)
    """
    try:
        operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        return False
    return not isinstance(value, bool)


def did_you_mean(word: str, names: Iterable[str]) -> str:
    """``; did you mean ...?`` with the nearest names, or nothing."""
    lower = {name.lower(): name for name in names}
    close = difflib.get_close_matches(word.lower(), lower, n=2)
    return f"; did you mean {' or '.join(lower[name] for name in close)}?" if close else ""
