"""Writing messages: the parts of several callers in one transaction.

A part that belongs to another user is found by reading and refused before anything of it is written, so it leaves the
others alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, NamedTuple, Protocol

from sqlalchemy import Connection, bindparam, func, select

from rlhi_plugin.errors import OwnerMismatchError
from rlhi_plugin.records import Conversation, Message
from rlhi_plugin.stores.dialects import DIALECTS, insert_if_absent, lock_users
from rlhi_plugin.stores.schema import conversations, messages, tombstones

_NAMES_PER_STATEMENT = 500
"""A database binds a limited number of variables to one statement."""

# Built once: building a statement takes longer than a database needs to run it.
_FIND = (
    select(conversations.c.conversation_id, conversations.c.number, conversations.c.user_id, tombstones.c.forgotten_at)
    .select_from(conversations.outerjoin(tombstones, tombstones.c.user_id == conversations.c.user_id))
    .where(conversations.c.conversation_id.in_(bindparam("names", expanding=True)))
    # Everybody locks rows in the same order.
    .order_by(conversations.c.conversation_id)
    .with_for_update(of=conversations)
)
_FORGOTTEN = select(tombstones.c.user_id, tombstones.c.forgotten_at).where(
    tombstones.c.user_id.in_(bindparam("users", expanding=True))
)
MESSAGE_COLUMNS = tuple(column.name for column in messages.columns if column.name not in ("conversation", "sequence"))
"""Those that a message brings along; see `message_values`."""
HEAD_COLUMNS = ("conversation_id", "user_id", "started_at", "language", "toxic", "source")
"""Those of a conversation that it brings along; see `head_values`."""
_ALIASED = messages.alias()
_NEXT_SEQUENCE = (
    select(func.coalesce(func.max(_ALIASED.c.sequence) + 1, 0))
    .where(_ALIASED.c.conversation == bindparam("conversation"))
    .scalar_subquery()
)
_INSERT_VALUES: dict[str, Any] = {
    "conversation": bindparam("conversation"),
    "sequence": _NEXT_SEQUENCE,
    **{name: bindparam(name) for name in MESSAGE_COLUMNS},
}
INSERT = {d: insert_if_absent(d, messages, ("conversation", "message_id")).values(_INSERT_VALUES) for d in DIALECTS}
"""Adds one message at the end of a conversation, by dialect."""
BEGIN = {d: insert_if_absent(d, conversations, ("conversation_id",)) for d in DIALECTS}
"""Creates one conversation, by dialect."""


class Head(NamedTuple):
    """A conversation without its messages; fields as those of `Conversation`, which checks what it is given."""

    conversation_id: str
    user_id: str | None = None
    started_at: datetime | None = None
    language: str | None = None
    toxic: bool | None = None
    source: str = "rlhi"


class Opening(tuple[Message, ...]):
    """Messages that are written only where they begin a conversation."""

    __slots__ = ()


class Part(NamedTuple):
    """One call of `append`: messages for one conversation.

    Attributes:
        head: The conversation; messages of its own are not looked at.
        offered: The messages.
        opens: Whether to write nothing where there is such a conversation (`Opening`).
    """

    head: Head | Conversation
    offered: Sequence[Message]
    opens: bool = False


class Row(NamedTuple):
    """What the store knows of a conversation: its key, its user, and when that user was forgotten."""

    number: int
    owner: str | None
    forgotten_at: datetime | None


class Rows(Protocol):
    """The rows that an append reads and writes, in a transaction that has begun."""

    def find(self, parts: Sequence[Part]) -> dict[str, Row]:
        """What is stored of the conversations of these parts, locked until the transaction ends."""
        ...

    def forgotten(self, users: Iterable[str | None]) -> dict[str | None, datetime]:
        """Those of the users who were forgotten, and when. Only users of parts that were given to `find`."""
        ...

    def begin(self, heads: Sequence[Head | Conversation]) -> dict[str, Row]:
        """Create conversations where there are none of their names; what is stored of them then."""
        ...

    def insert(self, number: int, messages: Sequence[Message]) -> int:
        """Add those messages whose id the conversation does not hold yet; how many that were."""
        ...


class SQLRows:
    """`Rows` of any database, by SQLAlchemy."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def find(self, parts: Sequence[Part]) -> dict[str, Row]:
        """See `Rows.find`."""
        return self._find({part.head.conversation_id for part in parts})

    def forgotten(self, users: Iterable[str | None]) -> dict[str | None, datetime]:
        """See `Rows.forgotten`."""
        return forgotten_users(self._connection, users)

    def begin(self, heads: Sequence[Head | Conversation]) -> dict[str, Row]:
        """See `Rows.begin`; one after the other, in the order of the callers."""
        for head in heads:
            self._connection.execute(BEGIN[self._connection.dialect.name], head_values(head))
        return self._find({head.conversation_id for head in heads})

    def insert(self, number: int, messages: Sequence[Message]) -> int:
        """See `Rows.insert`."""
        rows = [{"conversation": number, **message_values(message)} for message in messages]
        return self._connection.execute(INSERT[self._connection.dialect.name], rows).rowcount

    def _find(self, names: set[str]) -> dict[str, Row]:
        rows: dict[str, Row] = {}
        wanted = sorted(names)
        for start in range(0, len(wanted), _NAMES_PER_STATEMENT):
            some = wanted[start : start + _NAMES_PER_STATEMENT]
            rows |= {name: Row(*rest) for name, *rest in self._connection.execute(_FIND, {"names": some})}
        return rows


def append_all(connection: Connection, parts: Sequence[Part]) -> list[int | Exception]:
    """Add the messages of every part, in a transaction of SQLAlchemy's; see `append_to`."""
    lock_users(connection, (part.head.user_id for part in parts))
    return append_to(SQLRows(connection), parts)


def append_to(stored: Rows, parts: Sequence[Part]) -> list[int | Exception]:
    """Add the messages of every part, one part after the other.

    Returns:
        For each part the number of its messages that were new, or the `OwnerMismatchError` that only this part gets.
    """
    rows = stored.find(parts)
    known = set(rows)
    unknown = [part for part in parts if part.head.conversation_id not in rows]
    if unknown:
        rows |= _begin(stored, unknown)
    outcomes: list[int | Exception] = []
    for part in parts:
        row = rows.get(part.head.conversation_id)
        if row is None or (part.opens and part.head.conversation_id in known):
            # All of it was said before its user was forgotten, or it begins nothing.
            outcomes.append(0)
        elif row.owner != part.head.user_id:
            outcomes.append(_not_the_owner(part.head, row.owner))
        else:
            said = _after(part, row.forgotten_at)
            outcomes.append(stored.insert(row.number, said) if said else 0)
            if said:
                # What an earlier part has begun begins no more.
                known.add(part.head.conversation_id)
    return outcomes


def forgotten_users(connection: Connection, users: Iterable[str | None]) -> dict[str | None, datetime]:
    """Those of the users who were forgotten, and when."""
    named = sorted({user for user in users if user is not None})
    found: dict[str | None, datetime] = {}
    for start in range(0, len(named), _NAMES_PER_STATEMENT):
        some = named[start : start + _NAMES_PER_STATEMENT]
        found |= {row.user_id: row.forgotten_at for row in connection.execute(_FORGOTTEN, {"users": some})}
    return found


def _after(part: Part, forgotten_at: datetime | None) -> Sequence[Message]:
    """The messages of a part that its user said after being forgotten; all of them where that never happened.

    A message without a time counts with the beginning of its conversation; where that is unknown too, it may be old.
    """
    if forgotten_at is None:
        return part.offered
    times = ((message, message.created_at or part.head.started_at) for message in part.offered)
    return [message for message, said_at in times if said_at is not None and said_at > forgotten_at]


def _begin(stored: Rows, parts: Sequence[Part]) -> dict[str, Row]:
    """Create the conversations of parts that hold something to keep, in the order of the callers."""
    forgotten = stored.forgotten(part.head.user_id for part in parts)
    begun: dict[str, Head | Conversation] = {}
    for part in parts:
        if _after(part, forgotten.get(part.head.user_id)):
            begun.setdefault(part.head.conversation_id, part.head)
    return stored.begin(list(begun.values()))


def head_values(head: Head | Conversation) -> dict[str, Any]:
    """A conversation's columns."""
    return {name: getattr(head, name) for name in HEAD_COLUMNS}


def message_values(message: Message) -> dict[str, Any]:
    """A message's columns, but for those that place it in its conversation."""
    return {
        "message_id": message.id,
        "role": message.role,
        "content": message.content,
        "created_at": message.created_at,
        "model": message.model,
        "adapter": message.adapter,
        "persona_digest": message.persona_digest,
        "parent_id": message.parent_id,
        "latency_s": message.latency_s,
        "input_tokens": message.input_tokens,
        "output_tokens": message.output_tokens,
        "finish": message.finish,
    }


def _not_the_owner(head: Head | Conversation, owner: str | None) -> OwnerMismatchError:
    return OwnerMismatchError(
        f"conversation {head.conversation_id!r} belongs to {owner or 'nobody (anonymous)'}, not to "
        f"{head.user_id or 'nobody (anonymous)'}. Give each user's conversation an id of its own."
    )
