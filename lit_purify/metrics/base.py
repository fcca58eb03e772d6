"""What this project's metrics share: a scalar for the logger and a summary for the report."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence

import numpy as np
import torch
from torchmetrics import Metric

Statistics = dict[str, float | None]
"""Named numbers of one metric, such as ``value``, ``low``, ``high``, ``n``. None is "unknown"."""


class SummaryMetric(Metric):
    """A metric whose ``compute`` is a scalar and whose :meth:`summary` also has its uncertainty."""

    is_differentiable = False
    full_state_update = False

    @abstractmethod
    def summary(self) -> Statistics:
        """The statistics of the samples that this process has added."""

    def add_recorded(self, values: Sequence[float | bool | None]) -> None:
        """Add samples from a column of the records, where ``None`` stands for nan."""
        if values:
            column = np.array([math.nan if value is None else value for value in values])
            self.update(torch.from_numpy(column).to(self.device))
