"""Every `ForgettingStore` that also keeps conversations, personas, feedback and consent."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Protocol

from rlhi_plugin.records import (
    ConsentDecision,
    Evidence,
    FeedbackEvent,
    FeedbackKind,
    Message,
    Persona,
    PersonaStatement,
    Purpose,
)
from rlhi_plugin.stores.conformance.expecting import expect
from rlhi_plugin.stores.protocols import (
    ConsentStore,
    ConversationStore,
    FeedbackStore,
    ForgettingStore,
    PersonaStore,
)


class WholeStore(ConversationStore, PersonaStore, FeedbackStore, ConsentStore, ForgettingStore, Protocol):
    """Keeps everything, and can delete it."""


OpenWhole = Callable[[], WholeStore]

_DAY = timedelta(days=1)


def _said(name: str, when: datetime | None) -> Message:
    return Message(id=name, role="user", content=f"text of {name}", created_at=when)


def _event(conversation: str, user: str | None, when: datetime) -> FeedbackEvent:
    return FeedbackEvent(
        event_id=f"{conversation}-{user}",
        conversation_id=conversation,
        user_id=user,
        kind=FeedbackKind.THUMBS_DOWN,
        created_at=when,
    )


def _persona(user: str, until: datetime | None, text: str = "Shorter.") -> Persona:
    evidence = (Evidence(conversation_id="c", message_id="m", quote=text),)
    statement = PersonaStatement(text=text, evidence=evidence)
    return Persona(user_id=user, statements=(statement,), covers_until=until, builder="conformance")


def _fill(store: WholeStore, user: str | None, when: datetime) -> None:
    for thread in ("x", "y"):
        store.append(f"{user}-{thread}", user_id=user, messages=[_said("m1", when), _said("m2", when)])
    store.record_feedback(_event(f"{user}-x", user, when))
    if user is not None:
        for text in ("Shorter.", "Longer."):
            store.put_persona(_persona(user, when, text))
        store.put_consent(ConsentDecision(user_id=user, purpose=Purpose.TRAIN, granted=True, decided_at=when))


def _threads(store: WholeStore) -> dict[str, list[str]]:
    return {c.conversation_id: [m.id for m in c.messages] for c in store.conversations()}


def forgets_all_of_one_user(open_store: OpenWhole) -> None:
    """Everything of the user is deleted and counted, events of others about their threads too; nobody else's is."""
    store, when = open_store(), datetime.now(UTC) - _DAY
    for user in ("u_1", "u_2", None):
        _fill(store, user, when)
    store.record_feedback(_event("u_1-y", None, when))
    gone = store.forget("u_1")
    counts = (gone.conversations, gone.messages, gone.feedback, gone.personas, gone.consents)
    expect(counts == (2, 4, 2, 2, 1), f"the counts of what was deleted are wrong: {counts}")
    again = open_store()
    expect(
        set(_threads(again)) == {"u_2-x", "u_2-y", "None-x", "None-y"}, "conversations are left, or others' are gone"
    )
    expect([e.conversation_id for e in again.feedback()] == ["u_2-x", "None-x"], "feedback is left, or others' is gone")
    expect(again.get_persona("u_1") is None and again.get_persona("u_2") is not None, "the persona is left")
    expect(not again.consents("u_1") and bool(again.consents("u_2")), "consent is left, or others' is gone")
    empty = store.forget("u_1")
    expect(empty.conversations + empty.messages + empty.feedback == 0, "forgetting twice deletes twice")


def leaves_a_tombstone(open_store: OpenWhole) -> None:
    """Whom and when; once for each user, with the latest time; also for users of whom nothing was stored."""
    store, before = open_store(), datetime.now(UTC)
    expect(store.tombstones() == [], "a new store has tombstones")
    first = store.forget("u_1").tombstone
    expect(before <= first.forgotten_at <= datetime.now(UTC), "the time of a tombstone is not that of forgetting")
    other = store.forget("u_2").tombstone
    expect(open_store().tombstones() == [first, other], "tombstones do not come back equal")
    later = store.forget("u_1").tombstone
    expect(later.forgotten_at > first.forgotten_at, "forgetting again does not move the time")
    expect(store.tombstones() == [other, later], "a user has two tombstones, or the earlier one")


def what_is_forgotten_never_comes_back(open_store: OpenWhole) -> None:
    """Turns, feedback and personas from before are passed over; what the user says afterwards is kept."""
    store = open_store()
    _fill(store, "u_1", datetime.now(UTC) - _DAY)
    at = store.forget("u_1").tombstone.forgotten_at
    old, late = [_said("m1", at - _DAY), _said("m2", at)], _said("m3", at + _DAY)
    expect(store.append("u_1-x", user_id="u_1", messages=old) == 0, "old turns counted as new")
    expect(store.append("u_1-x", user_id="u_1", messages=[_said("m0", None)]) == 0, "a turn of unknown time came back")
    expect(not store.record_feedback(_event("u_1-x", "u_1", at)), "old feedback counted as new")
    store.put_persona(_persona("u_1", at))
    store.put_persona(_persona("u_1", None))
    expect(not _threads(store) and not list(store.feedback()), "what was forgotten came back")
    expect(store.get_persona("u_1") is None, "a persona of what was forgotten came back")
    expect(store.append("u_1-x", user_id="u_1", messages=[*old, late]) == 1, "what was said afterwards is refused")
    expect(_threads(store) == {"u_1-x": ["m3"]}, "what was said afterwards is lost, or brought back the rest")
    expect(store.record_feedback(_event("u_1-x", "u_1", at + _DAY)), "feedback given afterwards is refused")
    new = _persona("u_1", at + _DAY)
    store.put_persona(new)
    expect(store.get_persona("u_1") == new, "a persona of what was said afterwards is refused")
    expect(
        store.append("other", user_id="u_2", messages=[_said("m1", at - _DAY)]) == 1, "another user's turn is refused"
    )
    expect(store.append("none", user_id=None, messages=[_said("m1", at - _DAY)]) == 1, "an anonymous turn is refused")


def purges_what_is_old(open_store: OpenWhole) -> None:
    """Messages from before the limit go, and conversations without any left; what is of the limit's moment stays."""
    store, limit = open_store(), datetime(2026, 3, 1, tzinfo=UTC)
    old = limit - timedelta(microseconds=1)
    store.append("mixed", user_id="u_1", messages=[_said("m1", old), _said("m2", limit), _said("m3", None)])
    store.append("old", user_id="u_1", messages=[_said("m1", old)])
    store.append("timeless", user_id="u_2", messages=[_said("m1", None)])
    store.append("nobody", user_id=None, messages=[_said("m1", old)])
    for name, when in (("mixed", old), ("old", limit)):
        store.record_feedback(_event(name, "u_1", when))
    # A message without a time is as old as the beginning of its conversation.
    counts = [store.purge(before=limit, user_id="u_1"), store.purge(before=limit, user_id="u_1")]
    expect(counts == [3, 0], f"the counts of purged messages are wrong: {counts}")
    kept = {"mixed": ["m2"], "timeless": ["m1"], "nobody": ["m1"]}
    expect(_threads(store) == kept, f"expected {kept}, got {_threads(store)}")
    expect([e.conversation_id for e in store.feedback()] == ["old"], "feedback from before is left, or later is gone")
    expect(store.purge(before=limit) == 1, "without a user, everybody's old messages should go")
    expect(set(_threads(store)) == {"mixed", "timeless"}, "an anonymous conversation is left")
    expect(store.purge(before=limit) == 0, "purging twice deletes twice")
    expect(store.append("mixed", user_id="u_1", messages=[_said("m4", limit)]) == 1, "a purged thread takes no more")
    expect(_threads(store)["mixed"] == ["m2", "m4"], "the order is lost over purging")


def purging_leaves_refusals(open_store: OpenWhole) -> None:
    """That nothing may be learned from a thread does not end with age, and goes when its user is forgotten."""
    store, limit = open_store(), datetime(2026, 3, 1, tzinfo=UTC)
    old = _event("mine", "u_1", limit - _DAY).model_copy(update={"kind": FeedbackKind.DO_NOT_LEARN})
    anonymous = old.model_copy(update={"conversation_id": "nobody's", "user_id": None})
    for event in (old, anonymous):
        store.record_feedback(event)
    store.purge(before=limit)
    expect(list(open_store().feedback()) == [old, anonymous], "a refusal to be learned from went with age")
    store.forget("u_1")
    expect(list(store.feedback()) == [anonymous], "a forgotten user's refusal is left, or somebody else's gone")


FORGETTING_CHECKS: tuple[Callable[[OpenWhole], None], ...] = (
    forgets_all_of_one_user,
    leaves_a_tombstone,
    what_is_forgotten_never_comes_back,
    purges_what_is_old,
    purging_leaves_refusals,
)
"""Run each of them on a storage of its own."""
