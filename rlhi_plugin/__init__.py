"""The live half of RLHI: what an app imports. Never imports torch.

from rlhi_plugin import RLHIMiddleware
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rlhi_plugin.errors import (
    ArtefactError,
    ConfigError,
    MissingExtraError,
    ModelCallError,
    RecordError,
    RLHIError,
    StoreError,
    UserError,
)
from rlhi_plugin.records import Conversation, FollowUp, FollowUpLabel, Message, Persona, PersonaStatement
from rlhi_plugin.stores import ConversationStore, PersonaStore, open_store

if TYPE_CHECKING:
    from rlhi_plugin.middleware import RLHIMiddleware
    from rlhi_plugin.tool_middleware import RLHIToolMiddleware

__all__ = [
    "ArtefactError",
    "ConfigError",
    "Conversation",
    "ConversationStore",
    "FollowUp",
    "FollowUpLabel",
    "Message",
    "MissingExtraError",
    "ModelCallError",
    "Persona",
    "PersonaStatement",
    "PersonaStore",
    "RLHIError",
    "RLHIMiddleware",
    "RLHIToolMiddleware",
    "RecordError",
    "StoreError",
    "UserError",
    "open_store",
]


def __getattr__(name: str) -> Any:
    # langchain.agents takes a second to import; the commands, which never serve an agent, do not wait for it.
    if name == "RLHIMiddleware":
        from rlhi_plugin.middleware import RLHIMiddleware

        return RLHIMiddleware
    if name == "RLHIToolMiddleware":
        from rlhi_plugin.tool_middleware import RLHIToolMiddleware

        return RLHIToolMiddleware
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
