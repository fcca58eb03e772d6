"""Which runs feed a value of the paper, and in what they differ from the paper's setting."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from lit_purify.paper import Dataset, PrintedCell
from lit_purify.records.runs import ATTACK, FinishedRun, in_255ths
from lit_purify.types import Estimate

ANY_ITERATION = "_any_iteration"
"""What ends the name of an accuracy over all iterations of an attack."""

_CIFAR10 = ("embedded", "torchvision")
_MODELS: dict[Dataset, dict[str, tuple[str, ...]]] = {
    "cifar10": {
        "denoiser": ("DDPM on CIFAR-10 (Ho et al.)", "google/ddpm-cifar10-32"),
        "classifier": ("RobustBench cifar10/Linf/Standard",),
    },
    "imagenet": {
        "denoiser": ("OpenAI guided diffusion, ImageNet 256x256 unconditional",),
        "classifier": ("RobustBench imagenet/Linf/Standard_R50",),
    },
}
"""How the sources of the paper's models begin."""

_EPS: dict[Dataset, float] = {"cifar10": 8 / 255, "imagenet": 4 / 255}
_ATTACK = {"steps": 40, "rel_stepsize": 0.01 / 0.3, "random_start": True, "draws": 15}
"""The paper's Table S1, and PGD's start."""
PLAIN: dict[str, object] = {
    **{"norm": "Linf", "loss": "cross_entropy", "targets": "none", "restarts": 1},
    **{"attack_schedule": "constant", "momentum": 0.0, "keep": "last"},
    **{"attack_evaluations": 0, "judged_by": "mean"},
}
"""What PGD is in the paper. Runs of versions that knew no other do not say it."""
_WORDS = {
    "steps": "{} attack steps",
    "rel_stepsize": "attack steps of {:.3g} eps",
    "random_start": "no random start",
    "draws": "{} draws of EOT",
}
_SCHEDULE = "linear, 1000 steps, beta 0.0001 to 0.02"
"""Whose steps the paper's t* counts."""
_VARIABILITY = ("variance", "direction", "centroid")
_PAIRS = 50
"""Inputs and draws per image of the paper's Tables S5 and S6."""
PURIFIER = (
    *("t_star", "num_steps", "schedule", "forward_process", "sampler", "sampler_options"),
    *("clip_output", "resize_to", "purifier_options"),
)
_CHAIN = (*PURIFIER, "precision", "tf32", "data", "data_sha256", "images")
ATTACKED = (*ATTACK, "draws", "early_stop", "attack_precision", "surrogate")


class Match(NamedTuple):
    """Runs of one setting that differ in nothing but their seed.

    Attributes:
        runs: one for every seed.
        metric: what their value is called: that of the cell, or that over all iterations.
        differences: in what they differ from the paper, in words; none for the paper's setting.
    """

    runs: tuple[FinishedRun, ...]
    metric: str
    differences: tuple[str, ...]

    def estimates(self) -> list[Estimate]:
        """The value of every run."""
        return [found for run in self.runs if (found := run.estimate(self.metric)) is not None]


def nearest(cell: PrintedCell, runs: Sequence[FinishedRun]) -> list[Match]:
    """What feeds a value: the matches that differ from the paper in the fewest settings.

    Data set, method, depth t* and class of the attack must be the paper's. More than one match
    cannot be told apart by what the paper says.
    """
    groups: dict[str, list[FinishedRun]] = {}
    for run in runs:
        if _fits(cell, run):
            groups.setdefault(_but_for_the_seed(cell, run), []).append(run)
    matches = []
    for group in groups.values():
        metric = cell.metric
        if any(run.estimate(metric) is None for run in group):
            metric += ANY_ITERATION
        by_seed: dict[tuple[object, Estimate | None], FinishedRun] = {}
        for run in group:
            by_seed.setdefault((run.settings.get("seed"), run.estimate(metric)), run)
        differences = tuple(_differences(cell, group[0]))
        # The same seed with another value is another run, and not to be averaged over.
        if len({seed for seed, _ in by_seed}) < len(by_seed):
            matches += [Match((run,), metric, differences) for run in by_seed.values()]
        else:
            matches.append(Match(tuple(by_seed.values()), metric, differences))
    fewest = min((len(match.differences) for match in matches), default=0)
    return [match for match in matches if len(match.differences) == fewest]


def _fits(cell: PrintedCell, run: FinishedRun) -> bool:
    known = (run.estimate(cell.metric), run.estimate(f"{cell.metric}{ANY_ITERATION}"))
    return (
        any(found is not None for found in known)
        and _dataset(run) == cell.dataset
        and run.method == cell.method
        and run.settings.get("sampler_options", {}).get("eta", 0) == 0
        and run.settings.get("t_star") == cell.depth
        and cell.attack in (None, run.setting("attack"))
    )


def _dataset(run: FinishedRun) -> Dataset | None:
    """The paper's name of a run's images; ``None`` for images of one's own."""
    if "dataset" in run.settings:  # the paper's two are known by what follows
        return None
    if "data_preprocessing" in run.settings:
        return "imagenet"
    return "cifar10" if run.settings.get("data", _CIFAR10[0]) in _CIFAR10 else None


def _but_for_the_seed(cell: PrintedCell, run: FinishedRun) -> str:
    """Everything that decides a value but the seed."""
    names = [*_CHAIN, *(ATTACKED if cell.attack else ()), *_own_settings(cell)]
    return f"{run.estimate(cell.metric) is not None} {_settings(run, names)}"


def seeds_of_one(runs: Sequence[FinishedRun]) -> list[list[FinishedRun]]:
    """The runs in groups that differ in nothing but the seed, each seed once."""
    groups: dict[str, dict[object, FinishedRun]] = {}
    for run in runs:
        seeds = groups.setdefault(_settings(run, (*_CHAIN, *ATTACKED)), {})
        seeds.setdefault(run.settings.get("seed"), run)
    return [list(seeds.values()) for seeds in groups.values()]


def _settings(run: FinishedRun, names: Sequence[str]) -> str:
    found = {name: run.setting(name) for name in (*names, "purifier", "models")}
    found |= {name: own for name, own in PLAIN.items() if found.get(name, own) is None}
    return json.dumps(found, sort_keys=True, default=str)


def _own_settings(cell: PrintedCell) -> tuple[str, ...]:
    """Settings of what measures a metric."""
    section = cell.metric.partition("/")[0]
    if section in _VARIABILITY:
        return ("variance_eps", "variance_inputs", "variance_draws")
    if section == "uniform":
        return ("uniform_eps",)
    return (f"{section}_surface",) if cell.surface else ()


def _differences(cell: PrintedCell, run: FinishedRun) -> Iterator[str]:
    """In what a run differs from the paper, in words."""
    yield from _other_models(cell, run)
    steps = run.settings.get("num_steps")
    if steps not in (None, cell.depth):
        yield f"{steps} chain steps, not all"
    schedule = run.settings.get("schedule", _SCHEDULE)
    if schedule != _SCHEDULE:
        yield f"another noise schedule ({schedule})"
    if run.settings.get("forward_process") == "one_shot":
        yield "noised in one draw, not step by step"
    if (precision := run.settings.get("precision", "32-true")) != "32-true":
        yield f"precision {precision}"
    if run.settings.get("tf32"):
        yield "arithmetic in TF32"
    if cell.attack is not None:
        yield from _other_attack(cell, run)
    for name in _own_settings(cell):
        value = run.settings.get(name)
        if name.endswith("_surface"):
            if (value or "fixed") != cell.surface:
                yield f"attacked on {value or 'fixed'} noise, the paper's on {cell.surface} noise"
        elif name.endswith("_eps"):
            if value is not None and not math.isclose(value, _EPS[cell.dataset]):
                yield f"perturbations of {in_255ths(value)}"
        elif value not in (None, _PAIRS):
            yield f"{value} {name.removeprefix('variance_')} of {_PAIRS}"
    # A Fréchet distance of fewer images is larger.
    if cell.metric.startswith("quality/fid") and run.settings.get("images") != cell.images:
        yield f"{run.settings.get('images')} images of {cell.images}"


def _other_models(cell: PrintedCell, run: FinishedRun) -> Iterator[str]:
    roles = ["denoiser"]
    if cell.attack is not None or "accuracy" in cell.metric:
        roles.append("classifier")
    sources = {
        role: str(run.settings.get("models", {}).get(role, {}).get("source", "unknown"))
        for role in roles
    }
    other = [role for role in roles if not sources[role].startswith(_MODELS[cell.dataset][role])]
    if other:
        yield "other models" if len(other) == 2 else f"another {other[0]}"


def _other_attack(cell: PrintedCell, run: FinishedRun) -> Iterator[str]:
    eps = run.setting("eps")
    if eps is not None and not math.isclose(eps, _EPS[cell.dataset]):
        yield f"eps {in_255ths(eps)}"
    for name, own in _ATTACK.items():
        value = run.setting(name)
        if value is not None and not math.isclose(value, own):
            yield _WORDS[name].format(value)
    for name, plain in PLAIN.items():
        if (value := run.setting(name)) not in (None, plain):
            yield f"{name.replace('_', ' ')} {value}"
    if run.settings.get("surrogate"):
        yield "attacked through a surrogate"
    if (searched := run.settings.get("attack_precision", "float32")) != "float32":
        yield f"attack searched in {searched}"
    if run.estimate(cell.metric) is None:
        yield "right at every iteration of the attack, the paper's after its last"
    elif run.settings.get("early_stop") and not cell.metric.startswith("fresh/"):
        yield "the attack stopped early"
