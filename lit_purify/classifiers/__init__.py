"""Classifiers: images in [0, 1] to logits."""

from lit_purify.classifiers.base import Classifier
from lit_purify.classifiers.efficientnet_lite import embedded_efficientnet_lite0
from lit_purify.classifiers.embedded import embedded_resnet18
from lit_purify.classifiers.lpips import LPIPSFeatures
from lit_purify.classifiers.robustbench import robustbench_classifier, robustbench_names
from lit_purify.classifiers.wrap import from_module

__all__ = [
    "Classifier",
    "LPIPSFeatures",
    "embedded_efficientnet_lite0",
    "embedded_resnet18",
    "from_module",
    "robustbench_classifier",
    "robustbench_names",
]
