"""Scores stored answers of simulated users by code; needs no model and can be done again at any time.

An answer that was cut at the token cap is scored **as the user received it**: a list that never came is a list that the
user did not get, and they would have complained. That is `preference_kept`, the headline. Beside it stands
`preference_kept_if_decided`, where an answer is unscored if the cap came before the preference was decided one way or
the other (a closing question may still have come; the 31st word of a long answer has been said). Where both agree, the
cap explains nothing. An empty answer breaks every preference; its repetition is unscored, because nothing can repeat.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from rlhi_eval_harness.records import EvalSample, Metric, PlannedSample, Score
from rlhi_eval_harness.simulation import SimulatedUser
from rlhi_plugin.checks import CHECKS, repeated_share, word_count
from rlhi_plugin.errors import ArtefactError

KEPT = "preference_kept"
KEPT_IF_DECIDED = "preference_kept_if_decided"
WORDS = "words"
REPETITION = "repetition"
FINISHED = "finished"
KEPT_PREFIX = "kept."
"""``kept.bullets`` and so on: one preference, of the users who have it."""

METRICS = (KEPT, KEPT_IF_DECIDED, WORDS, REPETITION, FINISHED)
HEALTH_TABLE = (
    Metric(name=WORDS, label="Words", meaning="Words of an answer.", unit="count", better="neither", role="health"),
    Metric(
        name=REPETITION,
        label="Repeated",
        meaning="Share of four-word runs that have occurred before in the answer.",
        better="lower",
        role="health",
        throughout=False,
    ),
    Metric(name=FINISHED, label="Not cut", meaning="Answers that end before the token cap.", role="health"),
)
"""What any generated answer can be scored on."""
METRIC_TABLE = (
    Metric(
        name=KEPT,
        label="Preferences kept",
        meaning="Share of the user's hidden preferences that the answer keeps, as the user received it.",
        role="headline",
    ),
    Metric(name=KEPT_IF_DECIDED, label="… if decided", meaning="The same, where the cap came after the decision."),
    *HEALTH_TABLE,
)

_STAYS_KEPT = frozenset({"detailed", "bullets", "numbers", "greeting", "example", "emojis"})
_STAYS_BROKEN = frozenset({"short", "no_lists", "no_emojis", "greeting"})


def score(
    plan: Sequence[PlannedSample], outputs: Sequence[EvalSample], users: Sequence[SimulatedUser]
) -> tuple[Score, ...]:
    """Score every planned sample; what has no output is unscored, never left out.

    Raises:
        ArtefactError: an output twice, an output that was not planned, or a user without preferences.
    """
    by_name = {user.name: user for user in users}
    by_id = by_sample(plan, outputs)
    if missing := {sample.user for sample in plan} - by_name.keys():
        raise ArtefactError(f"users.jsonl lacks {min(missing)}. Run rlhi-eval run again.")
    scores: list[Score] = []
    for sample in plan:
        scores += _sample_scores(sample.sample_id, by_id.get(sample.sample_id), by_name[sample.user])
    return tuple(scores)


def by_sample(plan: Sequence[PlannedSample], outputs: Sequence[EvalSample]) -> dict[str, EvalSample]:
    """Outputs by sample.

    Raises:
        ArtefactError: an output twice, or an output that was not planned.
    """
    by_id = {output.sample_id: output for output in outputs}
    planned = {sample.sample_id for sample in plan}
    if len(by_id) != len(outputs):
        counts = Counter(output.sample_id for output in outputs)
        twice = min(name for name, count in counts.items() if count > 1)
        raise ArtefactError(f"outputs.jsonl holds {twice} twice. Remove the second line and score again.")
    if not by_id.keys() <= planned:
        stray = min(by_id.keys() - planned)
        raise ArtefactError(f"outputs.jsonl holds {stray}, which plan.jsonl does not. Remove the line and score again.")
    return by_id


def no_answer(output: EvalSample | None) -> str | None:
    """Why there is nothing to score, or None."""
    if output is None:
        return "no_output"
    if output.failed is not None:
        return output.failed.partition(":")[0]
    return "refused" if output.finish_reason == "refused" else None


def health_scores(sample: PlannedSample, output: EvalSample | None) -> list[Score]:
    """Length, repetition, and whether the answer was cut."""
    if output is None or (reason := no_answer(output)) is not None:
        reason = no_answer(output) or "no_output"
        return [scored(sample.sample_id, metric.name, reason) for metric in HEALTH_TABLE]
    return [scored(sample.sample_id, name, value) for name, value in _health(output).items()]


def scored(sample_id: str, metric: str, value: float | str) -> Score:
    """A score from a value, or from the reason why there is none."""
    if isinstance(value, str):
        return Score(sample_id=sample_id, metric=metric, unscored=value)
    return Score(sample_id=sample_id, metric=metric, value=value)


def _health(output: EvalSample) -> dict[str, float | str]:
    text = output.output
    return {
        WORDS: float(word_count(text)),
        REPETITION: repeated_share(text) if text.strip() else "empty_answer",
        FINISHED: float(output.finish_reason != "length"),
    }


def decided(preference: str, text: str) -> bool:
    """Whether no further text could change what the check of `preference` says about `text`."""
    holds = CHECKS[preference].holds
    # A further word must not change it either: "5." at the end is a figure until a word makes it an item's number.
    now, later = holds(text), holds(text + " x")
    if now and later:
        return preference in _STAYS_KEPT
    return not now and not later and bool(text.strip()) and preference in _STAYS_BROKEN


def _sample_scores(sample_id: str, output: EvalSample | None, user: SimulatedUser) -> list[Score]:
    names = [*METRICS, *(f"{KEPT_PREFIX}{preference}" for preference in user.preferences)]
    reason = no_answer(output)
    if output is None or reason is not None:
        return [scored(sample_id, name, reason or "no_output") for name in names]
    return [scored(sample_id, name, value) for name, value in _values(output, user).items()]


def _values(output: EvalSample, user: SimulatedUser) -> Mapping[str, float | str]:
    """Value by metric, or the reason why there is none."""
    text = output.output
    cut = output.finish_reason == "length"
    kept = {preference: float(CHECKS[preference].holds(text)) for preference in user.preferences}
    share = sum(kept.values()) / len(kept)
    undecided = cut and not all(decided(preference, text) for preference in kept)
    return {
        KEPT: share,
        KEPT_IF_DECIDED: "cut_before_decided" if undecided else share,
        **_health(output),
        **{f"{KEPT_PREFIX}{preference}": value for preference, value in kept.items()},
    }
