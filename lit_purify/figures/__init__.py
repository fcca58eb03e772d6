"""Pictures: pure functions of arrays and numbers that return a matplotlib figure.

One figure per file, named after what it shows. None reads a file, and none touches pyplot's global
state; what they have in common is in :mod:`lit_purify.figures.style`. ``figure.savefig(path)``
writes what they return.
"""

from lit_purify.figures.attack import attack_figure
from lit_purify.figures.base_curve import CurvePoint, base_curve_figure
from lit_purify.figures.budgets import budgets_figure
from lit_purify.figures.certified import certified_figure
from lit_purify.figures.depth import depth_figure
from lit_purify.figures.distances import Curve, distance_figure
from lit_purify.figures.image_grid import image_grid
from lit_purify.figures.jacobian import spectrum_figure, vectors_figure
from lit_purify.figures.masking import attack_loss_figure, gradient_norm_figure
from lit_purify.figures.protocols import Bar, protocols_figure
from lit_purify.figures.sigmoid import MeasuredPoint, magnitude_figure, sigmoid_figure
from lit_purify.figures.trajectory import trajectory_figure
from lit_purify.figures.variance import variance_figure

__all__ = [
    "Bar",
    "Curve",
    "CurvePoint",
    "MeasuredPoint",
    "attack_figure",
    "attack_loss_figure",
    "base_curve_figure",
    "budgets_figure",
    "certified_figure",
    "depth_figure",
    "distance_figure",
    "gradient_norm_figure",
    "image_grid",
    "magnitude_figure",
    "protocols_figure",
    "sigmoid_figure",
    "spectrum_figure",
    "trajectory_figure",
    "variance_figure",
    "vectors_figure",
]
