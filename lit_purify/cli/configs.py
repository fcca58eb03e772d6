"""``--config``: a file, or the name of a configuration that comes with the package."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from jsonargparse import ActionConfigFile, ArgumentParser, Namespace  # type: ignore[attr-defined]
from lightning.pytorch.utilities import rank_zero_only
from yaml import YAMLError

from lit_purify.cli import strict_yaml
from lit_purify.cli.empties import unknown_keys
from lit_purify.cli.order import dropped
from lit_purify.cli.shipped import find_config
from lit_purify.types import InputError


def _content(given: str) -> Any:
    """What a configuration holds, a file or YAML in its place."""
    with suppress(ValueError, YAMLError):  # no name of a file, no YAML: the parser says so
        if not Path(given).is_file():
            return strict_yaml.load(given)
    text = Path(given).read_text(encoding="utf-8")
    with suppress(YAMLError):
        return strict_yaml.load(text, given)
    return None


def _warn_of_dropped(earlier: str, content: Any, *, given: str) -> None:
    """Say what a configuration, which is given now, drops of one that was given before it."""
    lost = dropped(_content(earlier), content)
    if lost and rank_zero_only.rank == 0:  # type: ignore[attr-defined]
        print(
            f"warning: --config {given} drops what {earlier} had set ({'; '.join(lost)}); "
            f"put {earlier} after it; callbacks add up where both write callbacks+",
            file=sys.stderr,
        )


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
            content = _content(file)
            for sections, command in (
                ({"axes", "configs"}, "sweep"),
                ({"groups"}, "search --space"),
            ):
                if isinstance(content, Mapping) and content.keys() & sections:
                    words = f"python -m lit_purify {command} {value}"
                    raise InputError(f"is a plan of many runs, expected one; type {words}")
            for earlier in filter(None, cfg.get(dest) or ()):
                _warn_of_dropped(str(earlier), content, given=value)
            ActionConfigFile.apply_config(parser, cfg, dest, file)
            for key in unknown_keys(content, cfg):
                raise InputError(f"has the unknown key {key}")
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
