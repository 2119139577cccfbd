"""What the numbers of any suite say, in sentences computed from them.

A difference is claimed only where its 95 % interval leaves out what it would be without an effect; gain and harm are
told together; what is not to be used is said before what it would have said.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rlhi_eval_harness.inference.coverage import UNSCORED_LIMIT
from rlhi_eval_harness.numbers import ALL, Numbers, unscored_share, verdict
from rlhi_eval_harness.records import Estimate, Metric

FEW_USERS = 10


def general_findings(numbers: Numbers, metrics: Sequence[Metric], *, clusters: str = "users") -> tuple[str, ...]:
    """All sentences, the most important first; never empty. `clusters` is what intervals resample."""
    found = (
        *_not_to_be_used(numbers, metrics[:1]),
        *_headline(numbers, metrics[0], clusters),
        *_not_to_be_used(numbers, metrics[1:]),
        *_neutral(numbers, metrics),
        *_differences(numbers, metrics),
        *_nothing_to_tell(numbers, metrics),
        *_few_users(numbers, metrics[0], clusters),
    )
    return found or (f"Nothing could be scored on {metrics[0].label.lower()}: no subject has a value.",)


def printed(metric: Metric, value: float, *, signed: bool = False) -> str:
    """A value in the unit of its metric."""
    scaled = (100 * value if metric.unit == "share" else value) + 0.0
    sign = "+" if signed else ""
    unit = "" if metric.unit == "count" else " points" if signed else " %"
    return f"{round(scaled, 1) + 0.0:{sign}.{0 if metric.unit == 'share' else 1}f}{unit}"


def _interval(metric: Metric, each: Estimate, *, signed: bool = False) -> str:
    if each.low is None or each.high is None:
        return "no interval: there is only one"
    low, high = (printed(metric, end, signed=signed).split(" ")[0] for end in (each.low, each.high))
    return f"95 % interval {low} to {high}"


def _not_to_be_used(numbers: Numbers, metrics: Sequence[Metric]) -> Iterator[str]:
    for metric in metrics:
        of_all = [each for each in numbers.estimates if each.metric == metric.name and each.group == ALL]
        bad = [each for each in of_all if unscored_share(each) > UNSCORED_LIMIT]
        if bad:
            named = ", ".join(f"{each.subject} {100 * unscored_share(each):.0f} %" for each in bad)
            yield f"{metric.label}: not to be used, because more than 5 % is unscored ({named})."


def _headline(numbers: Numbers, metric: Metric, clusters: str) -> Iterator[str]:
    of_all = [
        each
        for each in numbers.estimates
        if each.metric == metric.name and each.group == ALL and each.value is not None
    ]
    if not of_all:
        return
    sign = -1 if metric.better == "lower" else 1
    best = max(of_all, key=lambda each: sign * (each.value or 0.0))
    value = printed(metric, best.value or 0.0)
    size = f"{best.n} answers, {best.clusters} {clusters}"
    honest = _cannot_be_told(numbers, metric)
    but = f", but {honest}" if honest else ""
    yield f"{metric.label}: {best.subject} is first with {value} ({_interval(metric, best)}; {size}){but}."


def _cannot_be_told(numbers: Numbers, metric: Metric) -> str:
    """The honest sentence where subjects were compared and no two can be told apart; empty otherwise."""
    mine = [each for each in numbers.differences if each.metric == metric.name and each.group == ALL]
    with_interval = [each for each in mine if each.low is not None and unscored_share(each) <= UNSCORED_LIMIT]
    if not with_interval or any(map(verdict, with_interval)):
        return ""
    subjects = {each.subject for each in numbers.estimates if each.metric == metric.name and each.value is not None}
    pairs = len(subjects) * (len(subjects) - 1) // 2
    looked_at = len({frozenset((each.subject, each.versus)) for each in with_interval})
    some = f" that were looked at ({looked_at} of {pairs})" if looked_at < pairs else ""
    return f"all pairwise intervals{some} include zero, so no difference can be claimed"


def _neutral(numbers: Numbers, metrics: Sequence[Metric]) -> Iterator[str]:
    """Win rates against what they would be by chance; those that cannot be told apart from it share a sentence."""
    for metric in (metric for metric in metrics if metric.neutral):
        of_all = [each for each in numbers.estimates if each.metric == metric.name and each.group == ALL]
        open_ones = []
        for each in of_all:
            if each.value is None or each.low is None:
                continue
            value = f"{printed(metric, each.value)} ({_interval(metric, each)})"
            direction = verdict(each, neutral=metric.neutral)
            if direction:
                does = "wins" if direction > 0 else "loses"
                yield f"{metric.label}: {each.subject} {does} against the baseline, {value}."
            else:
                open_ones.append(f"{each.subject} {value}")
        if open_ones:
            yield f"{metric.label}: not shown to win or lose against the baseline: {', '.join(open_ones)}."


def _differences(numbers: Numbers, metrics: Sequence[Metric]) -> Iterator[str]:
    """Every difference that is clearly there, gains and harms alike."""
    for metric in metrics:
        if metric.role in {"detail", "health"} and metric.better == "neither":
            continue
        for each in numbers.differences:
            if each.metric != metric.name or each.group != ALL or each.value is None or each.low is None:
                continue
            direction = verdict(each)
            if not direction:
                continue
            better = (direction > 0) == (metric.better == "higher")
            word = "better" if better else "worse"
            yield (
                f"{metric.label}: {each.subject} does {word} than {each.versus}, "
                f"{printed(metric, each.value, signed=True)} ({_interval(metric, each, signed=True)})."
            )


def _nothing_to_tell(numbers: Numbers, metrics: Sequence[Metric]) -> Iterator[str]:
    """The honest sentence: which further metrics tell no two subjects apart."""
    for metric in metrics[1:]:
        if metric.role in {"headline", "dimension", "harm"} and (honest := _cannot_be_told(numbers, metric)):
            yield f"{metric.label}: {honest}."


def _few_users(numbers: Numbers, metric: Metric, clusters: str) -> Iterator[str]:
    count = max((each.clusters for each in numbers.estimates if each.metric == metric.name), default=0)
    if 0 < count < FEW_USERS:
        yield f"Only {count} {clusters} were evaluated: the intervals are wide, and a small effect would not be seen."
