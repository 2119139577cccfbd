"""What is measured: suites as TOML files, and the code that prepares their prompts."""

from rlhi_eval_harness.suites.suite import Suite, load_suite, shipped_suites

__all__ = ["Suite", "load_suite", "shipped_suites"]
