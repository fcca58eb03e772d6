"""Modules from files outside the package, such as the scripts of the repository."""

import importlib.util
import sys
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[1] / "scripts"


def load_script(name: str) -> Any:
    """The script of a name."""
    return load_module(FOLDER / f"{name}.py")


def load_module(path: Path) -> Any:
    """A file of Python code as a module, which nobody can import by its name."""
    spec = importlib.util.spec_from_file_location(f"file_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look
    spec.loader.exec_module(module)
    return module
