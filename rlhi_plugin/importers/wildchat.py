"""WildChat-1M rows (Zhao et al., arXiv 2405.01470; ODC-BY) as conversations, from JSONL or Parquet."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from pydantic import ValidationError

from rlhi_plugin.importers.fields import check_asked, time_of, user_in
from rlhi_plugin.importers.row import Format, Row, Value
from rlhi_plugin.records import Conversation, Message, UserId


def _recognises(row: Value) -> bool:
    return "conversation" in row and "conversation_hash" in row


def _read(rows: Sequence[Row]) -> Iterator[Conversation]:
    for row in rows:
        yield read_wildchat(row.value)


def _read_in_any_order(rows: Sequence[Row]) -> Iterator[Conversation]:
    for row in rows:
        yield read_wildchat(row.value, any_order=True)


def read_wildchat(row: Value, *, any_order: bool = False) -> Conversation:
    """Turn a row into a conversation. Message ids are ``hash:position``.

    Args:
        row: The row.
        any_order: Take turns as they are, also empty ones and two of one role in a row: for who only reads them.

    Raises:
        ValueError: the turns are missing, empty or out of order, or a field has another type; the message says which.
    """
    name, turns = row["conversation_hash"], row["conversation"]
    if not isinstance(name, str) or not name:
        raise ValueError("conversation_hash is missing")
    if not isinstance(turns, list) or not all(isinstance(turn, Mapping) for turn in turns):
        raise ValueError("conversation is not a list of messages")
    _check_turns(turns, any_order=any_order)
    first = turns[0]
    messages = [_message(name, i, turn, row.get("model")) for i, turn in enumerate(turns)]
    found = {
        "conversation_id": name,
        "user_id": _user(row, first),
        "messages": messages,
        "started_at": time_of(first.get("timestamp")) or time_of(row.get("timestamp")),
        "language": row.get("language") or first.get("language"),
        "toxic": _toxic(row, turns),
        "source": "wildchat",
    }
    try:
        # The whole at once takes half the time. What is wrong with a message is said of the message.
        conversation = Conversation.model_validate(found)
    except ValidationError:
        conversation = Conversation.model_validate(found | {"messages": tuple(map(Message.model_validate, messages))})
    check_asked(conversation.messages)
    return conversation


def _check_turns(turns: list[Value], *, any_order: bool) -> None:
    if not turns:
        raise ValueError("there is no user message")
    for i, turn in enumerate(turns):
        expected = "user" if i % 2 == 0 else "assistant"
        if turn.get("role") != expected and not (any_order and turn.get("role") in {"user", "assistant"}):
            raise ValueError(f"message {i} has the role {turn.get('role')!r}, expected {expected!r}")
        content = turn.get("content")
        if not isinstance(content, str) or not (content.strip() or any_order):
            raise ValueError(f"message {i} ({expected}) is empty")


def _message(name: str, i: int, turn: Value, model: Any) -> dict[str, Any]:
    return {
        "id": f"{name}:{i}",
        "role": turn["role"],
        "content": turn["content"],
        "created_at": time_of(turn.get("timestamp")),
        "model": model if turn["role"] == "assistant" else None,
    }


def _user(row: Value, first: Value) -> UserId | None:
    """WildChat tells users apart by hashed address and request headers.

    Both are published, so the pseudonym is keyed: without the key, nobody finds a published address in a store.
    """
    address = row.get("hashed_ip") or first.get("hashed_ip")
    if not address:
        return None
    header: Any = row.get("header") or first.get("header") or {}
    if not isinstance(header, Mapping):
        raise ValueError("header is not an object")  # noqa: TRY004 - one kind of error for what a row can hold
    parts = (str(address), str(header.get("accept-language") or ""), str(header.get("user-agent") or ""))
    return user_in("wildchat", "\0".join(parts))


def _toxic(row: Value, turns: list[Value]) -> bool | None:
    if row.get("toxic") is not None:
        return bool(row["toxic"])
    said = [bool(turn["toxic"]) for turn in turns if turn.get("toxic") is not None]
    return any(said) if said else None


WILDCHAT = Format(
    "wildchat",
    "conversation_hash, conversation",
    _recognises,
    _read,
    unread=frozenset({"openai_moderation", "detoxify_moderation"}),
)
WILDCHAT_IN_ANY_ORDER = replace(WILDCHAT, read=_read_in_any_order)
"""The same rows, with turns as they are."""
