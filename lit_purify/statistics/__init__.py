"""What is worked out from numbers alone, so that reports do without PyTorch."""

from lit_purify.statistics.intervals import (
    clopper_pearson_lower,
    normal_interval,
    paired_interval,
    wilson_interval,
)
from lit_purify.statistics.sigmoid import SigmoidFit, fit_sigmoid

__all__ = [
    "SigmoidFit",
    "clopper_pearson_lower",
    "fit_sigmoid",
    "normal_interval",
    "paired_interval",
    "wilson_interval",
]
