"""What this project's metrics share: a scalar for the logger and a summary for the report."""

from __future__ import annotations

from abc import abstractmethod

from torchmetrics import Metric

Statistics = dict[str, float | None]
"""Named numbers of one metric, such as ``value``, ``low``, ``high``, ``n``. None is "unknown"."""


class SummaryMetric(Metric):
    """A metric whose ``compute`` is a scalar and whose :meth:`summary` also has its uncertainty."""

    is_differentiable = False
    full_state_update = False

    def summary(self) -> Statistics:
        """The statistics over the samples of all ranks.

        Like ``compute`` it synchronises, so under DDP every rank must call it. It leaves the local
        states as they were, and is silent when there was no update.
        """
        fresh = not self._is_synced
        with self.sync_context(
            dist_sync_fn=self.dist_sync_fn, should_sync=fresh, should_unsync=fresh
        ):
            return self._statistics()

    @abstractmethod
    def _statistics(self) -> Statistics:
        """The statistics of the states as they are now."""
