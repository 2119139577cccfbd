"""Reading conversations as columns, for exports of whole stores."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    ColumnClause,
    CompoundSelect,
    Connection,
    Select,
    SelectBase,
    String,
    exists,
    func,
    literal,
    literal_column,
    select,
    type_coerce,
    union_all,
)
from sqlalchemy.dialects.sqlite.pysqlite import dialect as sqlite_dialect

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
_BEFORE_ALL = -(2**62)
_NUMBERS = {"latency_s": 0.5, "input_tokens": 0, "output_tokens": 0, "toxic": 0}
"""One value each of the columns that are no text."""


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


@dataclass(frozen=True, slots=True)
class SQLiteQueries:
    """SQL for all of a store on SQLite, between two keys of conversations, ``:first`` and ``:last``.

    The first row of `heads` and of `messages` is of no conversation. It holds no NULL: who takes a column's type from
    its first values, as the Arrow driver does, finds it there.

    Attributes:
        extent: ``first``, ``last`` and how many ``messages``; without a conversation NULL, NULL and 0.
        heads: `HEAD_COLUMNS` of conversations that have messages, by their key, ``number``.
        messages: `MESSAGE_COLUMNS`, by the key of their ``conversation``.
    """

    extent: str
    heads: str
    messages: str


def sqlite_queries() -> SQLiteQueries:
    """See `SQLiteQueries`."""
    first: ColumnClause[int] = literal_column(":first")
    last: ColumnClause[int] = literal_column(":last")
    has_any = exists().where(messages.c.conversation == conversations.c.number)
    heads = _HEADS.where(conversations.c.number.between(first, last), has_any)
    said = _SAID.add_columns(messages.c.sequence).where(messages.c.conversation.between(first, last)).order_by(None)
    extent = select(
        func.min(messages.c.conversation).label("first"),
        func.max(messages.c.conversation).label("last"),
        func.count().label("messages"),
    )
    return SQLiteQueries(
        _written(extent),
        _written(_with_sample(heads, ("number", *HEAD_COLUMNS), by=("number",))),
        _written(_with_sample(said, ("conversation", *MESSAGE_COLUMNS, "sequence"), by=("conversation", "sequence"))),
    )


def _with_sample(query: Select[Any], names: Sequence[str], by: Sequence[str]) -> CompoundSelect[Any]:
    sample: Iterable[Any] = (
        literal(_BEFORE_ALL if name in by else _NUMBERS.get(name, "")).label(name) for name in names
    )
    return union_all(select(*sample), query).order_by(*by)


def _written(query: SelectBase) -> str:
    return str(query.compile(dialect=sqlite_dialect(), compile_kwargs={"literal_binds": True}))


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
