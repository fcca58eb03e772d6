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
from lit_purify.modules.purified_classifier import Outcomes, PurifiedClassifier
from lit_purify.types import Batch, InputError

Features = Literal["inception", "classifier"]
WHEN = ("before", "after")
_SECTION = "Image quality"


class ImageQuality(Measurement):
    """Compares the attacked images with the clean ones, before and after purification.

    ``before`` is the image attacked under the run's fixed noise, ``after`` the same image purified
    under that noise; both as the classifier sees them, neither clipped to [0, 1] nor rounded to 8
    bits. Logs

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

    Raises:
        InputError: in ``setup``, the weights are neither there nor can be downloaded, are not the
            expected ones, or the run does not test the protocol ``fixed``.
    """

    def __init__(
        self,
        *,
        features: Features | None = "inception",
        inception_weights: str | Path | None = None,
    ) -> None:
        if inception_weights is not None and features != "inception":
            raise InputError(
                f"ImageQuality was given inception_weights and features {features}, which do not "
                "use them; set features to inception, or drop the weights"
            )
        self.features = features
        self.inception_weights = inception_weights
        self._extractor: FeatureExtractor | None = None

    def settings(self) -> dict[str, object]:
        """What a report must say about this measurement."""
        found: dict[str, object] = {
            "quality_images": "not clipped, not rounded to 8 bits",
            "quality_ssim": "Gaussian window 11x11, sigma 1.5, data range 1, border reflected",
        }
        if self._extractor is not None:
            found["quality_features"] = self._extractor.source
            found["quality_features_dimension"] = self._extractor.dimension
        return found

    def prepare(self, trainer: Trainer, module: PurifiedClassifier) -> None:
        if "fixed" not in module.protocols:
            raise InputError(
                "ImageQuality compares images attacked and purified under fixed noise, and the "
                f"protocols {list(module.protocols)} have none; add fixed to model.protocols, "
                "or drop ImageQuality"
            )
        for when in WHEN:
            module.add_metric(
                f"quality/ssim_{when}",
                MeanWithDeviation(),
                section=_SECTION,
                label=f"Similarity to the clean image (SSIM) {when} purification",
            )
        if self.features == "inception":
            self._extractor = InceptionFeatures(self.inception_weights)
        elif self.features == "classifier":
            self._extractor = ClassifierFeatures(module.classifier)
        if self._extractor is not None:
            for when in WHEN:
                distance = (
                    "FID"
                    if self.features == "inception"
                    else "Fréchet distance in the classifier's features"
                )
                module.add_metric(
                    self._name(when),
                    FrechetDistance(self._extractor.dimension),
                    section=_SECTION,
                    label=f"{distance} {when} purification",
                )

    def measure(
        self, trainer: Trainer, module: PurifiedClassifier, outputs: Outcomes, batch: Batch
    ) -> None:
        clean = batch["image"]
        compared = {
            "before": batch["adversarial"]["fixed"],
            "after": outputs["fixed/adversarial"].image.to(clean.dtype),
        }
        for when, images in compared.items():
            module.record(f"quality/ssim_{when}", structural_similarity(images, clean))
        if self._extractor is None:
            return
        of_clean = self._extractor(clean)
        for when, images in compared.items():
            pair = torch.stack([of_clean, self._extractor(images)], 1)
            module.record(self._name(when), pair.float())

    def _name(self, when: str) -> str:
        kind = "fid" if self.features == "inception" else "frechet_classifier"
        return f"quality/{kind}_{when}"
