"""The defence as a LightningModule: purify, classify, count."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, cast

from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torchmetrics import Metric

from lit_purify.attacks.base import Target
from lit_purify.classifiers import Classifier
from lit_purify.diffusion.noise import FixedNoise, NoiseSource, bound_randomness
from lit_purify.diffusion.purifier import Purifier, State
from lit_purify.functional import correct
from lit_purify.metrics import IntervalAccuracy
from lit_purify.modules.protocols import (
    ATTACK_NOISE,
    PROTOCOLS,
    ProtocolName,
    Surface,
    transfer_noise,
)
from lit_purify.types import Batch, InputError, Model

PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")
"""Precisions whose weights, images and attack states are float32."""


class Outcome(NamedTuple):
    """What became of one version of the images.

    Attributes:
        image: what the classifier saw, (B, C, H, W); purified unless the protocol is ``base``.
        logits: shape (B, K).
        correct: whether the true class won, shape (B,), bool.
    """

    image: Tensor
    logits: Tensor
    correct: Tensor


Outcomes = dict[str, Outcome]
"""Keyed ``<protocol>/clean`` (base, fixed) and ``<protocol>/adversarial``."""


class PurifiedClassifier(LightningModule):
    """A classifier behind a purifier, g(f_xi(x)), and its evaluation (eq. 5).

    Called as a function it gives logits. The randomness is an argument::

        logits = model(images, FixedNoise(0), indices)

    or is bound for callers that can only call ``model(x)``::

        with randomness(FixedNoise(0), indices):
            logits = model(images)

    Args:
        purifier: f, images in [0, 1] to images in the [0, 1] scale.
        classifier: g, images in [0, 1] to logits.
        seed: base seed s of the run. Everything random is derived from it.
        protocols: how the defence is attacked, see :mod:`lit_purify.modules.protocols`; none
            measures clean images only.
    """

    def __init__(
        self,
        purifier: Purifier,
        classifier: Classifier,
        *,
        seed: int = 0,
        protocols: Sequence[ProtocolName] = ("base", "fixed", "transfer"),
    ) -> None:
        super().__init__()
        unknown = set(protocols) - set(PROTOCOLS)
        if unknown:
            raise InputError(
                f"protocols must be some of {', '.join(PROTOCOLS)}, got {list(protocols)}"
            )
        if seed < 0:
            raise InputError(f"the base seed must be at least 0, got {seed}")
        self.purifier = purifier.eval().requires_grad_(False)
        self.classifier = classifier.eval().requires_grad_(False)
        self.seed = seed
        self.protocols: tuple[ProtocolName, ...] = tuple(dict.fromkeys(protocols))
        self._reset_metrics()

    def forward(
        self, images: Tensor, noise: NoiseSource | None = None, indices: Tensor | None = None
    ) -> Tensor:
        """Logits of the purified images.

        Args:
            images: shape (B, C, H, W), in [0, 1].
            noise: randomness of this pass; with ``indices``, or neither, inside
                :func:`~lit_purify.diffusion.noise.randomness`.
            indices: dataset indices, shape (B,).

        Returns:
            Logits (B, K), differentiable in ``images``.
        """
        if noise is None or indices is None:
            noise, indices = bound_randomness(len(images))
        return self.classifier(self.purify(images, noise, indices))

    def purify(self, images: Tensor, noise: NoiseSource, indices: Tensor) -> Tensor:
        """Purified images f_xi(x) under the source's next randomness configuration."""
        return self.purifier.purify(images, noise.configuration(), indices)

    def trajectory(self, images: Tensor, noise: NoiseSource, indices: Tensor) -> list[State]:
        """Every state of a purification under the source's next randomness configuration."""
        return list(self.purifier.trajectory(images, noise.configuration(), indices))

    @property
    def noise(self) -> FixedNoise:
        """The run's own randomness configuration: base seed ``seed``."""
        return FixedNoise(self.seed)

    @property
    def surfaces(self) -> list[Surface]:
        """What the run's protocols need adversarial images against."""
        return list(dict.fromkeys(PROTOCOLS[name].surface for name in self.protocols))

    @staticmethod
    def surface(protocol: ProtocolName) -> Surface:
        """What the adversarial images of a protocol were found against."""
        return PROTOCOLS[protocol].surface

    def target(self, surface: Surface, indices: Tensor) -> Target:
        """What an attack on these samples sees of the defence.

        Args:
            surface: the classifier alone, or the chain under fixed or fresh noise.
            indices: dataset indices of the samples that will be attacked, shape (B,).
        """
        make_noise = ATTACK_NOISE[surface]
        if make_noise is None:
            return Target(lambda images, _: self.classifier(images))
        source = make_noise(self.seed).cached(indices)
        return Target(
            lambda images, rows: self(images, source, rows),
            deterministic=isinstance(source, FixedNoise),
        )

    def add_metric(self, name: str, metric: Metric) -> None:
        """Register a metric under its name in the summary; a callback does so in its ``setup``."""
        if name in self.metrics:
            raise InputError(f"the metric {name!r} is measured twice; drop one of the callbacks")
        self.metrics[name] = metric

    def drop_metric(self, name: str) -> None:
        """Leave out a figure that this run cannot know; a callback does so in its ``setup``."""
        del self.metrics[name]

    def update_metric(self, name: str, values: Tensor) -> None:
        """Add per-sample values, shape (B,), to a registered metric and log it."""
        metric = cast(Metric, self.metrics[name])
        metric.update(values)
        self.log(
            name,
            metric,
            on_step=False,
            on_epoch=True,
            batch_size=len(values),
            metric_attribute=f"metrics.{name}",
        )

    def _reset_metrics(self) -> None:
        """The module's own metrics, without those of a run's callbacks."""
        self.metrics = nn.ModuleDict()
        self.add_metric("base/clean_accuracy", IntervalAccuracy())
        self.add_metric("purified/clean_accuracy", IntervalAccuracy())
        for protocol in self.protocols:
            self.add_metric(f"{protocol}/robust_accuracy", IntervalAccuracy())

    def setup(self, stage: str) -> None:
        if stage == "test" and self.trainer.test_loop.inference_mode:
            raise InputError(
                "trainer.inference_mode is true, which forbids the gradients attacks need; "
                "set it to false"
            )

        if self.trainer.precision not in PRECISIONS:
            raise InputError(
                f"trainer.precision is {self.trainer.precision}; expected one of "
                f"{', '.join(PRECISIONS)}, in which images and attacks stay float32"
            )

    def teardown(self, stage: str) -> None:
        # Another test of this module starts over: its callbacks register their metrics again.
        self._reset_metrics()

    def test_step(self, batch: Batch, batch_idx: int) -> Outcomes:
        image, label, index = batch["image"], batch["label"], batch["index"]
        if self.protocols and "adversarial" not in batch:
            raise InputError(
                f"the protocols {', '.join(self.protocols)} need adversarial images; give the "
                "Trainer the callback lit_purify.callbacks.AdversarialExamples, or set protocols "
                "to [] to measure clean images only"
            )
        noise = self.noise.cached(index)
        outcomes = {
            "base/clean": self._judge(image, label),
            "fixed/clean": self._judge(self.purify(image, noise, index), label),
        }
        self.update_metric("base/clean_accuracy", outcomes["base/clean"].correct)
        self.update_metric("purified/clean_accuracy", outcomes["fixed/clean"].correct)
        for name in self.protocols:
            protocol = PROTOCOLS[name]
            seen = batch["adversarial"][protocol.surface]
            if protocol.test_noise is not None:
                seen = self.purify(seen, protocol.test_noise(self.seed), index)
            outcomes[f"{name}/adversarial"] = outcome = self._judge(seen, label)
            if f"{name}/robust_accuracy" in self.metrics:  # not where the attack stops early
                self.update_metric(f"{name}/robust_accuracy", outcome.correct)
        return outcomes

    def predict_step(self, batch: Batch, batch_idx: int) -> list[State]:
        return self.trajectory(batch["image"], self.noise, batch["index"])

    def _judge(self, image: Tensor, label: Tensor) -> Outcome:
        logits = self.classifier(image)
        return Outcome(image, logits, correct(logits, label))

    def settings(self) -> dict[str, object]:
        """What a report must say about this run: how it purifies, its protocols, seeds, models."""
        seeds: dict[str, object] = {"seed": self.seed}
        if "transfer" in self.protocols:
            seeds["seed_transfer"] = transfer_noise(self.seed).seed
        return {**self.purifier.settings(), "protocols": list(self.protocols), **seeds}

    def models(self) -> dict[str, Model]:
        """The networks of the defence by their role."""
        return {**self.purifier.models(), "classifier": self.classifier}
