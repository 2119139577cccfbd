"""From verdicts on disk to what people said, how far they agree, and how far the judge agrees with them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import combinations
from statistics import median

from rlhi_eval_harness.human.beside_judge import JudgeScores, beside_judge
from rlhi_eval_harness.human.planning import STUDY, VERDICTS, Pair, pairs_of, read_study
from rlhi_eval_harness.human.records import HumanVerdict, Study, Undo
from rlhi_eval_harness.human.results import DimensionResult, HumanResult, RaterResult
from rlhi_eval_harness.human.tasks import judged_by
from rlhi_eval_harness.human.verdict_file import Line, read_lines, standing
from rlhi_eval_harness.human.verdict_values import Numbers, by_item, measured, win
from rlhi_eval_harness.inference.clustered_agreement import clustered_alpha
from rlhi_eval_harness.records import Score
from rlhi_eval_harness.statistics import Value
from rlhi_eval_harness.suites.kind import Stored
from rlhi_eval_harness.suites.suite import Suite
from rlhi_plugin.checks import word_count


def human_results(
    stored: Stored, scores: Sequence[Score], suite: Suite, *, judge: str | None
) -> tuple[HumanResult, ...]:
    """Every study of a folder in which somebody has said something, by name.

    Args:
        stored: Plan and outputs of the folder.
        scores: Of the suite; a judge's win rates are taken from them.
        suite: Its options.
        judge: Whose those are.

    Raises:
        ArtefactError: a study or its verdicts are damaged.
    """
    found = []
    for place in sorted(path.parent for path in stored.folder.human.glob(f"*/{STUDY}")):
        lines = read_lines(place / VERDICTS)
        if lines:
            found.append(summarise(read_study(place), lines, stored, scores, suite=suite, judge=judge))
    return tuple(found)


def summarise(
    study: Study,
    lines: list[Line],
    stored: Stored,
    scores: Sequence[Score],
    *,
    suite: Suite,
    judge: str | None,
) -> HumanResult:
    """One study."""
    numbers = Numbers(suite.seed, suite.resamples)
    pairs, _ = pairs_of(stored, study.subject, study.versus)
    everything = standing(lines)
    current = [
        each
        for each in everything
        if each.item_id in pairs and pairs[each.item_id].shown(study.subject, study.versus) == each.shown
    ]
    real = [each for each in current if each.check is None]
    given = [each for each in real if each.skipped is None]
    first = next((sample.subject for sample in stored.plan), None)
    judged = JudgeScores.of(scores, study) if judge is not None and study.versus == first else None
    raters = judged_by(study, current)
    return HumanResult(
        study=study.name,
        subject=study.subject,
        versus=study.versus,
        judge=judge if judged is not None and judged.by_dimension else None,
        seed=study.seed,
        overlap=study.overlap,
        guidance=study.guidance,
        eligible=study.eligible,
        items=len(study.items),
        judged=sum(count > 0 for count in raters.values()),
        complete=sum(count >= study.overlap for count in raters.values()),
        verdicts=len(given),
        skipped=dict(Counter(each.skipped for each in real if each.skipped is not None)),
        left_out=study.left_out,
        stale=len(everything) - len(current),
        notes=sum(bool(each.note) for each in current),
        raters=tuple(_rater(name, lines, current) for name in dict.fromkeys(line.rater for line in lines)),
        dimensions=tuple(
            _dimension(study, name, real, pairs, numbers).model_copy(
                update={"with_judge": beside_judge(study, name, given, pairs, judged, numbers=numbers)}
            )
            for name in study.dimensions
        ),
    )


def _dimension(
    study: Study, name: str, real: Sequence[HumanVerdict], pairs: Mapping[str, Pair], numbers: Numbers
) -> DimensionResult:
    said = [each for each in real if each.skipped is None]
    items = by_item(said)
    user = {item: pairs[item].user for item in by_item(real)}
    wins = [
        Value(user[item], item, sum(win(study, each, name) for each in items[item]) / len(items[item]))
        if item in items
        else Value(user[item], item, None)
        for item in user
    ]
    raters = sorted({each.rater for each in said})
    ratings = [{each.item_id: win(study, each, name) for each in said if each.rater == who} for who in raters]
    verdicts = [
        (each, f"{each.rater}/{each.item_id}", {"tie": 0.5, "left": 1.0, "right": 0.0}[each.answers[name]])
        for each in said
    ]
    return DimensionResult(
        dimension=name,
        label=study.dimensions[name],
        people=numbers.mean(wins),
        over_raters=numbers.mean([Value(each.rater, key, win(study, each, name)) for each, key, _ in verdicts]),
        agreement=numbers.mean(
            [Value(user[item], item, _same(study, each, name)) for item, each in items.items() if len(each) > 1]
        ),
        alpha=measured(clustered_alpha(ratings, user, seed=numbers.seed, resamples=numbers.resamples)),
        left_wins=numbers.mean([Value(user[each.item_id], key, left) for each, key, left in verdicts]),
        longer_wins=numbers.mean(_longer(study, name, said, pairs)),
    )


def _same(study: Study, verdicts: Sequence[HumanVerdict], name: str) -> float:
    """Share of pairs of raters that say the same."""
    pairs = [win(study, one, name) == win(study, other, name) for one, other in combinations(verdicts, 2)]
    return sum(pairs) / len(pairs)


def _longer(study: Study, name: str, said: Sequence[HumanVerdict], pairs: Mapping[str, Pair]) -> list[Value]:
    """Verdicts for the longer answer, in words; equal lengths say nothing of length."""
    found = []
    for each in said:
        pair = pairs[each.item_id]
        ours, theirs = (word_count(pair.answers[subject]) for subject in (study.subject, study.versus))
        if ours != theirs:
            value = win(study, each, name)
            found.append(Value(pair.user, f"{each.rater}/{each.item_id}", value if ours > theirs else 1 - value))
    return found


def _rater(name: str, lines: Sequence[Line], current: Sequence[HumanVerdict]) -> RaterResult:
    mine = [each for each in current if each.rater == name]
    given = [each for each in mine if each.skipped is None]
    first = {each.item_id: each for each in given if each.check is None}
    swapped = {"left": "right", "right": "left", "tie": "tie"}
    mirrored = [each for each in given if each.check == "mirrored" and each.item_id in first]
    identical = [each for each in given if each.check == "identical"]
    seconds = [each.seconds for each in given if each.check is None and each.seconds is not None]
    return RaterResult(
        rater=name,
        verdicts=len(first),
        skipped=sum(each.skipped is not None for each in mine),
        undone=sum(isinstance(line, Undo) and line.rater == name for line in lines),
        median_seconds=round(median(seconds), 1) if seconds else None,
        mirrored=len(mirrored),
        mirrored_same=sum(
            first[each.item_id].answers == {question: swapped[side] for question, side in each.answers.items()}
            for each in mirrored
        ),
        identical=len(identical),
        identical_tied=sum(set(each.answers.values()) == {"tie"} for each in identical),
    )
