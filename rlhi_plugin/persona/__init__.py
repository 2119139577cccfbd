"""What a user's own words say about how they like to be answered: built off the hot path, rendered by one function."""

from rlhi_plugin.persona.builder import PersonaBuilder
from rlhi_plugin.persona.extractive import ExtractivePersonaBuilder
from rlhi_plugin.persona.llm import LLMPersonaBuilder
from rlhi_plugin.persona.render import FRAME_DIGEST, render_persona, with_persona

__all__ = [
    "FRAME_DIGEST",
    "ExtractivePersonaBuilder",
    "LLMPersonaBuilder",
    "PersonaBuilder",
    "render_persona",
    "with_persona",
]
