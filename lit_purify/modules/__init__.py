"""LightningModules: the evaluated defence, the training of its denoiser."""

from lit_purify.modules.denoiser_training import DenoiserTraining
from lit_purify.modules.outcomes import Outcome, Outcomes
from lit_purify.modules.purified_classifier import PurifiedClassifier

__all__ = ["DenoiserTraining", "Outcome", "Outcomes", "PurifiedClassifier"]
