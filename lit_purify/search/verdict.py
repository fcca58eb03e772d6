"""Is a purifier that a search has found better than the presets, under attack?"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from lit_purify.functional.paired import mcnemar
from lit_purify.records.runs import FinishedRun
from lit_purify.records.summary import read_summary
from lit_purify.report.numbers import percent
from lit_purify.search.halving import CLEAN, RATE, Found
from lit_purify.search.space import PRESETS
from lit_purify.types import Estimate

ROBUST = ("fixed/robust_accuracy_any_iteration", "fixed/robust_accuracy")
"""The first one that a run has is judged: right at every iteration of the attack."""
LEVEL = 0.05
"""Significance that a difference needs."""


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

    def estimate(self, *names: str) -> Estimate:
        """The first of some metrics that the attacked run has."""
        known = (self.run.estimate(name) for name in names)
        return next((each for each in known if each is not None), Estimate(0.0, 0.0, 1.0))

    @property
    def robust(self) -> Estimate:
        """Robust accuracy under fixed noise."""
        return self.estimate(*ROBUST)

    @property
    def clean(self) -> Estimate:
        """Clean accuracy on the same images."""
        return self.estimate(CLEAN)

    @property
    def rate(self) -> Estimate:
        """Compression rate on the same images."""
        return self.estimate(RATE)

    def right(self, *names: str) -> dict[int, bool]:
        """Dataset index -> whether the image was right, by the first metric that is recorded."""
        lines = (self.run.folder / "records" / "rows.jsonl").read_text(encoding="utf-8")
        rows = [json.loads(line) for line in lines.splitlines()]
        name = next((n for n in names if rows and n in rows[0]), names[-1])
        return {row["index"]: bool(row.get(name)) for row in rows}


class Verdict(NamedTuple):
    """A found purifier against a preset of at least its clean accuracy, on the same images.

    Attributes:
        found: the purifier.
        preset: what it is compared with.
        p_robust: p-value of the difference in robust accuracy.
        p_clean: likewise in clean accuracy.
    """

    found: Attacked
    preset: Attacked
    p_robust: float
    p_clean: float

    @property
    def better(self) -> bool:
        """Whether it keeps more under attack, significantly, and loses no clean accuracy so."""
        gained = self.found.robust.value > self.preset.robust.value and self.p_robust < LEVEL
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
    return Attacked(found, run, read_summary(run.folder / "summary.json").get("flags", []))


def verdicts(finalists: Sequence[Attacked]) -> list[Verdict]:
    """Every sound finalist against the preset that it has to beat, the best first.

    That is, of the sound presets at least as accurate on clean images, the most robust one; of
    those less accurate, if there are no others, the most accurate one.
    """
    sound = [each for each in finalists if not each.flags]
    presets = [each for each in sound if each.found.group == PRESETS]
    compared = [
        compare(each, _rival(each, presets))
        for each in sound
        if each.found.group != PRESETS and presets
    ]
    return sorted(
        compared,
        key=lambda v: (v.better, v.found.robust.value - v.preset.robust.value),
        reverse=True,
    )


def compare(found: Attacked, preset: Attacked) -> Verdict:
    """Two purifiers on the images that both have seen."""
    values = []
    for names in (ROBUST, (CLEAN,)):
        first, second = found.right(*names), preset.right(*names)
        both = sorted(first.keys() & second.keys())
        values.append(mcnemar([first[i] for i in both], [second[i] for i in both]))
    return Verdict(found, preset, *values)


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
