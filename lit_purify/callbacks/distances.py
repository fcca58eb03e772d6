"""Distances to the clean image along the purification (Fig. 1c, S1-S3, Tables 1, S2-S4)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import product

from lightning.pytorch import Trainer
from matplotlib.figure import Figure
from torch import Tensor

from lit_purify.callbacks.attack import find_attack
from lit_purify.callbacks.chain_steps import chain_steps
from lit_purify.callbacks.cifar10 import measures_cifar10
from lit_purify.callbacks.measurement import Measurement
from lit_purify.figures import Curve, distance_figure
from lit_purify.figures.chain_axis import way_travelled
from lit_purify.functional import init_max_end, trajectory_distances
from lit_purify.metrics import MeanWithDeviation
from lit_purify.modules.outcomes import Outcomes
from lit_purify.modules.protocols import PROTOCOLS, Chain
from lit_purify.modules.purified_classifier import PurifiedClassifier
from lit_purify.paper import PaperDistances, paper_distances
from lit_purify.records import MeanCurve, SampleTable, mean_curve
from lit_purify.types import Batch, InputError, ratio

LEVELS = ("8/255", "16/255", "32/255", "64/255", "128/255")
NORMS = {"l2": "l2", "linf": "Largest pixel difference"}
PLACES = {"init": "before purification", "max": "at its largest", "end": "after purification"}
ATTACK = "distance"


class DistanceTrajectories(Measurement):
    """Measures whether purification leads towards the clean image or away from it.

    Distances of every state of a purification under the run's fixed noise to the clean image x0,
    in l2 and l_inf over all pixels, the states on the [0, 1] scale, neither clipped nor rescaled by
    sqrt(alpha_bar). Logs, as means over the images, the distance of the input (``init``), the
    largest of all states (``max``) and that of the output (``end``):

    - ``distance/l2_init`` and so on for the attacked images, where the run has them: those of
      ``surface``, purified as the protocol of that name tests them, under the run's own noise
      (``fixed``) or under noise that the attack has not seen (``fresh``);
    - ``distance_uniform_8/l2_init`` and so on for x0 + U(-8/255, 8/255), and other levels. All
      levels of an image are the same draw, scaled, and the one that CompressionRate uses; the sum
      is not clipped to [0, 1].

    The trajectories themselves are stored beside the records, ``distance/trajectory`` and
    ``distance_uniform_8/trajectory``, (N, 2, S) each: l2 and l_inf at the S states, the input's
    first. TensorBoard shows their means as ``trajectory/l2/attack`` and so on, against the way
    travelled in t: up to t*, and down again from there. At the end the first process draws them:
    ``distances.png`` in the run folder, and TensorBoard. Without the callback Records there is no
    picture.

    Args:
        levels: half-widths of the uniform perturbations, numbers or fractions such as
            ``"8/255"``; none measures the attacked images only.
        surface: what the attacked images were found against. The paper's are of ``fresh``.
    """

    def __init__(self, *, levels: Sequence[float | str] = LEVELS, surface: Chain = "fixed") -> None:
        widths = [ratio(level) for level in levels]
        if not all(0 < width <= 1 for width in widths):
            raise InputError(
                "the levels of DistanceTrajectories are half-widths of uniform noise in (0, 1], "
                f"got {list(levels)}; the default is {', '.join(LEVELS)}"
            )
        self.levels = {_name(width): width for width in sorted(widths)}
        if len(self.levels) < len(widths):
            raise InputError(
                f"a level of DistanceTrajectories is given twice in {list(levels)}; drop one"
            )
        self.surface = surface
        self._measured: list[str] = []

    def settings(self) -> dict[str, object]:
        """What a report must say about this measurement."""
        return {
            "distance_inputs": [self._label(name) for name in self._measured],
            "distance_surface": self.surface,
            "distance_states": "[0, 1] scale, not clipped, not rescaled",
        }

    def prepare(self, trainer: Trainer, module: PurifiedClassifier) -> None:
        attacked = [ATTACK] if self.surface in module.surfaces else []
        self._measured = [*attacked, *self.levels]
        if not self._measured:
            raise InputError(
                "DistanceTrajectories has nothing to measure: it has no levels, and the protocols "
                f"{list(module.protocols)} attack no {self.surface} noise; add {self.surface} to "
                "model.protocols, or give it levels"
            )
        for norm, place, name in product(NORMS, PLACES, self._measured):
            module.add_metric(
                f"{name}/{norm}_{place}",
                MeanWithDeviation(),
                section="Distance to the clean image, pixels in [0, 1]",
                label=f"{NORMS[norm]} {PLACES[place]}, {self._label(name)}",
            )

    def measure(
        self, trainer: Trainer, module: PurifiedClassifier, outputs: Outcomes, batch: Batch
    ) -> None:
        clean, index = batch["image"], batch["index"]
        for number, (name, images) in enumerate(self._inputs(module, batch)):
            self.show_progress(trainer, number, len(self._measured))
            test_noise = PROTOCOLS[self.surface].test_noise if name == ATTACK else None
            noise = (test_noise(module.seed, 0) if test_noise else module.noise).cached(index)
            with trainer.precision_plugin.forward_context():  # as the run purifies
                # The purifier's own iterator: a list of 200 states would hold them all.
                states = module.purifier.trajectory(images, noise, index)
                found = trajectory_distances(
                    (state.image.double() for state in states), clean.double()
                )
            for norm, curve in zip(NORMS, found.unbind(1), strict=True):
                for place, values in init_max_end(curve).items():
                    module.record(f"{name}/{norm}_{place}", values)
            module.record(f"{name}/trajectory", found.float())

    def _inputs(self, module: PurifiedClassifier, batch: Batch) -> Iterator[tuple[str, Tensor]]:
        """What is purified, by its name."""
        clean, index = batch["image"], batch["index"]
        for name in self._measured:
            if name == ATTACK:
                yield name, batch["adversarial"][self.surface]
            else:
                yield name, clean + self.levels[name] * module.noise.uniform(index, like=clean)

    def curves(self, module: PurifiedClassifier, table: SampleTable) -> Mapping[str, MeanCurve]:
        places = [round(place) for place in way_travelled(chain_steps(module.purifier))[0]]
        return {
            f"trajectory/{norm}/{_input(name)}": mean_curve(distances, places)
            for name in self._measured
            if f"{name}/trajectory" in table
            for norm, distances in zip(NORMS, table[f"{name}/trajectory"].unbind(1), strict=True)
        }

    def figures(
        self, trainer: Trainer, module: PurifiedClassifier, table: SampleTable
    ) -> Mapping[str, Figure]:
        paper = self._paper(trainer, module)
        curves = [
            Curve(self._label(name), table[f"{name}/trajectory"], paper.get(name))
            for name in self._measured
            if f"{name}/trajectory" in table
        ]
        if not curves:
            return {}
        return {"distances": distance_figure(curves, chain_steps(module.purifier))}

    def _label(self, name: str) -> str:
        if name == ATTACK:
            return "attack" if self.surface == "fixed" else f"attack ({self.surface})"
        return f"uniform {name.removeprefix(f'{ATTACK}_uniform_')}/255"

    def _paper(self, trainer: Trainer, module: PurifiedClassifier) -> dict[str, PaperDistances]:
        """The paper's values for what this run measures in the paper's setting."""
        if not measures_cifar10(trainer):
            return {}
        attack = find_attack(trainer)
        comparable = self._measured if self.surface == "fresh" else self.levels
        names = {name: self.levels.get(name) for name in comparable}
        return paper_distances(
            module.purifier.settings(), attack.settings() if attack else {}, names
        )


def _name(width: float) -> str:
    return f"{ATTACK}_uniform_{255 * width:.6g}"


def _input(name: str) -> str:
    return "attack" if name == ATTACK else name.removeprefix(f"{ATTACK}_")
