"""Every `FeedbackStore`."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta, timezone

from rlhi_plugin.records import FeedbackEvent, FeedbackKind
from rlhi_plugin.stores.conformance.expecting import expect
from rlhi_plugin.stores.protocols import FeedbackStore

OpenFeedback = Callable[[], FeedbackStore]

_WHEN = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=timezone(timedelta(hours=-5)))


def keeps_events_as_they_are(open_store: OpenFeedback) -> None:
    """Every kind and field comes back equal, in the order in which it was recorded, also after reopening."""
    store = open_store()
    events = [
        FeedbackEvent(
            event_id=f"e{number}",
            conversation_id="c",
            message_id=None if number % 2 else "m",
            user_id="u_1" if number % 3 else None,
            kind=kind,
            value=("", None, "two\nlines", "\u4f60\x00\x1a")[number % 4],
            created_at=_WHEN - timedelta(days=number),
        )
        for number, kind in enumerate(FeedbackKind)
    ]
    expect(all(store.record_feedback(event) for event in events), "a new event was not taken as new")
    expect(list(open_store().feedback()) == events, "events came back changed, or in another order")


def keeps_each_event_once(open_store: OpenFeedback) -> None:
    """The same id again changes nothing; in another conversation it is another event."""
    store = open_store()
    up = FeedbackEvent(event_id="e", conversation_id="c", kind=FeedbackKind.THUMBS_UP, created_at=_WHEN)
    down = up.model_copy(update={"kind": FeedbackKind.THUMBS_DOWN})
    elsewhere = up.model_copy(update={"conversation_id": "d"})
    counted = [store.record_feedback(event) for event in (up, up, down, elsewhere)]
    expect(counted == [True, False, False, True], f"what counts as new is wrong: {counted}")
    expect(list(store.feedback()) == [up, elsewhere], "an event was doubled, overwritten or lost")


def selects_feedback_by_user(open_store: OpenFeedback) -> None:
    """`user_id` selects that user's events; without it everybody's come, anonymous ones too."""
    store = open_store()
    for name, user in (("a", "u_1"), ("b", None), ("c", "u_2"), ("d", "u_1")):
        event = FeedbackEvent(
            event_id=name, conversation_id="c", user_id=user, kind=FeedbackKind.COPY, created_at=_WHEN
        )
        store.record_feedback(event)
    for wanted, names in (("u_1", ["a", "d"]), ("u_3", []), (None, ["a", "b", "c", "d"])):
        found = [event.event_id for event in store.feedback(user_id=wanted)]
        expect(found == names, f"for user {wanted}: expected {names}, got {found}")


FEEDBACK_CHECKS: tuple[Callable[[OpenFeedback], None], ...] = (
    keeps_events_as_they_are,
    keeps_each_event_once,
    selects_feedback_by_user,
)
"""Run each of them on a storage of its own."""
