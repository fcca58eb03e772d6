"""Successive halving (Jamieson & Talwalkar, 2016): each round sees more images and fewer purifiers.

A round is an ordinary sweep on clean images, by forward passes only. What is wanted is a high clean
accuracy and a low compression rate. Of a group those go on that together dominate the largest area
of the two, chosen one by one (:mod:`lit_purify.functional.pareto`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from lit_purify.functional.pareto import TradeOff, best_first
from lit_purify.records.runs import CLEAN, RATE, FinishedRun, read_runs
from lit_purify.search.space import Space
from lit_purify.sweeps.plan import SweepRun
from lit_purify.sweeps.states import Sweep
from lit_purify.types import Estimate

PASSES = 2
"""Purifications of every image: of the clean one and of the perturbed one."""


class Found(NamedTuple):
    """A purifier and what a round has found of it.

    Attributes:
        group: its group.
        command: its run, without what belongs to the round.
        run: the result.
    """

    group: str
    command: SweepRun
    run: FinishedRun

    @property
    def name(self) -> str:
        """The name of its runs."""
        return self.command.name

    @property
    def clean(self) -> Estimate:
        """Clean accuracy."""
        return known(self.run, CLEAN)

    @property
    def rate(self) -> Estimate:
        """Compression rate."""
        return known(self.run, RATE)

    @property
    def evaluations(self) -> int:
        """Evaluations of the denoiser that one purification takes.

        Runs of earlier versions do not say: one is counted for every step of theirs.
        """
        settings = self.run.settings
        draws = settings.get("purifier_options", {}).get("averaged_draws", 1)
        return int(settings.get("evaluations", settings.get("num_steps", 0))) * int(draws)


class Round(NamedTuple):
    """A round.

    Attributes:
        images: that were purified.
        found: by group, the best first.
        evaluations: of the denoiser, counted per image.
        failed: runs that failed, and what they said.
    """

    images: int
    found: Mapping[str, Sequence[Found]]
    evaluations: int
    failed: Mapping[str, str]


Runner = Callable[[Sweep], None]
"""Runs what is not finished of a sweep."""


def halve(
    space: Space,
    candidates: Mapping[str, Sequence[SweepRun]],
    root: Path,
    run: Runner,
    *,
    budget: int | None = None,
    told: Callable[[Round], None] = lambda _: None,
) -> list[Round]:
    """The rounds of a search.

    Args:
        space: what is searched.
        candidates: the runs of the first round by group.
        root: gets a folder for every round.
        run: runs a sweep.
        budget: evaluations of the denoiser, counted per image, that the rounds may take; a round
            that would take more is not begun, but for the first. ``None`` sets no limit.
        told: called after every round.

    Returns:
        The rounds; the last one has the finalists first.
    """
    rounds: list[Round] = []
    for images in space.images:
        spent = sum(each.evaluations for each in rounds)
        if rounds and budget is not None:
            going = [f for group in rounds[-1].found.values() for f in group]
            kept = {r.name for runs in candidates.values() for r in runs}
            cost = PASSES * images * sum(f.evaluations for f in going if f.name in kept)
            if spent + cost > budget:
                break
        rounds.append(_round(space, candidates, root / f"clean_{images}", run, images))
        told(rounds[-1])
        candidates = {
            group: [f.command for f in found[: going_on(space, len(found))]]
            for group, found in rounds[-1].found.items()
        }
    return rounds


def going_on(space: Space, number: int) -> int:
    """How many of a group go on to the next round."""
    return max(space.finalists, -(-number // space.keep))


def _round(
    space: Space,
    candidates: Mapping[str, Sequence[SweepRun]],
    root: Path,
    run: Runner,
    images: int,
) -> Round:
    words = ("--model.protocols=[]", f"--data.limit={images}")
    runs = {
        group: [each._replace(options=(*each.options, *words)) for each in its]
        for group, its in candidates.items()
    }
    sweep = Sweep([each for its in runs.values() for each in its], root)
    run(sweep)
    results = finished(sweep)
    found: dict[str, list[Found]] = {}
    for group, its in candidates.items():
        measured = [Found(group, each, results[each.name]) for each in its if each.name in results]
        points = [TradeOff(each.clean.value, each.rate.value) for each in measured]
        order = best_first(points, TradeOff(space.min_clean, 1.0))
        found[group] = [measured[place] for place in order]
    everything = [each for its in found.values() for each in its]
    evaluations = PASSES * images * sum(each.evaluations for each in everything)
    return Round(images, found, evaluations, sweep.errors)


def finished(sweep: Sweep) -> dict[str, FinishedRun]:
    """The results of a sweep by the names of its runs."""
    folders = sweep.finished_folders()
    return {
        name: run
        for name, progress in sweep.progress.items()
        if progress.folder in folders
        for run in read_runs([progress.folder])[0]
    }


def known(run: FinishedRun, name: str) -> Estimate:
    """A metric of a run; no number, with every share in its interval, where it has none."""
    found: Any = run.estimate(name)
    return Estimate(float("nan"), 0.0, 1.0) if found is None else found
