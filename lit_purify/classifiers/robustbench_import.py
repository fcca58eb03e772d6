"""``import robustbench``, which fails as it is.

RobustBench 1.1.1 imports two modules that a fresh installation lacks: ``pkg_resources``, which
setuptools 81 dropped, and ``autoattack``, which on PyPI is called ``pyautoattack``. Both stand in
only while RobustBench is imported, so no other package finds them. This module can go when a
RobustBench on PyPI imports neither.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from lit_purify.types import InputError

_LOCK = threading.RLock()


def import_robustbench(name: str = "robustbench") -> ModuleType:
    """RobustBench, or a module of it such as ``robustbench.utils``.

    The first call takes about a second, as RobustBench imports timm, pandas and gdown.

    Raises:
        InputError: RobustBench, or something that it needs, cannot be imported.
    """
    try:
        with _LOCK, _stand_ins(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of timm's old module names
            return importlib.import_module(name)
    except ImportError as error:
        raise InputError(
            f"RobustBench cannot be imported ({error}). Install it with: pip install "
            "robustbench==1.1.1; and uninstall torchattacks, which puts an older one in its place."
        ) from error


@contextmanager
def _stand_ins() -> Iterator[None]:
    """Have the two modules in ``sys.modules`` where no real ones can be found."""
    added = {}
    if "robustbench" not in sys.modules:
        if not _exists("pkg_resources"):
            added["pkg_resources"] = _pkg_resources()
        if not _exists("autoattack"):
            added |= {
                name.removeprefix("py"): importlib.import_module(name)
                for name in ("pyautoattack", "pyautoattack.state")
            }
    sys.modules.update(added)
    try:
        yield
    finally:
        for name in added:
            del sys.modules[name]


def _exists(name: str) -> bool:
    return name in sys.modules or importlib.util.find_spec(name) is not None


def _pkg_resources() -> ModuleType:
    """The one function that RobustBench uses: the path of a file beside a module."""
    module = ModuleType("pkg_resources")

    def resource_filename(owner: str, name: str) -> str:
        return str(Path(str(sys.modules[owner].__file__)).parent / name)

    module.resource_filename = resource_filename  # type: ignore[attr-defined]
    return module
