"""Many processes on one store, and processes that are killed: nothing is lost, nothing doubled."""

import subprocess
import sys
from collections import Counter

import kill_harness
import pytest
from turn_writer import own_conversation

from rlhi_plugin.records import Message
from rlhi_plugin.stores import open_store

PROCESSES, TURNS = 8, 25


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def url(request, tmp_path):
    return f"sqlite:///{tmp_path}/a.db" if request.param == "sqlite" else request.getfixturevalue("postgres_url")


@pytest.mark.slow
def test_eight_processes_lose_and_double_nothing(url):
    # They also race to create the tables.
    names = [f"p{number}" for number in range(PROCESSES)]
    running = [
        subprocess.Popen(
            [sys.executable, kill_harness.WRITER, url, name, "2", str(TURNS)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for name in names
    ]
    done = [process.communicate(timeout=300) for process in running]
    assert [errors for _, errors in done if errors] == []
    new = sum(int(line.split()[2]) for out, _ in done for line in out.splitlines())
    with open_store(url) as store:
        found = {c.conversation_id: [m.id for m in c.messages] for c in store.conversations()}
        assert store.counts().messages == new
    for name in names:
        for thread in range(2):
            own = [f"{name}-{thread}-{turn}-{role}" for turn in range(TURNS) for role in "qa"]
            assert found.pop(own_conversation(name, thread)) == own
            assert [i for i in found["shared"] if i.startswith(f"{name}-{thread}-")] == own
    shared = Counter(found.pop("shared"))
    assert set(shared.values()) == {1}
    assert sum(i.startswith("common-") for i in shared) == TURNS
    assert len(shared) == TURNS + PROCESSES * 2 * TURNS * 2
    assert not found


@pytest.mark.slow
def test_what_was_acknowledged_survives_thirty_kills(tmp_path):
    tally = kill_harness.kill_rounds(f"sqlite:///{tmp_path}/a.db", 30)
    assert tally.problems == ()
    assert tally.acknowledged > 30


@pytest.mark.slow
@pytest.mark.postgres
def test_what_was_acknowledged_survives_kills_on_postgresql(postgres_url):
    tally = kill_harness.kill_rounds(postgres_url, 5)
    assert tally.problems == ()
    assert tally.acknowledged > 5


def test_the_harness_finds_a_lost_turn_and_a_torn_one(tmp_path):
    url = f"sqlite:///{tmp_path}/a.db"
    with open_store(url) as store:
        for name in ("a-0-0-q", "a-0-0-a", "a-0-1-q"):
            store.append("a-0", user_id="u_a", messages=[Message(id=name, role="user", content="x")])
    kept, problems = kill_harness._look(url, "a", {(0, 0), (0, 1), (2, 0)})
    assert kept == 1
    assert [problem.partition(": ")[2] for problem in problems] == [
        "turns are torn, doubled or out of order",
        "turn 1 is lost",
        "turn 0 is lost",
    ]
