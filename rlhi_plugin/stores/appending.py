"""Writing messages: the parts of several callers in one transaction.

A part that belongs to another user is found by reading and refused before anything of it is written, so it leaves the
others alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, bindparam, func, select

from rlhi_plugin.errors import OwnerMismatchError
from rlhi_plugin.records import Conversation, Message
from rlhi_plugin.stores.dialects import DIALECTS, insert_if_absent, lock_users
from rlhi_plugin.stores.schema import conversations, messages, tombstones

_NAMES_PER_STATEMENT = 500
"""SQLite binds at most 32,766 variables to one statement."""

# Built once: building a statement takes longer than SQLite needs to run it.
_FIND = (
    select(conversations.c.conversation_id, conversations.c.number, conversations.c.user_id)
    .where(conversations.c.conversation_id.in_(bindparam("names", expanding=True)))
    # Everybody locks rows in the same order.
    .order_by(conversations.c.conversation_id)
    .with_for_update()
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


def append_all(connection: Connection, parts: Sequence[Part]) -> list[int | Exception]:
    """Add the messages of every part, one part after the other.

    Returns:
        For each part the number of its messages that were new, or the `OwnerMismatchError` that only this part gets.
    """
    lock_users(connection, (part.head.user_id for part in parts))
    forgotten = forgotten_users(connection, (part.head.user_id for part in parts))
    allowed = [_after(part, forgotten.get(part.head.user_id)) for part in parts]
    rows = _conversation_rows(connection, [part.head for part, kept in zip(parts, allowed, strict=True) if kept])
    outcomes: list[int | Exception] = []
    for part, kept in zip(parts, allowed, strict=True):
        if not kept:
            outcomes.append(0)
            continue
        number, owner = rows[part.head.conversation_id]
        if owner == part.head.user_id:
            outcomes.append(_insert(connection, number, kept))
        else:
            outcomes.append(_not_the_owner(part.head, owner))
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


def _conversation_rows(connection: Connection, heads: Sequence[Conversation]) -> dict[str, tuple[int, str | None]]:
    """Row and owner of each conversation, created where it is new, locked until the transaction ends."""
    rows = _find(connection, (head.conversation_id for head in heads))
    missing = {head.conversation_id: head for head in reversed(heads) if head.conversation_id not in rows}
    if missing:
        begin = _BEGIN[connection.dialect.name]
        fields = {"conversation_id", "user_id", "started_at", "language", "toxic", "source"}
        # In the order of the callers, which is that in which the conversations began.
        for head in heads:
            if missing.get(head.conversation_id) is head:
                connection.execute(begin, head.model_dump(include=fields))
        rows |= _find(connection, missing)
    return rows


def _find(connection: Connection, names: Iterable[str]) -> dict[str, tuple[int, str | None]]:
    wanted = list(dict.fromkeys(names))
    found: dict[str, tuple[int, str | None]] = {}
    for start in range(0, len(wanted), _NAMES_PER_STATEMENT):
        some = wanted[start : start + _NAMES_PER_STATEMENT]
        for name, number, owner in connection.execute(_FIND, {"names": some}):
            found[name] = (number, owner)
    return found


def _insert(connection: Connection, number: int, offered: Sequence[Message]) -> int:
    """Add those messages whose id the conversation does not hold yet; returns how many that were."""
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
    return connection.execute(_INSERT[connection.dialect.name], rows).rowcount


def _not_the_owner(head: Conversation, owner: str | None) -> OwnerMismatchError:
    return OwnerMismatchError(
        f"conversation {head.conversation_id!r} belongs to {owner or 'nobody (anonymous)'}, not to "
        f"{head.user_id or 'nobody (anonymous)'}. Give each user's conversation an id of its own."
    )
