"""What the paper prints: the values that figures draw, and its tables as they stand there."""

from lit_purify.paper.printed import Dataset, PrintedCell, PrintedRow, PrintedTable
from lit_purify.paper.tables import PRINTED_TABLES
from lit_purify.paper.values import (
    PAPER_ATTACKED,
    PAPER_CENTROID,
    PAPER_DIRECTION,
    PAPER_EPS,
    PAPER_POINTS,
    PAPER_SHARE_ABOVE,
    PAPER_SHARE_BELOW,
    PAPER_T_STAR,
    PAPER_UNIFORM,
    PaperDistances,
    PaperPoint,
    paper_distances,
    paper_fit,
)

__all__ = [
    "PAPER_ATTACKED",
    "PAPER_CENTROID",
    "PAPER_DIRECTION",
    "PAPER_EPS",
    "PAPER_POINTS",
    "PAPER_SHARE_ABOVE",
    "PAPER_SHARE_BELOW",
    "PAPER_T_STAR",
    "PAPER_UNIFORM",
    "PRINTED_TABLES",
    "Dataset",
    "PaperDistances",
    "PaperPoint",
    "PrintedCell",
    "PrintedRow",
    "PrintedTable",
    "paper_distances",
    "paper_fit",
]
