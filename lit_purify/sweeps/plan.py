"""What a sweep runs: axes and options become named commands of ``test``.

A plan is a mapping, such as a YAML file holds::

    configs: [cifar_fixed]           # of every run, as --config
    options: {num_steps: 10}         # of every run
    axes:                            # every combination is a run
      preset: [ddpm, reverse]
      t_star: [50, 100]
    except: [{preset: ddpm, t_star: 50}]         # combinations left out
    include: [{preset: ddim, t_star: 100}]       # runs beside the combinations

Options and axes have a name of :data:`NAMES` or are any option of ``test`` by its dotted name, such
as ``attack.early_stop``.
"""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lit_purify.types import InputError, did_you_mean

OPTIONS = {
    "t_star": "model.purifier.t_star",
    "num_steps": "model.purifier.num_steps",
    "protocols": "model.protocols",
    "seed": "model.seed",
    "eps": "attack.eps",
    "limit": "data.limit",
}
"""Short names of options."""
OVERLAYS = {
    "preset": "purifier",
    "defence": "defence",
    "attack": "attack",
    "measure": "measure",
    "models": "models",
    "protocol": "protocol",
}
"""Names of overlays: the folder in ``configs/`` that they are in."""
NAMES = (*OPTIONS, *OVERLAYS)
_INITIALS = {"t_star": "t", "num_steps": "n", "seed": "s", "eps": "e", "limit": "limit"}
_SECTIONS = ("configs", "options", "axes", "except", "include")


class SweepRun(NamedTuple):
    """One run of a sweep.

    Attributes:
        name: of its folder, told from the values that tell the runs apart.
        values: these values, by axis.
        options: arguments of ``test``, but for where it writes.
    """

    name: str
    values: Mapping[str, Any]
    options: tuple[str, ...]

    def command(self, root: Path) -> list[str]:
        """Arguments of the command line: the run starts in its folder, or goes on there."""
        folder = f"--trainer.default_root_dir={root / self.name}"
        return ["test", *self.options, folder, "--resume=here"]


def expand(plan: Mapping[str, Any], more: Sequence[str] = ()) -> list[SweepRun]:
    """The runs of a plan, the last axis varying fastest.

    Args:
        plan: see the module.
        more: arguments of every run, ``--config=NAME`` and ``--a.b=VALUE``. Configurations stand
            behind the plan's and before overlays that are an axis or an option; options stand last.

    Raises:
        InputError: the plan cannot be read, or two of its runs have one name.

    Example:
        >>> plan = {"axes": {"preset": ["ddpm"], "eps": ["2/255", "4/255"]}}
        >>> [run.name for run in expand(plan)]
        ['ddpm_e2', 'ddpm_e4']
        >>> expand(plan)[1].options
        ('--config=purifier/ddpm', '--attack.eps=4/255')
    """
    check(plan)
    axes: Mapping[str, Any] = plan.get("axes") or {}
    included = plan.get("include") or []
    combinations = itertools.product(*axes.values()) if axes or not included else ()
    points = [dict(zip(axes, values, strict=True)) for values in combinations]
    left_out = plan.get("except") or []
    points = [p for p in points if not any(p.items() >= part.items() for part in left_out)]
    points += included
    configs = [f"--config={name}" for name in plan.get("configs") or []]
    more_configs = [word for word in more if word.startswith("--config=")]
    more_options = [word for word in more if not word.startswith("--config=")]
    common: Mapping[str, Any] = plan.get("options") or {}
    runs = []
    for point in points:
        values = {key: value for key, value in point.items() if key != "name"}
        overlays, options = _words({**common, **values})
        words = (*configs, *more_configs, *overlays, *options, *more_options)
        runs.append(SweepRun(str(point.get("name") or _name(values)), values, words))
    if not runs:
        raise InputError("except leaves no run of a sweep; expected one or more")
    check_names(runs)
    return runs


def _words(values: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """The overlays and the options that values stand for, each in their order."""
    overlays = []
    options: dict[str, Any] = {}
    for key, value in values.items():
        if key in OVERLAYS:
            overlays += [f"--config={OVERLAYS[key]}/{value}"]
        else:
            options[OPTIONS.get(key, key)] = value
    steps, t_star = (options.get(OPTIONS[key]) for key in ("num_steps", "t_star"))
    if isinstance(steps, int) and isinstance(t_star, int):
        options[OPTIONS["num_steps"]] = min(steps, t_star)  # a chain has no more steps than t*
    return overlays, [f"--{key}={_text(value)}" for key, value in options.items()]


def _text(value: Any) -> str:
    """A value as an argument, which is read as YAML."""
    return value if isinstance(value, str) else json.dumps(value)


def _name(values: Mapping[str, Any]) -> str:
    """The name of a run: its values, each with what says of what it is."""
    return "_".join(_part(key, value) for key, value in values.items()) or "run"


def _part(key: str, value: Any) -> str:
    text = _text(value).strip("[]").replace('"', "").replace(", ", "-").replace("/", "_")
    if key in OVERLAYS:
        return text
    if key == "eps":
        text = text.removesuffix("_255")
    return _INITIALS.get(key, "" if key == "protocols" else key.rpartition(".")[2] + "_") + text


def check(plan: Any) -> None:
    """Raise :class:`InputError` unless a plan is laid out as one."""
    if not isinstance(plan, Mapping):
        raise InputError(f"{plan!r} is no plan of runs; expected {', '.join(_SECTIONS)}")
    for section in plan:
        if section not in _SECTIONS:
            raise InputError(
                f"a sweep has no section {section!r}; expected {', '.join(_SECTIONS)}"
                f"{did_you_mean(str(section), _SECTIONS)}"
            )
    for section in ("options", "axes"):
        if not isinstance(plan.get(section) or {}, Mapping):
            raise InputError(f"{section} of a sweep is no mapping; expected names and values")
    for section in ("configs", "except", "include"):
        if not isinstance(plan.get(section) or [], list):
            raise InputError(f"{section} of a sweep is no list; expected [..., ...]")
    axes = plan.get("axes") or {}
    for name, values in axes.items():
        if not isinstance(values, list) or not values:
            raise InputError(f"the axis {name} is {values!r}; expected a list of values")
    for point in [*(plan.get("except") or []), *(plan.get("include") or [])]:
        if not isinstance(point, Mapping):
            raise InputError(f"{point!r} is no run; expected names and values, such as {{seed: 1}}")
    _check_keys([*(plan.get("options") or {}), *axes])
    for point in plan.get("include") or []:
        _check_keys(key for key in point if key != "name")
    for point in plan.get("except") or []:
        if unknown := [key for key in point if key not in axes]:
            raise InputError(f"except names {unknown[0]!r}, which is no axis of this sweep")


def _check_keys(keys: Iterable[Any]) -> None:
    for key in keys:
        if key not in NAMES and "." not in str(key):
            raise InputError(
                f"a sweep knows no {key!r}; expected {', '.join(NAMES)}, or an option of test such "
                f"as attack.early_stop{did_you_mean(str(key), NAMES)}"
            )


def check_names(runs: Sequence[SweepRun]) -> None:
    """Raise :class:`InputError` unless every run has a name of its own, and it makes a folder."""
    counts = Counter(run.name for run in runs)
    for name, count in counts.items():
        if count > 1:
            raise InputError(
                f"{count} runs are named {name}; give those in include a name of their own, as in "
                "{name: NAME, ...}, and plans of a search other names"
            )
        if name.startswith(".") or not all(c.isalnum() or c in "._-+=," for c in name):
            raise InputError(
                f"the name {name!r} makes no folder; give the run one in include, as in "
                "{name: NAME, ...}"
            )
