"""From what is new in a turn to the records of it."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage

from rlhi_plugin.message_text import clean, structured_answer
from rlhi_plugin.records import Message
from rlhi_plugin.shown import shown
from rlhi_plugin.thread_path import Said
from rlhi_plugin.turn import Reply, Turn


def records_of(turn: Turn, said: Iterable[Said], asked_at: datetime, answered_at: datetime) -> list[Message]:
    """Records of what is new in a turn.

    Args:
        turn: What was asked and answered.
        said: What is new in it.
        asked_at: When the model was called.
        answered_at: When it had answered, not earlier than that.
    """
    messages = []
    for one in said:
        # Valid by the way that they were made: ids by `own_id` and `digest_id`, texts by `clean`, and so on.
        values: dict[str, Any] = {
            "id": one.id,
            "role": one.role,
            "content": one.text,
            "created_at": answered_at if one.is_reply else asked_at,
            "model": None,
            "adapter": None,
            "persona_digest": None,
            "parent_id": one.parent_id,
            "latency_s": None,
            "input_tokens": None,
            "output_tokens": None,
            "finish": None,
        }
        if one.is_reply:
            _describe(values, turn.reply, one.message)
        messages.append(Message.trusted(**values))
    return messages


def _describe(values: dict[str, Any], reply: Reply, message: BaseMessage) -> None:
    """Add what is stored of an answer alone."""
    if isinstance(message, AIMessage):
        if reply.structured and (answer := structured_answer(message)) is not None:
            values["role"], values["content"] = "assistant", answer
        values["latency_s"] = reply.latency_s
        if usage := message.usage_metadata:
            values["input_tokens"], values["output_tokens"] = map(
                _count, (usage["input_tokens"], usage["output_tokens"])
            )
    if values["role"] == "assistant":
        values["model"], values["adapter"] = _name(reply.model), _name(reply.adapter)
        values["persona_digest"] = reply.persona_digest
    values["finish"] = reply.finish


def _name(given: object) -> str | None:
    return None if given is None else clean(given if isinstance(given, str) else shown(given))


def _count(given: object) -> int | None:
    """A number of tokens; None for what a provider said that cannot be one, which must not cost the turn."""
    return given if isinstance(given, int) and 0 <= given < 2**63 else None
