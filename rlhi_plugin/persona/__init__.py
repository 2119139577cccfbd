"""What a user's own words say about how they like to be answered: built off the hot path, rendered by one function."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rlhi_plugin.persona.builder import IncrementalBuilder, PersonaBuilder
from rlhi_plugin.persona.building import PersonaBuilding
from rlhi_plugin.persona.cohort import CohortPrior, build_prior
from rlhi_plugin.persona.commands import CommandHandler
from rlhi_plugin.persona.edits import PersonaEdit, apply_edit
from rlhi_plugin.persona.extractive import ExtractivePersonaBuilder
from rlhi_plugin.persona.gate import GateMode
from rlhi_plugin.persona.llm import LLMPersonaBuilder
from rlhi_plugin.persona.memory import MemoryOptions
from rlhi_plugin.persona.render import FRAME_DIGEST, render_persona, with_persona
from rlhi_plugin.persona.updater import PersonaUpdater
from rlhi_plugin.persona.worker import PersonaWorker, WorkerOptions

if TYPE_CHECKING:
    from rlhi_plugin.persona.langchain_builder import LangChainPersonaBuilder
    from rlhi_plugin.persona.langgraph_store import LangGraphPersonaStore

__all__ = [
    "FRAME_DIGEST",
    "CohortPrior",
    "CommandHandler",
    "ExtractivePersonaBuilder",
    "GateMode",
    "IncrementalBuilder",
    "LLMPersonaBuilder",
    "LangChainPersonaBuilder",
    "LangGraphPersonaStore",
    "MemoryOptions",
    "PersonaBuilder",
    "PersonaBuilding",
    "PersonaEdit",
    "PersonaUpdater",
    "PersonaWorker",
    "WorkerOptions",
    "apply_edit",
    "build_prior",
    "render_persona",
    "with_persona",
]


def __getattr__(name: str) -> Any:
    # LangChain takes a second to import; the commands, which need neither of these, do not wait for it.
    if name == "LangChainPersonaBuilder":
        from rlhi_plugin.persona.langchain_builder import LangChainPersonaBuilder

        return LangChainPersonaBuilder
    if name == "LangGraphPersonaStore":
        from rlhi_plugin.persona.langgraph_store import LangGraphPersonaStore

        return LangGraphPersonaStore
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
