"""Our own export: conversations and feedback events, one record a line."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rlhi_plugin.importers.row import Format, Row, Value
from rlhi_plugin.records import SCHEMA_VERSION, Conversation, FeedbackEvent

VERSION_FIELD = "schema"
"""Field of every exported line that holds `SCHEMA_VERSION`."""


def _recognises(row: Value) -> bool:
    return "conversation_id" in row and ("messages" in row or ("event_id" in row and "kind" in row))


def _read(rows: Sequence[Row]) -> Iterator[Conversation | FeedbackEvent]:
    for row in rows:
        value = dict(row.value)
        version = value.pop(VERSION_FIELD, SCHEMA_VERSION)
        if version != SCHEMA_VERSION:
            remedy = "Upgrade with: pip install -U rlhi"
            raise ValueError(f"schema {version!r}, this program reads {SCHEMA_VERSION}. {remedy}")
        yield (FeedbackEvent if "event_id" in value else Conversation).model_validate(value)


RLHI = Format("rlhi", "conversation_id, messages", _recognises, _read)
