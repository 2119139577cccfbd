"""Reasoning benchmarks through lm_eval: its tasks, prompts and checks; our answering, statistics and report."""
