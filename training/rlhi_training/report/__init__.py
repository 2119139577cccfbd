"""The pairs report: what became of a log, in one HTML file that opens offline."""

from __future__ import annotations

from rlhi_training.report.build import REPORT, write_report

__all__ = ["REPORT", "write_report"]
