"""The scripts of the repository, as modules."""

import importlib.util
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[1] / "scripts"


def load_script(name: str) -> Any:
    """The script of a name."""
    spec = importlib.util.spec_from_file_location(f"script_{name}", FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
