"""A model call as it is to be logged.

Made for every turn and kept by nobody; not frozen, which would take ten times as long to make.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from langchain_core.messages import AnyMessage, BaseMessage

from rlhi_plugin.records import Finish


@dataclass(slots=True)
class Reply:
    """What answered one model call.

    Attributes:
        messages: What came back; empty when the call failed or was abandoned.
        model: Name of the model.
        adapter: Id of the adapter that was active.
        persona_digest: Digest of the persona that was in the prompt.
        latency_s: Seconds from the call to its whole answer.
        structured: Whether the answer is the call of a tool that stands for a schema.
        finish: Why the answer is only a part of one; None where it is whole.
    """

    messages: Sequence[BaseMessage] = ()
    model: str | None = None
    adapter: str | None = None
    persona_digest: str | None = None
    latency_s: float | None = None
    structured: bool = False
    finish: Finish | None = None


@dataclass(slots=True)
class Turn:
    """One model call as it is to be logged.

    Attributes:
        conversation_id: The thread.
        user_id: Pseudonym or None.
        system: The app's own system prompt, without any persona.
        history: The thread up to and including what the model was asked.
        reply: What it answered.
        stable_ids: Whether the ids of LangChain's messages may be used; else ids are digests.
        started_at: When the model was called.
        first: Index in `history` of the first message that may be stored; what stands before it only tells the ids of
            those apart that say the same.
    """

    conversation_id: str
    user_id: str | None
    system: str | None
    history: Sequence[AnyMessage]
    reply: Reply
    stable_ids: bool
    started_at: datetime
    first: int = 0
