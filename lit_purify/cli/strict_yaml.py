"""The YAML that configurations and arguments are written in."""

from __future__ import annotations

from typing import Any

import yaml
from jsonargparse import get_loader, set_loader
from yaml.nodes import MappingNode, Node, SequenceNode

from lit_purify.types import InputError

_load = get_loader("yaml")


def load(text: str, path: str = "") -> Any:
    """Read YAML as the parser does, but let nothing pass that says two things at once.

    ``None`` is read like ``null``: the parser hands a null for an argument two classes deep, such
    as ``--model.purifier.num_steps null``, down as the text ``None``, and then takes it for a
    string.

    Args:
        text: a value, or the content of a file.
        path: the file; a value has none.

    Raises:
        InputError: a file is not YAML or holds no sections, gives a key twice, or has a part that
            contains itself. The message goes on from the name of the file.
    """
    if text == "None":
        return None
    if path:
        try:
            root = yaml.compose(text, Loader=yaml.SafeLoader)
            loaded = _load(text)
        except (yaml.YAMLError, RecursionError) as error:
            raise InputError(
                f"is not YAML: parsing it failed ({error}); correct it, or start from a file in "
                "configs/"
            ) from error
        if not isinstance(root, MappingNode):
            raise InputError(
                f"holds {'nothing' if root is None else f'a {root.id}'}; expected a mapping of "
                "sections, as the files in configs/ are"
            )
        _check(root, ())
        return loaded
    return _load(text)


def install() -> None:
    """Let every parser read YAML by :func:`load`."""
    set_loader("yaml", load, exceptions=(yaml.YAMLError,))


def _check(node: Node, above: tuple[Node, ...]) -> None:
    """Refuse what YAML readers take without a word: a key given twice, a part inside itself."""
    if any(node is other for other in above):
        raise InputError(
            f"contains a part that contains itself by an alias, in line "
            f"{node.start_mark.line + 1}; write it out"
        )
    above = (*above, node)
    if isinstance(node, SequenceNode):
        for item in node.value:
            _check(item, above)
    elif isinstance(node, MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            if key.value in seen:
                raise InputError(
                    f"has the key {key.value!r} twice, the second time in line "
                    f"{key.start_mark.line + 1}; keep one of them"
                )
            if isinstance(key.value, str):
                seen.add(key.value)
            _check(value, above)
