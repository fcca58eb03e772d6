"""``--config``: a file, or the name of a configuration that comes with the package."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from jsonargparse import ActionConfigFile, ArgumentParser, Namespace  # type: ignore[attr-defined]
from yaml import YAMLError

from lit_purify.cli import strict_yaml
from lit_purify.types import InputError, did_you_mean

_PACKAGE = Path(__file__).parents[1]
CONFIGS = next(
    (path for path in (_PACKAGE / "configs", _PACKAGE.parent / "configs") if path.is_dir()),
    _PACKAGE / "configs",
)
"""Where they are: in the package if it is installed, beside it in a checkout."""


def find_config(given: str) -> str:
    """The file of a configuration.

    Args:
        given: a path; or a name such as ``attack/pgd_eot``, also ``configs/attack/pgd_eot.yaml``,
            where no such file exists. YAML in place of a file stays as it is.

    Raises:
        InputError: there is no such file, and no configuration of that name.
    """
    with suppress(OSError, ValueError):  # a name that no file can have
        if Path(given).exists():
            return given
    if "\n" in given or ": " in given or given.lstrip().startswith("{"):
        return given
    name = given.removeprefix("configs/").removesuffix(".yaml")
    names = {
        path.relative_to(CONFIGS).with_suffix("").as_posix(): path
        for path in CONFIGS.rglob("*.yaml")
    }
    if name in names:
        return str(names[name])
    short = [known for known in names if known.rpartition("/")[2] == name]
    meant = f"; did you mean {' or '.join(short)}?" if short else did_you_mean(name, names)
    raise InputError(
        f"the configuration {given} does not exist, neither as a file nor among those that come "
        f"with lit_purify{meant or ', which are ' + ', '.join(sorted(names))}"
    )


def _check_empty(parser: ArgumentParser, file: str) -> None:
    """Refuse a misspelt key that holds an empty mapping, which the parser takes without a word."""
    known = {action.dest for action in parser._actions}
    groups = {dest.rpartition(".")[0] for dest in known if "." in dest}

    def check(content: Any, above: str) -> None:
        for key, value in content.items() if isinstance(content, Mapping) else ():
            name = f"{above}{key}".removesuffix("+")
            if name in groups:
                check(value, f"{name}.")
            elif name not in known and _holds_nothing(value):
                near = {dest.removeprefix(above).split(".")[0] for dest in known}
                raise InputError(f"has an unknown key {name!r}{did_you_mean(str(key), near)}")

    content = None
    with suppress(OSError, ValueError, YAMLError):  # what the parser will refuse itself
        if Path(file).is_file():
            content = strict_yaml.load(Path(file).read_text(encoding="utf-8"), file)
    check(content, "")


def _holds_nothing(value: Any) -> bool:
    return isinstance(value, Mapping) and all(map(_holds_nothing, value.values()))


class ConfigFile(ActionConfigFile):
    """The action of ``--config``."""

    @staticmethod
    def apply_config(parser: ArgumentParser, cfg: Namespace, dest: str, value: Any) -> None:
        """Read a configuration into what is parsed so far.

        Raises:
            InputError: it cannot be read, or is not one; the message names the file.
        """
        file = find_config(value)
        try:
            _check_empty(parser, file)
            ActionConfigFile.apply_config(parser, cfg, dest, file)
        except InputError as error:
            raise InputError(f"the configuration {file} {error}") from error
        except UnicodeDecodeError as error:
            raise InputError(
                f"the configuration {file} is not YAML: it is not UTF-8 text ({error}); start "
                "from a file in configs/"
            ) from error
        except OSError as error:
            raise InputError(
                f"the configuration {file} cannot be read ({error.strerror}); check who may read it"
            ) from error
