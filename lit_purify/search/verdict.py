"""Is a purifier that a search has found better than the presets, under attack?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from lit_purify.functional.paired import mcnemar
from lit_purify.records.rows import read_numbers
from lit_purify.records.runs import ANY_ITERATION, CLEAN, LAST_ITERATION, RATE, FinishedRun
from lit_purify.records.summary import read_summary
from lit_purify.report.flags import flags
from lit_purify.report.numbers import percent
from lit_purify.search.halving import Found, known
from lit_purify.search.space import PRESETS
from lit_purify.types import Estimate, InputError

ROBUST = (ANY_ITERATION, LAST_ITERATION)
"""The first one that a run has is judged: right at every iteration of the attack."""
LEVEL = 0.05
"""Significance that a difference needs; where several are judged each needs a part of it."""


class Attacked(NamedTuple):
    """A finalist under attack.

    Attributes:
        found: what it is.
        run: the attacked run.
        flags: what is suspicious about it; then its robust accuracy proves nothing.
    """

    found: Found
    run: FinishedRun
    flags: Sequence[str]

    @property
    def name(self) -> str:
        """The name of its runs."""
        return self.found.name

    @property
    def judged(self) -> str:
        """The metric of its robust accuracy.

        Raises:
            InputError: it has none.
        """
        for name in ROBUST:
            if self.run.estimate(name) is not None:
                return name
        raise InputError(
            f"the run in {self.run.folder} has no {ROBUST[0]}; expected an attack under fixed "
            "noise; take model.protocols out of the section attack of the search"
        )

    @property
    def robust(self) -> Estimate:
        """Robust accuracy under fixed noise."""
        return known(self.run, self.judged)

    @property
    def clean(self) -> Estimate:
        """Clean accuracy on the same images."""
        return known(self.run, CLEAN)

    @property
    def rate(self) -> Estimate:
        """Compression rate on the same images."""
        return known(self.run, RATE)


class Verdict(NamedTuple):
    """A found purifier against a preset of at least its clean accuracy, on the same images.

    Attributes:
        found: the purifier.
        preset: what it is compared with.
        p_robust: p-value of the difference in robust accuracy.
        p_clean: likewise in clean accuracy.
        level: significance that a gain needs.
    """

    found: Attacked
    preset: Attacked
    p_robust: float
    p_clean: float
    level: float = LEVEL

    @property
    def better(self) -> bool:
        """Whether it keeps more under attack, significantly, and loses no clean accuracy so."""
        gained = self.found.robust.value > self.preset.robust.value and self.p_robust < self.level
        lost = self.found.clean.value < self.preset.clean.value and self.p_clean < LEVEL
        return gained and not lost

    def __str__(self) -> str:
        word = "better than" if self.better else "not shown to be better than"
        return (
            f"{self.found.name} is {word} {self.preset.name}: robust {_shown(self.found.robust)} "
            f"against {_shown(self.preset.robust)} (p = {self.p_robust:.2g}), clean "
            f"{_shown(self.found.clean)} against {_shown(self.preset.clean)} "
            f"(p = {self.p_clean:.2g})"
        )


def attacked(found: Found, run: FinishedRun) -> Attacked:
    """A finalist and what is suspicious about its attack."""
    summary = read_summary(run.folder / "summary.json")
    # One that could not be compiled has the same numbers.
    found_before = summary.get("preflight", {}).items()
    before = {name: value for name, value in found_before if name != "not_compiled"}
    return Attacked(found, run, flags(run.metrics, run.settings, before))


def verdicts(finalists: Sequence[Attacked]) -> list[Verdict]:
    """Every sound finalist against the preset that it has to beat, the best first.

    That is, of the sound presets at least as accurate on clean images, the most robust one; of
    those less accurate, if there are no others, the most accurate one. Of several finalists one is
    easily ahead by chance: each needs a part of the significance (Bonferroni).
    """
    sound = [each for each in finalists if not each.flags]
    presets = [each for each in sound if each.found.group == PRESETS]
    others = [each for each in sound if each.found.group != PRESETS] if presets else []
    level = LEVEL / max(1, len(others))
    compared = [compare(each, _rival(each, presets), level) for each in others]
    return sorted(
        compared,
        key=lambda v: (v.better, v.found.robust.value - v.preset.robust.value),
        reverse=True,
    )


def compare(found: Attacked, preset: Attacked, level: float = LEVEL) -> Verdict:
    """Two purifiers on the images that both have seen."""
    values = []
    for own, other in ((found.judged, preset.judged), (CLEAN, CLEAN)):
        first = read_numbers(found.run.folder, own)
        second = read_numbers(preset.run.folder, other)
        both = sorted(first.keys() & second.keys())
        values.append(mcnemar([first[i] == 1 for i in both], [second[i] == 1 for i in both]))
    p_robust, p_clean = values
    return Verdict(found, preset, p_robust, p_clean, level)


def _rival(found: Attacked, presets: Sequence[Attacked]) -> Attacked:
    level = [each for each in presets if each.clean.value >= found.clean.value]
    if level:
        return max(level, key=lambda each: each.robust.value)
    return max(presets, key=lambda each: each.clean.value)


def _shown(share: Estimate) -> str:
    return f"{percent(share.value)} % [{percent(share.low)}, {percent(share.high)}]"


def numbers(finalist: Attacked) -> Mapping[str, object]:
    """A finalist as JSON has it."""
    return {
        "name": finalist.name,
        "group": finalist.found.group,
        "folder": str(Path(finalist.run.folder)),
        "clean": list(finalist.clean),
        "robust": list(finalist.robust),
        "compression_rate": list(finalist.rate),
        "flags": list(finalist.flags),
    }
