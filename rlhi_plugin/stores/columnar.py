"""Reading conversations as columns, for exports of whole stores."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, String, select, type_coerce

from rlhi_plugin.stores.direct import read_rows
from rlhi_plugin.stores.schema import conversations, messages

HEAD_COLUMNS = ("conversation_id", "user_id", "started_at", "language", "toxic", "source")
"""Fields of a conversation, in order."""

MESSAGE_COLUMNS = (
    "id",
    "role",
    "content",
    "created_at",
    "model",
    "adapter",
    "persona_digest",
    "parent_id",
    "latency_s",
    "input_tokens",
    "output_tokens",
    "finish",
)
"""Fields of a message, in order."""

_TIMES = frozenset({"started_at", "created_at"})
_MESSAGES_AT_ONCE = 20_000
_NUMBERS_PER_STATEMENT = 10_000
"""SQLite binds at most 32,766 variables to one statement."""


def _plain(column: Any) -> Any:
    """The column; of a time its text, which a columnar file wants to parse itself."""
    return type_coerce(column, String) if column.name in _TIMES else column


@dataclass(frozen=True, slots=True)
class ConversationColumns:
    """Some whole conversations.

    Attributes:
        heads: Values of each of `HEAD_COLUMNS`, one for each conversation.
        starts: Where each conversation's messages begin in `messages`; the last value is where they all end. One more
            than there are conversations.
        messages: Values of each of `MESSAGE_COLUMNS`, one for each message. Times are ISO 8601 text in UTC.
    """

    heads: dict[str, Sequence[Any]]
    starts: list[int]
    messages: dict[str, Sequence[Any]]


_SAID = select(
    messages.c.conversation,
    *(_plain(messages.c["message_id" if name == "id" else name]) for name in MESSAGE_COLUMNS),
).order_by(messages.c.conversation, messages.c.sequence)
_HEADS = select(conversations.c.number, *(_plain(conversations.c[name]) for name in HEAD_COLUMNS))


def read_columns(connection: Connection, user_id: str | None) -> Iterator[ConversationColumns]:
    """Conversations in the order in which they began, each whole, some thousand messages at a time."""
    if connection.dialect.name == "postgresql":
        # There, each statement of a transaction would otherwise see what was committed before it.
        connection = connection.execution_options(isolation_level="REPEATABLE READ")
    query = _SAID
    if user_id is not None:
        mine = select(conversations.c.number).where(conversations.c.user_id == user_id)
        query = query.where(messages.c.conversation.in_(mine))
    waiting: list[Sequence[Any]] = []
    for rows in read_rows(connection, query, _MESSAGES_AT_ONCE):
        waiting += rows
        # The last conversation may go on in the next rows.
        end, last = len(waiting), waiting[-1][0]
        while end and waiting[end - 1][0] == last:
            end -= 1
        if end:
            yield _to_columns(connection, waiting[:end])
            del waiting[:end]
    if waiting:
        yield _to_columns(connection, waiting)


def _to_columns(connection: Connection, rows: Sequence[Sequence[Any]]) -> ConversationColumns:
    numbers, *columns = zip(*rows, strict=True)
    starts = [
        0,
        *(i for i, (number, before) in enumerate(zip(numbers[1:], numbers, strict=False), 1) if number != before),
    ]
    wanted = [numbers[i] for i in starts]
    heads: list[Sequence[Any]] = []
    for begin in range(0, len(wanted), _NUMBERS_PER_STATEMENT):
        some = wanted[begin : begin + _NUMBERS_PER_STATEMENT]
        found = connection.execute(_HEADS.where(conversations.c.number.in_(some)).order_by(conversations.c.number))
        heads += found.all()
    return ConversationColumns(
        heads=dict(zip(HEAD_COLUMNS, list(zip(*heads, strict=True))[1:], strict=True)),
        starts=[*starts, len(rows)],
        messages=dict(zip(MESSAGE_COLUMNS, columns, strict=True)),
    )
