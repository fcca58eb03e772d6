"""Robust accuracy without an attack: by laws of compression, and by one or a few gradients."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Literal

import torch
from lightning.pytorch import Trainer
from torch import Tensor

from lit_purify.attacks import Attack, Watch
from lit_purify.attacks.gradient import input_gradient
from lit_purify.callbacks.attack import attack_batch, run_attack
from lit_purify.callbacks.compression import CompressionRate
from lit_purify.callbacks.measurement import Measurement
from lit_purify.defence import Defence
from lit_purify.diffusion.contraction import Contraction
from lit_purify.functional import (
    Linearised,
    SigmoidFit,
    correct,
    margin,
    radius_along,
    standing_share,
    steepest,
)
from lit_purify.metrics import IntervalAccuracy, LawOfMean, MeanWithDeviation, SummaryMetric
from lit_purify.modules.outcomes import Outcomes
from lit_purify.modules.purified_classifier import PurifiedClassifier
from lit_purify.paper import PAPER_EPS, paper_fit
from lit_purify.records.runs import RATE, read_runs
from lit_purify.report.prediction import (
    PREDICTORS,
    Predictor,
    budget,
    law_over_budgets,
    prediction_name,
)
from lit_purify.types import NOTED, Batch, InputError, is_whole, ratio

_SECTION = "Robust accuracy predicted without an attack"


class RobustnessPrediction(Measurement):
    """Predicts the robust accuracy under budgets that nobody attacks with.

    For every budget E it logs what it has the means for:

    - ``prediction/first_order_at_E``: share of the images whose margin lasts through the ball to
      first order (:mod:`lit_purify.functional.first_order`). It is no bound, and errs upwards where
      the budget is large. Images that are right and whose gradient is zero or not finite are
      ``prediction/unknown``, and left out.
    - ``prediction/classifier_curve_at_E``: the run's attack on the classifier alone, around each
      purified image with the budget E times the image's own compression rate.
    - ``prediction/paper_law_at_E``: the paper's sigmoid (Fig. 3b) at the mean compression rate. It
      is fitted to 8/255, the paper's models and rates from 0.17 to 0.55; another budget is read at
      the rate times E over 8/255.
    - ``prediction/own_law_at_E``: likewise with the sigmoid through ``runs``.

    All but the first need the callback :class:`~lit_purify.callbacks.CompressionRate` before this
    one. ``prediction/radius`` is the mean first-order radius of one gradient, per unit of 1/255 in
    l_inf; ``prediction/zero_gradient`` and ``prediction/nonfinite_gradient`` are as of an attack's
    gradients. What is left out is named in the settings of the run.

    The norm is that of the run's attack, l_inf or l2. The protocols do not matter.

    Args:
        eps: the budgets, numbers or fractions such as ``"2/255"``.
        gradients: gradients of the whole chain for every image and budget, the first of them shared
            by all budgets; 0 leaves the first order out.
        noise: ``fixed`` predicts for an attacker who knows the noise. ``fresh`` predicts for one
            who averages over ``draws`` noises, what a draw that he has not seen leaves.
        draws: noises under ``fresh``, each with gradients of its own.
        runs: folders of finished runs attacked under fixed noise, at any budgets, that a law is
            fitted to; three or more.
    """

    def __init__(
        self,
        *,
        eps: Sequence[float | str] = ("1/255", "2/255", "4/255", "8/255"),
        gradients: int = 2,
        noise: Literal["fixed", "fresh"] = "fixed",
        draws: int = 8,
        runs: Sequence[str] = (),
    ) -> None:
        self.eps = sorted({ratio(value) for value in eps})
        if not (self.eps and all(0 < value < math.inf for value in self.eps)):
            raise InputError(
                f"eps of RobustnessPrediction is {list(eps)}; expected one budget or more, finite "
                "and above 0, such as 2/255"
            )
        if not (is_whole(gradients) and gradients >= 0):
            raise InputError(
                f"gradients is {gradients!r}; expected how many each image and budget get, 0 to "
                "leave out the first order"
            )
        if noise not in ("fixed", "fresh"):
            raise InputError(f"noise is {noise!r}; expected fixed or fresh")
        if not (is_whole(draws) and draws >= 2):
            raise InputError(
                f"draws is {draws!r}; expected 2 or more, to average the one and test the other"
            )
        self.gradients = gradients
        self.noise = noise
        self.draws = draws
        self.runs = list(runs)
        self._own = _own_law(runs)
        self._attacks: dict[float, Attack] = {}
        self._laws: dict[Predictor, SigmoidFit] = {}
        self._p = math.inf
        self._left_out: list[str] = []

    def settings(self) -> dict[str, object]:
        """What a report must say about this measurement."""
        found: dict[str, object] = {
            "prediction_budgets": self.eps,
            "prediction_p": "inf" if self._p == math.inf else f"{self._p:g}",
            "prediction_gradients": self.gradients,
            "prediction_noise": self.noise,
        }
        if self.noise == "fresh":
            found["prediction_draws"] = self.draws
        if self._own is not None:
            found["prediction_runs"] = self.runs
            found["prediction_law"] = [self._own.steepness, self._own.middle, self._own.ceiling]
        if self._left_out:
            found["prediction_left_out"] = self._left_out
        return found

    def prepare(self, trainer: Trainer, module: PurifiedClassifier) -> None:
        if not module.purifies:
            raise InputError(
                "RobustnessPrediction predicts what a purifier leaves, and the protocol base alone "
                "purifies nothing; add fixed to model.protocols, or set them to []"
            )
        attack = run_attack(trainer, self)
        self._p = attack.p
        if attack.threat_model not in ("l2", "linf"):
            raise InputError(
                f"the run's attack is in {attack.threat_model}, and RobustnessPrediction knows the "
                "balls of linf and l2; give the run an attack in one of these, such as "
                "lit_purify.attacks.PGD"
            )
        self._find_means(trainer, attack)
        for eps in self.eps:
            for predictor, metric in self._metrics().items():
                words = f"{PREDICTORS[predictor]}, at {budget(eps, self._p)}"
                name = prediction_name(predictor, eps, self._p)
                module.add_metric(name, metric, section=_SECTION, label=words)
        if self.gradients:
            scale = "/255" if self._p == math.inf else ""
            for name, metric, section, words in (
                ("radius", MeanWithDeviation(unit=scale), _SECTION, "First-order radius"),
                ("unknown", IntervalAccuracy(), _SECTION, "Images without a gradient, left out"),
                (
                    *("zero_gradient", MeanWithDeviation(unit="%"), NOTED),
                    "First order: pixels whose gradient was exactly 0",
                ),
                (
                    *("nonfinite_gradient", IntervalAccuracy(), NOTED),
                    "First order: images whose gradient was infinite or no number",
                ),
            ):
                module.add_metric(f"prediction/{name}", metric, section=section, label=words)

    def _find_means(self, trainer: Trainer, attack: Attack) -> None:
        """What this run can predict by, and what it has to leave out."""
        callbacks = trainer.callbacks  # type: ignore[attr-defined]
        before = callbacks[: callbacks.index(self)]
        attacks = {eps: attack.with_eps(eps) for eps in self.eps}
        self._attacks, self._laws, self._left_out = {}, {}, []
        if not self.gradients:
            self._left_out.append("first_order (gradients is 0)")
        if not any(isinstance(callback, CompressionRate) for callback in before):
            self._left_out.append("classifier_curve and the laws (no CompressionRate before this)")
            return
        self._attacks = attacks
        if self._p == math.inf:
            self._laws["paper_law"] = paper_fit()
        else:
            self._left_out.append("paper_law (it is of l_inf)")
        if self._own is not None:
            self._laws["own_law"] = self._own

    def _metrics(self) -> dict[Predictor, SummaryMetric]:
        """The metrics of one budget."""
        found: dict[Predictor, SummaryMetric] = {}
        if self.gradients:
            found["first_order"] = IntervalAccuracy()
        if self._attacks:
            found["classifier_curve"] = IntervalAccuracy()
        return found | {predictor: LawOfMean(law) for predictor, law in self._laws.items()}

    def measure(
        self, trainer: Trainer, module: PurifiedClassifier, outputs: Outcomes, batch: Batch
    ) -> None:
        if self.gradients:
            self._record_first_order(trainer, module, batch)
        if self._attacks:
            self._record_curve(trainer, module, outputs, batch)
        for predictor in self._laws:
            rates = module.recorded[RATE].values
            for eps in self.eps:
                module.record(prediction_name(predictor, eps, self._p), rates * (eps / PAPER_EPS))

    def _record_first_order(
        self, trainer: Trainer, module: PurifiedClassifier, batch: Batch
    ) -> None:
        image, label, index = batch["image"], batch["label"], batch["index"]
        draws = self.draws if self.noise == "fresh" else 1
        total = draws * (1 + len(self.eps) * (self.gradients - 1))
        watch = Watch(label, index, progress=lambda done: self.show_progress(trainer, done, total))
        attacked = module.attacked(self.noise, index)
        assert attacked.source is not None
        configurations = [attacked.source.next_configuration() for _ in range(draws)]
        defences = [module.defence.bind(xi, index).observed(watch) for xi in configurations]
        linearise = partial(_linearised, defences, label, index)
        with trainer.precision_plugin.forward_context():
            try:
                start = linearise(image)
            except InputError as error:
                raise InputError(f"{error}, or set gradients of the prediction to 0") from error
            mean = Linearised(*(part.mean(0) for part in start))
            radius = radius_along(*mean, steepest(mean.gradient, self._p))
            shares = [
                standing_share(linearise, image, start, eps, gradients=self.gradients, p=self._p)
                for eps in self.eps
            ]
        # Wrong is wrong, whatever the gradient.
        unknown = (mean.margin > 0) & (watch.nonfinite_gradient | ~radius.isfinite())
        for eps, share in zip(self.eps, shares, strict=True):
            name = prediction_name("first_order", eps, self._p)
            module.record(name, share, where=~unknown)
        scale = 255 if self._p == math.inf else 1
        module.record("prediction/radius", scale * radius.where(~unknown, torch.nan))
        module.record("prediction/unknown", unknown)
        module.record("prediction/zero_gradient", watch.zero_gradient)
        module.record("prediction/nonfinite_gradient", watch.nonfinite_gradient)

    def _record_curve(
        self, trainer: Trainer, module: PurifiedClassifier, outputs: Outcomes, batch: Batch
    ) -> None:
        index = batch["index"]
        purified, rates = outputs["fixed/clean"].image, module.recorded[RATE].values
        ideal = Contraction(purified, batch["image"], rates, index)
        defence = Defence(module.classifier, ideal).bind(module.noise, index)
        for eps, attack in self._attacks.items():
            found, _ = attack_batch(
                trainer,
                attack,
                defence,
                batch,
                seed=module.seed,
                activity="RobustnessPrediction: attack on the classifier",
            )
            with trainer.precision_plugin.forward_context():
                logits = defence(found)
            name = prediction_name("classifier_curve", eps, self._p)
            module.record(name, correct(logits, batch["label"]))


def _linearised(
    defences: Sequence[Defence], labels: Tensor, indices: Tensor, images: Tensor
) -> Linearised:
    """The margins under the randomness that each of the defences is bound to."""
    found = []
    for defence in defences:
        gradient, logits = input_gradient(defence, images, labels, indices, loss=margin)
        found.append((margin(logits, labels), gradient))
    return Linearised(*map(torch.stack, zip(*found, strict=True)))


def _own_law(folders: Sequence[str]) -> SigmoidFit | None:
    """The law through finished runs."""
    if not folders:
        return None
    runs, left_out = read_runs(folders)
    if left_out:
        raise InputError(f"a run that RobustnessPrediction is to fit, {left_out[0]}")
    return law_over_budgets(runs)
