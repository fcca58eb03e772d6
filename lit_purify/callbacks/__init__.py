"""Lightning callbacks: one measurement or service a file."""

from lit_purify.callbacks.attack import AdversarialExamples
from lit_purify.callbacks.compression import CompressionRate
from lit_purify.callbacks.images import ImageGrid
from lit_purify.callbacks.interruption import Interruption, Terminated
from lit_purify.callbacks.predictions import PredictionWriter
from lit_purify.callbacks.progress import EvaluationProgress
from lit_purify.callbacks.records import Records
from lit_purify.callbacks.run_config import RunConfig
from lit_purify.callbacks.summary import Summary

__all__ = [
    "AdversarialExamples",
    "CompressionRate",
    "EvaluationProgress",
    "ImageGrid",
    "Interruption",
    "PredictionWriter",
    "Records",
    "RunConfig",
    "Summary",
    "Terminated",
]
