"""The order of configurations: what a later one drops of an earlier one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

_LISTED = "trainer.callbacks"


def dropped(earlier: Any, later: Any) -> list[str]:
    """What a configuration set that one which is merged into it replaces.

    Of an overlay, which has not all the sections of a run, that is a class of which another takes
    the place, and items that a list lacks; of a whole configuration, whose parts overlays replace
    on purpose, its callbacks. A plain value in the place of another is no loss.

    Args:
        earlier: the configuration that comes first, in mappings and lists.
        later: the one that comes after it.

    Example:
        >>> mine = {"attack": {"class_path": "mine.Attack", "init_args": {"steps": 3}}}
        >>> dropped(mine, {"attack": {"class_path": "lit_purify.attacks.PGD"}})
        ['attack: mine.Attack']
        >>> dropped(mine, {"attack": {"init_args": {"steps": 5}}})
        []
    """
    lost = list(_replaced(earlier, later))
    whole = isinstance(earlier, Mapping) and {"model", "data"} <= earlier.keys()
    return [part for part in lost if part.startswith(_LISTED)] if whole else lost


def _replaced(earlier: Any, later: Any, name: str = "") -> Iterator[str]:
    if isinstance(earlier, list) and isinstance(later, list):
        kept = set(map(_words, later))
        if lost := [words for words in map(_words, earlier) if words not in kept]:
            yield f"{name}: {', '.join(lost)}"
    if not (isinstance(earlier, Mapping) and isinstance(later, Mapping)):
        return
    before, after = earlier.get("class_path"), later.get("class_path")
    if before and after and before != after:
        yield f"{name}: {before}"
        return
    for key, value in earlier.items():
        plain = str(key).removesuffix("+")  # what a list was lengthened by is in it
        yield from _replaced(value, later.get(plain), f"{name}.{plain}".removeprefix("."))


def _words(item: Any) -> str:
    return str(item.get("class_path", item)) if isinstance(item, Mapping) else str(item)
