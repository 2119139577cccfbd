"""Two subjects item by item: McNemar's test, corrected for several comparisons, and what would have been missed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from rlhi_eval_harness.inference import correct, mcnemar, minimum_detectable_effect
from rlhi_eval_harness.inference.comparisons import McNemar
from rlhi_eval_harness.records import PlannedSample, Score
from rlhi_eval_harness.statistics import Value

LEVEL = 0.05


@dataclass(frozen=True)
class Tested:
    """One comparison.

    Attributes:
        subject: The first.
        versus: The second.
        test: Of the items that both have a value for.
        adjusted: Its p-value, corrected (Holm) for all comparisons of the report.
        missed: The smallest difference in points that is found four times out of five; None where it cannot be told.
    """

    subject: str
    versus: str
    test: McNemar
    adjusted: float
    missed: float | None

    @property
    def items(self) -> int:
        """How many both have a value for."""
        return self.test.both + self.test.only_first + self.test.only_second + self.test.neither


def tested(
    plan: Sequence[PlannedSample],
    scores: Iterable[Score],
    metric: str,
    comparisons: Sequence[tuple[str, str]],
) -> list[Tested]:
    """Every comparison that has an item in common; values must be 0 or 1."""
    values = {score.sample_id: score.value for score in scores if score.metric == metric}
    of: dict[str, list[Value]] = {}
    for sample in plan:
        of.setdefault(sample.subject, []).append(Value(sample.user, sample.pair_key, values.get(sample.sample_id)))
    found = {pair: mcnemar(of[pair[0]], of[pair[1]]) for pair in comparisons}
    found = {
        pair: test for pair, test in found.items() if test.both + test.only_first + test.only_second + test.neither
    }
    adjusted = {
        each.name: each.adjusted for each in correct({_name(*pair): test.p_value for pair, test in found.items()})
    }
    results = []
    for (subject, versus), test in found.items():
        effect = minimum_detectable_effect(of[subject], of[versus])
        missed = 100 * effect.difference if effect is not None and effect.difference else None
        results.append(Tested(subject, versus, test, adjusted[_name(subject, versus)], missed))
    return results


def sentences(results: Sequence[Tested]) -> list[str]:
    """What each test lets one say."""
    found = []
    for each in results:
        test = each.test
        said = (
            f"Item by item, {each.subject} against {each.versus}: of {each.items} items that both have a value for, "
            f"{test.only_first} are right only with the first and {test.only_second} only with the second (McNemar "
            f"p = {test.p_value:.3g}, {each.adjusted:.3g} corrected for {len(results)} "
            f"comparison{'s' if len(results) > 1 else ''})"
        )
        if each.adjusted > LEVEL and each.missed is not None:
            said += f"; a difference below {each.missed:.1f} points would mostly have been missed"
        found.append(f"{said}.")
    return found


def table(results: Sequence[Tested], title: str = "Two subjects item by item") -> list[dict[str, Any]]:
    """The same as a table of the report; none where nothing was compared."""
    if not results:
        return []
    heads = [
        "Comparison",
        "Items",
        "Both right",
        "Only first",
        "Only second",
        "Neither",
        "McNemar p",
        "Holm p",
        "Missed",
    ]
    rows = [
        [
            _name(each.subject, each.versus),
            *map(str, (each.items, each.test.both, each.test.only_first, each.test.only_second, each.test.neither)),
            f"{each.test.p_value:.3g}{' (exact)' if each.test.exact else ''}",
            f"{each.adjusted:.3g}",
            "unknown" if each.missed is None else f"< {each.missed:.1f} points",
        ]
        for each in results
    ]
    note = "Missed: a true difference below this would be found in fewer than four of five evaluations of this size."
    return [{"title": title, "columns": heads, "rows": rows, "note": note}]


def _name(subject: str, versus: str) -> str:
    return f"{subject} against {versus}"
