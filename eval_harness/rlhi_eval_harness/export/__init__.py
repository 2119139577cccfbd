"""A report in other harnesses' files: logs for Inspect, results for lm-eval; neither needs to be installed.

In reading order: `subjects` what a report holds of one subject, `inspect_log` and `lm_eval_results` the two layouts,
`cli` is ``rlhi-eval export``.
"""
