"""From the numbers of a run to ``summary.json``, a table, a sentence and figures."""

from lit_purify.report.figures import image_grid, trajectory_figure
from lit_purify.report.finding import finding
from lit_purify.report.summary import read_summary, versions, write_summary
from lit_purify.report.table import summary_table

__all__ = [
    "finding",
    "image_grid",
    "read_summary",
    "summary_table",
    "trajectory_figure",
    "versions",
    "write_summary",
]
