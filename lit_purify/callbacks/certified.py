"""Certified robustness of the purified classifier: randomized smoothing (Cohen et al., 2019)."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence

import torch
from lightning.pytorch import Trainer
from matplotlib.figure import Figure
from torch import Tensor

from lit_purify.callbacks.measurement import Measurement
from lit_purify.figures import certified_figure
from lit_purify.functional import ABSTAINED, certificate, certified_radius, check_answers
from lit_purify.metrics import IntervalAccuracy, MeanWithDeviation
from lit_purify.modules.outcomes import Outcomes
from lit_purify.modules.purified_classifier import PurifiedClassifier
from lit_purify.purifiers import SmoothedClassifier
from lit_purify.records import SampleTable
from lit_purify.records.runs import estimate
from lit_purify.types import Batch, InputError

RADII = (0.25, 0.5, 0.75, 1.0)
_SECTION = "Certified robustness (l2)"
_KEPT_EVERY = 20.0
"""Seconds of work that an interruption may cost, about."""


class CertifiedRobustness(Measurement):
    """Certifies what the purified classifier answers most often under fresh Gaussian noise.

    The purifier has to be a smoothing: its output depends on the image through the image and
    Gaussian noise alone, as that of a :class:`~lit_purify.diffusion.DiffusionPurifier` does whose
    forward process noises the image (:mod:`lit_purify.functional.smoothing`). sigma is that of its
    t*. The certificate is of the vote, not of a single answer, and holds against every attack
    within the radius, with a probability of at least 1 - alpha for each image.

    For every image ``certified/prediction`` (-1 where it abstains), ``certified/radius`` (l2 over
    all pixels in [0, 1]; nan where it abstains) and ``certified/votes``, how often each class was
    answered among the n. Over images

    - ``certified/accuracy_at_R``: right, and certified within R or further; at 0 the accuracy of
      the smoothed classifier, which is wrong where it abstains;
    - ``certified/average_radius``: mean radius, 0 where it is wrong or abstains (ACR);
    - ``certified/abstained``.

    It takes ``reversals`` (n0 + n) purifications an image and no gradient. The largest radius that
    n answers can certify is sigma Phi^-1(alpha^(1/n)), 2.46 sigma for n = 1000 at alpha = 0.001 and
    3.81 sigma for n = 100,000.

    Answers are keyed by (base seed, dataset index, number of the answer). An interrupted run goes
    on in the middle of an image: the counts so far lie beside the records.

    At the end the first process draws the curve from the records: ``certified.png`` in the run
    folder, and TensorBoard. So without the callback Records there is no picture.

    Args:
        n0: answers that choose the class.
        n: answers that are counted for it; 100,000 in the literature.
        alpha: probability that the certificate of an image is wrong, at most.
        radii: where the accuracy is reported, beside 0, rounded to six digits.
        reversals: K, denoisings of the same noised image that vote on each answer (DensePure); 1
            takes the first.
        rows_per_pass: images that are purified at once, at most, or the reversals of one answer. It
            decides the memory, and moves logits only as the batch size does, in the last digits.
    """

    def __init__(
        self,
        *,
        n0: int = 100,
        n: int = 1000,
        alpha: float = 0.001,
        radii: Sequence[float] = RADII,
        reversals: int = 1,
        rows_per_pass: int = 128,
    ) -> None:
        check_answers(n0, n, alpha)
        if not all(0 <= radius < math.inf for radius in radii):
            raise InputError(
                f"radii must be finite numbers of at least 0, got {list(radii)}; 0.25 is usual"
            )
        self.n0 = n0
        self.n = n
        self.alpha = alpha
        self.radii = sorted({0.0, *(float(f"{radius:g}") for radius in radii)})
        self.reversals = reversals
        self.rows_per_pass = rows_per_pass
        self._smoothed: SmoothedClassifier | None = None

    def settings(self) -> dict[str, object]:
        """What a report must say about this measurement."""
        sigma = {} if self._smoothed is None else {"certified_sigma": self._smoothed.sigma}
        return {
            **sigma,
            "certified_n0": self.n0,
            "certified_n": self.n,
            "certified_alpha": self.alpha,
            "certified_reversals": self.reversals,
        }

    def prepare(self, trainer: Trainer, module: PurifiedClassifier) -> None:
        self._smoothed = SmoothedClassifier(
            module.purifier,
            module.classifier,
            noise=module.noise,
            reversals=self.reversals,
            rows_per_pass=self.rows_per_pass,
        )
        for radius in self.radii:
            label = f"Certified accuracy at radius {radius:g}"
            if radius > self._largest:
                label += f" (more than n = {self.n} can certify)"
            module.add_metric(_name(radius), IntervalAccuracy(), section=_SECTION, label=label)
        for name, metric, label in (
            ("average_radius", MeanWithDeviation(), "Average certified radius (ACR)"),
            ("abstained", IntervalAccuracy(), "Images without a certified answer"),
        ):
            module.add_metric(f"certified/{name}", metric, section=_SECTION, label=label)

    @property
    def _largest(self) -> float:
        """The radius of an image for which all answers agree."""
        assert self._smoothed is not None
        agreed = torch.tensor([self.n])
        return certified_radius(agreed, self.n, sigma=self._smoothed.sigma, alpha=self.alpha).item()

    def measure(
        self, trainer: Trainer, module: PurifiedClassifier, outputs: Outcomes, batch: Batch
    ) -> None:
        assert self._smoothed is not None
        with trainer.precision_plugin.forward_context():  # as the module tests its own
            selection, votes = self._votes(trainer, module, batch)
        found = certificate(selection, votes, self.n, sigma=self._smoothed.sigma, alpha=self.alpha)
        right = found.prediction == batch["label"]
        for radius in self.radii:
            module.record(_name(radius), right & (found.radius >= radius))
        module.record("certified/average_radius", found.radius.where(right, 0))
        module.record("certified/abstained", found.prediction == ABSTAINED)
        module.record("certified/prediction", found.prediction)
        module.record("certified/radius", found.radius)
        module.record("certified/votes", votes.int())

    def _votes(
        self, trainer: Trainer, module: PurifiedClassifier, batch: Batch
    ) -> tuple[Tensor, Tensor]:
        """Votes that choose the class, and those that are counted for it, (B, K) each."""
        assert self._smoothed is not None
        image, index = batch["image"], batch["index"]
        classes, first, total = module.classifier.num_classes, int(index[0]), self.n0 + self.n
        kept = module.store.kept(first)
        if not torch.equal(kept.get("certified/index", index.new_empty(0)), index.cpu()):
            kept = {}  # of a batch of another size
        votes = kept.get("certified/votes", index.new_zeros(2, len(index), classes)).to(index)
        done = int(kept.get("certified/done", 0))
        written, step = time.monotonic(), self._smoothed.draws_per_pass(len(image))
        while done < total:
            self.show_progress(trainer, done, total)
            end = min(done + step, self.n0 if done < self.n0 else total)
            counted = int(done >= self.n0)
            votes[counted] += self._smoothed.votes(image, index, range(done, end))
            done = end
            if time.monotonic() - written > _KEPT_EVERY:
                written = time.monotonic()
                tensors = {"index": index, "votes": votes, "done": torch.tensor(done)}
                kept = {f"certified/{name}": tensor.cpu() for name, tensor in tensors.items()}
                module.store.keep(first, kept)
        return votes[0], votes[1]

    def figures(
        self, trainer: Trainer, module: PurifiedClassifier, table: SampleTable
    ) -> Mapping[str, Figure]:
        if self._smoothed is None or "certified/radius" not in table or not len(table):
            return {}
        right = table["certified/prediction"] == table["label"]
        radii = table["certified/radius"].where(right, torch.nan)
        named = {
            radius: accuracy
            for radius in self.radii
            if (accuracy := estimate(module.statistics[_name(radius)])) is not None
        }
        figure = certified_figure(
            radii.tolist(),
            largest=self._largest,
            sigma=self._smoothed.sigma,
            n=self.n,
            named=named,
        )
        return {"certified": figure}


def _name(radius: float) -> str:
    """The figure of a radius."""
    return f"certified/accuracy_at_{radius:g}"
