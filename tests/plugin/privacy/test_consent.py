"""Asked before every use; a withdrawal counts at once, and a store that is down breaks nothing."""

import logging
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta

import pytest

from rlhi_plugin import open_store
from rlhi_plugin.errors import ConfigError
from rlhi_plugin.privacy import consent
from rlhi_plugin.privacy import policy as policies
from rlhi_plugin.privacy.consent import ConsentCache, for_purpose, since_last_request
from rlhi_plugin.privacy.policy import ConsentPolicy, default_policy
from rlhi_plugin.records import ConsentDecision, Conversation, Purpose

LOG, PERSONALISE, TRAIN = Purpose.LOG, Purpose.PERSONALISE, Purpose.TRAIN


def cache(store, **arguments):
    return ConsentCache(store, arguments.pop("policy", ConsentPolicy()), **arguments)


def test_without_a_decision_the_policy_counts(store):
    known = cache(store, policy=ConsentPolicy(default={"log": True, "train": False}))
    assert [known.allows("u_1", p) for p in (LOG, PERSONALISE, TRAIN)] == [True, False, False]


def test_nothing_is_done_without_a_log(store):
    known = cache(store, policy=ConsentPolicy(default={"log": False, "personalise": True, "train": True}))
    assert not any(known.allows("u_1", p) for p in Purpose)
    known.grant("u_1", LOG)
    assert all(known.allows("u_1", p) for p in Purpose)
    assert not any(known.allows("u_2", p) for p in Purpose)


def test_anonymous_users_have_the_policy_and_never_a_persona(store):
    known = cache(store, policy=ConsentPolicy(default={"log": True}, anonymous={"log": True, "personalise": True}))
    assert [known.allows(None, p) for p in Purpose] == [True, False, False]
    assert cache(store).allows(None, TRAIN)
    assert not cache(store, policy=ConsentPolicy(anonymous={"log": False, "train": True})).allows(None, TRAIN)
    assert store.reads["consents"] == 0


def test_a_withdrawal_counts_at_once_and_only_for_its_purpose(store):
    known = cache(store, max_age_s=1000)
    assert known.allows("u_1", TRAIN)
    known.withdraw("u_1", TRAIN)
    assert [known.allows("u_1", p) for p in (LOG, PERSONALISE, TRAIN)] == [True, True, False]
    known.grant("u_1", TRAIN)
    assert known.allows("u_1", TRAIN)
    assert [d.granted for d in store.decisions] == [False, True]


def test_a_clock_that_was_set_back_undoes_no_withdrawal(tmp_path, monkeypatch):
    class Clock(datetime):
        hour = 12

        @classmethod
        def now(cls, tz=None):
            return datetime(2026, 1, 1, cls.hour, tzinfo=UTC)

    with open_store(f"sqlite:///{tmp_path}/a.db") as opened:
        monkeypatch.setattr(consent, "datetime", Clock)
        cache(opened).grant("u_1", TRAIN)
        Clock.hour = 11
        cache(opened).withdraw("u_1", TRAIN)
        assert not cache(opened).allows("u_1", TRAIN)
        cache(opened).grant("u_1", TRAIN)
        assert cache(opened).allows("u_1", TRAIN)


def test_another_process_sees_it_within_the_bound(store, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(consent.time, "monotonic", lambda: now[0])
    here, there = cache(store, max_age_s=30), cache(store, max_age_s=30)
    assert there.allows("u_1", LOG)
    here.withdraw("u_1", LOG)
    assert not here.allows("u_1", LOG)
    now[0] += 29.9
    assert there.allows("u_1", LOG)
    assert there.is_ready("u_1")
    now[0] += 0.2
    assert not there.is_ready("u_1")
    assert not there.allows("u_1", LOG)


def test_a_user_is_read_once(store):
    known = cache(store)
    for _ in range(5):
        known.allows("u_1", LOG)
    assert store.reads["consents"] == 1
    known.forget("u_1")
    known.allows("u_1", LOG)
    assert store.reads["consents"] == 2


def test_a_read_that_began_before_a_withdrawal_does_not_undo_it(store):
    known = cache(store, max_age_s=1000)
    began, may_end = threading.Event(), threading.Event()
    read = store.consents

    def slow(user_id):
        found = read(user_id)
        if not began.is_set():
            began.set()
            may_end.wait(5)
        return found

    store.consents = slow
    answers = []
    reader = threading.Thread(target=lambda: answers.append(known.allows("u_1", LOG)))
    reader.start()
    assert began.wait(5)
    known.withdraw("u_1", LOG)
    may_end.set()
    reader.join()
    assert answers == [False]
    assert not known.allows("u_1", LOG)


def test_a_store_that_is_down_keeps_what_was_known(store, monkeypatch, caplog):
    now = [100.0]
    monkeypatch.setattr(consent.time, "monotonic", lambda: now[0])
    known = cache(store, max_age_s=30)
    known.withdraw("u_1", LOG)
    assert not known.allows("u_1", LOG)
    store.down = True
    now[0] += 31
    assert not known.allows("u_1", LOG)
    assert known.allows("u_new", LOG)
    assert not cache(store, unread="deny").allows("u_new", LOG)
    assert known.may_hold_refused("u_new")
    assert "could not be read" in caplog.text
    with pytest.raises(OSError, match="down"):
        known.grant("u_1", LOG)
    assert not known.allows("u_1", LOG)


def test_what_was_said_before_a_consent_is_not_stored_after_it(store):
    known = cache(store, max_age_s=1000)
    assert not known.may_hold_refused("u_1")
    known.withdraw("u_1", TRAIN)
    assert not known.may_hold_refused("u_1")
    known.withdraw("u_1", LOG)
    known.grant("u_1", LOG)
    assert known.may_hold_refused("u_1")
    assert cache(store).may_hold_refused("u_1"), "after a restart"
    assert not known.may_hold_refused(None)
    assert cache(store, policy=ConsentPolicy(default={"log": False})).may_hold_refused("u_2")
    store.forget("u_3")
    assert cache(store).may_hold_refused("u_3")


def test_since_last_request():
    assert list(since_last_request(["u1", "a1", "u2", "t", "a2"], lambda m: m[0] == "u")) == ["u2", "t", "a2"]
    assert list(since_last_request(["a1"], lambda m: m[0] == "u")) == ["a1"]
    assert list(since_last_request([], lambda m: m[0] == "u")) == []


def test_the_policy_is_said_once(store, caplog, monkeypatch):
    monkeypatch.setattr(policies, "_announced", set())
    policy = ConsentPolicy(default={"log": True, "personalise": True})
    with caplog.at_level(logging.INFO, "rlhi.privacy"):
        for _ in range(2):
            cache(store, policy=policy)
        cache(store, policy=ConsentPolicy(default={"log": False}), quiet=True)
    said = [record.getMessage() for record in caplog.records if record.name == "rlhi.privacy"]
    assert len(said) == 1
    assert "log yes, personalise yes, train no; anonymous users: log yes, personalise no, train no" in said[0]


@pytest.mark.parametrize("set_up", [False, True])
def test_an_app_that_shows_no_log_prints_the_policy_once(set_up):
    # In a process of its own: pytest sets logging up.
    body = (
        "import logging; from rlhi_plugin.privacy import ConsentCache, ConsentPolicy\n"
        f"{'logging.basicConfig(level=logging.WARNING)' if set_up else ''}\n"
        "for _ in range(2): ConsentCache(None, ConsentPolicy(default={'log': True}))"
    )
    done = subprocess.run([sys.executable, "-c", body], capture_output=True, text=True, check=True)
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert "log yes, personalise no, train no; anonymous users: log yes, personalise no, train no" in done.stderr


def test_without_a_store_the_policy_is_all():
    known = ConsentCache(None, ConsentPolicy(default={"log": True}))
    assert known.is_ready("u_1")
    assert known.allows("u_1", LOG)
    assert not known.allows("u_1", TRAIN)
    assert not known.may_hold_refused("u_1")
    with pytest.raises(ConfigError, match="put_consent"):
        known.grant("u_1", TRAIN)


@pytest.mark.parametrize("default", [{"logging": True}, {"log": 1}, {"log": "yes"}])
def test_a_policy_that_is_none(default):
    with pytest.raises(ConfigError):
        ConsentPolicy(default=default)


def test_wrong_arguments(store):
    with pytest.raises(ConfigError, match="max_age_s"):
        cache(store, max_age_s=-1)
    with pytest.raises(ConfigError, match="unread"):
        cache(store, unread="maybe")


def test_an_export_for_a_purpose(store):
    talks = [
        Conversation(conversation_id=n, user_id=u, messages=()) for n, u in (("a", "u_1"), ("b", "u_2"), ("c", None))
    ]
    at = datetime(2026, 1, 1, tzinfo=UTC)
    for granted, days in ((True, 2), (False, 1)):
        store.put_consent(
            ConsentDecision(user_id="u_2", purpose=TRAIN, granted=granted, decided_at=at - timedelta(days=days))
        )
    out = []
    known = cache(store)
    kept = [c.conversation_id for c in for_purpose(talks, TRAIN, known.allows, left_out=out.append)]
    assert (kept, [c.conversation_id for c in out]) == (["a", "c"], ["b"])
    assert len(list(for_purpose(talks, LOG, known.allows))) == 3


@pytest.mark.parametrize(
    ("environment", "allowed", "anonymous"),
    [
        ({}, [LOG, PERSONALISE, TRAIN], [LOG, TRAIN]),
        ({"RLHI_CONSENT": " Log, personalise"}, [LOG, PERSONALISE], [LOG]),
        ({"RLHI_CONSENT": "none"}, [], []),
        ({"RLHI_CONSENT": "personalise,train"}, [], []),
        ({"RLHI_CONSENT": "log,train", "RLHI_CONSENT_ANONYMOUS": "none"}, [LOG, TRAIN], []),
        ({"RLHI_CONSENT_ANONYMOUS": "log"}, [LOG, PERSONALISE, TRAIN], [LOG]),
    ],
)
def test_the_environment_says_what_counts_without_a_decision(store, monkeypatch, environment, allowed, anonymous):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    known = ConsentCache(store)
    assert [purpose for purpose in Purpose if known.allows("u_1", purpose)] == allowed
    assert [purpose for purpose in Purpose if known.allows(None, purpose)] == anonymous
    # What the app says itself goes first.
    assert ConsentCache(store, ConsentPolicy()).allows("u_1", TRAIN)


@pytest.mark.parametrize("given", ["", "logs", "log,,train", "none,log"])
def test_an_environment_that_names_no_purpose_is_told_so(monkeypatch, given):
    monkeypatch.setenv("RLHI_CONSENT", given)
    with pytest.raises(ConfigError, match=r"RLHI_CONSENT=.*Set it to some of log,personalise,train, or to none"):
        default_policy()
