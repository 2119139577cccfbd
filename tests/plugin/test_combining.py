"""Callers write for each other: each part once, nobody kept, nobody left asleep, nobody hurt by another's failure."""

import sqlite3
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlhi_plugin.errors import StoreError, StoreTimeoutError
from rlhi_plugin.records import Message
from rlhi_plugin.stores import combining, open_store
from rlhi_plugin.stores.combining import CombiningCommit


class Written:
    """What was written, group by group and by which thread; each group waits until it may go on."""

    def __init__(self):
        self.groups, self.threads, self.limits = [], [], []
        self.go_on, self.began = threading.Event(), threading.Event()

    def __call__(self, items, limit_s):
        self.began.set()
        assert self.go_on.wait(30)
        self.groups.append(list(items))
        self.threads.append(threading.current_thread())
        self.limits.append(limit_s)
        return [ValueError(item) if item < 0 else item * 10 for item in items]


@pytest.fixture
def written():
    return Written()


def outcome(commit, item, timeout_s=30):
    try:
        return commit.submit(item).result(timeout_s)
    except ValueError as error:
        return error


def until(condition):
    ends = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < ends, "waited in vain"
        time.sleep(0.001)


def together(commit, written, items, timeout_s=30):
    """Ask for the first result alone, for the others while that is being written; futures of all."""
    pool = ThreadPoolExecutor(len(items))
    futures = [pool.submit(outcome, commit, items[0], timeout_s)]
    assert written.began.wait(30)
    for count, item in enumerate(items[1:], 1):
        futures.append(pool.submit(outcome, commit, item, timeout_s))
        until(lambda count=count: sum(part.waits for part in commit._queue) == count)
    pool.shutdown(wait=False)
    return futures


def test_a_caller_alone_writes_itself(written):
    written.go_on.set()
    commit = CombiningCommit(written)
    assert [outcome(commit, item) for item in (1, 2)] == [10, 20]
    assert set(written.threads) == {threading.current_thread()}
    assert all(0 < limit <= 30 for limit in written.limits)
    assert not commit._writing


def test_one_of_those_who_wait_writes_for_all_and_only_the_bad_part_fails(written):
    futures = together(CombiningCommit(written), written, [1, 2, -3, 4])
    written.go_on.set()
    results = [future.result(30) for future in futures]
    assert results[0::3] == [10, 40]
    assert isinstance(results[2], ValueError)
    assert written.groups == [[1], [2, -3, 4]]


def test_groups_have_a_largest_size(written, monkeypatch):
    monkeypatch.setattr(combining, "LARGEST_GROUP", 2)
    futures = together(CombiningCommit(written), written, [1, 2, 3, 4, 5, 6])
    written.go_on.set()
    assert [future.result(30) for future in futures] == [10, 20, 30, 40, 50, 60]
    assert [len(group) for group in written.groups] == [1, 2, 2, 1]


def test_who_stops_waiting_is_written_with_the_next(written):
    commit = CombiningCommit(written)
    (first,) = together(commit, written, [1])
    second = commit.submit(2)
    with pytest.raises(StoreTimeoutError, match=r"within 0\.01 s"):
        second.result(0.01)
    written.go_on.set()
    assert first.result(30) == 10
    assert outcome(commit, 3) == 30
    assert written.groups == [[1], [2, 3]]
    assert second.result() == 20


def test_a_failed_group_fails_for_everybody_and_the_next_goes_on():
    failing = [True]

    def write(items, limit_s):
        if failing[0]:
            raise OSError("disk")
        return items

    commit = CombiningCommit(write)
    with pytest.raises(OSError, match="disk"):
        commit.submit(1).result()
    failing[0] = False
    assert commit.submit(2).result() == 2


def test_ctrl_c_is_for_the_thread_that_it_comes_to(written):
    def write(items, limit_s):
        written(items, limit_s)
        if 1 in items:
            raise KeyboardInterrupt
        return items

    commit = CombiningCommit(write)
    stranger = commit.submit(2)
    mine = commit.submit(1)
    written.go_on.set()
    with pytest.raises(KeyboardInterrupt):
        mine.result()
    with pytest.raises(StoreError, match="interrupted"):
        stranger.result()
    assert commit.submit(3).result() == 3


def test_a_sleeper_who_is_interrupted_while_being_woken_passes_it_on(written, monkeypatch):
    commit = CombiningCommit(written)
    futures = together(commit, written, [1, 2])
    heir = commit.submit(3)

    def interrupted(timeout_s):
        # By now the first thread hands over to this one.
        heir_is_woken = lambda: not heir.waits  # noqa: E731 - reads better beside its use
        commit._queue.rotate(1)
        written.go_on.set()
        until(heir_is_woken)
        raise KeyboardInterrupt

    monkeypatch.setattr(type(heir), "sleep", lambda self, timeout_s: interrupted(timeout_s))
    with pytest.raises(KeyboardInterrupt):
        heir.result(30)
    assert [future.result(30) for future in futures] == [10, 20]
    assert outcome(commit, 4) == 40
    assert not commit._writing


def test_a_group_with_too_few_answers_leaves_nobody_waiting():
    with pytest.raises(RuntimeError, match="0 results for 1 parts"):
        CombiningCommit(lambda *_: []).submit(1).result(30)


def test_what_hangs_is_not_queued_for_without_end(written, monkeypatch):
    monkeypatch.setattr(combining, "LONGEST_QUEUE", 2)
    commit = CombiningCommit(written)
    futures = together(commit, written, [1, 2, 3])
    with pytest.raises(StoreTimeoutError, match="2 writes wait"):
        commit.submit(4)
    written.go_on.set()
    assert [future.result(30) for future in futures] == [10, 20, 30]


def test_a_forked_child_starts_empty(written):
    commit = CombiningCommit(written)
    commit.submit(1)
    commit._writing = True
    commit.start_anew()
    written.go_on.set()
    assert outcome(commit, 2) == 20
    assert written.groups == [[2]]


@settings(max_examples=20, deadline=None)
@given(threads=st.integers(1, 12), each=st.integers(1, 20), hurry=st.booleans())
def test_every_part_is_written_once_and_answered_with_its_own_result(threads, each, hurry):
    seen = []

    def write(items, limit_s):
        seen.extend(items)
        if hurry:
            time.sleep(0.0005)
        return [-item for item in items]

    commit = CombiningCommit(write)

    def submit(thread):
        good = 0
        for item in range(thread * 100, thread * 100 + each):
            try:
                good += commit.submit(item).result(0.0003 if hurry else None) == -item
            except StoreTimeoutError:
                good += 1
        return good

    with ThreadPoolExecutor(threads) as pool:
        assert list(pool.map(submit, range(threads))) == [each] * threads
    commit.submit(-1).result()
    assert sorted(seen) == [-1] + [thread * 100 + i for thread in range(threads) for i in range(each)]
    assert not commit._queue
    assert not commit._writing


def test_a_locked_file_keeps_a_caller_no_longer_than_its_limit(tmp_path):
    said = [Message(id="m", role="user", content="x")]
    with open_store(f"sqlite:///{tmp_path}/a.db") as store:
        store.append("c", user_id=None, messages=said)
        other = sqlite3.connect(tmp_path / "a.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        started = time.monotonic()
        with pytest.raises(StoreError, match="locked"):
            store.submit("d", user_id=None, messages=said).result(0.3)
        with store._write_lock, pytest.raises(StoreTimeoutError, match="being written"):
            store.submit("e", user_id=None, messages=said).result(0.1)
        assert time.monotonic() - started < 3
        other.execute("COMMIT")
        other.close()
        assert store.submit("d", user_id=None, messages=said).result(0.3) == 1
