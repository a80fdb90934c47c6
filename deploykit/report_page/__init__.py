"""One folder of artifacts and records as one page: a verdict, what it stands on, and what is missing."""

from __future__ import annotations

from deploykit.report_page.records import LeftOut, Reason, ReportSummary, Standing
from deploykit.report_page.write import write_report

__all__ = ["LeftOut", "Reason", "ReportSummary", "Standing", "write_report"]
