"""The sentences must follow the numbers, whatever they say."""

from rlhi_eval_harness.records import Estimate
from rlhi_eval_harness.report.findings import findings, points
from rlhi_eval_harness.scoring import FINISHED, KEPT, KEPT_IF_DECIDED, REPETITION, WORDS
from rlhi_eval_harness.suites.kind import ADAPTED, BASELINE, NO_LENGTH_WISH, NO_PERSONA, PERSONA_ONLY, SHUFFLED


def _estimate(metric, subject, value, *, unscored=0, group="all", n=90, clusters=15):
    return Estimate(
        metric=metric, subject=subject, group=group, value=value, low=value - 0.05, high=value + 0.05, n=n,
        clusters=clusters, unscored=unscored,
    )  # fmt: skip


def _difference(metric, subject, versus, value, reach, *, group="all", unscored=0):
    return Estimate(
        metric=metric, subject=subject, versus=versus, group=group, value=value, low=value - reach, high=value + reach,
        n=90, clusters=15, unscored=unscored,
    )  # fmt: skip


def _kept(base=0.2, persona=0.25, adapted=0.6, shuffled=0.3):
    values = {BASELINE: base, PERSONA_ONLY: persona, ADAPTED: adapted, SHUFFLED: shuffled, NO_PERSONA: base}
    return [_estimate(KEPT, subject, value) for subject, value in values.items()]


def _say(estimates, differences):
    return "\n".join(findings(estimates, differences))


def test_help_is_claimed_when_the_interval_leaves_out_zero():
    first = findings(_kept(), [_difference(KEPT, ADAPTED, PERSONA_ONLY, 0.35, 0.1)])[0]
    assert first == (
        "The adapter helps: with the persona it keeps 60 % of users' preferences against 25 % for the base with the "
        "same persona (+35 points, 95 % interval +25 to +45; 15 held-out users, 90 held-out prompts)."
    )


def test_no_help_is_said_when_the_interval_includes_zero():
    first = findings(_kept(adapted=0.28), [_difference(KEPT, ADAPTED, PERSONA_ONLY, 0.03, 0.05)])[0]
    assert first.startswith("The adapter did not measurably help")
    assert "includes zero" in first
    touching = findings(_kept(), [_difference(KEPT, ADAPTED, PERSONA_ONLY, 0.05, 0.05)])[0]
    assert touching.startswith("The adapter did not measurably help")


def test_harm_is_said():
    first = findings(_kept(adapted=0.1), [_difference(KEPT, ADAPTED, PERSONA_ONLY, -0.15, 0.1)])[0]
    assert first.startswith("The adapter harms")
    assert "Do not use it" in first


def test_without_a_comparison_nothing_is_claimed():
    first = findings([_estimate(KEPT, BASELINE, 0.2)], [])[0]
    assert first.startswith("The adapter was not compared")


def test_the_shuffled_control_decides_whether_it_is_personalisation():
    gain = _difference(KEPT, ADAPTED, PERSONA_ONLY, 0.35, 0.1)
    reads = _say(_kept(), [gain, _difference(KEPT, ADAPTED, SHUFFLED, 0.3, 0.1)])
    assert "The adapter reads the persona" in reads
    not_shown = _say(_kept(shuffled=0.58), [gain, _difference(KEPT, ADAPTED, SHUFFLED, 0.02, 0.1)])
    assert "does as well as the right one" in not_shown
    assert "not shown to be personalisation" in not_shown
    worse = _say(_kept(shuffled=0.9), [gain, _difference(KEPT, ADAPTED, SHUFFLED, -0.3, 0.1)])
    assert "does better than the right one" in worse


def test_shrinking_answers_are_told_of_users_who_did_not_ask_for_it():
    estimates = _kept()
    differences = []
    for group, before, after in (("all", 60.0, 30.0), (NO_LENGTH_WISH, 60.0, 24.0)):
        estimates += [
            _estimate(WORDS, PERSONA_ONLY, before, group=group),
            _estimate(WORDS, ADAPTED, after, group=group),
        ]
        differences.append(_difference(WORDS, ADAPTED, PERSONA_ONLY, after - before, 5.0, group=group))
    said = _say(estimates, differences)
    assert "Answers to users without a wish about length shrank by 60 %, from 60 to 24 words." in said


def test_length_that_hardly_moves_is_not_called_shrinking():
    estimates = [*_kept(), _estimate(WORDS, PERSONA_ONLY, 60.0), _estimate(WORDS, ADAPTED, 55.0)]
    said = _say(estimates, [_difference(WORDS, ADAPTED, PERSONA_ONLY, -5.0, 2.0)])
    assert "keep their length: 55 words against 60" in said


def test_repetition_and_cut_answers_are_told_when_they_change():
    estimates = [
        *_kept(),
        _estimate(REPETITION, PERSONA_ONLY, 0.02),
        _estimate(REPETITION, ADAPTED, 0.12),
        _estimate(FINISHED, PERSONA_ONLY, 0.9),
        _estimate(FINISHED, ADAPTED, 0.6),
    ]
    differences = [
        _difference(REPETITION, ADAPTED, PERSONA_ONLY, 0.1, 0.05),
        _difference(FINISHED, ADAPTED, PERSONA_ONLY, -0.3, 0.1),
    ]
    said = _say(estimates, differences)
    assert "repeat themselves more: 12.0 % of four-word runs repeated against 2.0 %" in said
    assert "Fewer answers end before the token cap: 60 % against 90 %" in said
    unclear = _say(estimates, [_difference(REPETITION, ADAPTED, PERSONA_ONLY, 0.1, 0.2)])
    assert "repeat themselves" not in unclear


def test_too_many_unscored_answers_make_a_number_unusable():
    estimates = [each for each in _kept() if each.subject != ADAPTED]
    assert "Not to be used" in _say([*estimates, _estimate(KEPT, ADAPTED, 0.6, unscored=10, n=90)], [])
    assert "Not to be used" not in _say([*estimates, _estimate(KEPT, ADAPTED, 0.6, unscored=4, n=96)], [])


def test_a_single_preference_that_fell_is_named():
    estimates = [
        *_kept(),
        _estimate("kept.no_lists", PERSONA_ONLY, 0.9),
        _estimate("kept.no_lists", ADAPTED, 0.2),
    ]
    said = _say(estimates, [_difference("kept.no_lists", ADAPTED, PERSONA_ONLY, -0.7, 0.2)])
    assert "running text, no lists from 90 % to 20 %" in said


def test_the_cap_is_checked_against_the_headline():
    def said(value: float, unscored: int) -> str:
        decided = _difference(KEPT_IF_DECIDED, ADAPTED, PERSONA_ONLY, value, 0.1, unscored=unscored)
        return _say(_kept(), [_difference(KEPT, ADAPTED, PERSONA_ONLY, 0.3, 0.1), decided])

    assert "the cap plays a part" in said(0.02, 4)
    assert "the same conclusion" in said(0.3, 4)
    assert "cannot be told, because too many are cut" in said(0.3, 20)
    assert "cap" not in said(0.3, 0)


def test_few_users_and_users_without_history_are_mentioned():
    few = [_estimate(KEPT, subject, 0.5, clusters=4) for subject in (ADAPTED, PERSONA_ONLY)]
    assert "Only 4 users" in _say(few, [])
    harmed = _say(_kept(), [_difference(KEPT, NO_PERSONA, BASELINE, -0.2, 0.1)])
    assert "users without history pay for it" in harmed


def test_no_minus_zero():
    assert points(_difference(KEPT, ADAPTED, PERSONA_ONLY, -0.001, 0.002)) == "+0 points, 95 % interval +0 to +0"
