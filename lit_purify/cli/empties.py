"""Keys that hold nothing: the parser drops them without a word where it does not know them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from jsonargparse import Namespace

from lit_purify.types import did_you_mean


def unknown_keys(content: Any, parsed: Any, above: str = "") -> Iterator[str]:
    """The keys that were given and that nothing came of, each with what may have been meant.

    Args:
        content: what was given, in mappings and lists.
        parsed: what the parser made of it, and of what else was given.
        above: where in the configuration that is.
    """
    if isinstance(content, list) and isinstance(parsed, list):
        # Those of an appended list stand at the end.
        for item, made in zip(content, parsed[-len(content) :], strict=False):
            yield from unknown_keys(item, made, above)
    if not (isinstance(content, Mapping) and isinstance(parsed, Namespace)):
        return
    for given, value in content.items():
        key = str(given).removesuffix("+")
        name = f"{above}.{key}".removeprefix(".")
        if key in parsed or key == "init_args":
            made = parsed.get(key, Namespace())  # type: ignore[no-untyped-call]
            yield from unknown_keys(value, made, name)
        elif _holds_nothing(value):
            yield f"{name!r}{did_you_mean(key, vars(parsed))}"


def part(parsed: Any, name: str) -> Any:
    """What an option such as ``attack.eps`` stands for in what is parsed; ``None`` for nothing."""
    for key in name.split("."):
        if not isinstance(parsed, Namespace):
            return None
        found = vars(parsed)
        if key not in found and isinstance(found.get("init_args"), Namespace):
            found = vars(found["init_args"])
        parsed = found.get(key)
    return parsed


def _holds_nothing(value: Any) -> bool:
    return isinstance(value, Mapping) and all(map(_holds_nothing, value.values()))
