"""The wheel has all that the main command needs, away from the checkout."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
from run_files import files_of


def python(*args, **options):
    return subprocess.run(
        [sys.executable, *args], check=True, capture_output=True, text=True, timeout=300, **options
    ).stdout


@pytest.mark.slow
def test_the_main_command_runs_from_the_wheel(tmp_path):
    pip = ("-m", "pip", "--disable-pip-version-check", "--no-cache-dir")
    wheels, installed, empty = (tmp_path / name for name in ("wheels", "installed", "empty"))
    empty.mkdir()
    build = ("--no-deps", "--no-build-isolation", "--wheel-dir", str(wheels))
    python(*pip, "wheel", *build, ".", cwd=tiny.CONFIGS.parent)
    (wheel,) = wheels.iterdir()
    python(*pip, "install", "--no-deps", "--target", str(installed), str(wheel))
    assert (installed / "lit_purify" / "py.typed").is_file()
    page = {path.name for path in (installed / "lit_purify" / "report" / "page").iterdir()}
    assert {"page.html.j2", "page.css", "page.js"} <= page
    shipped, ours = (
        {path.relative_to(folder) for path in folder.rglob("*.yaml")}
        for folder in (installed / "lit_purify" / "configs", tiny.CONFIGS)
    )
    assert shipped == ours

    environment = os.environ | {"PYTHONPATH": str(installed)}
    found = python(
        "-c", "import lit_purify; print(lit_purify.__file__)", cwd=empty, env=environment
    )
    assert Path(found.strip()).is_relative_to(installed)
    small = ("--data.limit", "2", "--attack.steps", "1", "--model.purifier.num_steps", "2")
    main = ("test", "--config", "cifar_fixed", *small, "--trainer.accelerator", "cpu")
    printed = python("-m", "lit_purify", *main, cwd=empty, env=environment)
    summary = files_of(printed).summary
    assert summary["status"] == "finished"
    assert summary["metrics"]["purified/clean_accuracy"]["n"] == 2
