"""Imports go one way, and heavy frameworks stay in their rooms: read from the source."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "lit_purify"
LEVELS = (
    {"arguments", "functional", "lazy", "precision", "statistics", "types"},
    {"diffusion", "checkpoints", "purifiers", "weights"},
    {"defence", "classifiers"},
    {"attacks", "metrics", "data", "paper"},
    {"report", "figures", "records", "search", "sweeps"},
    {"callbacks", "modules"},
    {"cli", "api", "__main__", "__init__"},
)
ALLOWED = {
    "lightning": {"cli", "api", "modules", "callbacks", "data"},
    "torchmetrics": {"metrics", "modules", "callbacks"},
}
FILES = sorted(PACKAGE.rglob("*.py"))


def room(file: Path) -> str:
    """The folder or top-level module that a file belongs to."""
    return file.relative_to(PACKAGE).with_suffix("").parts[0]


def level(name: str) -> int:
    (found,) = [number for number, rooms in enumerate(LEVELS) if name in rooms]
    return found


def imported(file: Path) -> set[str]:
    """Absolute dotted names of everything a file imports, at any depth of its code."""
    package = ("lit_purify", *file.relative_to(PACKAGE).parts[:-1])
    names = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            start = ".".join((*base, *(node.module or "").split("."))).strip(".")
            names |= {f"{start}.{alias.name}" for alias in node.names}
    return names


def rooms_imported(file: Path) -> set[str]:
    """The rooms of this package that a file imports from."""
    names = {name for name in imported(file) if name.split(".")[0] == "lit_purify"}
    top = {path.stem for path in PACKAGE.iterdir()}
    return {part if (part := (*name.split("."), "")[1]) in top else "__init__" for name in names}


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_imports_go_one_way(file):
    higher = {name for name in rooms_imported(file) if level(name) > level(room(file))}
    assert not higher, f"{room(file)} may not import {', '.join(sorted(higher))}"


@pytest.mark.parametrize("framework", ALLOWED)
def test_frameworks_stay_in_their_rooms(framework):
    users = {room(f) for f in FILES if any(n.split(".")[0] == framework for n in imported(f))}
    assert users <= ALLOWED[framework]
    assert users  # the rule speaks of something


def test_figures_are_functions_of_arrays():
    found = set().union(*(rooms_imported(f) for f in FILES if room(f) == "figures"))
    assert found == {"figures", "paper", "statistics", "types"}


def test_rooms_import_each_other_in_no_circle():
    graph = {room(file): set() for file in FILES}
    for file in FILES:
        graph[room(file)] |= rooms_imported(file) - {room(file)}
    while graph:
        leaves = {name for name, targets in graph.items() if not targets & set(graph)}
        assert leaves, f"a circle of imports among {', '.join(sorted(graph))}"
        graph = {name: targets for name, targets in graph.items() if name not in leaves}


def test_python_calls_do_without_the_command_line():
    assert "cli" not in rooms_imported(PACKAGE / "api.py")


def test_every_room_has_its_level():
    assert {room(file) for file in FILES} <= set().union(*LEVELS)


def test_the_reader_of_imports_sees_every_form(tmp_path, monkeypatch):
    monkeypatch.setitem(globals(), "PACKAGE", tmp_path)
    file = tmp_path / "data" / "x.py"
    file.parent.mkdir()
    (tmp_path / "cli.py").touch()
    file.write_text(
        "import lit_purify.cli\nfrom lit_purify import cli, purify\nfrom ..cli import main\n"
        "from . import y\ndef f():\n    from lit_purify.data.z import a\n"
    )
    assert imported(file) == {
        "lit_purify.cli",
        "lit_purify.purify",
        "lit_purify.cli.main",
        "lit_purify.data.y",
        "lit_purify.data.z.a",
    }
    assert rooms_imported(file) == {"cli", "data", "__init__"}


SUMMARY = {
    "status": "finished",
    "versions": {},
    "settings": {"sampler": "DDPMSampler", "t_star": 100, "eps": 8 / 255},
    "metrics": {
        "uniform/compression_rate": {"value": 0.2},
        "fixed/robust_accuracy": {"value": 0.3},
    },
}


@pytest.mark.parametrize(
    "args", [["--help"], [], ["weights", "list"], ["weights", "--help"], ["report", "{run}"]]
)
def test_what_needs_no_pytorch_does_not_load_it(args, tmp_path):
    (tmp_path / "summary.json").write_text(json.dumps(SUMMARY))
    args = [arg.format(run=tmp_path) for arg in args]
    code = f"""
import contextlib, sys
from lit_purify.cli import main

with contextlib.suppress(SystemExit):
    main({args})
print("torch" in sys.modules)
"""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.stdout.splitlines()[-1] == "False"
    assert (tmp_path / "lightning_logs/report/law.png").exists() == ("report" in args)
