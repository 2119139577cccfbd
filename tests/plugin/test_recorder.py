"""What the recorder does while a model answers, so that the user waits less afterwards."""

import sqlite3
import threading
import time
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from langchain_core.messages import AIMessage, HumanMessage

from rlhi_plugin.durability import WriterOptions
from rlhi_plugin.privacy.messages import MessageRedactor, open_redactor
from rlhi_plugin.recorder import Recorder, Reply, Turn
from rlhi_plugin.records import Message
from rlhi_plugin.stores import combining, group_commit, open_store

LONG = "My address is jane@example.org. " + "Why do leaves fall in autumn? " * 10


class Watched:
    """A store that tells in which thread it was asked for the end of a conversation."""

    reads_in_time = False

    def __init__(self, store):
        self._store = store
        self.asked = []
        self.go_on = threading.Event()
        self.go_on.set()
        self.error = None

    def last_message_id(self, conversation_id):
        assert self.go_on.wait(30)
        self.asked.append(conversation_id)
        if self.error:
            raise self.error
        return self._store.last_message_id(conversation_id)

    def __getattr__(self, name):
        return getattr(self._store, name)


@pytest.fixture
def store(tmp_path):
    with open_store(f"sqlite:///{tmp_path}/a.db") as opened:
        opened.append("t", user_id=None, messages=[Message(id="m0", role="user", content="earlier")])
        yield Watched(opened)


@pytest.fixture
def recorder(store, tmp_path):
    options = WriterOptions(journal=tmp_path / "journal", store_timeout_s=30)
    made = Recorder(store, options, redaction=MessageRedactor(open_redactor("default")))
    yield made
    made.close()


def turn():
    asked = HumanMessage(LONG, id="m1")
    reply = Reply(messages=(AIMessage("They save water.", id="m2"),))
    return Turn("t", None, None, [asked], reply, stable_ids=True, started_at=datetime.now(UTC))


def prepared(recorder):
    """Wait until everything that was to be prepared is."""
    recorder.prepare("another", None, ())
    recorder._preparations.submit(None).result(30)


def test_what_a_turn_needs_is_ready_before_the_answer_is(recorder, store, monkeypatch):
    recorder.prepare("t", None, [HumanMessage(LONG, id="m1")])
    prepared(recorder)
    assert store.asked == ["t", "another"]
    read = []
    redact = recorder._redaction._redactor.redact
    monkeypatch.setattr(
        recorder._redaction._redactor, "redact", lambda text, scope: read.append(text) or redact(text, scope=scope)
    )
    recorder.record(turn)
    assert store.asked == ["t", "another"]
    assert read == [], "the request was read before, and the answer needs no more than a glance"
    (conversation,) = store.conversations()
    assert [m.id for m in conversation.messages] == ["m0", "m1", "m2"]
    assert conversation.messages[1].parent_id == ""
    assert "jane@" not in conversation.messages[1].content


def test_an_answer_that_comes_first_waits_for_no_preparation(recorder, store):
    store.go_on.clear()
    recorder.prepare("other", None, ())
    recorder.prepare("t", None, [HumanMessage(LONG, id="m1")])
    recording = threading.Thread(target=recorder.record, args=(turn,))
    recording.start()
    store.go_on.set()
    recording.join(30)
    prepared(recorder)
    assert sorted(store.asked) == ["another", "other", "t"]
    assert recorder.dropped == 0


def test_a_preparation_that_fails_is_not_missed(recorder, store, caplog):
    store.error = OSError("gone")
    recorder.prepare("t", None, [object()])
    prepared(recorder)
    recorder.record(turn)
    assert recorder.dropped == 0
    assert "gone" in caplog.text


def test_too_many_preparations_are_left_to_the_recording(recorder, store, monkeypatch):
    for queue in (group_commit, combining):
        monkeypatch.setattr(queue, "LONGEST_QUEUE", 0)
    recorder.prepare("t", None, [HumanMessage(LONG, id="m1")])
    recorder.record(turn)
    assert recorder.status().waiting == 1


def test_a_thread_begins_without_a_look_at_the_store(recorder, store):
    recorder.prepare("new", None, [HumanMessage("hi", id="m1")], begins=True)
    recorder.record(lambda: replace(turn(), conversation_id="new"))
    recorder.record(lambda: replace(turn(), conversation_id="new", history=[HumanMessage("why", id="m3")]))
    prepared(recorder)
    assert store.asked == ["another"]
    *_, conversation = store.conversations()
    assert [m.id for m in conversation.messages] == ["m1", "m2", "m3"]
    assert conversation.messages[2].parent_id == ""


def test_one_that_had_begun_before_is_gone_on_with(recorder, store):
    """An app that sends only the last request, after its process was started anew."""
    recorder.record(lambda: replace(turn(), stable_ids=False))
    assert store.asked == ["t"]
    (conversation,) = store.conversations()
    assert [m.content[:8] for m in conversation.messages] == ["earlier", "My addre", "They sav"]
    assert [m.parent_id for m in conversation.messages] == [None, None, None]


def test_somebody_elses_thread_of_that_name_is_left_alone(recorder, store):
    recorder.record(lambda: replace(turn(), user_id="u_1"))
    assert [(c.conversation_id, len(c.messages)) for c in store.conversations()] == [("t", 1), ("t@u_1", 2)]


def test_a_store_that_takes_nothing_still_says_what_a_turn_follows(tmp_path):
    with open_store(f"sqlite:///{tmp_path}/b.db") as store:
        store.append("t", user_id=None, messages=[Message(id="m0", role="user", content="earlier")])
        recorder = Recorder(store, WriterOptions(journal=tmp_path / "j", store_timeout_s=0.2))
        with closing(sqlite3.connect(tmp_path / "b.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            recorder.record(turn)
            assert recorder.status().waiting == 1
            other.execute("ROLLBACK")
        until = time.monotonic() + 30
        while recorder.status().waiting and time.monotonic() < until:
            time.sleep(0.02)
        recorder.close()
        (conversation,) = store.conversations()
    assert [(m.id, m.parent_id) for m in conversation.messages] == [("m0", None), ("m1", ""), ("m2", "m1")]
