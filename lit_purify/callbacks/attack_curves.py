"""What an attack meets iteration by iteration."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from lightning.pytorch import Trainer
from matplotlib.figure import Figure

from lit_purify.callbacks.measurement import Measurement
from lit_purify.figures import attack_figure
from lit_purify.modules.outcomes import Outcomes
from lit_purify.modules.protocols import SURFACES, Surface
from lit_purify.modules.purified_classifier import PurifiedClassifier
from lit_purify.records import MeanCurve, SampleTable, mean_curve
from lit_purify.types import Batch


class AttackCurves(Measurement):
    """Records what the run's attack meets at every iteration, and draws the robust accuracy.

    For every surface (``base``, ``fixed``, ``fresh``) three tensors beside the records, (N, I),
    nine bytes per image and iteration (twelve for ``fresh``):

    - ``<surface>/attack_correct``: whether the image is classified correctly before the step of the
      iteration; under fresh noise the share of the draws. A sample that left the attack early
      because it was fooled counts as fooled from there on.
    - ``<surface>/attack_loss``: its cross-entropy, and ``<surface>/attack_gradient_norm``: the l2
      norm of its gradient; under several draws the mean of theirs. nan for a sample that left.

    The attack computes all of them anyway. Attacks that do not know their iterations, such as those
    of other libraries, have none.

    TensorBoard shows the means over the images as ``attack/<surface>/...``; the robust accuracy has
    one point more, that of the images that the attack returns. Through a surrogate all of them are
    the surrogate's, and the point is left out.
    """

    def prepare(self, trainer: Trainer, module: PurifiedClassifier) -> None:
        """Every run can be measured."""

    def measure(
        self, trainer: Trainer, module: PurifiedClassifier, outputs: Outcomes, batch: Batch
    ) -> None:
        for surface, trace in batch.get("attack_trace", {}).items():
            correct = trace.correct.float() if surface == "fresh" else trace.correct == 1
            module.record(f"{surface}/attack_correct", correct)
            module.record(f"{surface}/attack_loss", trace.loss)
            module.record(f"{surface}/attack_gradient_norm", trace.gradient_norm)

    def curves(self, module: PurifiedClassifier, table: SampleTable) -> Mapping[str, MeanCurve]:
        found = {}
        for surface in SURFACES:
            if f"{surface}/attack_correct" in table:
                found[f"attack/{surface}/robust_accuracy"] = _accuracy(module, table, surface)
                for name in ("loss", "gradient_norm"):
                    values = table[f"{surface}/attack_{name}"]
                    found[f"attack/{surface}/{name}"] = mean_curve(
                        values, range(1, values.shape[1] + 1)
                    )
        return found

    def figures(
        self, trainer: Trainer, module: PurifiedClassifier, table: SampleTable
    ) -> Mapping[str, Figure]:
        curves = {
            module.named(surface, label): [
                mean for _, mean in _accuracy(module, table, surface).points()
            ]
            for surface, label in SURFACES.items()
            if f"{surface}/attack_correct" in table
        }
        return {"attack_curves": attack_figure(curves, len(table))} if curves else {}


def _accuracy(module: PurifiedClassifier, table: SampleTable, surface: Surface) -> MeanCurve:
    """Robust accuracy by iteration, and at last that of the images that were returned."""
    columns = [table[f"{surface}/attack_correct"].double()]
    outcomes = ("robust_accuracy", "robust_accuracy_any_iteration")
    for name in () if module.approximated(surface) else outcomes:
        if f"{surface}/{name}" in table and len(columns) == 1:
            columns.append(table[f"{surface}/{name}"].double().unsqueeze(1))
    values = torch.cat(columns, 1)
    return mean_curve(values, range(1, values.shape[1] + 1), share=True)
