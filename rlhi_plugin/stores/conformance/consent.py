"""Every `ConsentStore`."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from rlhi_plugin.records import ConsentDecision, Purpose
from rlhi_plugin.stores.conformance.expecting import expect
from rlhi_plugin.stores.protocols import ConsentStore

OpenConsent = Callable[[], ConsentStore]

_WHEN = datetime(2026, 3, 1, tzinfo=UTC)


def _decision(user: str, purpose: Purpose, days: int, *, granted: bool) -> ConsentDecision:
    return ConsentDecision(user_id=user, purpose=purpose, granted=granted, decided_at=_WHEN + timedelta(days=days))


def the_latest_decision_counts(open_store: OpenConsent) -> None:
    """Later beats earlier whatever the order of arrival; of two of the same moment, the one put last."""
    store = open_store()
    expect(dict(store.consents("u_1")) == {}, "a user who decided nothing has decisions")
    yes, no = (_decision("u_1", Purpose.TRAIN, day, granted=granted) for day, granted in ((0, True), (1, False)))
    store.put_consent(yes)
    expect(dict(store.consents("u_1")) == {Purpose.TRAIN: yes}, "a decision does not come back equal")
    store.put_consent(no)
    store.put_consent(yes)
    expect(dict(store.consents("u_1")) == {Purpose.TRAIN: no}, "an earlier decision beats a later one")
    again = _decision("u_1", Purpose.TRAIN, 1, granted=True)
    store.put_consent(again)
    expect(
        dict(open_store().consents("u_1")) == {Purpose.TRAIN: again}, "the decision that was put last does not count"
    )


def purposes_and_users_are_apart(open_store: OpenConsent) -> None:
    """A decision about one purpose says nothing about another, and one user's nothing about another's."""
    store = open_store()
    mine = {purpose: _decision("u_1", purpose, 0, granted=purpose is Purpose.LOG) for purpose in Purpose}
    for decision in mine.values():
        store.put_consent(decision)
    store.put_consent(_decision("u_2", Purpose.LOG, 5, granted=False))
    expect(dict(store.consents("u_1")) == mine, "decisions of one user got mixed up")
    expect(set(store.consents("u_2")) == {Purpose.LOG}, "decisions of one user answer for another")


CONSENT_CHECKS: tuple[Callable[[OpenConsent], None], ...] = (
    the_latest_decision_counts,
    purposes_and_users_are_apart,
)
"""Run each of them on a storage of its own."""
