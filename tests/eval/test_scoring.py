"""What an answer is worth, and when it cannot be said."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhi_eval_harness.records import EvalSample, PlannedSample
from rlhi_eval_harness.scoring import FINISHED, KEPT, KEPT_IF_DECIDED, METRICS, REPETITION, WORDS, decided, score
from rlhi_eval_harness.simulation import SimulatedUser
from rlhi_plugin.checks import CHECKS
from rlhi_plugin.errors import ArtefactError
from rlhi_plugin.records import ChatMessage

PROMPT = (ChatMessage(role="user", content="How do I make tea?"),)


def _plan(*ids: str) -> list[PlannedSample]:
    return [
        PlannedSample(
            sample_id=id_, suite="s", subject="base", user="ann", group="seen", request="tea", prompt=PROMPT,
            max_tokens=8, temperature=0.0, seed=0,
        )
        for id_ in ids
    ]  # fmt: skip


def _output(id_: str, text: str, finish: str = "stop") -> EvalSample:
    return EvalSample(
        sample_id=id_, suite="s", subject="base", user="ann", prompt=PROMPT, output=text, finish_reason=finish
    )


def _scores(text: str, *preferences: str, finish: str = "stop") -> dict[str, float | str]:
    user = SimulatedUser(name="ann", preferences=preferences)
    scores = score(_plan("a"), [_output("a", text, finish)], [user])
    return {each.metric: each.unscored if each.value is None else each.value for each in scores}


def test_a_whole_answer_is_scored_by_its_users_preferences_only():
    scores = _scores("Hello! Boil water.", "greeting", "numbers")
    assert scores == {
        KEPT: 0.5,
        KEPT_IF_DECIDED: 0.5,
        WORDS: 3.0,
        REPETITION: 0.0,
        FINISHED: 1.0,
        "kept.greeting": 1.0,
        "kept.numbers": 0.0,
    }


def test_a_cut_answer_counts_as_received_and_apart_from_that_only_if_decided():
    scores = _scores("Hello! Boil water, then", "greeting", "closing_question", finish="length")
    assert scores[KEPT] == 0.5
    assert scores[KEPT_IF_DECIDED] == "cut_before_decided"
    assert scores[FINISHED] == 0.0
    both_decided = _scores("Hello! Take 2 cups and 3 spoons of", "greeting", "numbers", finish="length")
    assert both_decided[KEPT] == both_decided[KEPT_IF_DECIDED] == 1.0


def test_an_empty_answer_breaks_everything_and_cannot_repeat():
    scores = _scores("", "short", "no_lists")
    assert scores[KEPT] == 0.0
    assert scores[WORDS] == 0.0
    assert scores[REPETITION] == "empty_answer"


def test_what_has_no_output_is_unscored_and_never_left_out():
    user = SimulatedUser(name="ann", preferences=("short", "greeting"))
    scores = score(_plan("a", "b"), [_output("b", "Hello.")], [user])
    missing = [each for each in scores if each.sample_id == "a"]
    assert {each.unscored for each in missing} == {"no_output"}
    assert {each.metric for each in missing} == {each.metric for each in scores if each.sample_id == "b"}
    assert len(missing) == len(METRICS) + 2


def test_a_refusal_is_unscored():
    assert set(_scores("No.", "short", finish="refused").values()) == {"refused"}


@pytest.mark.parametrize(
    ("outputs", "message"),
    [(["a", "a"], "twice"), (["a", "z"], "z, which plan.jsonl does not")],
)
def test_outputs_that_do_not_fit_the_plan_are_refused(outputs, message):
    user = SimulatedUser(name="ann", preferences=("short",))
    with pytest.raises(ArtefactError, match=message):
        score(_plan("a"), [_output(id_, "x") for id_ in outputs], [user])


def test_a_user_without_preferences_on_record_is_an_error():
    with pytest.raises(ArtefactError, match="lacks ann"):
        score(_plan("a"), [], [])


PIECES = st.lists(
    st.sampled_from(["Hello!", "word", "7", "12.5", "5.", "\n- item", "\n2. item", "for example", "why?", "🙂", "\n"]),
    max_size=45,
).map(" ".join)


@given(st.sampled_from(sorted(CHECKS)), PIECES, PIECES)
def test_what_counts_as_decided_is_not_changed_by_more_text(preference: str, text: str, more: str):
    if decided(preference, text):
        assert CHECKS[preference].holds(f"{text} {more}") is CHECKS[preference].holds(text)
