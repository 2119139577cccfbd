"""What the numbers say, in sentences computed from them, whatever they say.

The first finding answers the question that the evaluation was made for. A difference is claimed only where its 95 %
interval leaves out zero; what did not help, what got worse, and what cannot be told are findings like any other.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rlhi_eval_harness.inference.coverage import UNSCORED_LIMIT
from rlhi_eval_harness.numbers import ALL, Numbers, unscored_share, verdict
from rlhi_eval_harness.records import Estimate
from rlhi_eval_harness.scoring import FINISHED, KEPT, KEPT_IF_DECIDED, KEPT_PREFIX, REPETITION, WORDS
from rlhi_eval_harness.suites.kind import ADAPTED, BASELINE, NO_LENGTH_WISH, NO_PERSONA, PERSONA_ONLY, SHUFFLED
from rlhi_plugin.checks import CHECKS

LENGTH_CHANGE = 0.15
"""A change of mean length by less than this share is not worth a sentence."""
REPETITION_CHANGE = 0.01
FINISHED_CHANGE = 0.05
FEW_USERS = 10


def findings(estimates: Sequence[Estimate], differences: Sequence[Estimate]) -> tuple[str, ...]:
    """All sentences, the most important first."""
    numbers = Numbers(estimates, differences)
    return (
        *_headline(numbers),
        *_unscored(numbers),
        *_shuffled(numbers),
        *_new_wordings(numbers),
        *_cap(numbers),
        *_prompt_only(numbers),
        *_preferences(numbers),
        *_length(numbers),
        *_repetition(numbers),
        *_finished(numbers),
        *_without_persona(numbers),
        *_few_users(numbers),
    )


def _headline(numbers: Numbers) -> Iterator[str]:
    adapted = numbers.of(KEPT, ADAPTED)
    against = next((name for name in (PERSONA_ONLY, BASELINE) if numbers.difference(KEPT, ADAPTED, name)), None)
    difference = numbers.difference(KEPT, ADAPTED, against) if against else None
    other = numbers.of(KEPT, against) if against else None
    if adapted is None or difference is None or other is None:
        yield (
            "The adapter was not compared with the base: answers are missing or unscored, users are too few, or the "
            "suite leaves one of the two out."
        )
        return
    label = "the base with the same persona" if against == PERSONA_ONLY else "the base"
    values = f"{percent(adapted.value)} of users' preferences against {percent(other.value)} for {label}"
    gap = f"{points(difference)}; {difference.clusters} held-out users, {difference.n} held-out prompts"
    match verdict(difference):
        case 1:
            yield f"The adapter helps: with the persona it keeps {values} ({gap})."
        case -1:
            yield f"The adapter harms: with the persona it keeps {values} ({gap}). Do not use it."
        case _:
            yield (
                f"The adapter did not measurably help: with the persona it keeps {values} ({gap}). "
                "The interval includes zero, so no difference can be claimed."
            )


def _unscored(numbers: Numbers) -> Iterator[str]:
    """Numbers with too many unscored answers; those that the cap left undecided have a sentence of their own."""
    labels_by_subjects: dict[str, list[str]] = {}
    for metric in (KEPT, WORDS, REPETITION, FINISHED):
        of_all = [each for each in numbers.estimates if each.metric == metric and each.group == ALL]
        bad = [each for each in of_all if unscored_share(each) > UNSCORED_LIMIT]
        if bad:
            named = ", ".join(f"{each.subject} {percent(unscored_share(each))}" for each in bad)
            labels_by_subjects.setdefault(named, []).append(METRIC_LABELS[metric].lower())
    for named, labels in labels_by_subjects.items():
        what, limit = "; ".join(labels), percent(UNSCORED_LIMIT)
        yield f"Not to be used, because more than {limit} of the answers are unscored ({named}): {what}."


def _shuffled(numbers: Numbers) -> Iterator[str]:
    difference, shuffled = numbers.difference(KEPT, ADAPTED, SHUFFLED), numbers.of(KEPT, SHUFFLED)
    if difference is None or shuffled is None:
        return
    gap = f"right persona minus shuffled: {points(difference)}"
    match verdict(difference):
        case 1:
            yield (
                "The adapter reads the persona: with another user's persona it keeps only "
                f"{percent(shuffled.value)} ({gap})."
            )
        case -1:
            yield (
                f"Another user's persona does better than the right one, {percent(shuffled.value)} ({gap}): "
                "whatever the adapter learned, it is not to follow personas."
            )
        case _:
            yield (
                f"Another user's persona does as well as the right one, {percent(shuffled.value)} ({gap}; the interval "
                "includes zero): a change against the base is not shown to be personalisation."
            )


def _new_wordings(numbers: Numbers) -> Iterator[str]:
    new = numbers.difference(KEPT, ADAPTED, PERSONA_ONLY, "new")
    seen = numbers.difference(KEPT, ADAPTED, PERSONA_ONLY, "seen")
    if new is None or seen is None:
        return
    holds = {1: "helps", 0: "is not shown to help", -1: "harms"}[verdict(new)]
    yield (
        f"For users who put their wishes in words that training never saw, the adapter {holds} ({points(new)}); "
        f"for users with wordings from training: {points(seen)}."
    )


def _cap(numbers: Numbers) -> Iterator[str]:
    """Whether the headline is an artefact of answers that were cut at the cap."""
    received = numbers.difference(KEPT, ADAPTED, PERSONA_ONLY)
    decided = numbers.difference(KEPT_IF_DECIDED, ADAPTED, PERSONA_ONLY)
    if received is None or decided is None or not decided.unscored:
        return
    cut = f"In {decided.unscored} of {decided.unscored + decided.n} prompts the token cap cut an answer"
    if unscored_share(decided) > UNSCORED_LIMIT:
        yield (
            f"{cut} before its check was decided. Such answers count as the user received them; what longer answers "
            "would have kept cannot be told, because too many are cut."
        )
        return
    agree = verdict(received) == verdict(decided)
    conclusion = "which is the same conclusion" if agree else "which is another conclusion: the cap plays a part"
    yield f"{cut} before its check was decided; leaving them out gives {points(decided)}, {conclusion}."


def _prompt_only(numbers: Numbers) -> Iterator[str]:
    difference = numbers.difference(KEPT, PERSONA_ONLY, BASELINE)
    if difference is None:
        return
    does = {
        1: "The persona in the prompt helps without any training",
        0: "The persona in the prompt alone makes no measurable difference",
        -1: "The persona in the prompt alone makes the base worse",
    }[verdict(difference)]
    yield f"{does} ({points(difference)} against the base)."


def _preferences(numbers: Numbers) -> Iterator[str]:
    """Single preferences that got worse; a good mean can hide them."""
    worse = []
    for each in numbers.differences:
        if not each.metric.startswith(KEPT_PREFIX) or (each.subject, each.versus) != (ADAPTED, PERSONA_ONLY):
            continue
        before, after = numbers.of(each.metric, PERSONA_ONLY), numbers.of(each.metric, ADAPTED)
        if each.low is not None and verdict(each) < 0 and before and after:
            fall = f"from {percent(before.value)} to {percent(after.value)}"
            worse.append(f"{preference_label(each.metric)} {fall}")
    if worse:
        yield f"Kept less often than by the base with the persona: {'; '.join(worse)}."


def _length(numbers: Numbers) -> Iterator[str]:
    group = NO_LENGTH_WISH if numbers.difference(WORDS, ADAPTED, PERSONA_ONLY, NO_LENGTH_WISH) else ALL
    difference = numbers.difference(WORDS, ADAPTED, PERSONA_ONLY, group)
    before, after = numbers.of(WORDS, PERSONA_ONLY, group), numbers.of(WORDS, ADAPTED, group)
    if difference is None or before is None or after is None or not before.value or after.value is None:
        return
    change = after.value / before.value - 1
    whose = " to users without a wish about length" if group == NO_LENGTH_WISH else ""
    if abs(change) < LENGTH_CHANGE or not verdict(difference):
        yield f"Answers{whose} keep their length: {after.value:.0f} words against {before.value:.0f}."
        return
    did = "shrank" if change < 0 else "grew"
    yield f"Answers{whose} {did} by {percent(abs(change))}, from {before.value:.0f} to {after.value:.0f} words."


def _repetition(numbers: Numbers) -> Iterator[str]:
    difference = numbers.difference(REPETITION, ADAPTED, PERSONA_ONLY)
    before, after = numbers.of(REPETITION, PERSONA_ONLY), numbers.of(REPETITION, ADAPTED)
    if difference is None or before is None or after is None:
        return
    if abs(difference.value or 0.0) < REPETITION_CHANGE or not verdict(difference):
        return
    did = "more" if verdict(difference) > 0 else "less"
    share = f"{percent(after.value, 1)} of four-word runs repeated against {percent(before.value, 1)}"
    yield f"Answers repeat themselves {did}: {share}."


def _finished(numbers: Numbers) -> Iterator[str]:
    difference = numbers.difference(FINISHED, ADAPTED, PERSONA_ONLY)
    before, after = numbers.of(FINISHED, PERSONA_ONLY), numbers.of(FINISHED, ADAPTED)
    if difference is None or before is None or after is None:
        return
    if abs(difference.value or 0.0) < FINISHED_CHANGE or not verdict(difference):
        return
    did = "More" if verdict(difference) > 0 else "Fewer"
    yield f"{did} answers end before the token cap: {percent(after.value)} against {percent(before.value)}."


def _without_persona(numbers: Numbers) -> Iterator[str]:
    kept = numbers.difference(KEPT, NO_PERSONA, BASELINE)
    if kept is None:
        return
    change = {
        1: "keeps more preferences than the base even so: part of what it learned holds for everyone",
        0: "is not shown to differ from the base",
        -1: "keeps fewer preferences than the base: users without history pay for it",
    }[verdict(kept)]
    yield f"Without a persona the adapter {change} ({points(kept)})."


def _few_users(numbers: Numbers) -> Iterator[str]:
    clusters = max((each.clusters for each in numbers.estimates if each.metric == KEPT), default=0)
    if clusters < FEW_USERS:
        yield f"Only {clusters} users were evaluated: the intervals are wide, and a small effect would not be seen."


METRIC_LABELS = {
    KEPT: "Preferences kept",
    KEPT_IF_DECIDED: "Preferences kept, decided answers only",
    WORDS: "Words per answer",
    REPETITION: "Repeated four-word runs",
    FINISHED: "Answers that end before the cap",
}


def preference_label(metric: str) -> str:
    """What a user who has it would call the preference of ``kept.NAME``."""
    return CHECKS[metric.removeprefix(KEPT_PREFIX)].description


def percent(value: float | None, digits: int = 0) -> str:
    """``0.62`` as ``62 %``."""
    return "no value" if value is None else f"{100 * value:.{digits}f} %"


def points(difference: Estimate) -> str:
    """A difference of shares in percentage points, with its interval."""
    if difference.value is None or difference.low is None or difference.high is None:
        return "no interval"
    # Adding zero turns a rounded -0 into 0.
    value, low, high = (
        f"{round(100 * each) + 0.0:+.0f}" for each in (difference.value, difference.low, difference.high)
    )
    return f"{value} points, 95 % interval {low} to {high}"
