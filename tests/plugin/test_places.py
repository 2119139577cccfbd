"""What is remembered of threads: as it was, for one caller at a time, in bounds, and not for the garbage collector."""

import gc
import threading
import time
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, HumanMessage

from rlhi_plugin import open_store, places
from rlhi_plugin.places import Place, Places
from rlhi_plugin.recorder import Recorder, Reply, Turn
from rlhi_plugin.thread_path import Thread

_TIMES = (datetime(1970, 1, 2), datetime(2200, 1, 1))  # noqa: DTZ001 - as hypothesis wants them
_IDS = st.dictionaries(st.text(min_size=1), st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=20)


@given(
    prints=_IDS,
    tail=st.none() | st.text(),
    told_apart=st.booleans(),
    latest=st.none() | st.datetimes(*_TIMES, timezones=st.just(UTC)),
)
def test_a_thread_comes_back_as_it_was_left(prints, tail, told_apart, latest):
    kept = Places()
    place = kept.enter("t", "u_1")
    place.thread, place.latest, place.looked_up = Thread(tail, dict(prints), told_apart), latest, True
    kept.leave("t", "u_1", place)
    again = kept.enter("t", "u_1")
    assert (again.thread, again.latest, again.looked_up) == (Thread(tail, prints, told_apart), latest, True)
    assert list(again.thread.prints) == list(prints)


def _used(kept: Places, name: str, ids: int) -> None:
    place = kept.enter(name, None)
    place.looked_up = True
    place.thread.prints = {f"{name}-{number}": number for number in range(ids)}
    kept.leave(name, None, place)


def test_the_threads_used_longest_ago_are_forgotten(monkeypatch):
    monkeypatch.setattr(places, "THREADS_REMEMBERED", 3)
    kept = Places()
    for name in ("a", "b", "c", "a", "d"):
        _used(kept, name, 1)
    assert [name for name in "abcd" if kept.knows(name, None)] == ["a", "c", "d"]
    assert kept.ids == 3


def test_ids_are_bounded_whatever_the_number_of_threads(monkeypatch):
    monkeypatch.setattr(places, "IDS_REMEMBERED", 100)
    kept = Places()
    for name, ids in (("short", 2), ("long", 90), ("longer", 99), ("last", 1)):
        _used(kept, name, ids)
    assert [name for name in ("short", "long", "longer", "last") if kept.knows(name, None)] == ["longer", "last"]
    assert kept.ids == 100


@pytest.mark.parametrize(("looked_up", "ids"), [(False, 0), (True, 0), (True, 1), (True, 50)])
def test_what_is_known_of_a_thread_at_rest(looked_up, ids):
    kept = Places()
    place = kept.enter("t", None)
    place.looked_up = looked_up
    place.thread.prints = {str(number): number for number in range(ids)}
    inside = (kept.is_looked_up("t", None), kept.knows("t", None))
    kept.leave("t", None, place)
    assert inside == (kept.is_looked_up("t", None), kept.knows("t", None)) == (looked_up, ids > 0)
    assert not kept.is_looked_up("t", "u_1"), "another user's thread of the same name is another one"


def test_one_caller_at_a_time_is_in_a_thread():
    kept, inside, most = Places(), 0, 0

    def turns() -> None:
        nonlocal inside, most
        for _ in range(50):
            place = kept.enter("t", None)
            inside += 1
            most = max(most, inside)
            time.sleep(0)
            place.thread.prints[str(len(place.thread.prints))] = 0
            place.looked_up = True
            inside -= 1
            kept.leave("t", None, place)

    threads = [threading.Thread(target=turns) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1
    assert kept.ids == len(kept.enter("t", None).thread.prints) + kept.ids == 400


def test_a_new_conversation_leaves_no_objects_to_the_garbage_collector(tmp_path):
    with open_store(f"sqlite:///{tmp_path}/a.db") as store:
        recorder = Recorder(store)

        def talk(numbers: range) -> None:
            for number in numbers:
                asked = HumanMessage("hello", id=f"u{number}")
                reply = Reply(messages=(AIMessage("hi", id=f"a{number}"),), model="m")
                turn = Turn(f"t{number}", None, None, [asked], reply, stable_ids=True, started_at=datetime.now(UTC))
                recorder.record(lambda turn=turn: turn)

        talk(range(20))
        gc.collect()
        before = len(gc.get_objects())
        talk(range(20, 220))
        gc.collect()
        assert len(gc.get_objects()) - before < 100, "half an object for each of 200 conversations"
        assert store.counts().conversations == 220
        assert all(recorder.knows(f"t{number}", None) for number in range(220))
        recorder.close()


def test_a_place_that_was_only_prepared_is_not_known():
    assert not Place().is_known
