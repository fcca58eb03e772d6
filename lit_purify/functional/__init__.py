"""The equations: pure functions of tensors and numbers, without modules or state."""

from lit_purify.functional.compression import compression_rate
from lit_purify.functional.distances import lp_distance
from lit_purify.functional.intervals import normal_interval, wilson_interval
from lit_purify.functional.moments import merge_moments, moments
from lit_purify.functional.projection import project
from lit_purify.functional.robustness import correct, majority

__all__ = [
    "compression_rate",
    "correct",
    "lp_distance",
    "majority",
    "merge_moments",
    "moments",
    "normal_interval",
    "project",
    "wilson_interval",
]
