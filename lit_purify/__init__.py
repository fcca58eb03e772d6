"""Measure how diffusion purification makes classifiers robust."""

from lit_purify.api import purify
from lit_purify.modules import PurifiedClassifier

__version__ = "0.1.0"
__all__ = ["PurifiedClassifier", "__version__", "purify"]
