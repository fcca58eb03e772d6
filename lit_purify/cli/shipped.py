"""The configurations that come with the package."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

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
    folder = False
    with suppress(OSError, ValueError):  # a name that no file can have
        folder = Path(given).is_dir()
        if Path(given).exists() and not folder:  # a pipe will do
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
    problem = "is a folder, not a file" if folder else "does not exist as a file"
    raise InputError(
        f"the configuration {given} {problem}, nor is it among those that come with lit_purify"
        f"{meant or ', which are ' + ', '.join(sorted(names))}"
    )
