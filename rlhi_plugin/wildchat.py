"""WildChat-1M rows (Zhao et al., arXiv 2405.01470; ODC-BY) as conversations."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from rlhi_plugin.records import Conversation, Message, UserId

_MILLISECONDS_FROM = 1e11
"""An epoch number from here on (the year 5138 in seconds) counts milliseconds."""


def is_wildchat(row: Mapping[str, Any]) -> bool:
    """Whether a row has WildChat's fields."""
    return "conversation" in row and "conversation_hash" in row


def read_wildchat(row: Mapping[str, Any]) -> Conversation:
    """Turn a row into a conversation. Message ids are ``hash:position``.

    Raises:
        ValueError: the turns are missing, empty or out of order, or a field has another type; the message says which.
    """
    name, turns = row["conversation_hash"], row["conversation"]
    if not isinstance(name, str) or not name:
        raise ValueError("conversation_hash is missing")
    if not isinstance(turns, list) or not all(isinstance(turn, Mapping) for turn in turns):
        raise ValueError("conversation is not a list of messages")
    _check_turns(turns)
    first = turns[0]
    return Conversation(
        conversation_id=name,
        user_id=_user(row, first),
        messages=tuple(_message(name, i, turn, row.get("model")) for i, turn in enumerate(turns)),
        started_at=_time(first.get("timestamp")) or _time(row.get("timestamp")),
        language=row.get("language") or first.get("language"),
        toxic=_toxic(row, turns),
        source="wildchat",
    )


def _check_turns(turns: list[Mapping[str, Any]]) -> None:
    if not any(turn.get("role") == "user" for turn in turns):
        raise ValueError("there is no user message")
    for i, turn in enumerate(turns):
        expected = "user" if i % 2 == 0 else "assistant"
        if turn.get("role") != expected:
            raise ValueError(f"message {i} has the role {turn.get('role')!r}, expected {expected!r}")
        content = turn.get("content")
        if not isinstance(content, str) or not content.strip():
            raise ValueError(f"message {i} ({expected}) is empty")


def _message(name: str, i: int, turn: Mapping[str, Any], model: str | None) -> Message:
    return Message(
        id=f"{name}:{i}",
        role=turn["role"],
        content=turn["content"],
        created_at=_time(turn.get("timestamp")),
        model=model if turn["role"] == "assistant" else None,
    )


def _user(row: Mapping[str, Any], first: Mapping[str, Any]) -> UserId | None:
    """WildChat tells users apart by hashed address and request headers; both are hashed once more here."""
    address = row.get("hashed_ip") or first.get("hashed_ip")
    if not address:
        return None
    header = row.get("header") or first.get("header") or {}
    parts = (str(address), str(header.get("accept-language") or ""), str(header.get("user-agent") or ""))
    return f"w_{hashlib.sha256(chr(0).join(parts).encode()).hexdigest()[:32]}"


def _toxic(row: Mapping[str, Any], turns: list[Mapping[str, Any]]) -> bool | None:
    if row.get("toxic") is not None:
        return bool(row["toxic"])
    said = [bool(turn["toxic"]) for turn in turns if turn.get("toxic") is not None]
    return any(said) if said else None


def _time(value: object) -> datetime | None:
    """ISO text, or seconds or milliseconds since 1970; without a time zone, UTC."""
    if value is None or value == "":
        return None
    try:
        if isinstance(value, str):
            time = datetime.fromisoformat(value)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            time = datetime.fromtimestamp(value / 1000 if abs(value) >= _MILLISECONDS_FROM else value, UTC)
        else:
            raise ValueError(f"a timestamp is {value!r}")  # noqa: TRY301, TRY004 - reported like every unreadable time
    except (ValueError, OverflowError, OSError) as error:
        raise ValueError(f"the timestamp {value!r} cannot be read: {error}") from error
    return time if time.tzinfo is not None else time.replace(tzinfo=UTC)
