"""``--config``: a file, or the name of a configuration that comes with the package."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from jsonargparse import ActionConfigFile, ArgumentParser, Namespace  # type: ignore[attr-defined]
from lightning.pytorch.utilities import rank_zero_only
from yaml import YAMLError

from lit_purify.cli import strict_yaml
from lit_purify.cli.empties import unknown_keys
from lit_purify.cli.order import dropped
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
