"""The thread that keeps personas up to date while nobody waits for it."""

import threading
import time
from datetime import UTC, datetime

import pytest

from rlhi_plugin.errors import ConfigError, StoreError
from rlhi_plugin.persona import ExtractivePersonaBuilder
from rlhi_plugin.persona.updater import PersonaUpdater
from rlhi_plugin.persona.worker import PersonaWorker, WorkerOptions
from rlhi_plugin.records import FollowUp, FollowUpLabel, Message
from rlhi_plugin.stores import open_store

NOW = datetime(2026, 1, 1, tzinfo=UTC)


class Labeller:
    name = "all-feedback"

    def __init__(self):
        self.calls = 0
        self.gate = threading.Event()
        self.gate.set()
        self.started = threading.Event()

    async def label(self, exchanges):
        self.calls += 1
        self.started.set()
        assert self.gate.wait(10)
        return [
            FollowUp(conversation_id=e.conversation_id, turn=e.turn, message_id=e.message_id,
                     label=FollowUpLabel.WITH_FEEDBACK, labeller=self.name)
            for e in exchanges
        ]  # fmt: skip


@pytest.fixture
def store(tmp_path):
    with open_store(f"sqlite:///{tmp_path}/a.db") as opened:
        yield opened


@pytest.fixture
def labeller():
    return Labeller()


@pytest.fixture
def make(store, labeller):
    made = []

    def make(**options):
        updates = PersonaUpdater(labeller=labeller, builder=ExtractivePersonaBuilder())
        made.append(PersonaWorker(store, updates, options=WorkerOptions(**options)))
        return made[-1]

    yield make
    labeller.gate.set()
    for worker in made:
        worker.close()


def log(store, user, thread, *texts):
    roles = ("user", "assistant")
    said = [Message(id=f"{thread}-{i}-{t}", role=roles[i % 2], content=t, created_at=NOW) for i, t in enumerate(texts)]
    store.append(thread, user_id=user, messages=said)


def until(condition, timeout_s=10.0):
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.005)


def test_a_new_thread_ends_the_one_before(store, make):
    worker = make(idle_s=3600, after_turns=100)
    log(store, "u_1", "t1", "Cats?", "Nice.", "Shorter, please.")
    worker.notice("u_1", "t1")
    worker.notice("u_1", "t1")
    time.sleep(0.05)
    assert store.get_persona("u_1") is None, "nothing was due yet"
    worker.notice("u_1", "t2")
    until(lambda: worker.counts.updated == 1)
    assert [s.text for s in store.get_persona("u_1").statements] == ["Shorter, please."]
    assert worker.counts.waiting == 0


def test_so_many_turns_are_enough(store, make):
    worker = make(idle_s=3600, after_turns=3)
    log(store, "u_1", "t1", "Cats?", "Nice.", "Shorter, please.")
    for _ in range(3):
        worker.notice("u_1", "t1")
    until(lambda: store.get_persona("u_1") is not None)


def test_quiet_users_are_updated(store, make):
    worker = make(idle_s=0.05, after_turns=100)
    for user in ("u_1", "u_2"):
        log(store, user, f"t-{user}", "Cats?", "Nice.", "Shorter, please.")
        worker.notice(user, f"t-{user}")
    until(lambda: worker.counts.updated == 2)
    assert store.get_persona("u_1").statements
    assert store.get_persona("u_2").statements


def test_many_turns_are_one_update_and_noticing_never_waits(store, make, labeller):
    worker = make(idle_s=3600, after_turns=1)
    log(store, "u_1", "t1", "Cats?", "Nice.", "Shorter, please.")
    labeller.gate.clear()
    worker.notice("u_1", "t1")
    assert labeller.started.wait(10)
    log(store, "u_1", "t1", "Dogs?", "Nice.", "No emojis.")
    began = time.perf_counter()
    for _ in range(1000):
        worker.notice("u_1", "t1")
    took = time.perf_counter() - began
    labeller.gate.set()
    assert worker.drain(10)
    assert labeller.calls == 2, "1000 turns during one update are one more"
    assert len(store.get_persona("u_1").statements) == 2
    assert took < 1.0, "while the labeller was blocked, noticing went on"


def test_the_waiting_list_is_bounded_and_says_whom_it_left_out(make):
    worker = make(idle_s=3600, after_turns=100, max_waiting=3)
    for number in range(10):
        worker.notice(f"u_{number}", "t")
    assert (worker.counts.waiting, worker.counts.skipped) == (3, 7)


def test_a_failure_is_counted_and_the_next_user_is_served(store, make, caplog):
    worker = make(idle_s=3600, after_turns=1)
    log(store, "u_2", "t2", "Cats?", "Nice.", "Shorter, please.")
    original = store.conversations

    def broken(*, user_id=None):
        if user_id == "u_1":
            raise StoreError("cannot read. Check the disk.")
        return original(user_id=user_id)

    store.conversations = broken
    worker.notice("u_1", "t1")
    worker.notice("u_2", "t2")
    assert worker.drain(10)
    assert (worker.counts.failed, worker.counts.updated) == (1, 1)
    assert "u_1 could not be updated" in caplog.text
    assert store.get_persona("u_2").statements


def test_closing_ends_the_thread_and_noticing_afterwards_does_nothing(make):
    worker = make(idle_s=0.01)
    worker.notice("u_1", "t")
    worker.close()
    worker.close()
    assert not worker._thread.is_alive()
    before = worker.counts
    worker.notice("u_2", "t")
    assert worker.counts == before


@pytest.mark.parametrize("wrong", [{"after_turns": 0}, {"idle_s": 0}, {"max_waiting": 0}])
def test_wrong_options_are_refused(wrong):
    with pytest.raises(ConfigError, match="out of range"):
        WorkerOptions(**wrong)


def test_a_store_without_personas_is_refused():
    class NoPersonas:
        def append(self, conversation_id, *, user_id, messages): ...
        def conversations(self, *, user_id=None): ...
        def close(self): ...

    with pytest.raises(ConfigError, match="keeps no personas"):
        PersonaWorker(NoPersonas(), PersonaUpdater(labeller=Labeller(), builder=ExtractivePersonaBuilder()))
