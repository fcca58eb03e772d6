"""What a run leaves on the disk, and how its numbers are computed from it.

Each name is loaded when it is first used: who only reads summaries does without PyTorch.
"""

from typing import TYPE_CHECKING

from lit_purify.lazy import lazy

if TYPE_CHECKING:
    from lit_purify.records.curves import MeanCurve, mean_curve, running_mean
    from lit_purify.records.reduction import reduce
    from lit_purify.records.store import MemoryStore, RunStore, Store, records_folder
    from lit_purify.records.summary import read_summary, versions, write_summary
    from lit_purify.records.table import Column, SampleTable

__all__ = [
    "Column",
    "MeanCurve",
    "MemoryStore",
    "RunStore",
    "SampleTable",
    "Store",
    "mean_curve",
    "read_summary",
    "records_folder",
    "reduce",
    "running_mean",
    "versions",
    "write_summary",
]

if not TYPE_CHECKING:  # or type checkers would take any name
    __getattr__ = lazy(
        __name__,
        {
            "curves": ("MeanCurve", "mean_curve", "running_mean"),
            "reduction": ("reduce",),
            "store": ("MemoryStore", "RunStore", "Store", "records_folder"),
            "summary": ("read_summary", "versions", "write_summary"),
            "table": ("Column", "SampleTable"),
        },
    )
