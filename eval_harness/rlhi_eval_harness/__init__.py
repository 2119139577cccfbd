"""Evaluation of adapted assistants: suites, statistics, and a report that can be trusted."""
