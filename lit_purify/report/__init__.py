"""From the numbers of a run to a table and sentences."""

from lit_purify.report.conclusion import conclusion
from lit_purify.report.flags import flags
from lit_purify.report.table import summary_table

__all__ = [
    "conclusion",
    "flags",
    "summary_table",
]
