"""Features: cues are heard word by word, relations are what their names say, nothing after the follow-up is seen."""

from __future__ import annotations

import re
import string
import tomllib
from importlib.resources import files

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlhi_plugin.labelling import Exchange, exchanges
from rlhi_plugin.logs import read_conversations
from rlhi_plugin.records import Conversation
from rlhi_training.labelling.cues import CUES, Cues
from rlhi_training.labelling.decision import GOES_WITH, SUBTYPES, Decision, verdicts
from rlhi_training.labelling.features import fact_names, facts, matrix, relations, terms
from rlhi_training.labelling.term_index import TermIndex
from rlhi_training.labelling.texts import (
    first_of,
    has_capitals,
    has_code,
    has_item,
    has_quote,
    last_of,
    look,
    split_runs,
    words_of,
)


def exchange(follow_up, request="How do I keep basil alive?", reply="Give it light and water.", earlier=(), turn=1):
    return Exchange(
        conversation_id="c",
        turn=turn,
        message_id="m",
        request=request,
        reply=reply,
        follow_up=follow_up,
        earlier=earlier,
    )


@pytest.mark.parametrize(
    ("text", "cues"),
    [
        ("thanks a lot", {"thanks"}),
        ("that is not what i meant", {"i_meant", "fault"}),
        ("make it shorter", {"make_it", "more_less"}),
        ("are you sure?", {"doubt"}),
        ("no, that's wrong", {"negation_first", "fault"}),
        ("继续", {"onward"}),
        ("неправильно, исправь", {"fault", "make_it"}),
        ("you forgot the salt", {"you_did", "not_done"}),
        ("TypeError: undefined is not a function".lower(), {"broken"}),
    ],
)
def test_cues_are_heard(text, cues):
    heard = CUES["follow_up"].heard(text, re.findall(r"\w+(?:['\u2019]\w+)*", text))
    assert cues <= heard


def test_a_cue_of_several_words_needs_all_of_them_in_order():
    cues = Cues({"sure": {"words": ["are you (?:sure|certain)"]}})
    assert cues.heard("", ["but", "are", "you", "certain"]) == {"sure"}
    assert cues.heard("", ["are", "you"]) == set()
    assert cues.heard("", ["you", "are", "sure"]) == set()


WORDINGS = tomllib.loads((files("rlhi_training") / "labelling" / "cues.toml").read_text("utf-8"))


def heard_plainly(group: str, text: str, words: list[str]) -> set[str]:
    """Each wording on its own, in the order of the file."""
    found = set()
    for name, cue in WORDINGS[group].items():
        phrases = [phrase.split(" ") for phrase in cue.get("words", ())]
        begun = [(phrase, words[i : i + len(phrase)]) for phrase in phrases for i in range(len(words))]
        said = any(
            len(some) == len(phrase) and all(map(re.fullmatch, phrase, some))
            for phrase, some in begun
            if re.fullmatch(phrase[0], some[0])
        )
        # What no ASCII text can hold is not looked for in one.
        parts = [
            part
            for part in cue.get("parts", ())
            if not text.isascii() or part.isascii() or re.search("[a-z]", re.sub(r"\\.", "", part))
        ]
        if said or any(re.search(part, text) for part in parts):
            found.add(name)
    return found


PHRASES = (
    "you are sure said i mean it's no more than 3 words line 12 more !! ?? ?! def import function select x from y"
    " https://x ``` : 作为ai 加上 删 吗 你好 什么 不对 не работает «да»"
)
SAID = st.lists(
    st.sampled_from(PHRASES.split()) | st.sampled_from([*"éü🌱,.?\n"]),
    max_size=14,
).map(" ".join)


@settings(max_examples=40)
@given(SAID, st.sampled_from(list(WORDINGS)))
def test_the_quick_way_hears_what_each_wording_on_its_own_finds(text, group):
    assert CUES[group].heard(text, words_of(text)) == heard_plainly(group, text, words_of(text))


def test_what_a_reply_does_is_heard():
    found = facts(exchange("why not?", reply="I'm sorry, but as an AI I cannot do that. Could you clarify?"))
    assert {"reply:refuses", "reply:asks", "reply_question"} <= set(found)
    assert "reply:refuses" not in facts(exchange("why not?"))


def test_relations_say_how_texts_relate():
    same = relations(exchange("how do I keep basil alive?"))
    assert same["same"] == 1.0
    assert same["is_same"] == 1.0
    longer = relations(exchange("How do I keep basil alive in winter?"))
    assert longer["extends"] == 1.0
    assert longer["removed"] == 0.0
    assert relations(exchange("How do I keep mint alive?"))["swaps"] == 1.0
    assert relations(exchange("Old one", earlier=("old one", "x")))["is_earlier"] == 1.0
    assert relations(exchange("Again", reply=""))["no_reply"] == 1.0
    assert relations(exchange("Что это?"))["script_changed"] == 1.0
    assert relations(exchange("go on", reply="word " * 100))["reply_cut"] == 1.0


def test_terms_name_the_text_that_they_come_from():
    found = terms(exchange("No more salt", request="Bake bread", reply="Add salt now"))
    assert {"f no", "f no_more", "^ no", "^ no_more", "r add", "r add_salt", "s now", "q bake", "$ t"} <= set(found)
    assert {"f 错误", "f 误了"} <= set(terms(exchange("错误了")))


TEXTS = st.text(alphabet=string.printable + "错误继续неяأ🌱", max_size=400)


@given(TEXTS, TEXTS, TEXTS)
def test_any_text_gives_finite_facts_of_known_names(follow_up, request, reply):
    one = exchange(follow_up, request=request, reply=reply)
    assert set(facts(one)) <= set(fact_names())
    row = matrix([one])
    assert row.shape == (1, len(fact_names()))
    assert np.isfinite(row).all()
    assert matrix([one, one]).tolist() == [row[0].tolist()] * 2
    assert row[0].tolist() == [float(np.float32(facts(one).get(name, 0.0))) for name in fact_names()]


WORDS = st.lists(st.sampled_from(["no", "a_b", "don't", "''it's'", "more", "salt.", "你好吗", "_", "é"]), max_size=12)


@given(TEXTS | WORDS.map(" ".join), TEXTS | WORDS.map(" ".join), TEXTS | WORDS.map(" ".join))
def test_the_index_finds_what_spelling_the_terms_finds(follow_up, request, reply):
    one = exchange(follow_up, request=request, reply=reply)
    spelt = sorted(set(terms(one)))
    index = TermIndex({term: number for number, term in enumerate([*spelt, "f no_more", "f a_b", "r a_b", "q^ no_no"])})
    assert index.of(one) == index.numbers(terms(one))
    assert len(index.of(one)) == len(spelt)


@given(TEXTS | WORDS.map(" ".join))
def test_words_items_and_code_are_what_plain_expressions_find(text):
    assert words_of(text) == re.findall(r"\w+(?:['\u2019]\w+)*", text)
    assert has_item(text) == bool(re.search(r"^\s*(?:[-*\u2022]|\d+[.)])\s", text, re.MULTILINE))
    assert has_capitals(text) == bool(re.search(r"\b[A-Z]{4,}\b", text))
    assert has_quote(text) == any(quote in text for quote in '"\u201c\u300c\u00ab')
    assert has_code(text) == bool(re.search(r"```|[{};]\s*\n|</\w+>|\bdef \w+\(|#include|\bimport \w+", text))


def wide(text: str) -> set[str]:
    """The words that overlaps are computed on, all of them as strings."""
    shown = text.lower().strip() if len(text) <= 340 else text[:800].lower()
    return set(split_runs(words_of(shown), spaced=look(text).spaced))


def assert_overlaps(one: Exchange) -> None:
    """Overlaps are those of the sets of words."""
    said, asked, answered = wide(one.follow_up), wide(one.request), wide(one.reply)
    found = relations(one)
    assert found["same"] == len(said & asked) / max(1, len(said | asked))
    assert found["in_request"] == len(said & asked) / max(1, len(said))
    assert found["in_reply"] == len(said & answered) / max(1, len(said))
    assert found["reply_in"] == len(said & answered) / max(1, len(answered))
    assert found["reply_on_request"] == len(asked & answered) / max(1, len(asked))
    assert found["news"] == 1.0 - len(said & (asked | answered)) / max(1, len(said))
    assert found["cuts"] == (not said - asked and bool(asked - said))


SCRIPTS = st.text(alphabet="ab 'é\u2019我你AI가\u13a0\u13a1\uab70\uab71🌱\u3002", max_size=60)


@given(SCRIPTS, SCRIPTS, SCRIPTS)
def test_overlaps_are_those_of_words_and_pairs_of_ideographs(follow_up, request, reply):
    assert_overlaps(exchange(follow_up, request=request, reply=reply))


@given(SCRIPTS, st.integers(1, 12))
def test_the_first_and_last_words_are_those_of_all(text, count):
    looked_at = look(text)
    every = list(split_runs(looked_at.words, spaced=looked_at.spaced))
    assert list(first_of(looked_at, count)) == every[:count]
    assert list(last_of(looked_at, count)) == every[-count:]


@pytest.mark.slow
def test_real_texts_are_heard_and_compared_as_plainly(wildchat_path):
    log = [one for one in read_conversations(wildchat_path) if isinstance(one, Conversation)]
    real = [found for conversation in log for found in exchanges(conversation)][::16]
    assert len(real) > 50
    for one in real:
        assert_overlaps(one)
        for group, text in (("follow_up", look(one.follow_up)), ("reply", look(one.reply))):
            assert text.heard(group) == heard_plainly(group, text.shown, list(text.words))


@given(st.lists(st.lists(st.sampled_from([-1.0, 0.0, 0.5]), min_size=20, max_size=20), min_size=1, max_size=5))
def test_the_subtype_is_the_likeliest_of_the_label_and_of_equal_ones_the_last_by_name(scores):
    found = verdicts([exchange("?")] * len(scores), np.array(scores, dtype=np.float32), Decision())
    for label, subtype, row in zip(found.labels, found.subtypes, scores, strict=True):
        assert subtype == max(GOES_WITH[label], key=lambda kind: (row[4 + SUBTYPES.index(kind)], kind))


def test_a_megabyte_costs_no_more_than_its_ends():
    huge = exchange("word " * 200_000, request="x" * 1_000_000, reply="y " * 500_000)
    assert np.isfinite(matrix([huge])).all()
    assert len(terms(huge)) < 500
