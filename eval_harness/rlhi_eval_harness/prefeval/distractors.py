"""Turns that stand between a preference and its question: exchanges of real conversations that the user supplies."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

from rlhi_plugin.errors import ConfigError, RecordError
from rlhi_plugin.records import ChatMessage, Conversation

MAX_CHARACTERS = 2_000
"""Of one message (ours): a longer exchange is passed over whole, never cut."""

Exchange = tuple[ChatMessage, ChatMessage]


def read_exchanges(log: str | None) -> list[list[Exchange]]:
    """The exchanges of each conversation that has any, in the log's order; toxic conversations are passed over.

    Raises:
        ConfigError: no log was given, it cannot be opened, or nothing in it can be used.
    """
    from rlhi_plugin.logs import read_conversations

    if log is None:
        raise ConfigError(
            "the turns between preference and question are missing: no log was given. Give real conversations, such as "
            "WildChat rows or an export of rlhi, with --set distractors=LOG, or set distances=[0]."
        )
    found = [
        exchanges
        for conversation in read_conversations(Path(log))
        if not isinstance(conversation, RecordError) and not conversation.toxic
        if (exchanges := _exchanges(conversation))
    ]
    if not found:
        raise ConfigError(
            f"{log} holds no exchange of at most {MAX_CHARACTERS} characters a message. Give another log."
        )
    return found


def between(conversations: Sequence[Sequence[Exchange]], turns: int, draw: random.Random) -> tuple[ChatMessage, ...]:
    """So many exchanges, of whole conversations in a random order; the last conversation may stop early.

    Raises:
        ConfigError: the log has fewer.
    """
    total = sum(map(len, conversations))
    if total < turns:
        raise ConfigError(
            f"the log of distractors holds {total} exchanges, and {turns} are asked for. Give a longer one."
        )
    order = draw.sample(range(len(conversations)), len(conversations))
    drawn = [exchange for place in order for exchange in conversations[place]][:turns]
    return tuple(message for exchange in drawn for message in exchange)


def _exchanges(conversation: Conversation) -> list[Exchange]:
    found = []
    for first, second in zip(conversation.messages, conversation.messages[1:], strict=False):
        fits = max(len(first.content), len(second.content)) <= MAX_CHARACTERS
        if (first.role, second.role) == ("user", "assistant") and fits and first.content and second.content:
            found.append((first.as_chat(), second.as_chat()))
    return found
