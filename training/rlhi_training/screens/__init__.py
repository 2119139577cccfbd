"""Screens: which conversations of a log are used. One predicate, one file; `screening.py` puts them in order.

A screen looks at one conversation after the other and needs no second look, so that a log of any length streams
through. What a screen has to remember of earlier conversations is bounded, and its file says by what.
"""

from __future__ import annotations

from rlhi_training.screens.screen import Finding, Screen

__all__ = ["Finding", "Screen"]
