"""What a search tries: a file of plans of sweeps, by groups.

A space is a mapping, such as a YAML file holds::

    images: [16, 48, 144]        # of every round
    keep: 3                      # a third of a group goes on to the next round
    min_clean: 0.5               # less clean accuracy is no use
    finalists: 2                 # of every group that are attacked
    groups:                      # each is cut by itself
      presets:                   # what is to be beaten
        preset: {axes: {preset: [ddpm, ddim], t_star: [50, 100]}}
      filters:
        blur: {configs: [purifier/blur], axes: {model.purifier.sigma: [0.5, 1.0]}}
    attack:                      # of the finalists, on the images of the last round or fewer
      configs: [measure/masking]
      options: {eps: 2/255, attack.steps: 200}

A plan is that of a sweep (:mod:`lit_purify.sweeps.plan`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from lit_purify.sweeps.plan import SweepRun, check, check_names, expand
from lit_purify.types import InputError, did_you_mean, is_whole

PRESETS = "presets"
"""The group that the others are compared with."""


@dataclass(frozen=True, kw_only=True)
class Space:
    """A space, read from its mapping; see the module.

    Raises:
        InputError: a value is not as the module says.
    """

    groups: Mapping[str, Mapping[str, Mapping[str, Any]]]
    attack: Mapping[str, Any] = field(default_factory=dict)
    images: Sequence[int] = (16, 48, 144)
    keep: int = 3
    min_clean: float = 0.5
    finalists: int = 2

    def __post_init__(self) -> None:
        whole = isinstance(self.images, Sequence) and all(map(is_whole, self.images))
        if not (whole and [0, *self.images] == sorted({0, *self.images}) and self.images):
            raise InputError(
                f"images of a search is {self.images!r}; expected more and more of them, as in "
                "[16, 48, 144]"
            )
        for name, least in (("keep", 2), ("finalists", 1)):
            value = getattr(self, name)
            if not (is_whole(value) and value >= least):
                raise InputError(f"{name} of a search is {value!r}; expected {least} or more")
        if not (isinstance(self.min_clean, int | float) and 0 <= self.min_clean < 1):
            raise InputError(f"min_clean of a search is {self.min_clean!r}; expected 0 .. 1")
        if not (isinstance(self.groups, Mapping) and PRESETS in self.groups):
            raise InputError(
                f"groups of a search lack {PRESETS}, which the others are compared with; expected "
                "groups: {presets: {preset: {axes: ...}}, ...}"
            )
        for name, plans in self.groups.items():
            if not (isinstance(plans, Mapping) and plans):
                raise InputError(f"the group {name} of a search has no plans by name")
            for plan in plans.values():
                check(plan)
        check(self.attack)
        if others := self.attack.keys() - {"configs", "options"}:
            raise InputError(
                f"attack of a search has the section {min(others)}; expected configs and options"
            )

    @classmethod
    def of(cls, content: Any) -> Space:
        """The space of a mapping.

        Raises:
            InputError: it is none, or has other sections.
        """
        known = [each.name for each in fields(cls)]
        if not isinstance(content, Mapping):
            raise InputError(f"a search is no mapping; expected {', '.join(known)}")
        for section in content:
            if section not in known:
                raise InputError(
                    f"a search has no section {section!r}; expected {', '.join(known)}"
                    f"{did_you_mean(str(section), known)}"
                )
        return cls(**{"groups": {}, **content})

    def candidates(self, configs: Sequence[str], more: Sequence[str]) -> dict[str, list[SweepRun]]:
        """The runs of every group, each by a name of its own.

        Args:
            configs: names of configurations of every run, before those of the plans.
            more: further arguments of every run.

        Raises:
            InputError: a plan cannot be read, or two runs have one name.
        """
        found: dict[str, list[SweepRun]] = {}
        for group, plans in self.groups.items():
            found[str(group)] = []
            for name, plan in plans.items():
                whole = {**plan, "configs": [*configs, *(plan.get("configs") or [])]}
                found[str(group)] += [
                    run._replace(name=f"{name}_{run.name}") for run in expand(whole, more)
                ]
        check_names([run for runs in found.values() for run in runs])
        return found

    def attacked(self, run: SweepRun, more: Sequence[str]) -> SweepRun:
        """A run with the attack of the finalists."""
        (attack,) = expand(self.attack)
        return run._replace(options=(*run.options, *attack.options, *more))
