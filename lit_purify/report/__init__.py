"""From the numbers of a run to ``summary.json``, a table, a sentence and figures."""

from lit_purify.report.finding import finding
from lit_purify.report.flags import flags
from lit_purify.report.grid import image_grid
from lit_purify.report.masking_figure import attack_loss_figure, gradient_norm_figure
from lit_purify.report.table import summary_table
from lit_purify.report.trajectory import trajectory_figure

__all__ = [
    "attack_loss_figure",
    "finding",
    "flags",
    "gradient_norm_figure",
    "image_grid",
    "summary_table",
    "trajectory_figure",
]
