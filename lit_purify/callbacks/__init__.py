"""Lightning callbacks: one measurement or service a file."""

from lit_purify.callbacks.agreement import AttackAgreement
from lit_purify.callbacks.attack import AdversarialExamples
from lit_purify.callbacks.attack_curves import AttackCurves
from lit_purify.callbacks.base_curve import BaseClassifierCurve
from lit_purify.callbacks.certified import CertifiedRobustness
from lit_purify.callbacks.compression import CompressionRate
from lit_purify.callbacks.dashboard import Dashboard
from lit_purify.callbacks.distances import DistanceTrajectories
from lit_purify.callbacks.ema import EMA
from lit_purify.callbacks.images import ImageGrid
from lit_purify.callbacks.interruption import Interruption, Terminated
from lit_purify.callbacks.jacobian import JacobianSpectrum
from lit_purify.callbacks.magnitude import AttackMagnitude
from lit_purify.callbacks.masking import MaskingDiagnostics
from lit_purify.callbacks.measurement import Measurement
from lit_purify.callbacks.memory_use import MemoryUse
from lit_purify.callbacks.prediction import RobustnessPrediction
from lit_purify.callbacks.predictions import PredictionWriter
from lit_purify.callbacks.progress import EvaluationProgress
from lit_purify.callbacks.quality import ImageQuality
from lit_purify.callbacks.records import Records
from lit_purify.callbacks.run_config import RunConfig
from lit_purify.callbacks.summary import Summary
from lit_purify.callbacks.variance import OutputVariability

__all__ = [
    "EMA",
    "AdversarialExamples",
    "AttackAgreement",
    "AttackCurves",
    "AttackMagnitude",
    "BaseClassifierCurve",
    "CertifiedRobustness",
    "CompressionRate",
    "Dashboard",
    "DistanceTrajectories",
    "EvaluationProgress",
    "ImageGrid",
    "ImageQuality",
    "Interruption",
    "JacobianSpectrum",
    "MaskingDiagnostics",
    "Measurement",
    "MemoryUse",
    "OutputVariability",
    "PredictionWriter",
    "Records",
    "RobustnessPrediction",
    "RunConfig",
    "Summary",
    "Terminated",
]
