"""Reading conversations and feedback back as records."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from itertools import groupby
from typing import Any

from pydantic import ValidationError
from sqlalchemy import Connection, Engine, Row, bindparam, func, select

from rlhi_plugin.errors import StoreError
from rlhi_plugin.records import ConsentDecision, Conversation, FeedbackEvent, Message, Purpose
from rlhi_plugin.stores.schema import consent, conversations, feedback, messages, personas
from rlhi_plugin.stores.sqlite_reads import LAST_MESSAGE

_ROWS_AT_ONCE = 1000
_USERS_PER_STATEMENT = 500
"""A database binds a limited number of variables to one statement."""
# Built once, which takes as long as running it.
_DECISIONS = (
    select(consent.c.user_id, consent.c.purpose, consent.c.granted, consent.c.decided_at)
    .where(consent.c.user_id.in_(bindparam("users", expanding=True)))
    .order_by(consent.c.decided_at, consent.c.number)
)


def read_conversations(connection: Connection, user_id: str | None) -> Iterator[Conversation]:
    """Conversations in the order in which they began, in one consistent snapshot, a few rows at a time."""
    joined = select(conversations, messages).join(messages)
    if user_id is not None:
        joined = joined.where(conversations.c.user_id == user_id)
    query = joined.order_by(conversations.c.number, messages.c.sequence)
    # Closed also when nobody reads to the end.
    with closing(connection.execution_options(yield_per=_ROWS_AT_ONCE).execute(query)) as rows:
        for _, group in groupby(rows, key=lambda row: row.number):
            yield _conversation(list(group))


def read_feedback(connection: Connection, user_id: str | None) -> Iterator[FeedbackEvent]:
    """Feedback in the order in which it was recorded, in one consistent snapshot, a few rows at a time."""
    query = select(feedback).order_by(feedback.c.number)
    if user_id is not None:
        query = query.where(feedback.c.user_id == user_id)
    with closing(connection.execution_options(yield_per=_ROWS_AT_ONCE).execute(query)) as rows:
        for row in rows:
            yield _event(row)


def read_consents(connection: Connection, user_ids: Sequence[str]) -> dict[str, dict[Purpose, ConsentDecision]]:
    """The decision of each user that counts for each purpose; users and purposes without one are absent."""
    found: dict[str, dict[Purpose, ConsentDecision]] = {}
    for start in range(0, len(user_ids), _USERS_PER_STATEMENT):
        users = list(user_ids[start : start + _USERS_PER_STATEMENT])
        for row in connection.execute(_DECISIONS, {"users": users}).mappings():
            decision = ConsentDecision.model_validate(dict(row))
            found.setdefault(decision.user_id, {})[decision.purpose] = decision
    return found


def read_last_message_id(engine: Engine, conversation_id: str) -> str | None:
    """Id of the message that was added last to a conversation; None where there is none. SQLite has `SQLiteReads`."""
    with engine.connect() as connection:
        found = connection.execute(LAST_MESSAGE, {"name": conversation_id}).scalar_one_or_none()
    return None if found is None else str(found)


def read_counts(connection: Connection) -> dict[str, int]:
    """How much of what there is, by the names of `StoreCounts`."""
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
        "feedback": select(func.count()).select_from(feedback),
    }
    # PostgreSQL sums into a decimal.
    return {name: int(connection.execute(query).scalar_one()) for name, query in queries.items()}


def _conversation(rows: Sequence[Row[Any]]) -> Conversation:
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
                    finish=row.finish,
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


def _event(row: Row[Any]) -> FeedbackEvent:
    try:
        return FeedbackEvent(
            event_id=row.event_id,
            conversation_id=row.conversation_id,
            message_id=row.message_id,
            user_id=row.user_id,
            kind=row.kind,
            value=row.value,
            created_at=row.created_at,
        )
    except ValidationError as error:
        raise StoreError(
            f"feedback {row.event_id!r} in the store is damaged: {error}. Correct or delete its row."
        ) from error
