"""What was kept long enough goes, sooner where a user refused a purpose."""

from datetime import UTC, datetime, timedelta

import pytest

from rlhi_plugin.errors import ConfigError
from rlhi_plugin.privacy.consent import ConsentCache
from rlhi_plugin.privacy.policy import ConsentPolicy
from rlhi_plugin.privacy.retention import Retention, apply_retention
from rlhi_plugin.records import Message, Purpose

NOW = datetime(2026, 6, 1, tzinfo=UTC)


@pytest.fixture
def filled(store):
    for name, user in (("a", "u_1"), ("b", "u_2"), ("c", None)):
        said = [
            Message(id=str(days), role="user", content="x", created_at=NOW - timedelta(days=days))
            for days in (100, 50, 10)
        ]
        store.append(name, user_id=user, messages=said)
    return store


def left(store):
    return {talk.conversation_id: [m.id for m in talk.messages] for talk in store.conversations()}


def test_everybodys_old_messages_go(filled):
    assert apply_retention(filled, Retention(days=60), now=NOW) == 3
    assert left(filled) == {name: ["50", "10"] for name in "abc"}
    assert apply_retention(filled, Retention(days=60), now=NOW) == 0


def test_sooner_for_who_refused(filled):
    consent = ConsentCache(filled, ConsentPolicy())
    consent.withdraw("u_2", Purpose.TRAIN)
    retention = Retention(days=60, days_without={Purpose.TRAIN: 30})
    assert apply_retention(filled, retention, allows=consent.allows, now=NOW) == 4
    assert left(filled) == {"a": ["50", "10"], "b": ["10"], "c": ["50", "10"]}


@pytest.mark.parametrize(
    "arguments",
    [{"days": 0}, {"days": -1}, {"days": 1.5}, {"days": True}, {"days": 9, "days_without": {Purpose.LOG: 10}},
     {"days": 9, "days_without": {"logs": 3}}],
)  # fmt: skip
def test_a_retention_that_is_none(arguments):
    with pytest.raises(ConfigError):
        Retention(**arguments)


def test_what_is_missing_is_named(filled):
    with pytest.raises(ConfigError, match="allows="):
        apply_retention(filled, Retention(days=9, days_without={Purpose.TRAIN: 3}))
    with pytest.raises(ConfigError, match="time zone"):
        apply_retention(filled, Retention(days=9), now=datetime(2026, 1, 1))  # noqa: DTZ001 - the mistake tested
    assert len(left(filled)["a"]) == 3
