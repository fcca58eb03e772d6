"""Robust accuracy of the classifier alone against the budget (Fig. 3c)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from lightning.pytorch import Trainer
from matplotlib.figure import Figure

from lit_purify.attacks import Attack
from lit_purify.callbacks.attack import attack_batch, run_attack
from lit_purify.callbacks.measurement import Measurement
from lit_purify.figures import CurvePoint, base_curve_figure
from lit_purify.functional import correct
from lit_purify.metrics import IntervalAccuracy
from lit_purify.modules.outcomes import Outcomes
from lit_purify.modules.purified_classifier import PurifiedClassifier
from lit_purify.records import SampleTable
from lit_purify.records.runs import (
    ANY_ITERATION,
    LAST_ITERATION,
    FinishedRun,
    estimate,
    read_runs,
)
from lit_purify.types import Batch, InputError, ratio
from lit_purify.weights.content import sha256

RATES = (0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.75, 1.0)
_DIGITS = 4


class BaseClassifierCurve(Measurement):
    """Attacks the classifier alone with budgets eps times alpha.

    The paper's explanation of what robustness remains under fixed noise is that purification
    shrinks a perturbation to its compression rate alpha; then a purified classifier keeps about
    what the classifier alone keeps under the budget eps times alpha.

    Logs ``base_curve/robust_accuracy_<alpha>`` for every rate, alpha with two decimals or as many
    more, up to four, as it has; it is rounded to four. The attack is the run's own, from the same
    random starts, with another eps: at alpha = 1 the figure is ``base/robust_accuracy``, at
    alpha = 0 the image is the clean one. The protocols of the run do not matter.

    At the end the first process draws the curve from the records: ``base_curve.png`` in the run
    folder, and TensorBoard. So without the callback Records there is no picture.

    Args:
        rates: shares alpha of the budget.
        eps: the whole budget, a number or a fraction such as ``"8/255"``; ``None`` is that of the
            run's attack.
        runs: folders of finished runs, attacked with the same eps on the same classifier. Their
            measured rates join ``rates``, and their ``fixed/robust_accuracy`` is drawn beside the
            curve; so is that of this run, where it has both.
        rate_name: the figure of a run that is taken for its compression rate.
    """

    def __init__(
        self,
        *,
        rates: Sequence[float] = RATES,
        eps: float | str | None = None,
        runs: Sequence[str] = (),
        rate_name: str = "uniform/compression_rate",
    ) -> None:
        self.eps = None if eps is None else ratio(eps)
        self.runs = list(runs)
        self.rate_name = rate_name
        self._measured = _measured(runs, rate_name)
        everything = [*rates, *(point.rate for _, point in self._measured)]
        if not everything or not all(0 <= rate < math.inf for rate in everything):
            raise InputError(
                "the rates of BaseClassifierCurve must be finite numbers of at least 0, and one or "
                f"more, got {list(rates)}; the default is {', '.join(f'{r:g}' for r in RATES)}"
            )
        if self.eps is not None and not 0 < self.eps < math.inf:
            raise InputError(f"eps of BaseClassifierCurve must be finite and above 0, got {eps}")
        self.rates = sorted({round(float(rate), _DIGITS) for rate in everything})
        self._attacks: dict[float, Attack] = {}
        self._whole: Attack | None = None

    def settings(self) -> dict[str, object]:
        """What a report must say about this measurement."""
        found: dict[str, object] = {"base_curve_rates": self.rates}
        if self._whole is not None:
            found["base_curve_eps"] = self._whole.eps
            when = "at any" if self._whole.stops_early else "after the last"
            found["base_curve_success"] = f"{when} iteration"
        if self.runs:
            found |= {"base_curve_runs": self.runs, "base_curve_rate_name": self.rate_name}
        return found

    def prepare(self, trainer: Trainer, module: PurifiedClassifier) -> None:
        attack = run_attack(trainer, self)
        self._whole = attack.with_eps(attack.eps if self.eps is None else self.eps)
        if not self._whole.eps > 0:
            raise InputError(
                "the run's attack has eps 0, which scales to nothing; give BaseClassifierCurve an "
                "eps of its own, such as 8/255"
            )
        largest = self.rates[-1] * self._whole.eps
        if self._whole.p == math.inf and largest > 1:
            raise InputError(
                f"the rate {self.rates[-1]:g} makes a budget of {largest:.4g}; expected at most 1, "
                "the scale of the images; take smaller rates"
            )
        self._check_comparable(module)
        self._attacks = {rate: attack.with_eps(rate * self._whole.eps) for rate in self.rates}
        for rate in self.rates:
            module.add_metric(
                _name(rate),
                IntervalAccuracy(),
                section="Classifier alone, attacked with less",
                label=f"Accuracy at {100 * rate:g} % of the budget",
            )

    def _check_comparable(self, module: PurifiedClassifier) -> None:
        assert self._whole is not None
        file = module.models()["classifier"].file
        digest = None if file is None else sha256(file)
        for run, _ in self._measured:
            eps = run.setting("eps")
            if eps is not None and not math.isclose(eps, self._whole.eps):
                raise InputError(
                    f"{run.folder} was attacked with eps {eps * 255:.4g}/255, and the curve is for "
                    f"{self._whole.eps * 255:.4g}/255; leave it out of runs, or set eps of "
                    "BaseClassifierCurve"
                )
            other = run.settings.get("models", {}).get("classifier", {}).get("sha256")
            if None not in (digest, other) and digest != other:
                raise InputError(
                    f"{run.folder} measured another classifier (other weights); leave it out of "
                    "runs, or test the same classifier here"
                )

    def measure(
        self, trainer: Trainer, module: PurifiedClassifier, outputs: Outcomes, batch: Batch
    ) -> None:
        defence = module.attacked("base", batch["index"])
        for rate, attack in self._attacks.items():
            images = batch["image"]
            if rate > 0:
                images, _ = attack_batch(
                    trainer,
                    attack,
                    defence,
                    batch,
                    seed=module.seed,
                    activity=f"BaseClassifierCurve: rate {rate:g}, attack",
                )
            with trainer.precision_plugin.forward_context():  # as the module tests its own
                logits = module.classifier(images)
            module.record(_name(rate), correct(logits, batch["label"]))

    def figures(
        self, trainer: Trainer, module: PurifiedClassifier, table: SampleTable
    ) -> Mapping[str, Figure]:
        if self._whole is None:
            return {}
        found = module.statistics
        curve = [
            CurvePoint(rate, accuracy)
            for rate in self.rates
            if (accuracy := estimate(found[_name(rate)])) is not None
        ]
        if not curve:
            return {}
        measured = [point for _, point in self._measured]
        if self._whole.eps == run_attack(trainer, self).eps:
            name = _success(run_attack(trainer, self).stops_early)
            own, accuracy = (estimate(found.get(each, {})) for each in (self.rate_name, name))
            if own is not None and accuracy is not None:
                measured.append(CurvePoint(own.value, accuracy, "this run"))
        figure = base_curve_figure(curve, measured, eps=self._whole.eps, p=self._whole.p)
        return {"base_curve": figure}


def _measured(folders: Sequence[str], rate_name: str) -> list[tuple[FinishedRun, CurvePoint]]:
    """Finished runs, each with its point."""
    runs, left_out = read_runs(dict.fromkeys(folders))
    if left_out:
        raise InputError(f"a run that BaseClassifierCurve is to draw, {left_out[0]}")
    found = []
    for run in runs:
        name = _success(bool(run.settings.get("early_stop")))
        rate, accuracy = run.estimate(rate_name), run.estimate(name)
        if rate is None or accuracy is None:
            known = sorted(name for name in run.metrics if run.estimate(name) is not None)
            missing = rate_name if rate is None else name
            raise InputError(
                f"the run in {run.folder} has no figure {missing}; it has {', '.join(known)}; "
                "repeat it with what measures that one, or leave it out"
            )
        depth = run.settings.get("t_star")
        label = run.method if depth is None else f"{run.method}, t* = {depth}"
        found.append((run, CurvePoint(rate.value, accuracy, label)))
    return found


def _success(stopped_early: bool) -> str:
    """The robust accuracy of a run; an attack that stopped early knows no last iteration."""
    return ANY_ITERATION if stopped_early else LAST_ITERATION


def _name(rate: float) -> str:
    """The figure of a rate."""
    whole, _, decimals = f"{rate:.{_DIGITS}f}".partition(".")
    return f"base_curve/robust_accuracy_{whole}.{decimals.rstrip('0'):0<2}"
