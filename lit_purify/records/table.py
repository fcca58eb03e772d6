"""What was found for samples: named columns over the dataset index."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lit_purify.types import InputError

INDEX = "index"
"""The column that names the samples."""


class Column(NamedTuple):
    """One thing that was found for every sample of a table, or for some of them.

    Attributes:
        values: a number per sample, shape (N,), nan where it has none; or a tensor per sample,
            shape (N, ...).
        where: the samples that the column applies to, shape (N,), bool; ``None`` for all.
    """

    values: Tensor
    where: Tensor | None = None

    @property
    def applies(self) -> Tensor:
        """:attr:`where`, also of a column for all samples."""
        if self.where is not None:
            return self.where
        return torch.ones(len(self.values), dtype=torch.bool, device=self.values.device)

    def take(self, rows: Tensor) -> Column:
        """The column of some samples."""
        return Column(self.values[rows], None if self.where is None else self.where[rows])


class SampleTable:
    """Columns by name, such as ``fixed/robust_accuracy``, all of the same samples.

    Args:
        columns: by name; ``index`` has the dataset index of every sample, int64. Empty for a table
            without samples.

    Example:
        >>> table = SampleTable(
        ...     {
        ...         "index": Column(torch.tensor([4, 7])),
        ...         "fixed/ok": Column(torch.tensor([True, False]), torch.tensor([False, True])),
        ...     }
        ... )
        >>> len(table), table["fixed/ok"], list(table.rows())
        (2, tensor([False]), [{'index': 4}, {'index': 7, 'fixed/ok': False}])
    """

    def __init__(self, columns: Mapping[str, Column]) -> None:
        self.columns = dict(columns)

    def __len__(self) -> int:
        return len(self.columns[INDEX].values) if self.columns else 0

    def __contains__(self, name: str) -> bool:
        return name in self.columns

    def __getitem__(self, name: str) -> Tensor:
        """The values of a column for the samples that it applies to, in the table's order."""
        column = self.columns[name]
        return column.values[column.applies]

    def cpu(self) -> SampleTable:
        """The same table in main memory."""
        return SampleTable(
            {
                name: Column(values.cpu(), None if where is None else where.cpu())
                for name, (values, where) in self.columns.items()
            }
        )

    def known(self, name: str) -> list[float]:
        """The finite numbers of a column; none where there is no such column."""
        return [v for v in self[name].tolist() if math.isfinite(v)] if name in self else []

    def rows(self) -> Iterator[dict[str, Any]]:
        """The numbers sample by sample; what does not apply is left out, not finite is ``None``."""
        # First what names the image, then its columns in their order.
        first = (INDEX, "label")
        names = sorted(self.columns, key=lambda name: (name not in first, name))
        numbers = {
            name: (column.values.tolist(), column.applies.tolist())
            for name in names
            if (column := self.columns[name]).values.ndim == 1
        }
        for place in range(len(self)):
            yield {
                name: values[place] if math.isfinite(values[place]) else None
                for name, (values, applies) in numbers.items()
                if applies[place]
            }


def concatenate(tables: Sequence[SampleTable]) -> SampleTable:
    """All samples in one table, each once, in the order of the dataset index.

    Raises:
        InputError: the tables have different columns, or a sample is in two and differs.
    """
    tables = [table for table in tables if table.columns]
    if not tables:
        return SampleTable({})
    names = tables[0].columns.keys()
    if any(table.columns.keys() != names for table in tables):
        different = set().union(*(table.columns.keys() ^ names for table in tables))
        raise InputError(f"not every sample has the columns {', '.join(sorted(different))}")
    joined = {name: _join([table.columns[name] for table in tables]) for name in names}
    index = joined[INDEX].values
    order = index.argsort(stable=True)
    again = index[order].diff() == 0
    _check_repeated(joined, order[1:][again], order[:-1][again])
    rows = order[torch.cat([torch.ones(1, dtype=torch.bool), ~again])]
    return SampleTable({name: column.take(rows) for name, column in joined.items()})


def _join(columns: Sequence[Column]) -> Column:
    values = torch.cat([column.values for column in columns])
    if all(column.where is None for column in columns):
        return Column(values)
    return Column(values, torch.cat([column.applies for column in columns]))


def _check_repeated(columns: Mapping[str, Column], rows: Tensor, others: Tensor) -> None:
    """Raise :class:`InputError` unless rows and others, of the same samples, hold the same."""
    for name, column in columns.items():
        for part in column:
            if part is None or len(rows) == 0:
                continue
            one, two = (part[chosen].view(len(rows), -1) for chosen in (rows, others))
            differs = ((one != two) & ~(one.isnan() & two.isnan())).any(1)
            if differs.any():
                index = columns[INDEX].values[rows[differs]][0]
                raise InputError(
                    f"index {index} is recorded twice, with different values of {name}; delete the "
                    "file that is wrong"
                )
