"""Every configuration in the repository runs, on a small scale.

A configuration that only means something on top of another says so in its first line,
``# Overlay on <file in configs/>: ...``. Every other one is run by a command that it states itself
or that the Makefile or the README states.
"""

import re
from pathlib import Path

import pytest
import tiny
import torch

from lit_purify.cli import main
from lit_purify.diffusion import PRESETS
from lit_purify.records.summary import read_summary

ROOT = tiny.CONFIGS.parent
SWEEPS = ("paper", "sweep")
"""Folders of files for ``sweep``, which ``sweeps/test_shipped.py`` reads."""
FILES = sorted(
    name
    for path in tiny.CONFIGS.rglob("*.yaml")
    if (name := path.relative_to(tiny.CONFIGS).as_posix()).split("/")[0] not in SWEEPS
)


_AGREEMENT = [
    *("--attack.steps", "2"),
    *("--measure.agreement.eot.steps", "1"),
    *("--measure.agreement.eot.draws", "2"),
]
_FOOLBOX = ["--attack.attack.steps", "2"]
_JACOBIAN = [
    *("--attack.steps", "2"),
    *("--measure.jacobian.images", "1"),
    *("--measure.jacobian.probes", "2"),
    *("--measure.jacobian.lanczos_steps", "4"),
]
_VARIANCE = ["--measure.variance.inputs", "2", "--measure.variance.draws", "2"]
_CURVE = ["--measure.base_curve.rates", "[0.5, 1]"]
QUICK = {
    "attack/pgd_eot_vote.yaml": [
        *("--attack.steps", "1", "--attack.draws", "2", "--attack.evaluations", "2"),
    ],
    "attack/uniform.yaml": [],
    "attack/square.yaml": ["--attack.queries", "20"],
    "attack/spsa.yaml": ["--attack.queries", "9", "--attack.directions", "2"],
    "attack/rays.yaml": ["--attack.queries", "20"],
    "attack/autoattack.yaml": ["--attack.attacks", "[apgd-ce]", "--data.limit", "3"],
    "attack/strongest.yaml": [*("--attack.rungs.pgd.steps", "2"), *("--attack.budget", "1")],
    "attack/foolbox_l2pgd.yaml": _FOOLBOX,
    "attack/foolbox_deepfool.yaml": [*_FOOLBOX, "--attack.attack.candidates", "2"],
    "attack/foolbox_carlini_wagner.yaml": _FOOLBOX,
    "attack/foolbox_fmn.yaml": _FOOLBOX,
    "attack/foolbox_hopskipjump.yaml": [
        *("--attack.attack.steps", "1"),
        *("--attack.attack.initial_gradient_eval_steps", "5"),
        *("--attack.attack.gamma", "10000"),
    ],
    "measure/agreement.yaml": _AGREEMENT,
    "measure/all.yaml": [*_AGREEMENT, *_JACOBIAN, *_VARIANCE, *_CURVE],
    "measure/black_box.yaml": ["--attack.steps", "2", "--measure.masking.black_box.queries", "20"],
    "measure/base_curve.yaml": ["--attack.steps", "2", *_CURVE],
    "measure/certified.yaml": [*("--attack.steps", "2"), *("--measure.certified.n", "20")],
    "measure/jacobian.yaml": _JACOBIAN,
}
"""What makes an attack short that has no ``--attack.steps``, or more than those."""
SLOW = {
    *("attack/foolbox_deepfool.yaml", "attack/foolbox_hopskipjump.yaml", "measure/all.yaml"),
    *("measure/base_curve.yaml", "measure/distances.yaml", "measure/jacobian.yaml"),
}
"""Configurations that take longer than ten seconds even so."""
ELSEWHERE = {
    *tiny.LAUNCHED,
    *(name for name in FILES if name.startswith("models/") or "imagenet" in name),
    *(name for name in FILES if name.startswith(("search/", "data/"))),
    *(f"defence/{name}.yaml" for name in ("densepure", "denoised_smoothing", "gdmp", "lee_kim")),
    *(name for name in FILES if name.startswith("purifier/") and Path(name).stem not in PRESETS),
}
"""Configurations that ``test_hardware.py``, ``test_published_models.py``, ``search/test_space.py``,
``test_defence_overlays.py``, ``callbacks/test_certified.py``, ``data/test_overlays.py`` and
``purifiers/test_overlays.py`` run."""


def base_of(name: str) -> str | None:
    """The configuration that this one overlays; ``None`` if it stands alone."""
    first = (tiny.CONFIGS / name).read_text(encoding="utf-8").split("\n", 1)[0]
    found = re.match(r"# Overlay on (\S+\.yaml)", first)
    return found and found[1]


def subcommand(name: str) -> str:
    """What the documented command of a configuration does with it."""
    texts = (tiny.CONFIGS / name, ROOT / "Makefile", ROOT / "README.md")
    for text in texts:
        found = re.search(
            rf"-m lit_purify (\w+) --config configs/{re.escape(name)}(?!\S)",
            text.read_text(encoding="utf-8"),
        )
        if found:
            return found[1]
    pytest.fail(
        f"nothing says how to run configs/{name}: state its command in a comment, or begin with "
        "'# Overlay on <file>: ...'"
    )


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else [])
        for name in FILES
        if name not in ELSEWHERE
    ],
)
def test_it_runs(name, tmp_path):
    base = base_of(name)
    does = subcommand(base or name)
    if does == "fit":
        folder = tiny.fit(tmp_path, name)
        checkpoint = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
        assert checkpoint["global_step"] == 1
        return
    args = tiny.command(does, base or name, tmp_path)
    if base:  # after its base, before what makes the run small
        args[3:3] = ["--config", str(tiny.CONFIGS / name)]
        if name in QUICK:
            place = args.index("--attack.steps")
            args[place : place + 2] = QUICK[name]
        if not name.startswith("measure/"):
            args += tiny.UNMEASURED  # the base's own run has tested them
    assert main(args) == 0
    folder = tiny.run_folder(tmp_path)
    if does == "test":
        summary = read_summary(folder / "summary.json")
        assert summary["status"] == "finished"
        assert summary["metrics"]["purified/clean_accuracy"]["n"] == 3
        if name.startswith("purifier/"):  # an overlay that is named after a preset is that preset
            forward_process, sampler = PRESETS[Path(name).stem]
            assert summary["settings"]["forward_process"] == forward_process
            assert summary["settings"]["sampler"] == type(sampler).__name__
            assert summary["settings"]["sampler_options"] == vars(sampler)
    else:
        assert (folder / "purified.npz").is_file()


def test_there_is_something_to_test():
    assert "cifar_fixed.yaml" in FILES
    assert any(base_of(name) for name in FILES)
    assert all(base_of(name) in {*FILES, None} for name in FILES)
