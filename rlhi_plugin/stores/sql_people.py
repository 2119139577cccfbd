"""What an SQL database keeps of users beside conversations: personas, feedback, decisions, and who is forgotten."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from pydantic import ValidationError
from sqlalchemy import Connection

from rlhi_plugin.errors import ConfigError, StoreError
from rlhi_plugin.records import ConsentDecision, FeedbackEvent, Persona, Purpose, Tombstone
from rlhi_plugin.stores.appending import forgotten_users
from rlhi_plugin.stores.dialects import erase_deleted, insert_if_absent, lock_users, truncate_log
from rlhi_plugin.stores.engine import translated
from rlhi_plugin.stores.forgetting import delete_older, delete_user, tombstone_list
from rlhi_plugin.stores.protocols import Forgotten
from rlhi_plugin.stores.reading import read_consents, read_feedback
from rlhi_plugin.stores.schema import consent, feedback, personas
from rlhi_plugin.stores.sql_access import SQLAccess
from rlhi_plugin.stores.sqlite_reads import NEWEST_PERSONA


class SQLPeople(SQLAccess):
    """`PersonaStore`, `FeedbackStore`, `ConsentStore` and `ForgettingStore` of any SQL database."""

    def get_persona(self, user_id: str) -> Persona | None:
        """See `PersonaStore.get_persona`."""
        with self._reading("read a persona") as connection:
            return _persona(user_id, _newest_persona(connection, user_id))

    def get_persona_within(self, user_id: str, limit_s: float) -> Persona | None:
        """The same; within so many seconds where `reads_in_time`."""
        if self._reads is None:
            return self.get_persona(user_id)
        with translated("read a persona"):
            return _persona(user_id, self._reads.persona(user_id, limit_s))

    def put_persona(self, persona: Persona) -> None:
        """See `PersonaStore.put_persona`. Earlier versions are kept; putting the current one again adds none.

        A persona that covers nothing after its user was forgotten is dropped: it was built before, from what is gone.
        """
        row = {"user_id": persona.user_id, "digest": persona.digest, "body": persona.to_json()}

        def put(connection: Connection) -> None:
            lock_users(connection, [persona.user_id], alone=True)
            forgotten_at = forgotten_users(connection, [persona.user_id]).get(persona.user_id)
            covered = persona.covers_until
            if forgotten_at is not None and (covered is None or covered <= forgotten_at):
                return
            if _newest_persona(connection, persona.user_id) != row["body"]:
                connection.execute(personas.insert().values(created_at=datetime.now(UTC), **row))

        self._write("write a persona", put)

    def record_feedback(self, event: FeedbackEvent) -> bool:
        """See `FeedbackStore.record_feedback`."""
        row = event.model_dump()

        def record(connection: Connection) -> bool:
            lock_users(connection, [event.user_id])
            forgotten_at = forgotten_users(connection, [event.user_id]).get(event.user_id)
            if forgotten_at is not None and (event.created_at is None or event.created_at <= forgotten_at):
                return False
            statement = insert_if_absent(connection.dialect.name, feedback, ("conversation_id", "event_id"))
            return connection.execute(statement, row).rowcount > 0

        return self._write("write feedback", record)

    def feedback(self, *, user_id: str | None = None) -> Iterator[FeedbackEvent]:
        """See `FeedbackStore.feedback`. Reads one consistent snapshot, a few rows at a time."""
        with self._reading("read feedback") as connection:
            yield from read_feedback(connection, user_id)

    def put_consent(self, decision: ConsentDecision) -> None:
        """See `ConsentStore.put_consent`."""

        def put(connection: Connection) -> None:
            lock_users(connection, [decision.user_id])
            connection.execute(consent.insert().values(decision.model_dump()))

        self._write("write a consent decision", put)

    def consents(self, user_id: str) -> dict[Purpose, ConsentDecision]:
        """See `ConsentStore.consents`."""
        return self.consents_of([user_id]).get(user_id, {})

    def consents_of(self, user_ids: Sequence[str]) -> dict[str, dict[Purpose, ConsentDecision]]:
        """The same of several users at once; who decided nothing is absent. A class that changes one changes both."""
        with self._reading("read consent") as connection:
            return read_consents(connection, user_ids)

    def consents_within(self, user_id: str, limit_s: float) -> dict[Purpose, ConsentDecision]:
        """The same of one user; within so many seconds where `reads_in_time`."""
        if self._reads is None:
            return self.consents(user_id)
        with translated("read consent"):
            return self._reads.consents(user_id, limit_s)

    def forget(self, user_id: str) -> Forgotten:
        """See `ForgettingStore.forget`. SQLite's file is written anew, which takes as long as copying it."""
        if not user_id:
            raise ConfigError("no user to forget. Give a pseudonym.")
        found = self._write("forget a user", lambda connection: delete_user(connection, user_id))
        with self._write_lock, translated("erase what was deleted"):
            return replace(found, erased=erase_deleted(self._engine))

    def tombstones(self) -> list[Tombstone]:
        """See `ForgettingStore.tombstones`."""
        with self._reading("read tombstones") as connection:
            return tombstone_list(connection)

    def forgotten_at(self, user_id: str) -> datetime | None:
        """When a user was forgotten last, without all the other tombstones; None where they never were.

        Raises:
            StoreError: the store cannot be read.
        """
        with self._reading("read tombstones") as connection:
            return forgotten_users(connection, [user_id]).get(user_id)

    def forgotten_at_within(self, user_id: str, limit_s: float) -> datetime | None:
        """The same; within so many seconds where `reads_in_time`."""
        if self._reads is None:
            return self.forgotten_at(user_id)
        with translated("read tombstones"):
            return self._reads.forgotten_at(user_id, limit_s)

    def purge(self, *, before: datetime, user_id: str | None = None) -> int:
        """See `ForgettingStore.purge`."""
        if before.tzinfo is None:
            raise ConfigError(f"{before} has no time zone. Give an aware time, such as datetime.now(UTC).")
        gone = self._write("delete what is old", lambda connection: delete_older(connection, before, user_id))
        with self._write_lock, translated("erase what was deleted"):
            truncate_log(self._engine)
        return gone


def _newest_persona(connection: Connection, user_id: str) -> str | None:
    return connection.execute(NEWEST_PERSONA, {"user": user_id}).scalar_one_or_none()


def _persona(user_id: str, body: str | None) -> Persona | None:
    try:
        return None if body is None else Persona.model_validate_json(body)
    except ValidationError as error:
        raise StoreError(f"the persona of {user_id} is damaged: {error}. Build it again: rlhi persona build") from error
