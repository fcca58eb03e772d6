"""What this project's metrics share: a scalar for the logger and a summary for the report."""

from __future__ import annotations

from abc import abstractmethod

from torchmetrics import Metric

Statistics = dict[str, float | None]
"""Named numbers of one metric, such as ``value``, ``low``, ``high``, ``n``. None is "unknown"."""


class SummaryMetric(Metric):
    """A metric whose ``compute`` is a scalar and whose :meth:`summary` also has its uncertainty.

    Attributes:
        unit: ``%`` for a share in [0, 1] that reports show in percent; other text follows the
            number.
    """

    is_differentiable = False
    full_state_update = False
    unit = ""

    @abstractmethod
    def summary(self) -> Statistics:
        """The statistics of the samples that this process has added."""
