"""ShareGPT: ``{"id": ..., "conversations": [{"from": "human", "value": ...}, ...]}`` and its variants."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rlhi_plugin.importers.branches import in_line
from rlhi_plugin.importers.chat_message import Said, role_of, text_of
from rlhi_plugin.importers.fields import check_asked, content_id, name_in, rows_in, time_of
from rlhi_plugin.importers.languages import language_name
from rlhi_plugin.importers.row import Format, Row, Value
from rlhi_plugin.records import Conversation

_LISTS = ("conversations", "items", "conversation", "messages")


def _list_in(row: Value) -> str | None:
    """The field that holds the turns: a list whose first element is said ``from`` somebody."""
    for name in _LISTS:
        turns = row.get(name)
        first = turns[0] if isinstance(turns, list) and turns else None
        if isinstance(first, dict) and "from" in first:
            return name
    # An empty list, or turns in OpenAI's spelling, under the name that only this format has.
    return "conversations" if isinstance(row.get("conversations"), list) else None


def _recognises(row: Value) -> bool:
    return _list_in(row) is not None


def _read(rows: Sequence[Row]) -> Iterator[Conversation]:
    for row in rows:
        yield _conversation(row.value)


def _conversation(row: Value) -> Conversation:
    said = []
    system = row.get("system")
    if isinstance(system, str) and system:
        said.append(Said("system", system))
    model = name_in(row, "model")
    for i, turn in enumerate(rows_in(row, _list_in(row) or "conversations")):
        role = role_of(turn.get("from", turn.get("role")))
        text = turn.get("value", turn.get("content", turn.get("text")))
        if text is None:
            raise ValueError(f"message {i} has no value")
        said.append(Said(role, text_of(text), model=name_in(turn, "model") or model))
    messages = in_line(said)
    check_asked(messages)
    return Conversation(
        # Collections number their rows: an id says nothing across files.
        conversation_id=content_id("sharegpt", name_in(row, "id"), None, messages),
        messages=messages,
        started_at=time_of(row.get("create_time")),
        language=language_name(row.get("language") or row.get("lang")),
        source="sharegpt",
    )


SHAREGPT = Format("sharegpt", "conversations or items of {from, value}", _recognises, _read)
