"""Writing messages: the parts of several callers in one transaction.

A part that belongs to another user is found by reading and refused before anything of it is written, so it leaves the
others alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
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
OWNED = select(
    conversations.c.conversation_id, conversations.c.number, conversations.c.user_id, tombstones.c.forgotten_at
).select_from(conversations.outerjoin(tombstones, tombstones.c.user_id == conversations.c.user_id))
"""What is stored of conversations, without their messages."""
_FIND = (
    OWNED.where(conversations.c.conversation_id.in_(bindparam("names", expanding=True)))
    # Everybody locks rows in the same order.
    .order_by(conversations.c.conversation_id)
    .with_for_update(of=conversations)
)
_FORGOTTEN = select(tombstones.c.user_id, tombstones.c.forgotten_at).where(
    tombstones.c.user_id.in_(bindparam("users", expanding=True))
)
_COLUMNS = tuple(column.name for column in messages.columns if column.name not in ("conversation", "sequence"))
_ALIASED = messages.alias()
_NEXT_SEQUENCE = (
    select(func.coalesce(func.max(_ALIASED.c.sequence) + 1, 0))
    .where(_ALIASED.c.conversation == bindparam("conversation"))
    .scalar_subquery()
)
_INSERT_VALUES: dict[str, Any] = {
    "conversation": bindparam("conversation"),
    "sequence": _NEXT_SEQUENCE,
    **{name: bindparam(name) for name in _COLUMNS},
}
INSERT = {d: insert_if_absent(d, messages, ("conversation", "message_id")).values(_INSERT_VALUES) for d in DIALECTS}
"""Adds one message at the end of a conversation, by dialect."""
BEGIN = {d: insert_if_absent(d, conversations, ("conversation_id",)) for d in DIALECTS}
"""Creates one conversation, by dialect."""


@dataclass(frozen=True, slots=True)
class Part:
    """One call of `append`: messages for one conversation.

    Attributes:
        head: The conversation; its own messages are not looked at.
        offered: The messages.
    """

    head: Conversation
    offered: Sequence[Message]


class Row(NamedTuple):
    """What the store knows of a conversation: its key, its user, and when that user was forgotten."""

    number: int
    owner: str | None
    forgotten_at: datetime | None


class Rows(Protocol):
    """The rows that an append reads and writes, in a transaction that has begun."""

    def find(self, names: Sequence[str]) -> dict[str, Row]:
        """Those of the conversations that are stored, locked until the transaction ends."""
        ...

    def forgotten(self, users: Iterable[str | None]) -> dict[str | None, datetime]:
        """Those of the users who were forgotten, and when."""
        ...

    def begin(self, heads: Sequence[Mapping[str, Any]]) -> None:
        """Create conversations where there are none of their names."""
        ...

    def insert(self, rows: Sequence[Mapping[str, Any]]) -> int:
        """Add those messages whose id the conversation does not hold yet; how many that were."""
        ...


class SQLRows:
    """`Rows` of any database, by SQLAlchemy."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def find(self, names: Sequence[str]) -> dict[str, Row]:
        """See `Rows.find`."""
        rows: dict[str, Row] = {}
        wanted = sorted(set(names))
        for start in range(0, len(wanted), _NAMES_PER_STATEMENT):
            some = wanted[start : start + _NAMES_PER_STATEMENT]
            rows |= {name: Row(*rest) for name, *rest in self._connection.execute(_FIND, {"names": some})}
        return rows

    def forgotten(self, users: Iterable[str | None]) -> dict[str | None, datetime]:
        """See `Rows.forgotten`."""
        return forgotten_users(self._connection, users)

    def begin(self, heads: Sequence[Mapping[str, Any]]) -> None:
        """See `Rows.begin`; one after the other, in the order of the callers."""
        for head in heads:
            self._connection.execute(BEGIN[self._connection.dialect.name], head)

    def insert(self, rows: Sequence[Mapping[str, Any]]) -> int:
        """See `Rows.insert`."""
        return self._connection.execute(INSERT[self._connection.dialect.name], rows).rowcount


def append_all(connection: Connection, parts: Sequence[Part]) -> list[int | Exception]:
    """Add the messages of every part, in a transaction of SQLAlchemy's; see `append_to`."""
    lock_users(connection, (part.head.user_id for part in parts))
    return append_to(SQLRows(connection), parts)


def append_to(stored: Rows, parts: Sequence[Part]) -> list[int | Exception]:
    """Add the messages of every part, one part after the other.

    Returns:
        For each part the number of its messages that were new, or the `OwnerMismatchError` that only this part gets.
    """
    rows = stored.find([part.head.conversation_id for part in parts])
    unknown = [part for part in parts if part.head.conversation_id not in rows]
    if unknown:
        rows |= _begin(stored, unknown)
    outcomes: list[int | Exception] = []
    for part in parts:
        row = rows.get(part.head.conversation_id)
        if row is None:
            # All of it was said before its user was forgotten.
            outcomes.append(0)
        elif row.owner != part.head.user_id:
            outcomes.append(_not_the_owner(part.head, row.owner))
        else:
            outcomes.append(_insert(stored, row.number, _after(part, row.forgotten_at)))
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
    begun: dict[str, Mapping[str, Any]] = {}
    for part in parts:
        head = part.head
        if head.conversation_id not in begun and _after(part, forgotten.get(head.user_id)):
            begun[head.conversation_id] = {
                "conversation_id": head.conversation_id,
                "user_id": head.user_id,
                "started_at": head.started_at,
                "language": head.language,
                "toxic": head.toxic,
                "source": head.source,
            }
    stored.begin(list(begun.values()))
    return stored.find(list(begun))


def _insert(stored: Rows, number: int, offered: Sequence[Message]) -> int:
    if not offered:
        return 0
    rows = [
        {
            "conversation": number,
            "message_id": m.id,
            "role": m.role,
            "content": m.content,
            "created_at": m.created_at,
            "model": m.model,
            "adapter": m.adapter,
            "persona_digest": m.persona_digest,
            "parent_id": m.parent_id,
            "latency_s": m.latency_s,
            "input_tokens": m.input_tokens,
            "output_tokens": m.output_tokens,
        }
        for m in offered
    ]
    return stored.insert(rows)


def _not_the_owner(head: Conversation, owner: str | None) -> OwnerMismatchError:
    return OwnerMismatchError(
        f"conversation {head.conversation_id!r} belongs to {owner or 'nobody (anonymous)'}, not to "
        f"{head.user_id or 'nobody (anonymous)'}. Give each user's conversation an id of its own."
    )
