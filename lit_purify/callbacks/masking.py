"""Is the robustness of a run a failed attack? Diagnostics of gradient masking, sample by sample."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy

import torch
from lightning.pytorch import Trainer
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn import functional as F

from lit_purify.attacks import Attack
from lit_purify.callbacks.attack import attack_batch, run_attack
from lit_purify.callbacks.chain_steps import chain_steps
from lit_purify.callbacks.measurement import Measurement
from lit_purify.data.base import evaluated_images
from lit_purify.figures import attack_loss_figure, gradient_norm_figure
from lit_purify.functional import (
    correct,
    derivative_error,
    directional_derivative,
    first_to_last,
    growth_log10,
    l2_norm,
    zero_share,
)
from lit_purify.metrics import IntervalAccuracy, MeanWithDeviation
from lit_purify.modules.outcomes import Outcomes
from lit_purify.modules.purified_classifier import PurifiedClassifier
from lit_purify.records import SampleTable
from lit_purify.types import Batch, InputError

WRONG = 0.1
"""Relative error from which on a derivative counts as wrong. A sound one in float32 is a hundred
times closer; a gradient that is no derivative of the loss is further off than this."""

LONGER, BLACK_BOX = "lost_to_longer_attack", "lost_to_black_box"
"""Shares of the images that stood, and fall to a further attack."""
_ACTIVITIES = {LONGER: "longer attack", BLACK_BOX: "black box"}

_SECTION = "Signs of masked gradients"
_LABELS = {
    "gradient_growth_log10": "Gradient's norm, input over output of the chain, log10",
    "nonfinite_gradient": "Images whose gradient is infinite or no number",
    "zero_gradient": "Pixels whose gradient is exactly 0",
    "derivative_error": "Gradient against measured slope, relative error",
    "wrong_gradient": "Images whose gradient is off by more than 0.1 of the slope",
    "attack_loss_gain": "Rise of the loss during the attack",
    LONGER: "Images that stood and fall to a longer attack",
    BLACK_BOX: "Images that stood and fall to an attack without gradients",
}
_COUNTED = ("nonfinite_gradient", "wrong_gradient", LONGER, BLACK_BOX)
"""What an image has or has not."""


class MaskingDiagnostics(Measurement):
    """Checks, under the run's fixed noise, what gradient masking would show in.

    Of the exact gradient of the cross-entropy at the clean image, also where the run's attack
    follows another one (BPDA, say):

    - ``masking/gradient_norm``: its l2 norm at every state of the chain, [0, 1] scale, the input
      first; a tensor beside the records and a figure. ``masking/gradient_growth_log10`` is the
      decimal logarithm of the norm at the input over that at the output, without the samples whose
      gradient is zero at either.
    - ``masking/nonfinite_gradient``: share of the samples in which it is infinite or not a number
      at some state.
    - ``masking/zero_gradient``: share of the pixels of the input in which it is exactly zero.
    - ``masking/derivative_error``: relative error between its norm and the derivative of the loss
      along it, taken from central differences of the loss alone
      (:func:`~lit_purify.functional.masking.directional_derivative`). The differences are always
      computed in float32, also where the gradient comes from a run in mixed precision. They probe
      outside [0, 1] where a pixel is at an end of it. ``masking/wrong_gradient`` is the share of
      samples with an error above 0.1. Samples whose gradient is zero have neither.

    Of the run's attack on ``fixed``; a run without that protocol has none of these:

    - ``masking/attack_loss``: its loss at every iteration, a tensor beside the records and a
      figure; ``masking/attack_loss_gain`` is the last known one minus the first. Not for attacks
      that do not know their iterations.
    - ``masking/lost_to_longer_attack``: share that falls to a longer attack, at any iteration, of
      those of the first samples of the test set that stood at every iteration of the run's own.
      Only for attacks with ``steps``.
    - ``masking/lost_to_black_box``: the share of the same that falls to ``black_box``. What stands
      against the gradient and falls without it stood because its gradient is masked.

    What is left out is named in the settings of the run. The figures need
    :class:`~lit_purify.callbacks.Records`, as they show the samples of all processes and sessions.

    Args:
        longer: how many times more steps the longer attack takes, with all else equal.
        samples: further attacks are tried on those of so many first images of the test set that
            stood; 0 leaves them out.
        black_box: an attack without gradients, such as Square or RayS, in the norm of the run's
            own, whose ``eps`` it takes over; ``None`` leaves it out.
    """

    def __init__(
        self, *, longer: int = 10, samples: int = 8, black_box: Attack | None = None
    ) -> None:
        if longer < 2:
            raise InputError(
                f"longer is {longer}; expected a factor of 2 or more for the steps of the attack"
            )
        if samples < 0:
            raise InputError(
                f"samples is {samples}; expected how many images to attack for longer, 0 for none"
            )
        self.longer = longer
        self.samples = samples
        self.black_box = black_box
        self._gains = False
        self._further: dict[str, Attack] = {}
        self._first = torch.empty(0, dtype=torch.int64)
        self._left_out: list[str] = []

    def settings(self) -> dict[str, object]:
        """What a report must say about these measurements."""
        found: dict[str, object] = {"masking_longer": self.longer, "masking_samples": self.samples}
        if self.black_box is not None:
            said = self.black_box.settings()
            del said["eps"]  # that of the run is taken
            found["masking_black_box"] = said
        return {**found, "masking_left_out": self._left_out} if self._left_out else found

    def prepare(self, trainer: Trainer, module: PurifiedClassifier) -> None:
        self._gains, self._further, self._left_out = False, {}, []
        if "fixed" in module.protocols:
            attack = run_attack(trainer, self)
            self._gains = bool(attack.num_iterations(module.attacked("fixed", self._first)))
            if not self._gains:
                why = "the attack does not know its iterations"
                self._left_out.append(f"attack_loss ({why})")
            self._further = self._further_attacks(trainer, module, attack)
        else:
            self._left_out.append(f"attack_loss and {self._names_further} (no protocol fixed)")
        measured = {
            "attack_loss_gain": self._gains,
            **{name: name in self._further for name in (LONGER, BLACK_BOX)},
        }
        for name, label in _LABELS.items():
            if measured.get(name, True):
                unit = "%" if name == "zero_gradient" else ""
                metric = IntervalAccuracy() if name in _COUNTED else MeanWithDeviation(unit=unit)
                module.add_metric(f"masking/{name}", metric, section=_SECTION, label=label)

    def _further_attacks(
        self, trainer: Trainer, module: PurifiedClassifier, attack: Attack
    ) -> dict[str, Attack]:
        """Metric -> the attack that is tried on what stood."""
        images, steps = evaluated_images(trainer), getattr(attack, "steps", None)
        if self.samples == 0 or images is None:
            why = "the data say no order of the test set" if self.samples else "samples is 0"
            self._left_out.append(f"{self._names_further} ({why})")
            return {}
        self._first = images.indices[: self.samples]
        found = {}
        if isinstance(steps, int):
            longer = deepcopy(attack)
            longer.steps = steps * self.longer  # type: ignore[attr-defined]
            # A success at any iteration is the same, and sooner; that of a surrogate is none.
            if hasattr(longer, "early_stop") and not module.approximated("fixed"):
                longer.early_stop = True
            found[LONGER] = longer
        else:
            self._left_out.append(f"{LONGER} ({type(attack).__name__} has no steps)")
        if self.black_box is not None:
            found[BLACK_BOX] = self._in_the_ball_of(attack, self.black_box)
        return found

    @property
    def _names_further(self) -> str:
        return LONGER if self.black_box is None else f"{LONGER} and {BLACK_BOX}"

    @staticmethod
    def _in_the_ball_of(attack: Attack, black_box: Attack) -> Attack:
        if black_box.threat_model != attack.threat_model:
            raise InputError(
                f"measure.masking.black_box searches {black_box.threat_model} and the run's attack "
                f"{attack.threat_model}, which cannot be compared; give both the ball of one norm"
            )
        return black_box.with_eps(attack.eps)

    def measure(
        self, trainer: Trainer, module: PurifiedClassifier, outputs: Outcomes, batch: Batch
    ) -> None:
        self._record_gradient(trainer, module, batch)
        if self._gains:
            losses = batch["attack_trace"]["fixed"].loss
            module.record("masking/attack_loss", losses)
            module.record("masking/attack_loss_gain", first_to_last(losses))
        if self._further:
            stood = outputs["fixed/adversarial"].correct
            # Right after the last iteration is not enough: one before it may have succeeded.
            if not module.approximated("fixed"):
                stood = stood & module.recorded["fixed/robust_accuracy_any_iteration"].values
            tried = stood & torch.isin(batch["index"], self._first.to(stood.device))
            for name in self._further:
                fell = torch.zeros_like(tried)
                fell[tried] = self._falls(trainer, module, name, _part(batch, tried))
                module.record(f"masking/{name}", fell, where=tried)

    def _record_gradient(self, trainer: Trainer, module: PurifiedClassifier, batch: Batch) -> None:
        image, label, index = batch["image"], batch["label"], batch["index"]
        noise = module.noise.cached(index)

        def loss(logits: Tensor) -> Tensor:
            return F.cross_entropy(logits, label, reduction="none")

        def loss_in_float32(images: Tensor) -> Tensor:
            # A cross-entropy near zero has no digits left in float32; the logits have them.
            return loss(module(images, noise, index).double())

        with trainer.precision_plugin.forward_context():
            states = module.purifier.state_gradients(image, noise, index, loss, module.classifier)
        norms = torch.stack([l2_norm(state.image) for state in states], 1)
        gradient, norm = states[0].image, norms[:, 0]
        length = norm.where(norm > 0, 1).view(-1, 1, 1, 1)
        slope = directional_derivative(loss_in_float32, image, (gradient / length).to(image))
        error = derivative_error(norm, slope)
        module.record("masking/gradient_norm", norms)
        module.record("masking/gradient_growth_log10", growth_log10(norms))
        module.record("masking/nonfinite_gradient", ~norms.isfinite().all(1))
        module.record("masking/zero_gradient", zero_share(gradient))
        module.record("masking/derivative_error", error)
        module.record("masking/wrong_gradient", error > WRONG, where=error.isfinite())

    def _falls(
        self, trainer: Trainer, module: PurifiedClassifier, name: str, batch: Batch
    ) -> Tensor:
        """Which samples a metric's attack fools, in any of its queries or with what it returns.

        Queries that a surrogate answered do not count.
        """
        label, index, attack = batch["label"], batch["index"], self._further[name]
        if len(index) == 0:
            return torch.zeros(0, dtype=torch.bool, device=index.device)
        found, watched = attack_batch(
            trainer,
            attack,
            module.attacked("fixed", index),
            batch,
            seed=module.seed,
            activity=f"MaskingDiagnostics: {_ACTIVITIES[name]}",
        )
        with trainer.precision_plugin.forward_context():
            logits = module(found, module.noise, index)
        fooled = ~correct(logits, label)
        return fooled if module.approximated("fixed") else fooled | watched.fooled

    def figures(
        self, trainer: Trainer, module: PurifiedClassifier, table: SampleTable
    ) -> Mapping[str, Figure]:
        figures = {
            "masking/gradient_norm": gradient_norm_figure(
                table["masking/gradient_norm"], chain_steps(module.purifier)
            )
        }
        if self._gains:
            figures["masking/attack_loss"] = attack_loss_figure(table["masking/attack_loss"])
        return figures


def _part(batch: Batch, rows: Tensor) -> Batch:
    return Batch(image=batch["image"][rows], label=batch["label"][rows], index=batch["index"][rows])
