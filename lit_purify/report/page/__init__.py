"""The report as one HTML page that needs nothing beside it."""

from lit_purify.report.page.build import page

__all__ = ["page"]
