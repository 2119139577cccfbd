"""Writing messages: the parts of several callers in one transaction.

A part that belongs to another user is found by reading and refused before anything of it is written, so it leaves the
others alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Connection, bindparam, func, select

from rlhi_plugin.errors import OwnerMismatchError
from rlhi_plugin.records import Conversation, Message
from rlhi_plugin.stores.dialects import DIALECTS, insert_if_absent, lock_users
from rlhi_plugin.stores.direct import SQLiteStatement
from rlhi_plugin.stores.schema import conversations, messages, tombstones

_NAMES_PER_STATEMENT = 500
"""SQLite binds at most 32,766 variables to one statement."""

# Built once: building a statement takes longer than SQLite needs to run it.
_OWNED = select(
    conversations.c.conversation_id, conversations.c.number, conversations.c.user_id, tombstones.c.forgotten_at
).select_from(conversations.outerjoin(tombstones, tombstones.c.user_id == conversations.c.user_id))
_FIND_ONE = _OWNED.where(conversations.c.conversation_id == bindparam("name")).with_for_update(of=conversations)
_FIND = (
    _OWNED.where(conversations.c.conversation_id.in_(bindparam("names", expanding=True)))
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
_INSERT = {d: insert_if_absent(d, messages, ("conversation", "message_id")).values(_INSERT_VALUES) for d in DIALECTS}
_FIND_ONE_DIRECT = SQLiteStatement(_FIND_ONE)
_INSERT_DIRECT = SQLiteStatement(_INSERT["sqlite"])
_HEAD_FIELDS = {"conversation_id", "user_id", "started_at", "language", "toxic", "source"}
_BEGIN = {d: insert_if_absent(d, conversations, ("conversation_id",)) for d in DIALECTS}


@dataclass(frozen=True, slots=True)
class Part:
    """One call of `append`: messages for one conversation.

    Attributes:
        head: The conversation; its own messages are not looked at.
        offered: The messages.
    """

    head: Conversation
    offered: Sequence[Message]


class _Row(NamedTuple):
    """What the store knows of a conversation."""

    number: int
    owner: str | None
    forgotten_at: datetime | None


def append_all(connection: Connection, parts: Sequence[Part]) -> list[int | Exception]:
    """Add the messages of every part, one part after the other.

    Returns:
        For each part the number of its messages that were new, or the `OwnerMismatchError` that only this part gets.
    """
    lock_users(connection, (part.head.user_id for part in parts))
    rows = _find(connection, [part.head.conversation_id for part in parts])
    unknown = [part for part in parts if part.head.conversation_id not in rows]
    if unknown:
        rows |= _begin(connection, unknown)
    outcomes: list[int | Exception] = []
    for part in parts:
        row = rows.get(part.head.conversation_id)
        if row is None:
            # All of it was said before its user was forgotten.
            outcomes.append(0)
        elif row.owner != part.head.user_id:
            outcomes.append(_not_the_owner(part.head, row.owner))
        else:
            outcomes.append(_insert(connection, row.number, _after(part, row.forgotten_at)))
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


def _begin(connection: Connection, parts: Sequence[Part]) -> dict[str, _Row]:
    """Create the conversations of parts that hold something to keep, in the order of the callers."""
    forgotten = forgotten_users(connection, (part.head.user_id for part in parts))
    begun: dict[str, None] = {}
    for part in parts:
        name = part.head.conversation_id
        if name not in begun and _after(part, forgotten.get(part.head.user_id)):
            begun[name] = None
            values = part.head.model_dump(include=_HEAD_FIELDS)
            connection.execute(_BEGIN[connection.dialect.name], values)
    return _find(connection, list(begun))


def _find(connection: Connection, names: Sequence[str]) -> dict[str, _Row]:
    """Those of the conversations that are stored, locked until the transaction ends."""
    if len(names) == 1:
        wanted_one = {"name": names[0]}
        if connection.dialect.name == "sqlite":
            found = _FIND_ONE_DIRECT.first(connection, wanted_one)
        else:
            found = connection.execute(_FIND_ONE, wanted_one).first()
        return {} if found is None else {found[0]: _Row(*found[1:])}
    rows: dict[str, _Row] = {}
    wanted = sorted(set(names))
    for start in range(0, len(wanted), _NAMES_PER_STATEMENT):
        some = wanted[start : start + _NAMES_PER_STATEMENT]
        rows |= {name: _Row(*rest) for name, *rest in connection.execute(_FIND, {"names": some})}
    return rows


def _insert(connection: Connection, number: int, offered: Sequence[Message]) -> int:
    """Add those messages whose id the conversation does not hold yet; returns how many that were."""
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
            "finish": m.finish,
        }
        for m in offered
    ]
    if connection.dialect.name == "sqlite":
        return _INSERT_DIRECT.insert(connection, rows)
    return connection.execute(_INSERT[connection.dialect.name], rows).rowcount


def _not_the_owner(head: Conversation, owner: str | None) -> OwnerMismatchError:
    return OwnerMismatchError(
        f"conversation {head.conversation_id!r} belongs to {owner or 'nobody (anonymous)'}, not to "
        f"{head.user_id or 'nobody (anonymous)'}. Give each user's conversation an id of its own."
    )
