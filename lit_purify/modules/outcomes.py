"""What becomes of images in a test: what its step hands to the measurements, and records."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lit_purify.functional import correct, majority
from lit_purify.metrics import IntervalAccuracy
from lit_purify.modules.recording import RecordingModule
from lit_purify.types import ACCURACY, NOTED

VOTES = {
    "worst_of_n": "new noise, correct at every one of N tries",
    "majority": "new noise, majority of N tries",
}
"""What several tests of an image under fresh noise also tell."""


class Outcome(NamedTuple):
    """What became of one version of the images.

    Attributes:
        image: what the classifier saw, (B, C, H, W); purified unless the protocol is ``base``. Of
            a purifier that averages logits it is the mean of what the classifier saw.
        logits: shape (B, K).
        correct: whether the true class won, shape (B,), bool.
        nonfinite: whether a pixel or a logit is infinite or not a number, shape (B,), bool.
    """

    image: Tensor
    logits: Tensor
    correct: Tensor
    nonfinite: Tensor


Outcomes = dict[str, Outcome]
"""Keyed ``base/clean``, ``fixed/clean`` where the test purifies, ``<protocol>/adversarial``."""


def judged(image: Tensor, logits: Tensor, label: Tensor) -> Outcome:
    """The outcome of images of classes ``label``, shape (B,), for which the logits were given."""
    finite = image.isfinite().flatten(1).all(1) & logits.isfinite().all(1)
    return Outcome(image, logits, correct(logits, label), ~finite)


def add_judged(module: RecordingModule, name: str, label: str) -> None:
    """Register ``<name>_accuracy``, and ``<name>_nonfinite``: what :func:`record_tests` records."""
    add_accuracy(module, f"{name}_accuracy", label)
    module.add_metric(
        f"{name}_nonfinite",
        IntervalAccuracy(),
        section=NOTED,
        label=f"{label}: pixels or logits not finite",
    )


def add_accuracy(module: RecordingModule, name: str, label: str) -> None:
    """Register a share of the images that are right."""
    module.add_metric(name, IntervalAccuracy(), section=ACCURACY, label=label)


def record_tests(module: RecordingModule, name: str, tests: Sequence[Outcome]) -> None:
    """Record what became of images in one test or more, each under a draw of its own."""
    first = tests[0]
    right = torch.stack([test.correct for test in tests])
    nonfinite = torch.stack([test.nonfinite for test in tests])
    module.record(f"{name}_nonfinite", nonfinite.any(0))
    # An attack that stops early leaves the success after its last iteration unknown.
    if f"{name}_accuracy" in module.registered:
        share = first.correct if len(tests) == 1 else right.double().mean(0)
        module.record(f"{name}_accuracy", share)
        module.record(f"{name}_prediction", first.logits.argmax(1))


def record_votes(
    module: RecordingModule, name: str, tests: Sequence[Outcome], label: Tensor
) -> None:
    """Record what several tests of images of classes ``label`` tell together: :data:`VOTES`."""
    winner = majority(torch.stack([test.logits for test in tests]))
    right = torch.stack([test.correct for test in tests])
    module.record(f"{name}/robust_accuracy_worst_of_n", right.all(0))
    module.record(f"{name}/robust_accuracy_majority", winner == label)
