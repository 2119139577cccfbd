"""Labelling follow-ups: which user messages are feedback on the answer before them (arXiv 2509.25137, section 2.2)."""

from rlhi_plugin.labelling.exchange import Exchange, exchanges
from rlhi_plugin.labelling.labeller import Labeller, load_labeller

__all__ = ["Exchange", "Labeller", "exchanges", "load_labeller"]
