"""Conversations and personas in one SQL database, by SQLAlchemy Core.

SQLite in WAL mode with ``synchronous=FULL``: when `SQLStore.append` returns, the turn survives a power cut. What
depends on the SQL dialect is `_insert_if_absent` here, and `rlhi_plugin.stores.engine`.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby
from types import TracebackType
from typing import Any, Self

from pydantic import ValidationError
from sqlalchemy import Connection, Engine, Row, func, select
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

from rlhi_plugin.errors import OwnerMismatchError, StoreError
from rlhi_plugin.records import Conversation, Message, Persona
from rlhi_plugin.stores.engine import open_engine, translated, writing
from rlhi_plugin.stores.schema import conversations, messages, personas

_ROWS_PER_STATEMENT = 500
"""SQLite binds at most 32,766 variables to one statement."""


def open_store(url: str, *, create: bool = True) -> SQLStore:
    """Open the store at `url`, creating its file and tables where there are none.

    Args:
        url: ``sqlite:///relative.db`` or ``sqlite:////absolute.db``.
        create: Whether a file that does not exist is made; False where a missing one must be a mistake.

    Raises:
        ConfigError: the URL cannot name a store, its folder does not exist, or `create` is False and there is no file.
        StoreError: the file cannot be opened, is no database, or has a newer schema.
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
    """

    users: int
    conversations: int
    anonymous: int
    messages: int
    user_turns: int
    follow_ups: int
    personas: int


class SQLStore:
    """A `ConversationStore` and `PersonaStore`. Make one with `open_store`; usable from many threads."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._writer = writing(engine)
        # SQLite has one writer; threads queue here fairly instead of polling the file's lock.
        self._write_lock = threading.Lock()

    @property
    def url(self) -> str:
        """Where it is, without the password."""
        return self._engine.url.render_as_string(hide_password=True)

    def append(self, conversation_id: str, *, user_id: str | None, messages: Sequence[Message]) -> int:
        """See `ConversationStore.append`."""
        if not messages:
            return 0
        started_at = next((m.created_at for m in messages if m.created_at is not None), None)
        try:
            head = Conversation(conversation_id=conversation_id, user_id=user_id, messages=(), started_at=started_at)
        except ValidationError as error:
            raise StoreError(
                f"not a conversation: {error}. Give an id of 1 to 256 characters, and a pseudonym."
            ) from error
        return self._add(head, messages)

    def add(self, conversation: Conversation) -> int:
        """Append the messages of a conversation and, where it is new, keep its language, source and so on.

        Returns:
            How many of the messages were new.

        Raises:
            OwnerMismatchError: a conversation of this name belongs to somebody else.
            StoreError: the store cannot be written.
        """
        return self._add(conversation, conversation.messages)

    def _add(self, head: Conversation, offered: Sequence[Message]) -> int:
        with self._writing(f"write conversation {head.conversation_id!r}") as connection:
            number = _conversation_number(connection, head)
            fresh = _unknown(connection, number, offered)
            first = connection.execute(
                select(func.coalesce(func.max(messages.c.sequence) + 1, 0)).where(messages.c.conversation == number)
            ).scalar_one()
            rows = [
                {"conversation": number, "sequence": first + i, "message_id": m.id, **m.model_dump(exclude={"id"})}
                for i, m in enumerate(fresh)
            ]
            if rows:
                connection.execute(messages.insert(), rows)
            return len(rows)

    def conversations(self, *, user_id: str | None = None) -> Iterator[Conversation]:
        """See `ConversationStore.conversations`. Reads one consistent snapshot, a few rows at a time."""
        joined = select(conversations, messages).join(messages)
        if user_id is not None:
            joined = joined.where(conversations.c.user_id == user_id)
        query = joined.order_by(conversations.c.number, messages.c.sequence)
        with translated("read conversations"), self._engine.connect() as connection:
            rows = connection.execution_options(yield_per=1000).execute(query)
            for _, group in groupby(rows, key=lambda row: row.number):
                yield _read_conversation(list(group))

    def last_message_id(self, conversation_id: str) -> str | None:
        """Id of the message that was added last to a conversation; None where there is none.

        Raises:
            StoreError: the store cannot be read.
        """
        query = (
            select(messages.c.message_id)
            .join(conversations)
            .where(conversations.c.conversation_id == conversation_id)
            .order_by(messages.c.sequence.desc())
            .limit(1)
        )
        with translated("read a conversation's end"), self._engine.connect() as connection:
            found = connection.execute(query).scalar_one_or_none()
        return None if found is None else str(found)

    def user_ids(self) -> list[str]:
        """Pseudonyms of all users with a conversation, sorted."""
        query = select(conversations.c.user_id).where(conversations.c.user_id.is_not(None)).distinct()
        with translated("read users"), self._engine.connect() as connection:
            return sorted(str(user) for user in connection.execute(query).scalars())

    def get_persona(self, user_id: str) -> Persona | None:
        """See `PersonaStore.get_persona`."""
        query = select(personas.c.body).where(personas.c.user_id == user_id).order_by(personas.c.number.desc()).limit(1)
        with translated("read a persona"), self._engine.connect() as connection:
            body = connection.execute(query).scalar_one_or_none()
        if body is None:
            return None
        try:
            return Persona.model_validate_json(body)
        except ValidationError as error:
            raise StoreError(
                f"the persona of {user_id} is damaged: {error}. Build it again: rlhi persona build"
            ) from error

    def put_persona(self, persona: Persona) -> None:
        """See `PersonaStore.put_persona`. Earlier versions are kept; putting the current one again adds none."""
        body = persona.to_json()
        newest = (
            select(personas.c.body)
            .where(personas.c.user_id == persona.user_id)
            .order_by(personas.c.number.desc())
            .limit(1)
        )
        with self._writing("write a persona") as connection:
            if connection.execute(newest).scalar_one_or_none() == body:
                return
            connection.execute(
                personas.insert().values(
                    user_id=persona.user_id, digest=persona.digest, created_at=datetime.now(UTC), body=body
                )
            )

    def counts(self) -> StoreCounts:
        """Count what is stored.

        Raises:
            StoreError: the store cannot be read.
        """
        turns = (
            select(func.count().label("n"))
            .select_from(messages)
            .where(messages.c.role == "user")
            .group_by(messages.c.conversation)
            .subquery()
        )
        queries: dict[str, Any] = {
            "users": select(func.count(conversations.c.user_id.distinct())),
            "conversations": select(func.count()).select_from(conversations),
            "anonymous": select(func.count()).select_from(conversations).where(conversations.c.user_id.is_(None)),
            "messages": select(func.count()).select_from(messages),
            "user_turns": select(func.coalesce(func.sum(turns.c.n), 0)),
            "follow_ups": select(func.coalesce(func.sum(turns.c.n - 1), 0)),
            "personas": select(func.count(personas.c.user_id.distinct())),
        }
        with translated("count"), self._engine.connect() as connection:
            return StoreCounts(**{name: connection.execute(query).scalar_one() for name, query in queries.items()})

    def close(self) -> None:
        """Close all connections. May be called twice."""
        self._engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @contextmanager
    def _writing(self, doing: str) -> Iterator[Connection]:
        with self._write_lock, translated(doing), self._writer.begin() as connection:
            yield connection


def _insert_if_absent(connection: Connection, values: dict[str, Any]) -> None:
    """Create the conversation row unless it exists. The one statement that each dialect spells its own way."""
    statement = sqlite_insert(conversations).values(values)
    connection.execute(statement.on_conflict_do_nothing(index_elements=["conversation_id"]))


def _conversation_number(connection: Connection, conversation: Conversation) -> int:
    """The row of the conversation, created where it is new, locked until the transaction ends."""
    values = conversation.model_dump(
        include={"conversation_id", "user_id", "started_at", "language", "toxic", "source"}
    )
    _insert_if_absent(connection, values)
    row = connection.execute(
        select(conversations.c.number, conversations.c.user_id)
        .where(conversations.c.conversation_id == conversation.conversation_id)
        .with_for_update()
    ).one()
    if row.user_id != conversation.user_id:
        raise OwnerMismatchError(
            f"conversation {conversation.conversation_id!r} belongs to {row.user_id or 'nobody (anonymous)'}, not to "
            f"{conversation.user_id or 'nobody (anonymous)'}. Give each user's conversation an id of its own."
        )
    return int(row.number)


def _unknown(connection: Connection, number: int, offered: Sequence[Message]) -> list[Message]:
    """The messages that the conversation does not hold yet, each id once, in order."""
    by_id: dict[str, Message] = {}
    for message in offered:
        by_id.setdefault(message.id, message)
    ids = list(by_id)
    for start in range(0, len(ids), _ROWS_PER_STATEMENT):
        some = ids[start : start + _ROWS_PER_STATEMENT]
        known = connection.execute(
            select(messages.c.message_id).where(messages.c.conversation == number, messages.c.message_id.in_(some))
        )
        for message_id in known.scalars():
            del by_id[message_id]
    return list(by_id.values())


def _read_conversation(rows: Sequence[Row[Any]]) -> Conversation:
    head = rows[0]
    try:
        return Conversation(
            conversation_id=head.conversation_id,
            user_id=head.user_id,
            messages=tuple(
                Message(
                    id=row.message_id,
                    role=row.role,
                    content=row.content,
                    created_at=row.created_at,
                    model=row.model,
                    adapter=row.adapter,
                    persona_digest=row.persona_digest,
                    parent_id=row.parent_id,
                    latency_s=row.latency_s,
                    input_tokens=row.input_tokens,
                    output_tokens=row.output_tokens,
                )
                for row in rows
            ),
            started_at=head.started_at,
            language=head.language,
            toxic=head.toxic,
            source=head.source,
        )
    except ValidationError as error:
        raise StoreError(
            f"conversation {head.conversation_id!r} in the store is damaged: {error}. Correct or delete its rows."
        ) from error
