"""Everything that is kept, in one SQL database, by SQLAlchemy Core.

When `SQLStore.append` returns, the turn survives a power cut: SQLite runs in WAL mode with ``synchronous=FULL``,
PostgreSQL commits synchronously. What depends on the SQL dialect is in `rlhi_plugin.stores.dialects`.
"""

from __future__ import annotations

import os
import re
import sqlite3
import threading
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self, TypeVar

from sqlalchemy import Engine, select
from sqlalchemy.exc import DBAPIError, OperationalError

from rlhi_plugin.errors import StoreError, StoreTimeoutError
from rlhi_plugin.records import (
    USER_ID_PATTERN,
    Conversation,
    Message,
)
from rlhi_plugin.stores.appending import Head, Opening, Part, append_all
from rlhi_plugin.stores.columnar import ConversationColumns, read_columns
from rlhi_plugin.stores.combining import CombiningCommit
from rlhi_plugin.stores.engine import open_engine, translated
from rlhi_plugin.stores.group_commit import GroupCommit
from rlhi_plugin.stores.protocols import Submitted
from rlhi_plugin.stores.reading import (
    read_conversations,
    read_counts,
    read_last_message_id,
)
from rlhi_plugin.stores.schema import conversations
from rlhi_plugin.stores.sql_people import SQLPeople
from rlhi_plugin.stores.sqlite_appends import SQLiteAppends

T = TypeVar("T")

_LONGEST_ID = 256
_PSEUDONYM = re.compile(USER_ID_PATTERN)
_TRIES = 5
"""How often a transaction is run that the database gives up because of another one."""


def open_store(url: str, *, create: bool = True) -> SQLStore:
    """Open the store at `url`, creating its file and tables where there are none.

    A store of an older schema is brought up to date, where that only adds to its tables; else it is left alone.

    Args:
        url: ``sqlite:///relative.db``, ``sqlite:////absolute.db`` or ``postgresql://user:password@host/database``.
        create: Whether a file or tables that do not exist are made; False where a missing one must be a mistake.

    Raises:
        ConfigError: the URL cannot name a store, its folder does not exist, or `create` is False and there is none.
        MissingExtraError: the store is on PostgreSQL, and the extra ``postgres`` is not installed.
        StoreError: the database cannot be opened, is none, has a newer schema, or needs `rlhi db upgrade`.
    """
    return SQLStore(open_engine(url, create=create))


@dataclass(frozen=True, slots=True)
class StoreCounts:
    """What a store holds.

    Attributes:
        users: Different pseudonyms.
        conversations: All of them.
        anonymous: Those of them without a user.
        messages: Of every role.
        user_turns: Messages of users.
        follow_ups: User messages after a conversation's first.
        personas: Users who have one.
        feedback: Feedback events.
    """

    users: int
    conversations: int
    anonymous: int
    messages: int
    user_turns: int
    follow_ups: int
    personas: int
    feedback: int


class SQLStore(SQLPeople):
    """All the protocols of `rlhi_plugin.stores.protocols`. Make one with `open_store`; usable from many threads."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        self._sqlite = SQLiteAppends(engine, lambda: self._write_lock) if engine.dialect.name == "sqlite" else None
        self._appends: GroupCommit[Part, int] = GroupCommit(self._append_group)
        self._combined: CombiningCommit[Part, int] = CombiningCommit(self._append_group)
        # Who writes: a thread, whose connection to a server may hang, or the callers themselves, into a file.
        self._queue: GroupCommit[Part, int] | CombiningCommit[Part, int]
        self._queue = self._appends if self._sqlite is None else self._combined
        _open.add(self)

    @property
    def url(self) -> str:
        """Where it is, without the password."""
        return self._engine.url.render_as_string(hide_password=True)

    def append(self, conversation_id: str, *, user_id: str | None, messages: Sequence[Message]) -> int:
        """See `ConversationStore.append`. Threads that append at the same time share one transaction."""
        return self.submit(conversation_id, user_id=user_id, messages=messages).result() if messages else 0

    def submit(self, conversation_id: str, *, user_id: str | None, messages: Sequence[Message]) -> Submitted:
        """See `SubmittingStore.submit`."""
        started_at = None
        for message in messages:
            if message.created_at is not None:
                started_at = message.created_at
                break
        is_named = isinstance(conversation_id, str) and 0 < len(conversation_id) <= _LONGEST_ID
        if not is_named or not (user_id is None or (isinstance(user_id, str) and _PSEUDONYM.fullmatch(user_id))):
            raise StoreError(
                f"{conversation_id!r} of {user_id!r} is not a conversation. Give an id of 1 to 256 characters, and a "
                "pseudonym."
            )
        head = Head(conversation_id, user_id, started_at)
        return self._queue.submit(Part(head, messages, isinstance(messages, Opening)))

    def submit_new(self, conversation_id: str, *, user_id: str | None, messages: Sequence[Message]) -> Submitted:
        """See `BeginningStore.submit_new`; by way of `submit`, which a class of your own may have."""
        return self.submit(conversation_id, user_id=user_id, messages=Opening(messages))

    def add(self, conversation: Conversation) -> int:
        """Append the messages of a conversation and, where it is new, keep its language, source and so on.

        Returns:
            How many of the messages were new.

        Raises:
            OwnerMismatchError: a conversation of this name belongs to somebody else.
            StoreError: the store cannot be written.
        """
        return self._queue.submit(Part(conversation, conversation.messages)).result()

    def conversations(self, *, user_id: str | None = None) -> Iterator[Conversation]:
        """See `ConversationStore.conversations`. Reads one consistent snapshot, a few rows at a time."""
        with self._reading("read conversations") as connection:
            yield from read_conversations(connection, user_id)

    def columns(self, *, user_id: str | None = None) -> Iterator[ConversationColumns]:
        """The same conversations as `conversations`, some thousand messages at a time, as columns.

        For exports of whole stores: no record is built and none is checked.

        Raises:
            StoreError: the store cannot be read.
        """
        with self._reading("read conversations") as connection:
            yield from read_columns(connection, user_id)

    def last_message_id(self, conversation_id: str) -> str | None:
        """Id of the message that was added last to a conversation; None where there is none.

        Raises:
            StoreError: the store cannot be read.
        """
        return self.last_message_id_within(conversation_id, None)

    def last_message_id_within(self, conversation_id: str, limit_s: float | None) -> str | None:
        """The same; within so many seconds where `reads_in_time`.

        Raises:
            StoreError: the store cannot be read, or not in time.
        """
        with translated("read a conversation's end"):
            if self._reads is not None:
                return self._reads.last_message_id(conversation_id, limit_s)
            return read_last_message_id(self._engine, conversation_id)

    @property
    def reads_in_time(self) -> bool:
        """Whether what ends in ``_within`` keeps to its limit by itself: a file does, a server may hang."""
        return self._reads is not None

    def user_ids(self) -> list[str]:
        """Pseudonyms of all users with a conversation, sorted."""
        query = select(conversations.c.user_id).where(conversations.c.user_id.is_not(None)).distinct()
        with self._reading("read users") as connection:
            return sorted(str(user) for user in connection.execute(query).scalars())

    def counts(self) -> StoreCounts:
        """Count what is stored.

        Raises:
            StoreError: the store cannot be read.
        """
        with self._reading("count") as connection:
            return StoreCounts(**read_counts(connection))

    def close(self) -> None:
        """Close all connections. May be called twice."""
        with self._write_lock:
            if self._sqlite is not None:
                self._sqlite.close()
            if self._reads is not None:
                self._reads.close()
            self._engine.dispose()

    def after_fork(self) -> None:
        """In a child process: connections are the parent's, and are neither used nor closed here."""
        self._write_lock = threading.Lock()
        self._engine.dispose(close=False)
        if self._sqlite is not None:
            self._sqlite.after_fork()
        if self._reads is not None:
            self._reads.after_fork()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _append_group(self, parts: Sequence[Part], limit_s: float | None = None) -> Sequence[int | Exception]:
        """Write a group; where the database refuses a value in it, each part alone, so that only the bad one fails."""
        try:
            return self._append_together(parts, limit_s)
        except StoreError as error:
            if len(parts) == 1 or not _is_about_a_value(error.__cause__):
                raise
        return [self._append_alone(part, limit_s) for part in parts]

    def _append_alone(self, part: Part, limit_s: float | None) -> int | Exception:
        try:
            return self._append_together([part], limit_s)[0]
        except StoreError as error:
            return error

    def _append_together(self, parts: Sequence[Part], limit_s: float | None) -> list[int | Exception]:
        if self._sqlite is None:
            return self._write(_naming(parts), lambda connection: append_all(connection, parts))
        if not self._write_lock.acquire(timeout=-1 if limit_s is None else limit_s):
            raise StoreTimeoutError(f"the store is being written for more than {limit_s:g} s. See what by.")
        try:
            return self._sqlite.append(parts, limit_s)
        except BaseException:
            with translated(_naming(parts)):
                raise
        finally:
            self._write_lock.release()


def _is_about_a_value(cause: BaseException | None) -> bool:
    """Whether the database cannot take what it was given, in contrast to being unable to take anything."""
    if isinstance(cause, DBAPIError | sqlite3.Error):
        return not isinstance(cause, OperationalError | sqlite3.OperationalError)
    return isinstance(cause, UnicodeEncodeError | OverflowError)


def _naming(parts: Sequence[Part]) -> str:
    first = f"write conversation {parts[0].head.conversation_id!r}"
    return first if len(parts) == 1 else f"{first} and {len(parts) - 1} more"


_open: weakref.WeakSet[SQLStore] = weakref.WeakSet()


def _in_child() -> None:
    for store in list(_open):
        store.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
