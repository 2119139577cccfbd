"""The relevance gate, measured on cases that were written before its rules."""

import time
import tomllib
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhi_plugin.persona.gate import GateMode, gate, matters
from rlhi_plugin.persona.request_kinds import request_kinds
from rlhi_plugin.persona.wishes import statement_type
from rlhi_plugin.records import Evidence, Persona, PersonaStatement, StatementType

HERE = Path(__file__).parent
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def statement(text, **more):
    cited = (Evidence(conversation_id="c", message_id="m", quote=text, said_at=NOW),)
    return PersonaStatement(text=text, evidence=cited, type=statement_type(text), **more)


def persona(*texts):
    return Persona(user_id="u_1", statements=tuple(statement(text) for text in texts), builder="test")


@pytest.mark.parametrize(
    ("file", "at_least", "precision_floor", "recall_floor"),
    [
        ("persona_gate_cases.toml", 80, 0.95, 0.9),
        ("persona_gate_more_cases.toml", 50, 0.95, 0.6),
        # The gate as a stranger meets it: it misses every second thing, and is seldom wrong about what it drops.
        ("persona_gate_held_out.toml", 50, 0.85, 0.5),
    ],
)
def test_precision_and_recall_of_dropping(file, at_least, precision_floor, recall_floor):
    cases = tomllib.loads((HERE / file).read_text("utf-8"))["case"]
    rows = [(case["request"], text, kept) for case in cases for kept in ("keep", "drop") for text in case[kept]]
    assert len(rows) >= at_least
    dropped = [row for row in rows if not matters(statement(row[1]), row[0])]
    wrong = [row for row in dropped if row[2] == "keep"]
    missed = [row for row in rows if row[2] == "drop" and row not in dropped]
    right = len(dropped) - len(wrong)
    precision, recall = right / len(dropped), right / (right + len(missed))
    print(f"\n{file}: {len(rows)} cases, precision {precision:.3f}, recall {recall:.3f}", *wrong, *missed, sep="\n")
    assert precision >= precision_floor
    assert recall >= recall_floor


TEXTS = ["Shorter, please.", "Say hello first", "No emojis.", "My dog is called Rex."]
TRANSLATE = "Translate to German: 'The meeting starts at nine.'"


def test_modes():
    whole = persona(*TEXTS)
    assert gate(whole, TRANSLATE, GateMode.OFF) is whole
    assert [s.text for s in gate(whole, TRANSLATE, GateMode.STATEMENTS).statements] == ["No emojis."]
    assert gate(whole, TRANSLATE, GateMode.ALL) is whole
    assert gate(persona(*TEXTS[:2]), TRANSLATE, GateMode.ALL).statements == ()
    assert gate(whole, "How do dogs sleep?", GateMode.STATEMENTS).digest != gate(whole, TRANSLATE).digest


def test_what_the_user_locked_always_matters():
    locked = whole = persona().model_copy(update={"statements": (statement("Say hello first", locked=True),)})
    assert gate(locked, TRANSLATE) is whole


def test_a_statement_stored_before_types_existed_is_read():
    old = statement("I am a nurse.").model_copy(update={"type": StatementType.OTHER})
    assert matters(old, "How do vaccines work?")


@given(st.text(max_size=3000), st.lists(st.sampled_from([*TEXTS, "Comment the code", "I am a nurse"]), max_size=6))
def test_any_request_can_be_gated_and_nothing_is_added_or_moved(request_text, texts):
    whole = persona(*texts)
    kept = gate(whole, request_text)
    left = iter(whole.statements)
    assert all(any(one is other for other in left) for one in kept.statements)
    assert gate(whole, request_text) == kept


def test_the_gate_takes_less_than_a_tenth_of_a_millisecond():
    """The median over requests of every length; the machine may be busy, so ten times that is allowed."""
    whole = persona(*TEXTS, "Use bullet points.", "I am a nurse")
    requests = [f"How do vaccines work, question {i}? " + "And tell me about cells. " * (i % 60) for i in range(300)]
    gate(whole, requests[0])
    took = []
    for text in requests:
        began = time.perf_counter()
        gate(whole, text)
        took.append(time.perf_counter() - began)
    median = sorted(took)[len(took) // 2]
    print(f"gate: median {median * 1e6:.0f} us, p99 {sorted(took)[-3] * 1e6:.0f} us")
    assert median < 1e-3


@pytest.mark.parametrize("evil", ["write " * 400, "a" * 100_000, "say it " * 5000, "hi " * 400, "write a" + " " * 5000])
def test_no_request_can_stall_the_gate(evil):
    began = time.perf_counter()
    request_kinds(evil)
    assert time.perf_counter() - began < 0.5
