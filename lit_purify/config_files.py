"""Configuration files are looked at before they are used, so that a fault is told by its file."""

from __future__ import annotations

import inspect
import pydoc
from collections.abc import Iterator, Mapping, Sequence
from functools import wraps
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args, get_type_hints

import yaml
from jsonargparse import get_loader, set_loader
from yaml.nodes import MappingNode, Node, SequenceNode

from lit_purify.types import InputError


def read_none_as_null() -> None:
    """Let the parser read ``None`` like ``null``.

    It hands a null for an argument two classes deep, such as ``--model.purifier.num_steps null``,
    down as the text ``None``, and then takes it for a string.
    """
    load = get_loader("yaml")
    if getattr(load, "reads_none", False):
        return

    @wraps(load)
    def loader(text: str) -> Any:
        return None if text == "None" else load(text)

    loader.reads_none = True  # type: ignore[attr-defined]
    set_loader("yaml", loader, exceptions=(yaml.YAMLError,))


def check_config_files(args: Sequence[str]) -> None:
    """Raise :class:`InputError` if a file that ``--config`` names cannot be a configuration.

    Nothing in it is interpreted, and what else may be wrong with it is left to the parser.
    """
    for path in _config_files(args):
        try:
            root = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
        except OSError as error:
            raise InputError(
                f"the configuration {path} cannot be read ({error.strerror}); check who may read it"
            ) from error
        except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
            raise InputError(
                f"the configuration {path} is not YAML: parsing it failed ({error}); correct it, "
                "or start from a file in configs/"
            ) from error
        if not isinstance(root, MappingNode):
            found = "nothing" if root is None else f"a {root.id}"
            raise InputError(
                f"the configuration {path} holds {found}; expected a mapping with sections such as "
                "'model:' and 'data:', as in configs/cifar_fixed.yaml"
            )
        _check_keys(root, path, ())


def _config_files(args: Sequence[str]) -> Iterator[Path]:
    for word, following in pairwise([*args, ""]):
        option, equals, value = word.partition("=")
        if option in ("--config", "-c"):
            path = Path(value if equals else following)
            try:
                found = path.is_file()
            except OSError:  # a name that no file can have: inline YAML, or nonsense
                found = False
            if found:
                yield path


def _check_keys(node: Node, path: Path, above: tuple[Node, ...]) -> None:
    """Refuse what YAML readers take without a word: a key given twice, a part inside itself."""
    place = f"{path}, line {node.start_mark.line + 1}"
    if any(node is other for other in above):
        raise InputError(f"{place}: this part contains itself by an alias; write it out")
    above = (*above, node)
    if isinstance(node, SequenceNode):
        for item in node.value:
            _check_keys(item, path, above)
    elif isinstance(node, MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            if key.value in seen:
                raise InputError(
                    f"{path}, line {key.start_mark.line + 1}: the key {key.value!r} is given "
                    "twice; keep one of them"
                )
            if isinstance(key.value, str):
                seen.add(key.value)
            _check_keys(value, path, above)


def check_nulls(config: Any) -> None:
    """Raise :class:`InputError` for a null where an argument takes none.

    The parser lets null pass everywhere.

    Args:
        config: a configuration in mappings and lists, with ``class_path`` and ``init_args``.
    """
    if isinstance(config, list):
        for item in config:
            check_nulls(item)
    if not isinstance(config, Mapping):
        return
    for value in config.values():
        check_nulls(value)
    made = pydoc.locate(str(config.get("class_path", "")))
    arguments = config.get("init_args")
    if made is None or not isinstance(arguments, Mapping):
        return
    try:
        hints = get_type_hints(made.__init__ if inspect.isclass(made) else made)
    except (NameError, TypeError):  # names that only type checkers import
        return
    for name, value in arguments.items():
        hint = hints.get(name, Any)
        if value is None and hint is not Any and type(None) not in (hint, *get_args(hint)):
            expected = getattr(hint, "__name__", str(hint))
            raise InputError(
                f"{name} of {config['class_path']} is null; expected {expected}; leave it out for "
                "the default"
            )
