"""The defence as a LightningModule: purify, classify, count."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, cast

from lightning.pytorch import Callback, LightningModule
from torch import Tensor, nn

from lit_purify.attacks.base import Target
from lit_purify.classifiers import Classifier
from lit_purify.diffusion.noise import FixedNoise, NoiseSource, bound_randomness
from lit_purify.diffusion.purifier import Purifier, State
from lit_purify.functional import correct
from lit_purify.metrics import IntervalAccuracy, SummaryMetric
from lit_purify.modules.numerics import Float32Mode, compile_network, is_compiled, networks
from lit_purify.modules.protocols import (
    ATTACK_NOISE,
    PROTOCOLS,
    ProtocolName,
    Surface,
    transfer_noise,
)
from lit_purify.types import Batch, InputError, Model

KEYS = ("index", "protocol", "seed", "label")
"""What names a row of the records."""

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


class Column(NamedTuple):
    """What was found for the samples of a batch.

    Attributes:
        values: shape (B,) or (B, ...).
        where: the samples it applies to, shape (B,), bool; ``None`` for all.
    """

    values: Tensor
    where: Tensor | None


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
        tf32: let float32 convolutions and matrix products run in TF32 during a test or prediction;
            otherwise they are IEEE float32 there, see :mod:`lit_purify.modules.numerics`.
        compile: compile the classifier and the networks of the purifier with ``torch.compile``, in
            place. Figures then move as they do between two machines.
    """

    def __init__(
        self,
        purifier: Purifier,
        classifier: Classifier,
        *,
        seed: int = 0,
        protocols: Sequence[ProtocolName] = ("base", "fixed", "transfer"),
        tf32: bool = False,
        compile: bool = False,
    ) -> None:
        super().__init__()
        if set(protocols) - set(PROTOCOLS):
            raise InputError(
                f"protocols must be some of {', '.join(PROTOCOLS)}, got {protocols}; [] for none"
            )
        if seed < 0:
            raise InputError(f"the base seed must be at least 0, got {seed}")
        self.purifier = purifier.eval().requires_grad_(False)
        self.classifier = classifier.eval().requires_grad_(False)
        self.tf32 = tf32
        self.compile_networks = compile
        self.configure_model()  # for a model called without a Trainer
        self.seed = seed
        self.protocols: tuple[ProtocolName, ...] = tuple(dict.fromkeys(protocols))
        self.recorded: dict[str, Column] = {}
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

    def add_metric(self, name: str, metric: SummaryMetric) -> None:
        """Register a metric under its name in the summary; a callback does so in its ``setup``."""
        if name in self.metrics:
            raise InputError(f"the metric {name!r} is measured twice; drop one of the callbacks")
        self.metrics[name] = metric

    @property
    def figures(self) -> dict[str, SummaryMetric]:
        """The registered metrics by their names in the summary."""
        return {name: cast(SummaryMetric, metric) for name, metric in self.metrics.items()}

    def drop_metric(self, name: str) -> None:
        """Leave out a figure that this run cannot know; a callback does so in its ``setup``."""
        del self.metrics[name]

    def record(self, name: str, values: Tensor, *, where: Tensor | None = None) -> None:
        """Write down what was found for each sample of the batch under test.

        The values become a column of the run's records and, where a metric of that name is
        registered, are added to it.

        Args:
            name: ``<protocol>/<column>``, such as ``fixed/robust_accuracy``.
            values: a number a sample, shape (B,), nan where it has none; or a tensor a sample,
                shape (B, ...), which is stored beside the records.
            where: the samples that the name applies to, shape (B,), bool; ``None`` for all. Only
                for numbers.
        """
        protocol, _, column = name.partition("/")
        if not (protocol and column) or column in KEYS:
            raise ValueError(
                f"{name!r} is not <protocol>/<column>, with a column other than {', '.join(KEYS)}"
            )
        self.recorded[name] = Column(values, where)
        if name in self.metrics:
            self.figures[name].update(values if where is None else values[where])

    def on_test_batch_start(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        self.recorded = {}

    def on_test_epoch_end(self) -> None:
        # Here, and not in the steps: a process that had no sample takes part in the sums too.
        for name, metric in self.figures.items():
            self.log(name, metric, metric_attribute=f"metrics.{name}")

    def configure_callbacks(self) -> list[Callback]:
        # The first hook of every run: a test starts without the metrics of the one before, also
        # where that one was interrupted and never came to its end.
        self._reset_metrics()
        return [Float32Mode(tf32=self.tf32)]

    def configure_model(self) -> None:
        if self.compile_networks:
            for network in networks(self.purifier, self.classifier).values():
                compile_network(network)

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
        self._record_outcome("base/clean", outcomes["base/clean"])
        self._record_outcome("purified/clean", outcomes["fixed/clean"])
        for name in self.protocols:
            protocol = PROTOCOLS[name]
            seen = batch["adversarial"][protocol.surface]
            if protocol.test_noise is not None:
                seen = self.purify(seen, protocol.test_noise(self.seed), index)
            outcomes[f"{name}/adversarial"] = outcome = self._judge(seen, label)
            # An attack that stops early leaves the success after its last iteration unknown.
            if f"{name}/robust_accuracy" in self.metrics:
                self._record_outcome(f"{name}/robust", outcome)
        return outcomes

    def predict_step(self, batch: Batch, batch_idx: int) -> list[State]:
        return self.trajectory(batch["image"], self.noise, batch["index"])

    def _record_outcome(self, name: str, outcome: Outcome) -> None:
        self.record(f"{name}_accuracy", outcome.correct)
        self.record(f"{name}_prediction", outcome.logits.argmax(1))

    def _judge(self, image: Tensor, label: Tensor) -> Outcome:
        logits = self.classifier(image)
        return Outcome(image, logits, correct(logits, label))

    def settings(self) -> dict[str, object]:
        """What a report must say about this run: how it purifies, its protocols, seeds, models."""
        seeds: dict[str, object] = {"seed": self.seed}
        if "transfer" in self.protocols:
            seeds["seed_transfer"] = transfer_noise(self.seed).seed
        compiled = [
            name
            for name, network in networks(self.purifier, self.classifier).items()
            if is_compiled(network)
        ]
        return {
            **self.purifier.settings(),
            "protocols": list(self.protocols),
            **seeds,
            "tf32": self.tf32,
            "compile": compiled or False,
        }

    def models(self) -> dict[str, Model]:
        """The networks of the defence by their role."""
        return {**self.purifier.models(), "classifier": self.classifier}
