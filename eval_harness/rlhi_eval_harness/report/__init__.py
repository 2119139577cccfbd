"""From stored answers to something to decide on: estimates, findings in sentences, and the report in three forms."""

from rlhi_eval_harness.report.build import build_report, write_report

__all__ = ["build_report", "write_report"]
