"""``import robustbench``, which fails as it is.

RobustBench 1.1.1 imports two modules that a fresh installation lacks: ``pkg_resources``, which
setuptools 81 dropped, and ``autoattack``, which on PyPI is called ``pyautoattack``. Both stand in
only while RobustBench is imported, so no other package finds them. This module can go when a
RobustBench on PyPI imports neither.
"""

from __future__ import annotations

import sys
import warnings
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

from lit_purify.classifiers.patching import patched
from lit_purify.types import InputError


def import_robustbench(name: str = "robustbench") -> ModuleType:
    """RobustBench, or a module of it such as ``robustbench.utils``.

    The first call takes about a second, as RobustBench imports timm, pandas and gdown.

    Raises:
        InputError: RobustBench, or something that it needs, cannot be imported.
    """
    try:
        with patched(sys.modules, _stand_ins()), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of timm's old module names
            return import_module(name)
    except ImportError as error:
        raise InputError(
            f"RobustBench cannot be imported ({error}); type: pip install robustbench==1.1.1, and "
            "uninstall torchattacks, which puts an older one in its place"
        ) from error


def _stand_ins() -> dict[str, ModuleType]:
    """The two modules where no real ones can be found, and RobustBench is yet to be imported."""
    added: dict[str, ModuleType] = {}
    if "robustbench" not in sys.modules:
        if _is_missing("pkg_resources"):
            added["pkg_resources"] = _pkg_resources()
        if _is_missing("autoattack"):
            for name in ("autoattack", "autoattack.state"):
                added[name] = import_module(f"py{name}")
    return added


def _is_missing(name: str) -> bool:
    return name not in sys.modules and find_spec(name) is None


def _pkg_resources() -> ModuleType:
    """The one function that RobustBench uses: the path of a file beside a module."""
    module = ModuleType("pkg_resources")
    vars(module)["resource_filename"] = lambda owner, name: str(
        Path(str(sys.modules[owner].__file__)).parent / name
    )
    return module
