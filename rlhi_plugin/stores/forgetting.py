"""Deleting: everything of one user, or what is older than a limit."""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import Connection, delete, exists, func, or_, select

from rlhi_plugin.records import FeedbackKind, Tombstone
from rlhi_plugin.stores.appending import forgotten_users
from rlhi_plugin.stores.dialects import insert_or_replace, lock_users
from rlhi_plugin.stores.protocols import Forgotten
from rlhi_plugin.stores.schema import consent, conversations, feedback, messages, personas, tombstones


def delete_user(connection: Connection, user_id: str) -> Forgotten:
    """Delete everything of a user, and leave a tombstone. The bytes are another matter: `dialects.erase_deleted`."""
    lock_users(connection, [user_id], alone=True)
    mine = conversations.c.user_id == user_id
    # Rows are locked in the order in which writers lock them.
    locked = select(conversations.c.number).where(mine).order_by(conversations.c.conversation_id).with_for_update()
    connection.execute(locked).all()
    names = select(conversations.c.conversation_id).where(mine)
    numbers = select(conversations.c.number).where(mine)
    events = connection.execute(
        delete(feedback).where(or_(feedback.c.user_id == user_id, feedback.c.conversation_id.in_(names)))
    ).rowcount
    said = connection.execute(delete(messages).where(messages.c.conversation.in_(numbers))).rowcount
    threads = connection.execute(delete(conversations).where(mine)).rowcount
    versions = connection.execute(delete(personas).where(personas.c.user_id == user_id)).rowcount
    decisions = connection.execute(delete(consent).where(consent.c.user_id == user_id)).rowcount
    return Forgotten(
        tombstone=_leave_tombstone(connection, user_id),
        conversations=threads,
        messages=said,
        feedback=events,
        personas=versions,
        consents=decisions,
        erased=False,
    )


def delete_older(connection: Connection, before: datetime, user_id: str | None) -> int:
    """Delete messages, feedback and personas from before a time; see `ForgettingStore.purge`."""
    began = select(conversations.c.started_at).where(conversations.c.number == messages.c.conversation)
    old = [func.coalesce(messages.c.created_at, began.scalar_subquery()) < before]
    # A refusal to be learned from holds for as long as anything of its thread may come.
    events = [feedback.c.created_at < before, feedback.c.kind != FeedbackKind.DO_NOT_LEARN.value]
    current = select(func.max(personas.c.number)).group_by(personas.c.user_id)
    versions = [personas.c.created_at < before, personas.c.number.not_in(current)]
    if user_id is not None:
        mine = select(conversations.c.number).where(conversations.c.user_id == user_id)
        old.append(messages.c.conversation.in_(mine))
        events.append(feedback.c.user_id == user_id)
        versions.append(personas.c.user_id == user_id)
    gone = connection.execute(delete(messages).where(*old)).rowcount
    connection.execute(delete(feedback).where(*events))
    connection.execute(delete(personas).where(*versions))
    _delete_empty(connection)
    # Nothing is left that these could be built anew from, and they quote what is gone.
    silent = ~exists().where(conversations.c.user_id == personas.c.user_id)
    aged = [personas.c.created_at < before, silent]
    connection.execute(delete(personas).where(*aged, *([] if user_id is None else [personas.c.user_id == user_id])))
    return gone


def tombstone_list(connection: Connection) -> list[Tombstone]:
    """All of them, the earliest first."""
    query = select(tombstones).order_by(tombstones.c.forgotten_at, tombstones.c.user_id)
    return [Tombstone(user_id=row.user_id, forgotten_at=row.forgotten_at) for row in connection.execute(query)]


def _delete_empty(connection: Connection) -> None:
    """Delete conversations without messages, except those that another process is writing to at this moment."""
    empty = ~exists().where(messages.c.conversation == conversations.c.number)
    found = connection.execute(select(conversations.c.number).where(empty).with_for_update(skip_locked=True))
    for number in found.scalars().all():
        # Looked at again: a message may have come between reading and locking.
        connection.execute(delete(conversations).where(conversations.c.number == number, empty))


def _leave_tombstone(connection: Connection, user_id: str) -> Tombstone:
    before = forgotten_users(connection, [user_id]).get(user_id)
    now = datetime.now(UTC)
    # A clock that went backwards must not bring back what was forgotten already.
    row = {"user_id": user_id, "forgotten_at": now if before is None else max(now, before)}
    connection.execute(insert_or_replace(connection.dialect.name, tombstones, "user_id", row))
    return Tombstone.model_validate(row)
