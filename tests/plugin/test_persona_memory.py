"""The fold behind a persona: joining, contradicting, fading, arranging."""

import random
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhi_plugin.errors import ConfigError
from rlhi_plugin.persona import ExtractivePersonaBuilder, render_persona
from rlhi_plugin.persona.memory import (
    EDIT,
    MAX_EVIDENCE,
    MAX_REMEMBERED,
    MemoryOptions,
    arrange,
    estimated_tokens,
    remember,
    strength,
)
from rlhi_plugin.persona.wishes import statement_type
from rlhi_plugin.records import Evidence, Persona, PersonaStatement, StatementType

START = datetime(2026, 1, 1, tzinfo=UTC)


def said(text, day=0, confidence=0.7, **more):
    at = None if day is None else START + timedelta(days=day)
    cited = Evidence(conversation_id="c", message_id=f"u{day}", quote=text, said_at=at)
    return PersonaStatement(
        **{
            "text": text,
            "evidence": (cited,),
            "confidence": confidence,
            "type": statement_type(text),
            "first_seen": at,
            "last_seen": at,
        }
        | more
    )


def known_after(*statements, removed=()):
    known = []
    for statement in statements:
        known = remember(known, statement, removed)
    return known


def texts(statements):
    return [statement.text for statement in statements]


@pytest.mark.parametrize(
    ("older", "newer"),
    [
        ("Shorter, please.", "More detail, please."),
        ("Use bullet points.", "Please write running text."),
        ("Add emojis!", "No emojis."),
        ("Answer in French please", "In German, please"),
    ],
)
def test_newer_evidence_wins(older, newer):
    assert texts(known_after(said(older, 0), said(newer, 1))) == [newer]
    # In the other order of telling, too: what counts is when it was said.
    assert texts(known_after(said(newer, 1), said(older, 0))) == [newer]


def test_what_does_not_contradict_stays():
    known = known_after(said("Shorter, please.", 0), said("Use bullet points.", 1), said("I like cats.", 2))
    assert texts(known_after(*known, said("I do not like cats at all, honestly.", 3))) == [
        "Shorter, please.",
        "Use bullet points.",
        "I like cats.",
        "I do not like cats at all, honestly.",
    ]


def test_the_same_wish_in_other_words_is_one_statement():
    (statement,) = known_after(said("Shorter, please.", 0), said("Keep it brief next time.", 10))
    assert statement.text == "Keep it brief next time."
    assert (statement.first_seen, statement.last_seen) == (START, START + timedelta(days=10))
    assert [cited.quote for cited in statement.evidence] == ["Keep it brief next time.", "Shorter, please."]
    assert 0.7 < statement.confidence < 0.91


def test_evidence_is_bounded_and_first_seen_is_not_lost():
    (statement,) = known_after(*(said("Shorter, please.", day) for day in range(9)))
    assert len(statement.evidence) == MAX_EVIDENCE
    assert statement.first_seen == START


def test_half_a_life_is_half_the_strength():
    options = MemoryOptions(half_life_days=10)
    statement = said("Shorter, please.", 0, confidence=0.8)
    days = [strength(statement, START + timedelta(days=day), options) for day in (-5, 0, 10, 20)]
    assert days == pytest.approx([0.8, 0.8, 0.4, 0.2])
    assert strength(statement, None, options) == strength(said("x y", None, 0.8), START, options) == 0.8


def test_old_support_adds_less_than_new():
    options = MemoryOptions(half_life_days=10)
    soon, late = (remember([said("Shorter!", 0)], said("Shorter!", day), (), options)[0] for day in (1, 100))
    assert soon.confidence > late.confidence > 0.7


def test_locked_statements_do_not_fade_and_are_not_contradicted():
    locked = said("Shorter, please.", 0, locked=True, confidence=0.1)
    assert strength(locked, START + timedelta(days=10_000)) == 1.0
    assert known_after(locked, said("More detail, please.", 50)) == [locked]
    (supported,) = known_after(locked, said("Keep it brief.", 50))
    assert supported.text == "Shorter, please."
    assert len(supported.evidence) == 2


def test_the_users_own_wording_stays_and_keeps_citing_the_edit():
    own = Evidence(conversation_id=EDIT, message_id="edit-1", quote="At most two sentences.", said_at=START)
    statement = said("At most two sentences.", 0, evidence=(own,))
    for day in range(1, 10):
        (statement,) = known_after(statement, said("Shorter, please.", day))
    assert statement.text == "At most two sentences."
    assert statement.evidence[-1] == own
    assert len(statement.evidence) == MAX_EVIDENCE


def test_memory_is_bounded_and_the_weakest_goes():
    strong = [said(f"alpha{i} beta{i}", i, confidence=0.9) for i in range(MAX_REMEMBERED)]
    known = known_after(said("gamma delta", 0, confidence=0.2), *strong)
    assert len(known) == MAX_REMEMBERED
    assert "gamma delta" not in texts(known)


@given(st.permutations(range(5)), st.integers(0, 4))
def test_the_order_in_which_things_are_known_does_not_matter(order, pick):
    pool = [
        said(t, d) for d, t in enumerate(["Shorter!", "Use bullets.", "Add numbers.", "No emojis.", "I am a nurse."])
    ]
    new = said(["Too long.", "Prose, please.", "More numbers!", "Add emojis", "I am a nurse, really."][pick], 9)
    shuffled = [pool[i] for i in order]
    at = START + timedelta(days=9)
    assert arrange(remember(pool, new), at, MemoryOptions()) == arrange(remember(shuffled, new), at, MemoryOptions())


def test_the_least_supported_go_into_reserve():
    pool = [said(f"Wish number {i} of many", i, confidence=0.1 * (i + 1)) for i in range(8)]
    shown, reserve = arrange(pool, START + timedelta(days=8), MemoryOptions(max_statements=3))
    assert texts(shown) == [f"Wish number {i} of many" for i in (7, 6, 5)]
    assert texts(reserve) == [f"Wish number {i} of many" for i in (4, 3, 2, 1, 0)]


def test_what_has_faded_is_not_rendered_but_not_forgotten():
    pool = [said("Shorter, please.", 0), said("Use bullets.", 2000)]
    shown, reserve = arrange(pool, START + timedelta(days=2000), MemoryOptions())
    assert (texts(shown), texts(reserve)) == (["Use bullets."], ["Shorter, please."])


@given(
    st.lists(st.tuples(st.text('ab\u4f60 \n"', min_size=1, max_size=160), st.floats(0.05, 1.0)), max_size=40),
    st.integers(60, 700),
)
def test_a_persona_fits_into_its_tokens(pool, max_tokens):
    options = MemoryOptions(max_statements=40, max_tokens=max_tokens)
    known = [said(text, i, confidence) for i, (text, confidence) in enumerate(pool)]
    shown, reserve = arrange(known, START, options)
    assert len(shown) + len(reserve) == len(known)
    rendered = render_persona(Persona(user_id="u", statements=shown, builder="test"))
    # Rounding of single lines may differ from that of the whole by less than a token each.
    assert estimated_tokens(rendered) <= max_tokens


def test_the_largest_default_persona_is_within_600_tokens():
    rng = random.Random(0)
    long = [" ".join(f"w{rng.randrange(10**6)}" for _ in range(40))[:160] for _ in range(64)]
    shown, _ = arrange([said(text, i) for i, text in enumerate(long)], None, MemoryOptions(max_statements=64))
    tokens = estimated_tokens(render_persona(Persona(user_id="u", statements=shown, builder="test")))
    assert 500 < tokens <= 600


def test_tokens_are_estimated():
    assert [estimated_tokens(text) for text in ("", "abcd", "abcde", "\u4f60\u597d", "ab\u4f60")] == [0, 1, 2, 2, 2]


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_statements": 0},
        {"max_tokens": 10},
        {"half_life_days": 0},
        {"half_life_days": float("nan")},
        {"min_strength": 1.5},
    ],
)
def test_wrong_options_are_refused(wrong):
    with pytest.raises(ConfigError, match="Give"):
        MemoryOptions(**wrong)


def test_an_older_persona_still_loads():
    stored = (
        '{"user_id":"u_1","statements":[{"text":"Shorter.","evidence":[{"conversation_id":"c","message_id":"m",'
        '"quote":"Shorter."}],"confidence":0.5}],"covers_until":"2026-01-01T00:00:00Z","builder":"extractive-1"}'
    )
    persona = Persona.model_validate_json(stored)
    assert persona.statements[0].type is StatementType.OTHER
    assert (persona.reserve, persona.removed, persona.version) == ((), (), 0)
    assert Persona.model_validate_json(persona.to_json()) == persona


async def test_confidence_stays_in_range():
    statements = known_after(*(said("Shorter!", day, 0.9) for day in range(50)))
    assert statements[0].confidence <= 1.0
    assert all(a >= b for a, b in pairwise(sorted((s.confidence for s in statements), reverse=True)))
    assert ExtractivePersonaBuilder(3).name == "extractive-2"
