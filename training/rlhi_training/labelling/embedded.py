"""`EmbeddedLabeller`: whichever tier is the best of those that need no language model. Recipes name it ``embedded``."""

from __future__ import annotations

from rlhi_training.labelling.encoder import EncoderLabeller


class EmbeddedLabeller(EncoderLabeller):
    """The encoder tier, see `rlhi_training.labelling.encoder`."""
