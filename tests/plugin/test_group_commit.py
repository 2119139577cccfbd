"""Who writes at the same time shares a transaction; nobody waits for ever, and nobody pays for another's mistake."""

import asyncio
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlhi_plugin.errors import OwnerMismatchError, StoreError, StoreTimeoutError
from rlhi_plugin.records import Message
from rlhi_plugin.stores import group_commit, open_store
from rlhi_plugin.stores.appending import Head, Part
from rlhi_plugin.stores.group_commit import GroupCommit


class Written:
    """What a group commit wrote, group by group; each group waits until it may go on."""

    def __init__(self):
        self.groups = []
        self.go_on = threading.Event()
        self.began = threading.Event()

    def __call__(self, items):
        self.began.set()
        assert self.go_on.wait(30)
        self.groups.append(list(items))
        return [ValueError(item) if item < 0 else item * 10 for item in items]


def submit_together(items):
    """Submit the first alone, and the others while it is being written."""
    written = Written()
    commit = GroupCommit(written)
    pending = [commit.submit(items[0])]
    assert written.began.wait(30)
    pending += [commit.submit(item) for item in items[1:]]
    written.go_on.set()
    return [outcome(one) for one in pending], written.groups


def outcome(pending):
    try:
        return pending.result(30)
    except ValueError as error:
        return error


def test_what_waits_is_written_together():
    results, groups = submit_together([1, 2, 3, 4])
    assert results == [10, 20, 30, 40]
    assert groups == [[1], [2, 3, 4]]


def test_only_the_bad_part_fails():
    results, _ = submit_together([1, -2, 3])
    assert results[0] == 10
    assert isinstance(results[1], ValueError)
    assert results[2] == 30


def test_groups_have_a_largest_size(monkeypatch):
    monkeypatch.setattr(group_commit, "LARGEST_GROUP", 2)
    results, groups = submit_together([1, 2, 3, 4, 5, 6])
    assert results == [10, 20, 30, 40, 50, 60]
    assert [len(group) for group in groups] == [1, 2, 2, 1]


@pytest.mark.parametrize("failure", [OSError("disk"), KeyboardInterrupt("disk")])
def test_a_failed_group_fails_for_everybody_and_the_next_goes_on(failure):
    failing = [True]

    def write(items):
        if failing[0]:
            raise failure
        return items

    commit = GroupCommit(write)
    with pytest.raises(type(failure), match="disk"):
        commit.submit(1).result()
    failing[0] = False
    assert commit.submit(2).result() == 2


def test_a_group_with_too_few_answers_leaves_nobody_waiting():
    with pytest.raises(ValueError, match="shorter"):
        GroupCommit(lambda _: []).submit(1).result(30)


def test_who_stops_waiting_is_written_all_the_same():
    written = Written()
    pending = GroupCommit(written).submit(1)
    with pytest.raises(StoreTimeoutError, match=r"within 0\.01 s"):
        pending.result(0.01)
    written.go_on.set()
    assert pending.result(30) == pending.result() == 10


def test_an_interrupted_caller_is_written_all_the_same():
    class Interrupted:
        """A wait that Ctrl-C ends. (A real signal that comes just before a wait begins does not end it.)"""

        def acquire(self, timeout):
            raise KeyboardInterrupt

        def release(self):
            pass

    written = Written()
    commit = GroupCommit(written)
    pending = commit.submit(1)
    pending._done = Interrupted()
    with pytest.raises(KeyboardInterrupt):
        pending.result()
    written.go_on.set()
    assert commit.submit(2).result(30) == 20
    assert 1 in written.groups[0]


def test_what_hangs_is_not_waited_for_without_end(monkeypatch):
    monkeypatch.setattr(group_commit, "LONGEST_QUEUE", 2)
    written = Written()
    commit = GroupCommit(written)
    first = commit.submit(1)
    assert written.began.wait(30)
    rest = [commit.submit(2), commit.submit(3)]
    with pytest.raises(StoreTimeoutError, match="2 writes wait"):
        commit.submit(4)
    written.go_on.set()
    assert [pending.result(30) for pending in [first, *rest]] == [10, 20, 30]


def test_the_thread_ends_when_idle_and_comes_back(monkeypatch):
    monkeypatch.setattr(group_commit, "IDLE_S", 0.01)
    threads = []

    def write(items):
        threads.append(threading.current_thread())
        return items

    commit = GroupCommit(write)
    assert commit.submit(1).result(30) == 1
    threads[0].join(30)
    assert not threads[0].is_alive()
    assert commit.submit(2).result(30) == 2


def test_without_a_thread_the_caller_writes(monkeypatch):
    def refuse(_):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert GroupCommit(lambda items: items).submit(1).result() == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_child_writes_with_a_thread_and_connections_of_its_own(tmp_path):
    url = f"sqlite:///{tmp_path}/a.db"
    program = f"""
import os, sys
from rlhi_plugin.records import Message
from rlhi_plugin.stores import open_store

store = open_store({url!r})
say = lambda name: store.append(name, user_id=None, messages=[Message(id="m", role="user", content=name)])
say("before")
child = os.fork()
for number in range(200):
    say(f"{{'child' if child == 0 else 'parent'}}-{{number}}")
if child:
    _, status = os.waitpid(child, 0)
    sys.exit(os.waitstatus_to_exitcode(status))
os._exit(0)
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)
    with open_store(url) as store:
        assert store.counts().conversations == 401


@settings(max_examples=20, deadline=None)
@given(threads=st.integers(1, 12), each=st.integers(1, 20))
def test_every_part_is_written_once_and_answered_with_its_own_result(threads, each):
    seen = []

    def write(items):
        seen.extend(items)
        return [-item for item in items]

    commit = GroupCommit(write)

    def submit(thread):
        return [commit.submit(thread * 100 + i).result() == -(thread * 100 + i) for i in range(each)]

    with ThreadPoolExecutor(threads) as pool:
        assert all(all(answers) for answers in pool.map(submit, range(threads)))
    assert sorted(seen) == [thread * 100 + i for thread in range(threads) for i in range(each)]
    assert commit._queue.empty()


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def store(request, tmp_path):
    url = f"sqlite:///{tmp_path}/a.db" if request.param == "sqlite" else request.getfixturevalue("postgres_url")
    with open_store(url) as opened:
        yield opened


def count_transactions(store):
    counted, write = [], store._append_group

    def counting(parts, limit_s=None):
        counted.append(len(parts))
        return write(parts, limit_s)

    store._queue._write = counting
    return counted


def test_threads_share_transactions(store):
    groups = count_transactions(store)

    def talk(name):
        for i in range(10):
            said = [Message(id=f"{name}-{i}", role="user", content="x")]
            assert store.append("shared" if i % 2 else f"c{name}", user_id=None, messages=said) == 1

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(talk, range(16)))
    assert sum(groups) == 160
    assert len(groups) < 160
    assert store.counts().messages == 160


async def test_tasks_share_transactions(store):
    groups = count_transactions(store)
    said = [Message(id="m", role="user", content="x")]
    counts = await asyncio.gather(
        *(asyncio.to_thread(store.append, f"c{i}", user_id=f"u_{i}", messages=said) for i in range(40))
    )
    assert counts == [1] * 40
    assert len(groups) < 40


def is_writing(store):
    return store._combined._writing or store._appends._runs


def waiting(store):
    return len(store._combined._queue) + store._appends._queue.qsize()


def test_bad_appends_leave_the_others_alone(store):
    store.append("mine", user_id="u_1", messages=[Message(id="m", role="user", content="x")])
    good = Message(id="m", role="user", content="x")
    parts = {
        "a": good,
        "b": good.model_copy(update={"content": "half a character: \ud800"}),
        "mine": good,
        "c": good.model_copy(update={"input_tokens": 2**70}),
        "d": good,
    }

    def append(name):
        try:
            return store.append(name, user_id=None, messages=[good.model_copy(update={"id": "first"}), parts[name]])
        except StoreError as error:
            return error

    with store._write_lock, ThreadPoolExecutor(6) as pool:
        first = pool.submit(append, "a")
        while not is_writing(store) or waiting(store):
            pass
        others = {name: pool.submit(append, name) for name in ["b", "mine", "c", "d"]}
        while waiting(store) < 4:
            pass
        store._write_lock.release()
        results = {name: future.result() for name, future in others.items()}
        assert first.result() == 2
        store._write_lock.acquire()
    assert results["d"] == 2
    assert isinstance(results["mine"], OwnerMismatchError)
    assert "surrogate" in str(results["b"])
    assert isinstance(results["c"], StoreError)
    # Of a bad append, nothing is kept.
    found = {c.conversation_id: len(c.messages) for c in store.conversations()}
    assert found == {"mine": 1, "a": 2, "d": 2}


def test_parts_of_one_group_keep_their_order_whatever_their_size(store):
    def said(name, count):
        return [Message(id=f"{name}{i}", role="user", content="x") for i in range(count)]

    store.append("known", user_id=None, messages=said("a", 1))
    parts = [("known", 12), ("known", 2), ("new", 12), ("new", 2), ("other", 1), ("other", 1)]
    heads = [Part(Head(name), said(f"{number}-", count)) for number, (name, count) in enumerate(parts)]
    assert store._append_group(heads) == [12, 2, 12, 2, 1, 1]
    assert store._append_group(heads) == [0] * 6
    found = {c.conversation_id: [m.id.split("-")[0] for m in c.messages] for c in store.conversations()}
    assert found == {
        "known": ["a0", *["0"] * 12, *["1"] * 2],
        "new": [*["2"] * 12, *["3"] * 2],
        "other": ["4", "5"],
    }


def test_a_conversation_that_another_process_deleted_begins_anew(store):
    said = [Message(id="m", role="user", content="x")]
    assert store.append("c", user_id="u_1", messages=said) == 1
    with open_store(store._engine.url.render_as_string(hide_password=False)) as other:
        other.forget("u_1")
    again = [Message(id="n", role="user", content="x", created_at=datetime.now(UTC))]
    assert store.append("c", user_id="u_1", messages=said) == 0
    assert store.append("c", user_id="u_1", messages=again) == 1
    assert store.append("c", user_id="u_1", messages=said) == 0
    with pytest.raises(OwnerMismatchError):
        store.append("c", user_id="u_2", messages=again)
    assert store.append("fresh", user_id="u_1", messages=said) == 0
    assert [c.conversation_id for c in store.conversations()] == ["c"]
