"""Measure how diffusion purification makes classifiers robust.

What a user needs can be imported from here; it is loaded when it is first used.
"""

from importlib import import_module
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Any

from lit_purify.lazy import lazy

if TYPE_CHECKING:
    from lit_purify.api import Evaluation, evaluate, purify
    from lit_purify.attacks import PGD, PGDEOT, Attack
    from lit_purify.callbacks import Measurement
    from lit_purify.checkpoints import embedded_denoiser, load_denoiser
    from lit_purify.classifiers import Classifier, embedded_resnet18, from_module
    from lit_purify.defence import Defence
    from lit_purify.diffusion import (
        AdaptiveFlowPurifier,
        DDIMSampler,
        DDPMSampler,
        Denoiser,
        DiffusionPurifier,
        DPMSolverSampler,
        EDMSampler,
        FixedNoise,
        FreshNoise,
        ProbabilityFlowSampler,
        Purifier,
        VPSDESampler,
        randomness,
    )
    from lit_purify.modules import PurifiedClassifier

__version__ = "0.1.0"

_HOMES = {
    "api": ("Evaluation", "evaluate", "purify"),
    "attacks": ("PGD", "PGDEOT", "Attack"),
    "callbacks": ("Measurement",),
    "checkpoints": ("embedded_denoiser", "load_denoiser"),
    "classifiers": ("Classifier", "embedded_resnet18", "from_module"),
    "defence": ("Defence",),
    "diffusion": (
        *("DDIMSampler", "DDPMSampler", "Denoiser", "DiffusionPurifier", "FixedNoise"),
        *("FreshNoise", "Purifier", "randomness"),
        *("AdaptiveFlowPurifier", "DPMSolverSampler", "EDMSampler"),
        *("ProbabilityFlowSampler", "VPSDESampler"),
    ),
    "modules": ("PurifiedClassifier",),
}
"""Module -> the names it is loaded for."""

__all__ = [
    "PGD",
    "PGDEOT",
    "AdaptiveFlowPurifier",
    "Attack",
    "Classifier",
    "DDIMSampler",
    "DDPMSampler",
    "DPMSolverSampler",
    "Defence",
    "Denoiser",
    "DiffusionPurifier",
    "EDMSampler",
    "Evaluation",
    "FixedNoise",
    "FreshNoise",
    "Measurement",
    "ProbabilityFlowSampler",
    "PurifiedClassifier",
    "Purifier",
    "VPSDESampler",
    "__version__",
    "embedded_denoiser",
    "embedded_resnet18",
    "evaluate",
    "from_module",
    "load_denoiser",
    "purify",
    "randomness",
]


if not TYPE_CHECKING:  # or type checkers would take any name
    _exported = lazy(__name__, _HOMES)

    def __getattr__(name: str) -> Any:
        if name in (room.name for room in iter_modules(__path__)):
            return import_module(f"lit_purify.{name}")
        return _exported(name)


def __dir__() -> list[str]:
    return __all__
