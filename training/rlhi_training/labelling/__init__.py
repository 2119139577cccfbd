"""Labellers that need the heavy half's libraries; found by name through the entry points ``rlhi.labellers``."""
