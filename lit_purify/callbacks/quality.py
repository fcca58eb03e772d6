"""Similarity and Fréchet distance to the clean images before and after purification (Table 1)."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch
from lightning.pytorch import Trainer

from lit_purify.callbacks.measurement import Measurement
from lit_purify.classifiers.features import ClassifierFeatures, FeatureExtractor
from lit_purify.classifiers.inception import InceptionFeatures
from lit_purify.metrics import FrechetDistance, MeanWithDeviation, structural_similarity
from lit_purify.modules.outcomes import Outcomes
from lit_purify.modules.protocols import Chain
from lit_purify.modules.purified_classifier import PurifiedClassifier
from lit_purify.types import Batch, InputError

Features = Literal["inception", "classifier"]
WHEN = ("before", "after")
_SECTION = "Image quality"
_DISTANCES: dict[Features, tuple[str, str]] = {
    "inception": ("fid", "FID"),
    "classifier": ("frechet_classifier", "Fréchet distance in the classifier's features"),
}
"""Features -> the distance in them as metrics and reports call it."""


class ImageQuality(Measurement):
    """Compares the attacked images with the clean ones, before and after purification.

    ``before`` is the image attacked on ``surface``, ``after`` the same image purified as the
    protocol of that name tests it, under the same noise (``fixed``) or under noise that the attack
    has not seen (``fresh``); both as the classifier sees them, neither clipped to [0, 1] nor
    rounded to 8 bits. Logs

    - ``quality/ssim_before`` and ``_after``: structural similarity to the clean image, mean over
      the images (:func:`~lit_purify.metrics.structural_similarity`);
    - with Inception features ``quality/fid_before`` and ``_after``: Fréchet distance between the
      clean set and the attacked or purified one, in the 768 features before the auxiliary
      classifier (:class:`~lit_purify.classifiers.inception.InceptionFeatures`), as in the paper;
    - with classifier features the same in what the run's classifier knows of an image, under the
      name ``quality/frechet_classifier_before`` and ``_after``. It is no FID.

    The distances need every image's features, which are stored beside the records under the
    figure's name, (N, 2, D): the clean image's and the other's. With no more images than features
    a distance says little of the distributions; a warning names both numbers.

    Args:
        features: what the Fréchet distance is measured in; ``None`` measures similarity only.
        inception_weights: the file of the Inception weights; ``None`` takes the downloaded one, or
            downloads it. Its content is verified either way.
        surface: what the attacked images were found against. The paper's are of ``fresh``.

    Raises:
        InputError: in ``setup``, the weights are neither there nor can be downloaded, are not the
            expected ones, or the run does not test the protocol of ``surface``.
    """

    def __init__(
        self,
        *,
        features: Features | None = "inception",
        inception_weights: str | Path | None = None,
        surface: Chain = "fixed",
    ) -> None:
        if inception_weights is not None and features != "inception":
            raise InputError(
                f"ImageQuality was given inception_weights and features {features}, which do not "
                "use them; set features to inception, or drop the weights"
            )
        self.features = features
        self.inception_weights = inception_weights
        self.surface = surface
        self.needs_protocol = (surface,)
        self._extractor: FeatureExtractor | None = None
        self._distances: dict[str, str] = {}

    def settings(self) -> dict[str, object]:
        """What a report must say about this measurement."""
        found: dict[str, object] = {
            "quality_images": "not clipped, not rounded to 8 bits",
            "quality_surface": self.surface,
            "quality_ssim": "Gaussian window 11x11, sigma 1.5, data range 1, border reflected",
        }
        if self._extractor is not None:
            found["quality_features"] = self._extractor.source
            found["quality_features_dimension"] = self._extractor.dimension
        return found

    def prepare(self, trainer: Trainer, module: PurifiedClassifier) -> None:
        attack = "" if self.surface == "fixed" else f" ({self.surface})"
        for when in WHEN:
            label = f"Similarity to the clean image (SSIM) {when} purification{attack}"
            name = f"quality/ssim_{when}"
            module.add_metric(name, MeanWithDeviation(), section=_SECTION, label=label)
        if self.features == "inception":
            self._extractor = InceptionFeatures(self.inception_weights)
        elif self.features == "classifier":
            self._extractor = ClassifierFeatures(module.classifier)
        if self.features is None or self._extractor is None:
            return
        distance, words = _DISTANCES[self.features]
        self._distances = {when: f"quality/{distance}_{when}" for when in WHEN}
        for when, name in self._distances.items():
            metric = FrechetDistance(self._extractor.dimension)
            label = f"{words} {when} purification{attack}"
            module.add_metric(name, metric, section=_SECTION, label=label)

    def measure(
        self, trainer: Trainer, module: PurifiedClassifier, outputs: Outcomes, batch: Batch
    ) -> None:
        clean = batch["image"]
        compared = {
            "before": batch["adversarial"][self.surface],
            "after": outputs[f"{self.surface}/adversarial"].image.to(clean.dtype),
        }
        for when, images in compared.items():
            module.record(f"quality/ssim_{when}", structural_similarity(images, clean))
        if self._extractor is None:
            return
        of_clean = self._extractor(clean)
        for when, images in compared.items():
            pair = torch.stack([of_clean, self._extractor(images)], 1)
            module.record(self._distances[when], pair.float())
