"""Features: cues are heard word by word, relations are what their names say, nothing after the follow-up is seen."""

from __future__ import annotations

import string

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhi_plugin.labelling import Exchange
from rlhi_training.labelling.cues import CUES, Cues
from rlhi_training.labelling.features import fact_names, facts, matrix, relations, terms
from rlhi_training.labelling.term_index import TermIndex
from rlhi_training.labelling.texts import has_code, has_item, words_of


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
    import re

    heard = CUES["follow_up"].heard(text, re.findall(r"\w+(?:['\u2019]\w+)*", text))
    assert cues <= heard


def test_a_cue_of_several_words_needs_all_of_them_in_order():
    cues = Cues({"sure": {"words": ["are you (?:sure|certain)"]}})
    assert cues.heard("", ["but", "are", "you", "certain"]) == {"sure"}
    assert cues.heard("", ["are", "you"]) == set()
    assert cues.heard("", ["you", "are", "sure"]) == set()


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
    import re

    assert words_of(text) == re.findall(r"\w+(?:['\u2019]\w+)*", text)
    assert has_item(text) == bool(re.search(r"^\s*(?:[-*\u2022]|\d+[.)])\s", text, re.MULTILINE))
    assert has_code(text) == bool(re.search(r"```|[{};]\s*\n|</\w+>|\bdef \w+\(|#include|\bimport \w+", text))


def test_a_megabyte_costs_no_more_than_its_ends():
    huge = exchange("word " * 200_000, request="x" * 1_000_000, reply="y " * 500_000)
    assert np.isfinite(matrix([huge])).all()
    assert len(terms(huge)) < 500
