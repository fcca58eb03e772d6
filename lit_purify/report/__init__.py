"""From the numbers of a run to ``summary.json``, a table and sentences."""

from lit_purify.report.aggregate import aggregate
from lit_purify.report.conclusion import conclusion
from lit_purify.report.flags import flags
from lit_purify.report.summary import read_summary, versions, write_summary
from lit_purify.report.table import summary_table

__all__ = [
    "aggregate",
    "conclusion",
    "flags",
    "read_summary",
    "summary_table",
    "versions",
    "write_summary",
]
