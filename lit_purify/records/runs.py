"""The summaries of many runs: which can be used, and whether they can be compared."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import takewhile
from pathlib import Path
from typing import Any, NamedTuple

from lit_purify.records.discovery import SUMMARY, run_folders
from lit_purify.records.rows import read_numbers
from lit_purify.records.summary import read_summary, versions
from lit_purify.statistics import wilson_interval
from lit_purify.types import Estimate, InputError, described

PACKAGE = "lit-purify"
LAST_ITERATION = "fixed/robust_accuracy"
ANY_ITERATION = "fixed/robust_accuracy_any_iteration"
CLEAN = "purified/clean_accuracy"
RATE = "uniform/compression_rate"
"""Metrics that runs are compared by; the first two after the last and at any iteration."""


def of_purified(accuracy: str) -> str:
    """An accuracy among the images that are right when they are purified without an attack."""
    return f"{accuracy}|{CLEAN}"


ATTACK = (
    *("attack", "threat_model", "eps", "steps", "rel_stepsize", "gradient", "random_start"),
    *("norm", "loss", "targets", "restarts", "attack_schedule", "momentum", "keep"),
    *("attack_evaluations", "judged_by"),
    *("queries", "directions", "probe", "update", "first_share", "tolerance"),
    *("losses", "em_steps", "sharpness", "averaging"),
    *("kernels", "colour_sigma", "filter_stepsize", "change_stepsize"),
    *("version", "attacks", "square_queries", "foolbox_attack"),
    *("rungs", "budget", "selection_draws"),
)
"""What decides what an attack finds. Most attacks have some of them."""
_SAME = (
    *(*ATTACK, "uniform_eps"),
    *("data", "data_sha256", "images", "seed", "test_draws", "precision", "attack_precision"),
)
"""Settings in which runs that are compared had better not differ."""
DECISIVE = frozenset({*ATTACK, "uniform_eps", "data", "data_sha256", "classifier"})
"""Those of them that no curve may run across: only the purifier may change along it."""
_ROLES = ("classifier", "denoiser")
_NUMBERS = ("eps", "uniform_eps", "t_star")

_MOST_NAMES, _FEW_NAMES = 8, 3
"""A sentence names so many runs; of more it names a few."""


class FinishedRun(NamedTuple):
    """What a run says of itself.

    Attributes:
        folder: the run folder.
        settings: as in ``summary.json``.
        metrics: as in ``summary.json``.
        version: of this package, when it ran.
        labels: as in ``summary.json``; runs of earlier versions have none.
    """

    folder: Path
    settings: Mapping[str, Any]
    metrics: Mapping[str, Mapping[str, Any]]
    version: str
    labels: Mapping[str, Mapping[str, str]] = {}

    def is_share(self, name: str) -> bool:
        """Whether a metric is a share in [0, 1] that is shown in percent."""
        unit = self.labels.get(name, {}).get("unit")
        return unit == "%" if unit is not None else "accuracy" in name

    @property
    def method(self) -> str:
        """The paper's name of its purification, or its purifier's class, and a class's options."""
        sampler = self.settings.get("sampler")
        if sampler is None:
            name = str(self.settings.get("purifier", "unknown"))
        elif self.settings.get("forward_process") == "none":
            name = "Reverse" if sampler == "DDPMSampler" else f"Reverse, {_short(sampler)}"
        else:
            name = _short(sampler)
        return described(name, self.settings.get("purifier_options", {}))

    def setting(self, name: str) -> Any:
        """A setting; ``None`` where it is unknown, or is of an attack that was not made."""
        unused = name in ATTACK and self.settings.get("protocols") == []
        return None if unused else self.settings.get(name)

    def fact(self, name: str) -> str | None:
        """A setting as it is compared; a model (``classifier``, ``denoiser``) by its weights.

        ``ball`` is what bounds the attack, whichever way its class says it.
        """
        if name == "ball":
            value = self._ball
        elif name in _ROLES:
            model = self.settings.get("models", {}).get(name, {})
            value = model.get("sha256") or model.get("source")
        else:
            value = self.setting(name)
        return None if value is None else _plain(name, value)

    @property
    def _ball(self) -> str | None:
        """What bounds the attack; that of its rungs of a ladder."""
        if self.setting("attack") is None:
            return None
        said: Sequence[Mapping[str, Any]] = [*self.settings.get("rungs", {}).values()]
        said = said or [self.settings]
        found = (each.get("threat_model") or each.get("norm") for each in said)
        return next(filter(None, found), "linf").lower().replace("_", "")

    def estimate(self, name: str) -> Estimate | None:
        """A value with its interval; ``None`` where the run does not have it.

        ``A|B`` is the share of A among the samples that have B, both told by the rows of the run:
        ``fixed/robust_accuracy|purified/clean_accuracy`` is what an attack leaves of the images
        that are right without one.
        """
        if "|" in name:
            return _conditional(self.folder, name)
        return estimate(self.metrics.get(name, {}))


def estimate(entry: Mapping[str, Any]) -> Estimate | None:
    """A metric's statistics as a number with its interval; ``None`` where it is unknown."""
    value, low, high = (entry.get(key) for key in ("value", "low", "high"))
    if value is None:
        return None
    return Estimate(value, value if low is None else low, value if high is None else high)


@lru_cache(maxsize=4096)
def _conditional(folder: Path, name: str) -> Estimate | None:
    """A share among the samples that have another, with Wilson's interval."""
    try:
        share, condition = (read_numbers(folder, part) for part in name.split("|", 1))
    except InputError:  # a summary alone has no rows
        return None
    among = [share[index] for index, has in condition.items() if has == 1 and index in share]
    if not among or not set(among) <= {0.0, 1.0}:
        return None
    hits = int(sum(among))
    return Estimate(hits / len(among), *wilson_interval(hits, len(among)))


def _short(sampler: str) -> str:
    return sampler.removesuffix("Sampler")


def read_runs(folders: Iterable[str | Path]) -> tuple[list[FinishedRun], list[str]]:
    """Read the summaries of runs.

    Args:
        folders: run folders, such as ``lightning_logs/version_0``, and folders that hold runs, as
            :func:`~lit_purify.records.discovery.run_folders` finds them.

    Returns:
        The finished ones, each once, in the order given; and a line for every folder left out that
        says why and what to do. Runs whose summaries are the same to the byte are one: a run and
        its exported copy, say.
    """
    runs: dict[bytes, FinishedRun] = {}
    left_out = []
    for folder in (run for given in folders for run in run_folders(Path(given))):
        found = _read(folder)
        if isinstance(found, str):
            left_out.append(f"{folder}: {found}")
            continue
        first = runs.setdefault((folder / SUMMARY).read_bytes(), found)
        if first is not found:
            same = first.folder.resolve() == folder.resolve()
            why = "named twice" if same else f"the same as {first.folder}"
            left_out.append(f"{folder}: {why}, and counted once")
    return list(runs.values()), left_out


def _read(folder: Path) -> FinishedRun | str:
    """The run in a folder, or why there is none."""
    try:
        summary = read_summary(folder / SUMMARY)
    except OSError as error:
        return (
            f"its summary.json cannot be read ({error.strerror}); name the folder that a test "
            "printed, such as lightning_logs/version_0"
        )
    except (ValueError, TypeError) as error:  # not JSON, or JSON of something else
        return f"its summary.json is not that of a run ({error}); repeat the run"
    settings, metrics, status = (summary[key] for key in ("settings", "metrics", "status"))
    if not _laid_out(summary):
        return "its summary.json is laid out otherwise than this version's; repeat the run"
    if status != "finished":
        return f"not finished, its status is {status}; go on with it by --resume {folder}"
    version = summary["versions"].get(PACKAGE, "unknown")
    return FinishedRun(folder, settings, metrics, version, summary.get("labels", {}))


def _laid_out(summary: Mapping[str, Any]) -> bool:
    """Whether the parts of a summary are of the kinds that a report takes them for."""
    parts = [summary.get(key, {}) for key in ("settings", "metrics", "versions", "labels")]
    if not all(isinstance(part, dict) for part in parts):
        return False
    settings, metrics, *_ = parts
    return (
        all(isinstance(statistics, dict) for statistics in metrics.values())
        and all(isinstance(summary.get(key) or [], list) for key in ("flags", "class_names"))
        and all(isinstance(settings.get(key) or 0, int | float) for key in _NUMBERS)
    )


def short_names(runs: Sequence[FinishedRun]) -> list[str]:
    """What of their folders tells runs apart: the paths without what all of them share.

    Example:
        >>> paths = [Path(f"sweep/{name}/lightning_logs/version_0") for name in ("a_t20", "a_t50")]
        >>> short_names([FinishedRun(path, {}, {}, "") for path in paths])
        ['a_t20', 'a_t50']
    """
    paths = [run.folder.resolve().parts for run in runs]
    if len(paths) < 2:
        return [run.folder.name for run in runs]
    start = _shared(paths)
    end = _shared([path[start:][::-1] for path in paths])
    return ["/".join(path[start : len(path) - end]) or path[-1] for path in paths]


def _shared(paths: Sequence[tuple[str, ...]]) -> int:
    """How many parts the paths have in common at their beginning."""
    same = takewhile(lambda parts: len(set(parts)) == 1, zip(*paths, strict=False))
    return len(list(same))


def disagreements(runs: Sequence[FinishedRun]) -> list[str]:
    """What should be known before runs are compared: a line for everything they do not share.

    Purification (t*, steps, sampler, forward process) may differ; attack, data and models had
    better not. A setting that a run does not have, or not use, does not count.
    """
    own = versions().get(PACKAGE, "unknown")
    other = named(runs, (None if run.version == own else run.version for run in runs))
    return [
        *(f"made by {PACKAGE} {its}, while this is {own}: {who}" for its, who in other.items()),
        *(f"the runs differ in {_called(name)}: {who}" for name, who in differences(runs).items()),
    ]


def _called(setting: str) -> str:
    """A setting in a sentence."""
    return "attack steps" if setting == "steps" else setting


def differences(runs: Sequence[FinishedRun]) -> dict[str, str]:
    """Settings that runs do not share, and which of the runs has which value."""
    facts = [{name: run.fact(name) for name in (*_SAME, *_ROLES)} | _of_rungs(run) for run in runs]
    found = {}
    for name in dict.fromkeys(name for each in facts for name in each):
        groups = named(runs, (each.get(name) for each in facts))
        if len(groups) > 1:
            found[name] = "; ".join(f"{value} in {who}" for value, who in groups.items())
    return found


def _of_rungs(run: FinishedRun) -> dict[str, str | None]:
    """The arguments of a ladder's attacks, each under a name of its own."""
    rungs: Mapping[str, Mapping[str, Any]] = run.setting("rungs") or {}
    return {
        f"rungs.{rung}.{name}": _plain(name, value)
        for rung, arguments in rungs.items()
        for name, value in arguments.items()
    }


def check_alike(runs: Sequence[FinishedRun], *, but_for: str = "") -> None:
    """Raise :class:`InputError` where a curve through runs would run across what it may not.

    Args:
        runs: the runs.
        but_for: one of :data:`DECISIVE` in which they may differ too.
    """
    decisive = DECISIVE - {but_for}
    unlike = [_called(n) for n in differences(runs) if n.partition(".")[0] in decisive]
    if unlike:
        raise InputError(
            f"they differ in {', '.join(unlike)}; expected runs that differ in how they purify; "
            "take alike runs together"
        )


def alike(runs: Iterable[FinishedRun], names: Iterable[str] = DECISIVE) -> list[list[FinishedRun]]:
    """The runs in groups that share some settings, each in the order given.

    Args:
        runs: the runs.
        names: of the settings, as :meth:`FinishedRun.fact` knows them; the default are those that
            :func:`check_alike` asks about. One that a run does not have does not count.
    """
    names = tuple(names)
    groups: list[tuple[dict[str, str], list[FinishedRun]]] = []
    for run in runs:
        facts = {name: fact for name in names if (fact := run.fact(name)) is not None}
        for known, group in groups:
            if all(known.get(name, fact) == fact for name, fact in facts.items()):
                known |= facts
                group.append(run)
                break
        else:
            groups.append((facts, [run]))
    return [group for _, group in groups]


def named(runs: Sequence[FinishedRun], values: Iterable[str | None]) -> dict[str, str]:
    """The runs that share a value, by that value; ``None`` does not count."""
    groups: dict[str, list[str]] = {}
    for name, value in zip(short_names(runs), values, strict=True):
        if value is not None:
            groups.setdefault(value, []).append(name)
    return {value: _listed(names) for value, names in groups.items()}


def _listed(names: Sequence[str]) -> str:
    if len(names) > _MOST_NAMES:
        names = [*names[:_FEW_NAMES], f"{len(names) - _FEW_NAMES} others"]
    return ", ".join(names)


def in_255ths(eps: float) -> str:
    """A budget as it is written in the field, such as 8/255; one above 1 is not of pixels."""
    return f"{255 * eps:.4g}/255" if eps <= 1 else f"{eps:.4g}"


def _plain(name: str, value: Any) -> str:
    if name in ("eps", "uniform_eps"):
        return in_255ths(value)
    if isinstance(value, float):
        return f"{value:.6g}"
    if name == "rungs":  # whose arguments are compared one by one
        return ", ".join(value)
    text = value if isinstance(value, str) else json.dumps(value)
    return text[:12] if len(text) == 64 else text  # a hash
