"""The defence as a LightningModule: purify, classify, count."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from lightning.pytorch import Callback, LightningModule
from torch import Tensor

from lit_purify.classifiers import Classifier
from lit_purify.defence import Defence
from lit_purify.diffusion.noise import FixedNoise, NoiseSource
from lit_purify.diffusion.purifier import Purifier, State
from lit_purify.diffusion.seeds import check_seed
from lit_purify.modules.compilation import compile_defence, networks, settle_compilation
from lit_purify.modules.numerics import Float32Mode, check_precision
from lit_purify.modules.outcomes import (
    VOTES,
    Outcome,
    Outcomes,
    add_accuracy,
    add_judged,
    judged,
    record_tests,
    record_votes,
)
from lit_purify.modules.preflight import Preflight, first_images, preflight
from lit_purify.modules.protocols import (
    ATTACK_NOISE,
    PROTOCOLS,
    ProtocolName,
    Surface,
    transfer_noise,
)
from lit_purify.modules.recording import RecordingModule
from lit_purify.types import Auto, Batch, InputError, Model, is_whole


class PurifiedClassifier(RecordingModule):
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
            measures clean images only, and ``base`` alone purifies nothing.
        test_draws: N, the randomness configurations that `transfer` and `fresh` test an adversarial
            image under. Their robust accuracy is that of a single draw, the mean over the N. With
            more than one, `fresh` also counts the images that are right in the worst of N draws
            (the attacker tries again) and by their majority (a deployed ensemble).
        tf32: let float32 convolutions and matrix products run in TF32 during a test or prediction;
            otherwise they are IEEE float32 there, see :mod:`lit_purify.precision`.
        compile: ``auto`` replays the steps of diffusion purifiers as CUDA graphs in runs on an
            NVIDIA GPU: the same kernels, without their launches. ``true`` compiles the classifier
            and the networks of the purifier with ``torch.compile`` as well, in place, a denoiser
            together with its sampler; numbers then move as they do between two machines. A run
            first compares what it gets with eager execution, and goes on with that, with a
            warning and a flag, where they differ.
        surrogate: purifier that attacks on the chain ask and differentiate in the place of
            ``purifier``, such as one of fewer steps or of another sampler. What they find is tested
            on the defence itself, and settings, labels and flags name the approximation. It meets
            the noise that the purifier would, and runs uncompiled. ``None`` attacks the defence.

    Attributes:
        class_names: the classifier's, or else those of the data of a test; may be empty.
        preflight: what was found before the test, see :mod:`lit_purify.modules.preflight`.
    """

    def __init__(
        self,
        purifier: Purifier,
        classifier: Classifier,
        *,
        seed: int = 0,
        protocols: Sequence[ProtocolName] = ("base", "fixed", "transfer"),
        test_draws: int = 1,
        tf32: bool = False,
        compile: bool | Auto = "auto",
        surrogate: Purifier | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(classifier, Classifier):
            raise InputError(
                f"the classifier is a {type(classifier).__name__}; expected a "
                "lit_purify.Classifier; give from_module(module, num_classes)"
            )
        if set(protocols) - set(PROTOCOLS):
            raise InputError(
                f"protocols must be some of {', '.join(PROTOCOLS)}, got {protocols}; [] for none"
            )
        check_seed(seed)
        if not (is_whole(test_draws) and test_draws >= 1):
            raise InputError(
                f"test_draws must be a whole number, at least 1, got {test_draws!r}; the draws "
                "under which an image is tested"
            )
        if not isinstance(getattr(classifier, "num_classes", None), int):
            raise InputError(
                f"{type(classifier).__name__} does not say how many classes it has; give it the "
                "attribute num_classes, such as num_classes = 10 in the class"
            )
        parts = networks(purifier, classifier)
        if surrogate is not None:
            parts |= {
                f"surrogate's {name}": each
                for name, each in networks(surrogate, classifier).items()
            }
        for name, network in parts.items():
            if any(parameter.is_meta for parameter in network.parameters()):
                raise InputError(
                    f"the {name} has no weights, only their shapes, as with seed null; name "
                    "weights, or a seed"
                )
        self.defence = Defence(classifier, purifier)
        self.surrogate = surrogate
        self.tf32 = tf32
        self.compile_networks = compile
        self.configure_model()  # for a model called without a Trainer
        self.class_names = classifier.class_names
        self.seed = seed
        self.protocols: tuple[ProtocolName, ...] = tuple(dict.fromkeys(protocols))
        self.test_draws = test_draws
        self._reset()

    def forward(
        self, images: Tensor, noise: NoiseSource | None = None, indices: Tensor | None = None
    ) -> Tensor:
        """Logits of the purified images.

        Args:
            images: shape (B, C, H, W), in [0, 1].
            noise: randomness of this pass; with ``indices``, or neither, inside
                :func:`~lit_purify.diffusion.binding.randomness`.
            indices: dataset indices, shape (B,).

        Returns:
            Logits (B, K), differentiable in ``images``.
        """
        # Not bound: a single pass has no use for kept draws.
        return Defence(self.classifier, self.purifier, noise, indices)(images)

    @property
    def classifier(self) -> Classifier:
        """g, images to logits."""
        return cast(Classifier, self.defence.classifier)

    @property
    def purifier(self) -> Purifier:
        """f, images to purified images."""
        return cast(Purifier, self.defence.purifier)

    @property
    def noise(self) -> FixedNoise:
        """The run's own randomness configuration: base seed ``seed``."""
        return FixedNoise(self.seed)

    def class_name(self, label: int) -> str:
        """The name of a class, or its number where names are unknown."""
        return self.class_names[label] if label < len(self.class_names) else str(label)

    @property
    def surfaces(self) -> list[Surface]:
        """What the run's protocols need adversarial images against."""
        return list(dict.fromkeys(PROTOCOLS[name].surface for name in self.protocols))

    @property
    def purifies(self) -> bool:
        """Whether the test purifies: not where only the classifier alone is attacked."""
        return self.protocols != ("base",)

    @property
    def target(self) -> Defence:
        """What attacks on the chain are given: the defence, or the surrogate in its place."""
        return self.defence if self.surrogate is None else Defence(self.classifier, self.surrogate)

    def approximated(self, surface: Surface) -> bool:
        """Whether a surrogate is attacked in the place of this surface."""
        return self.surrogate is not None and surface != "base"

    def attacked(self, surface: Surface, indices: Tensor) -> Defence:
        """What an attack on these samples sees of the defence.

        Args:
            surface: the classifier alone, or the chain under fixed or fresh noise.
            indices: dataset indices of the samples that will be attacked, shape (B,).
        """
        make_noise = ATTACK_NOISE[surface]
        if make_noise is None:
            return Defence(self.classifier, indices=indices)
        return self.target.bind(make_noise(self.seed), indices)

    def named(self, surface: Surface, label: str) -> str:
        """A label of what an attack on a surface found, with the surrogate where there is one."""
        return f"{label}, through a surrogate" if self.approximated(surface) else label

    def configure_callbacks(self) -> list[Callback]:
        # The first hook of every run: a test starts without the metrics of the one before, also
        # where that one was interrupted and never came to its end.
        self._reset()
        return [Float32Mode(tf32=self.tf32)]

    def configure_model(self) -> None:
        if self.compile_networks is True:
            compile_defence(self.purifier, self.classifier)

    def _reset(self) -> None:
        """The module's own metrics, without those of a run's callbacks, and nothing recorded."""
        self.clear_records()
        self.preflight = Preflight()
        add_judged(self, "base/clean", "Classifier alone, clean images")
        if self.purifies:
            add_judged(self, "purified/clean", "Purified, clean images")
        for protocol in self.protocols:
            surface, label = PROTOCOLS[protocol].surface, PROTOCOLS[protocol].label
            add_judged(self, f"{protocol}/robust", self.named(surface, label))
        if self.test_draws > 1 and "fresh" in self.protocols:
            for vote, words in VOTES.items():
                label = self.named("fresh", f"Purified, attacked: {words}")
                add_accuracy(self, f"fresh/robust_accuracy_{vote}", label)

    @classmethod
    def tested_by(cls, callback: Callback, module: LightningModule) -> PurifiedClassifier:
        """The module under test, for a callback that is made for this class.

        Raises:
            InputError: it is another one.
        """
        if not isinstance(module, cls):
            raise InputError(
                f"{type(callback).__name__} needs a lit_purify.PurifiedClassifier, and the model "
                f"is a {type(module).__name__}; test a PurifiedClassifier, or drop the callback"
            )
        return module

    def setup(self, stage: str) -> None:
        data = getattr(self.trainer, "datamodule", None)
        if stage == "test":
            if self.trainer.test_loop.inference_mode:
                raise InputError(
                    "trainer.inference_mode is true, which forbids the gradients attacks need; "
                    "set it to false"
                )
            self.check_data(data)
        shape = getattr(data, "image_shape", None)
        if shape is not None and (stage == "predict" or self.purifies):
            for purifier in filter(None, (self.purifier, self.surrogate)):
                purifier.check_shape(tuple(shape))
        check_precision(self.trainer)

    def check_data(self, data: object) -> None:
        """Raise :class:`InputError` if the classifier was made for other images or labels.

        Args:
            data: a data module; what it does not say in ``num_classes``, ``class_names`` and
                ``image_shape`` is taken to fit.
        """
        names = tuple(getattr(data, "class_names", ()))
        self.class_names = self.classifier.class_names or names
        self.classifier.check_data(
            num_classes=getattr(data, "num_classes", None),
            image_shape=getattr(data, "image_shape", None),
            class_names=names,
            labels=getattr(getattr(data, "test_set", None), "labels", None),
        )

    def on_test_start(self) -> None:
        first = first_images(self.trainer, "test_set")
        if first is None:
            return  # the first batch of other data may come only once
        defence = self.defence if self.purifies else Defence(self.classifier)
        # Nothing is compiled for batches of a size that never comes.
        eager = torch.compiler.set_stance("force_eager")
        with eager, self.trainer.precision_plugin.forward_context():
            self.preflight = preflight(defence, self.noise, first, attacked=bool(self.protocols))
        self.preflight.update(settle_compilation(self, defence, first))

    def on_predict_start(self) -> None:
        if (first := first_images(self.trainer, "predict_set")) is not None:
            self.preflight.update(settle_compilation(self, self.defence, first))

    def test_step(self, batch: Batch, batch_idx: int) -> Outcomes:
        image, label, index = batch["image"], batch["label"], batch["index"]
        if self.protocols and "adversarial" not in batch:
            raise InputError(
                f"the protocols {', '.join(self.protocols)} need adversarial images; give the "
                "Trainer the callback lit_purify.callbacks.AdversarialExamples, or set protocols "
                "to [] to measure clean images only"
            )
        outcomes = {"base/clean": judged(image, self.classifier(image), label)}
        record_tests(self, "base/clean", [outcomes["base/clean"]])
        if self.purifies:
            answer = self.purifier.answer(image, self.noise, index, self.classifier)
            outcomes["fixed/clean"] = judged(*answer, label)
            record_tests(self, "purified/clean", [outcomes["fixed/clean"]])
        for name in self.protocols:
            tests = self._test(name, batch)
            outcomes[f"{name}/adversarial"] = tests[0]
            record_tests(self, f"{name}/robust", tests)
            if f"{name}/robust_accuracy_majority" in self.registered:
                record_votes(self, name, tests, label)
        return outcomes

    def predict_step(self, batch: Batch, batch_idx: int) -> list[State]:
        return list(self.purifier.trajectory(batch["image"], self.noise, batch["index"]))

    def _test(self, name: ProtocolName, batch: Batch) -> list[Outcome]:
        """What becomes of the adversarial images of a protocol, once for every draw."""
        protocol, index, label = PROTOCOLS[name], batch["index"], batch["label"]
        images = batch["adversarial"][protocol.surface]
        if protocol.test_noise is None:
            return [judged(images, self.classifier(images), label)]
        tests = []
        for k in range(self.test_draws if protocol.repeats else 1):
            noise = protocol.test_noise(self.seed, k)
            answer = self.purifier.answer(images, noise, index, self.classifier)
            tests.append(judged(*answer, label))
        return tests

    def settings(self) -> dict[str, object]:
        """What a report must say about this run: how it purifies, its protocols, seeds, models."""
        seeds: dict[str, object] = {"seed": self.seed}
        if "transfer" in self.protocols:
            seeds["seed_transfer"] = [
                transfer_noise(self.seed, k).seed for k in range(self.test_draws)
            ]
        wanted = self.classifier.preprocessing
        return {
            **_said_of(self.purifier),
            **({} if self.surrogate is None else {"surrogate": _said_of(self.surrogate)}),
            **({"classifier_preprocessing": wanted} if wanted else {}),
            "protocols": list(self.protocols),
            "test_draws": self.test_draws,
            **seeds,
            "tf32": self.tf32,
            "compile": self.compile_networks,
        }

    def models(self) -> dict[str, Model]:
        """The networks of the defence by their role."""
        models = {} if self.surrogate is None else self.surrogate.models()
        surrogate = {f"surrogate's {role}": model for role, model in models.items()}
        return {**self.purifier.models(), **surrogate, "classifier": self.classifier}


def _said_of(purifier: Purifier) -> dict[str, object]:
    """The settings of a purifier, and what of its gradient is none."""
    approximate = purifier.approximate_gradient
    return {**purifier.settings(), **({"purifier_gradient": approximate} if approximate else {})}
