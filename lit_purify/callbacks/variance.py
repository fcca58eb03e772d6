"""What purified images depend on: the noise or the input (Fig. 2d-f, Tables S5 and S6)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping

import torch
from lightning.pytorch import Trainer
from matplotlib.figure import Figure
from torch import Tensor

from lit_purify.callbacks.cifar10 import measures_cifar10
from lit_purify.callbacks.measurement import Measurement
from lit_purify.callbacks.replay import Replay
from lit_purify.diffusion import FixedNoise, Purifier, StackedNoise, derive_seed
from lit_purify.figures import variance_figure
from lit_purify.functional import variability
from lit_purify.metrics import MeanWithDeviation
from lit_purify.modules.outcomes import Outcomes
from lit_purify.modules.purified_classifier import PurifiedClassifier
from lit_purify.paper import PAPER_EPS
from lit_purify.records import SampleTable
from lit_purify.types import Batch, InputError, ratio

LABELS = {
    "variance/total": "Variance per pixel",
    "variance/input": "Variance from the input, at a given noise",
    "variance/internal": "Variance from the noise",
    "variance/snr": "Input over noise (SNR)",
    "variance/internal_unbiased": "Variance from the noise, bias corrected",
    "direction/fixed_noise": "Agreement of directions: same noise, other inputs",
    "direction/fixed_input": "Agreement of directions: same input, other noises",
    "centroid/l2_inputs": "Distance to the centre: the inputs themselves",
    "centroid/l2_fixed_noise": "Distance to the centre: purified, same noise",
    "centroid/l2_fixed_input": "Distance to the centre: purified, same input",
    "centroid/l2_both": "Distance to the centre: purified, both vary",
}
"""Metric -> what reports call it."""


class OutputVariability(Measurement):
    """Separates what the noise does to a purified image from what the input does.

    Every image is perturbed M times by uniform noise, x_m, and each x_m is purified under the same
    N randomness configurations. Image by image, and then as means over images, it logs

    - ``variance/total``, ``variance/input``, ``variance/internal``, ``variance/snr`` (eqs. 7 and
      11, :mod:`lit_purify.functional.variance`), and ``variance/internal_unbiased``, which does not
      depend on M and N but for its scatter. An image whose purification does not depend on the
      noise has an infinite SNR; it is left out of the mean and counted as missing;
    - ``direction/fixed_noise`` and ``direction/fixed_input``
      (:mod:`lit_purify.functional.variability`); a purification that changes nothing has no
      direction, and its image is counted as missing;
    - ``centroid/l2_inputs``, ``centroid/l2_fixed_noise``, ``centroid/l2_fixed_input`` and
      ``centroid/l2_both`` (:mod:`lit_purify.functional.variability`), about sqrt(1 - 1/n) times as
      large for n points as for many: compare them at one M and N.

    It takes M N purifications an image. The paper has 50 images, M = 50 and N = 50. The purified
    images wait in a temporary file (:class:`~lit_purify.callbacks.replay.Replay`): 4 M N C H W
    bytes for each of the images that are purified together, 31 MB for 3x32x32 at the paper's size.

    At the end the first process draws the figures from the records: ``variance.png`` in the run
    folder, and TensorBoard. So without the callback Records there is no picture.

    Args:
        inputs: M, perturbed inputs an image, 2 or more.
        draws: N, randomness configurations, 2 or more.
        eps: half-width of the uniform perturbation, a number or a fraction such as ``"8/255"``.
            The perturbed images are not clipped to [0, 1], so that the perturbation is uniform.
        rows_per_pass: images that are purified at once, at most. It decides the memory, and moves
            figures only as the batch size does, in the last digits.
    """

    rounded_away = "the variance from the input, which is small beside the images"

    def __init__(
        self,
        *,
        inputs: int = 8,
        draws: int = 8,
        eps: float | str = "8/255",
        rows_per_pass: int = 128,
    ) -> None:
        self.eps = ratio(eps)
        if not 0 < self.eps <= 1:
            raise InputError(f"eps of OutputVariability must lie in (0, 1], got {eps}")
        if inputs < 2 or draws < 2:
            raise InputError(
                "OutputVariability compares inputs with one another, and draws: it needs 2 or "
                f"more of each, got inputs {inputs} and draws {draws}"
            )
        if rows_per_pass < 1:
            raise InputError(f"rows_per_pass must be at least 1, got {rows_per_pass}")
        self.inputs = inputs
        self.draws = draws
        self.rows_per_pass = rows_per_pass

    def settings(self) -> dict[str, object]:
        """What a report must say about this measurement."""
        return {
            "variance_eps": self.eps,
            "variance_inputs": self.inputs,
            "variance_draws": self.draws,
        }

    def prepare(self, trainer: Trainer, module: PurifiedClassifier) -> None:
        section = "What the purified image depends on"
        for name, label in LABELS.items():
            module.add_metric(name, MeanWithDeviation(), section=section, label=label)

    def measure(
        self, trainer: Trainer, module: PurifiedClassifier, outputs: Outcomes, batch: Batch
    ) -> None:
        # The inputs of an image stay together, since they share its noise.
        size = max(1, self.rows_per_pass // self.inputs)
        images, indices = (torch.split(part, size) for part in (batch["image"], batch["index"]))
        found = []
        for number, (image, index) in enumerate(zip(images, indices, strict=True)):

            def on_draws(done: int, number: int = number) -> None:
                done += number * self.draws
                self.show_progress(trainer, done, len(images) * self.draws)

            found.append(self._measure(module, image, index, on_draws))
        for name in LABELS:
            module.record(name, torch.cat([values[name] for values in found]))

    def _measure(
        self,
        module: PurifiedClassifier,
        image: Tensor,
        index: Tensor,
        on_draws: Callable[[int], None],
    ) -> dict[str, Tensor]:
        """The values of some images by their metric, (B,), float64."""
        perturbations = [
            FixedNoise(derive_seed(module.seed, "variance/input", m)).uniform(index, like=image)
            for m in range(self.inputs)
        ]
        inputs = image.unsqueeze(1) + self.eps * torch.stack(perturbations, 1)
        noises = [
            FixedNoise(derive_seed(module.seed, "variance/noise", n)) for n in range(self.draws)
        ]
        purifier, rows = module.purifier, self.rows_per_pass
        with Replay(
            lambda: _purified(purifier, inputs, index, noises, rows, on_draws), image.device
        ) as draws:
            variance, direction, centroid = variability(inputs, draws)
        parts = {
            "variance/": variance._asdict(),
            "direction/": direction._asdict(),
            "centroid/l2_": centroid._asdict(),
        }
        return {f"{at}{name}": x for at, part in parts.items() for name, x in part.items()}

    def figures(
        self, trainer: Trainer, module: PurifiedClassifier, table: SampleTable
    ) -> Mapping[str, Figure]:
        columns = {name: table.known(name) for name in LABELS}
        if not any(columns.values()):
            return {}
        figure = variance_figure(
            columns,
            inputs=self.inputs,
            draws=self.draws,
            paper=measures_cifar10(trainer) and math.isclose(self.eps, PAPER_EPS),
        )
        return {"variance": figure}


def _purified(
    purifier: Purifier,
    inputs: Tensor,
    index: Tensor,
    noises: list[FixedNoise],
    rows_per_pass: int,
    on_draws: Callable[[int], None],
) -> Iterator[Tensor]:
    """The inputs (B, M, ...) purified under each configuration, in passes of so many rows.

    ``on_draws`` is called with the number of configurations that are done.
    """
    flat, repeated = inputs.flatten(0, 1), index.repeat_interleave(inputs.shape[1])
    # Few rows meet several configurations in one pass; too many take several passes for one.
    together = max(1, rows_per_pass // len(flat))
    for start in range(0, len(noises), together):
        on_draws(start)
        chosen = noises[start : start + together]
        x, indices = flat.repeat(len(chosen), 1, 1, 1), repeated.repeat(len(chosen))
        noise = StackedNoise(chosen)
        passes = zip(*(torch.split(part, rows_per_pass) for part in (x, indices)), strict=True)
        outputs = torch.cat([purifier.purify(rows, noise, i) for rows, i in passes])
        yield from outputs.view(len(chosen), *inputs.shape)
