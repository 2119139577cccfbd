"""What an app reports of its users' clicks and edits, checked, as the event that is stored."""

from __future__ import annotations

import hashlib
import uuid
from datetime import UTC, datetime

from rlhi_plugin.call_context import app_id, stored_thread_id
from rlhi_plugin.errors import ConfigError
from rlhi_plugin.identity import pseudonym
from rlhi_plugin.message_text import MAX_ID, clean
from rlhi_plugin.records import FeedbackEvent, FeedbackKind


def feedback_event(
    kind: FeedbackKind | str,
    *,
    thread_id: object,
    user_id: object = None,
    message_id: object = None,
    value: str | None = None,
    event_id: object = None,
) -> FeedbackEvent:
    """The event of `RLHIMiddleware.record_feedback`, with the user's pseudonym, at this moment.

    Raises:
        ConfigError: no such kind, or an argument that cannot be what its name says.
    """
    if kind not in list(FeedbackKind):
        raise ConfigError(f"{kind!r} is no kind of feedback. Choose one of: {', '.join(FeedbackKind)}.")
    if value is not None and not isinstance(value, str):
        raise ConfigError(
            f"value={type(value).__name__}(...) is no text. Pass the edited text, or a comment, as a str."
        )
    thread, message = app_id(thread_id, "thread_id"), app_id(message_id, "message_id")
    if thread is None:
        raise ConfigError("feedback without a thread belongs to nothing. Pass thread_id=, as in the agent's config.")
    if message is not None and len(message) > MAX_ID:
        raise ConfigError(f"message_id has {len(message)} characters. Pass the id of the answer, {MAX_ID} at most.")
    user = app_id(user_id, "user_id")
    return FeedbackEvent(
        event_id=_event_id(app_id(event_id, "event_id")),
        conversation_id=stored_thread_id(thread),
        message_id=None if message is None else clean(message),
        user_id=None if user is None else pseudonym(user),
        kind=FeedbackKind(kind),
        value=None if value is None else clean(value),
        created_at=datetime.now(UTC),
    )


def _event_id(given: str | None) -> str:
    if not given:
        return uuid.uuid4().hex
    cleaned = clean(given)
    return cleaned if len(cleaned) <= MAX_ID else f"event-{hashlib.sha256(cleaned.encode()).hexdigest()}"
