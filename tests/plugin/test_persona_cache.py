"""Personas on the hot path: what a thread began with stays, the gate decides once, and reading is fast."""

import time
from datetime import UTC, datetime

import pytest

from rlhi_plugin.persona import render_persona
from rlhi_plugin.persona.cache import PersonaCache
from rlhi_plugin.persona.gate import GateMode
from rlhi_plugin.records import Evidence, Persona, PersonaStatement
from rlhi_plugin.stores import open_store

NOW = datetime(2026, 1, 1, tzinfo=UTC)
TRANSLATE = "Translate to German: 'The meeting starts at nine.'"


def persona(*texts):
    statements = tuple(
        PersonaStatement(text=t, evidence=(Evidence(conversation_id="c", message_id="m", quote=t, said_at=NOW),))
        for t in texts
    )
    return Persona(user_id="u_1", statements=statements, builder="test")


@pytest.fixture
def store(tmp_path):
    with open_store(f"sqlite:///{tmp_path}/a.db") as opened:
        opened.put_persona(persona("Say hello first", "No emojis.", "Shorter, please."))
        yield opened


def test_the_gate_decides_at_a_threads_first_request(store):
    cache = PersonaCache(store, gate_mode=GateMode.STATEMENTS)
    first = cache.get("t1", "u_1", TRANSLATE)
    assert [s.text for s in first.statements] == ["No emojis."]
    assert first.text == render_persona(persona("No emojis."))
    assert first.digest == persona("No emojis.").digest
    assert cache.get("t1", "u_1", "How do vaccines work?") is first, "a thread keeps what it began with"
    assert len(cache.get("t2", "u_1", "How do vaccines work?").statements) == 3
    assert PersonaCache(store, gate_mode=GateMode.STATEMENTS).get("t1", "u_1", TRANSLATE) == first


def test_a_thread_may_go_without(store):
    store.put_persona(persona("Say hello first"))
    cache = PersonaCache(store, gate_mode=GateMode.ALL)
    assert cache.get("t1", "u_1", TRANSLATE) is None
    assert cache.is_ready("t1", "u_1")


def test_without_a_gate_or_a_request_nothing_is_left_out(store):
    assert len(PersonaCache(store).get("t", "u_1", TRANSLATE).statements) == 3
    assert len(PersonaCache(store, gate_mode=GateMode.STATEMENTS).get("t", "u_1").statements) == 3


def test_reading_from_the_cache_is_fast(store):
    """Printed for the record; a busy machine gets ten times the 0.2 ms that a turn may cost."""
    cache = PersonaCache(store, gate_mode=GateMode.STATEMENTS)
    figures = {}
    for name, threads in (("same thread", ["t"] * 2000), ("new thread", [f"t{i}" for i in range(2000)])):
        cache.get(threads[0], "u_1", TRANSLATE)
        took = []
        for thread in threads:
            began = time.perf_counter()
            cache.get(thread, "u_1", "How do vaccines work, and why do some need a booster?")
            took.append(time.perf_counter() - began)
        figures[name] = sorted(took)[len(took) // 2]
        print(f"{name}: median {figures[name] * 1e6:.1f} us, p99 {sorted(took)[-20] * 1e6:.1f} us")
    assert max(figures.values()) < 2e-3
