"""The figures of a report, gathered under one name."""

from lit_purify.report.grid import image_grid
from lit_purify.report.trajectory import trajectory_figure

__all__ = ["image_grid", "trajectory_figure"]
