"""What a run leaves on the disk, and how its numbers are computed from it."""

from lit_purify.records.curves import MeanCurve, mean_curve, running_mean
from lit_purify.records.reduce import reduce
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
