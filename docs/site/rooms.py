"""What of the package the API reference shows, and where."""

from __future__ import annotations

import ast
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "lit_purify"
ROOMS = (
    *("attacks", "callbacks", "checkpoints", "classifiers", "data", "diffusion", "functional"),
    *("metrics", "purifiers"),
)
"""Rooms of the package that have a page."""
DERIVED = ("diffusion", "functional")
"""Rooms whose modules derive at their top what they compute."""
ELSEWHERE = {
    "api": ("evaluate", "purify", "Evaluation"),
    "defence": ("Defence",),
    "modules": ("PurifiedClassifier",),
}
"""Public names of the top level that are in no such room: their module -> names."""


def public(room: str) -> list[str]:
    """What ``__all__`` of a room says."""
    tree = ast.parse((PACKAGE / room / "__init__.py").read_text(encoding="utf-8"))
    (names,) = [
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
    ]
    return list(ast.literal_eval(names))


HOME = {
    **{name: f"lit_purify.{room}.{name}" for room in ROOMS for name in public(room)},
    **{
        name: f"lit_purify.{module}.{name}" for module, names in ELSEWHERE.items() for name in names
    },
}
"""Public name -> the path under which the site documents it."""
