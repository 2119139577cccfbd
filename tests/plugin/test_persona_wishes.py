"""What code reads out of feedback: topic and direction, and the type of a statement."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhi_plugin.persona.wishes import canned, contradict, is_one_off, read_wishes, statement_type
from rlhi_plugin.records import StatementType

READINGS = [
    ("Too long. Two sentences, please.", {"length:-"}),
    ("not too long", {"length:-"}),
    ("not detailed enough", {"length:+"}),
    ("too short", {"length:+"}),
    ("no longer than 50 words", {"length:-"}),
    ("way too wordy", {"length:-"}),
    ("more verbose please", {"length:+"}),
    ("no bullet points, write prose", {"lists:-"}),
    ("bullets instead of paragraphs", {"lists:+"}),
    ("why not use bullet points?", {"lists:+"}),
    ("don't forget the bullets", {"lists:+"}),
    ("No bullets? add some", {"lists:+"}),
    ("Where are the bullets?", {"lists:+"}),
    ("don\u2019t use so many emojis", {"emojis:-"}),
    ("too formal", {"formality:-"}),
    ("more casual", {"formality:-"}),
    ("less jargon", {"simplicity:+"}),
    ("shorter and without lists", {"length:-", "lists:-"}),
    ("In German, please", {"language:german"}),
    ("Always answer in French.", {"language:french"}),
    ("Could you list it in bullets?", {"lists:+"}),
    # Nothing is certain:
    ("What are the main sources of human error?", set()),
    ("list all grammatical words", set()),
    ("step number 4 does not work", set()),
    ("I need the sum of all odd numbers.", set()),
    (f"Tell me about {'very ' * 20} long rivers", set()),
    ("I don't mind lists", set()),
    ("How long does a cat live?", set()),
    ("make it longer, or shorter", set()),
    ("No, that is the wrong king.", set()),
    ("", set()),
]


@pytest.mark.parametrize(("text", "wishes"), READINGS)
def test_readings(text, wishes):
    assert read_wishes(text) == wishes


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("Shorter, please.", StatementType.LENGTH),
        ("Too long!", StatementType.LENGTH),
        ("Use bullet points.", StatementType.FORMAT),
        ("No lists please.", StatementType.FORMAT),
        ("More casual, please", StatementType.STYLE),
        ("Give examples.", StatementType.CONTENT),
        ("Answer in Dutch please", StatementType.LANGUAGE),
        ("I am a nurse.", StatementType.EXPERTISE),
        ("Simpler words please", StatementType.EXPERTISE),
        ("No emojis!", StatementType.AVOID),
        ("Don't mention my brother.", StatementType.AVOID),
        ("No, that is the wrong king.", StatementType.OTHER),
        ("The capital is Canberra.", StatementType.OTHER),
    ],
)
def test_types(text, kind):
    assert statement_type(text) is kind


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("Shorter!", "More detail please", True),
        ("Use bullets.", "Write prose, no lists.", True),
        ("Answer in French please", "In German, please", True),
        ("Short, with numbers", "Long, with numbers", True),
        ("Shorter!", "Two sentences, please.", False),
        ("Shorter!", "Use bullets.", False),
        ("I like cats.", "I do not like cats.", False),  # free text is never taken for a contradiction
    ],
)
def test_contradictions(one, other, expected):
    assert contradict(read_wishes(one), read_wishes(other)) is expected
    assert contradict(read_wishes(other), read_wishes(one)) is expected


def test_one_off_wishes_are_known():
    assert is_one_off("Just this once, make it long.")
    assert not is_one_off("Make it long once and for all.")


@given(st.text(max_size=200))
def test_any_text_can_be_read(text):
    wishes = read_wishes(text)
    assert len({wish.partition(":")[0] for wish in wishes}) == len(wishes)
    assert not contradict(wishes, wishes)
    assert all(canned(wish) for wish in wishes)
    assert isinstance(statement_type(text), StatementType)


def test_canned_sentences_ask_for_what_they_stand_for():
    for text, wishes in READINGS:
        for wish in wishes:
            assert wish in read_wishes(canned(wish)), (text, wish)
