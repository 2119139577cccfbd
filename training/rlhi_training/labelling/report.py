"""`rlhi-train labeller-report`: how good the labellers are on one part of the label set, beside what they must beat."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic import Field

from rlhi_plugin.labelling import Labeller
from rlhi_plugin.records import FollowUp, Record
from rlhi_training.labelling.agreement import Agreement
from rlhi_training.labelling.baselines import BASELINES
from rlhi_training.labelling.calibration import choose_decision
from rlhi_training.labelling.decision import CLASSES, N_OUTPUTS
from rlhi_training.labelling.fit_fast import FitRow, fit_linear, look
from rlhi_training.labelling.fitting import folds, invented_rows
from rlhi_training.labelling.label_set import ConversationPart, Example, part_of
from rlhi_training.labelling.measuring import Quality, Said, measure
from rlhi_training.labelling.measuring_hindsight import HindsightQuality, measure_hindsight

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_LEAST_ROWS = 20
"""Follow-ups that a language must have for a line of its own."""
_STEPS = (0.0, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 0.98, 1.01)


class Step(Record):
    """One point of the curve of cost against accuracy."""

    keeps: float
    """The tier decides where its most probable class is at least this probable."""
    passed_on: float = Field(ge=0.0, le=1.0)
    """Share that goes to the next tier."""
    f1: float | None
    """Of "with feedback" over all follow-ups, the next tier deciding what was passed on."""
    kept_accuracy: float | None
    """Of what the tier decided itself, over the four classes."""
    seconds_per_thousand: float
    """Of both tiers together, as measured in this run."""


class LabellerReport(Record):
    """What `report` finds."""

    part: ConversationPart
    labellers: dict[str, Quality]
    """By name, baselines included."""
    seconds_per_thousand: dict[str, float]
    by_source: dict[str, dict[str, Quality]]
    """For each source, each labeller."""
    by_language: dict[str, dict[str, Quality]]
    across: dict[str, Quality]
    """The fast tier fitted on one source alone and tried on another: ``arena > wildchat``."""
    cascade: list[Step]
    """From the first labeller to the second one."""
    hindsight: dict[str, HindsightQuality]
    """What neutral follow-ups inherit, by each labeller."""
    readers: Agreement
    unmatched: int = Field(ge=0)
    """Labels of the part whose text the logs do not hold."""


async def report(
    examples: Sequence[Example],
    part: ConversationPart,
    labellers: dict[str, Labeller],
    readers: Agreement,
    *,
    unmatched: int = 0,
    intervals: bool = True,
) -> LabellerReport:
    """Measure labellers on one part.

    Args:
        examples: Of every part that was found; those of train and development are learned from where a source is
            tried with weights of another.
        part: What is measured on.
        labellers: By name, cheapest first.
        readers: How well people agree.
        unmatched: Labels of the part without a text.
        intervals: Whether to compute them for the main table.
    """
    chosen = [example for example in examples if part_of(example.label.conversation_id) == part]
    exchanges = [example.exchange for example in chosen]
    said = {name: _said(chosen, compute(exchanges)) for name, compute in BASELINES.items()}
    seconds = {}
    found: dict[str, list[FollowUp]] = {}
    for name, labeller in labellers.items():
        await labeller.label(exchanges[:8])  # weights are read before the clock starts
        started = time.monotonic()
        found[name] = await labeller.label(exchanges)
        seconds[name] = 1000 * (time.monotonic() - started) / max(1, len(exchanges))
        said[name] = _said(chosen, *_as_arrays(found[name]))
    return LabellerReport(
        part=part,
        labellers={name: measure(one, intervals=intervals) for name, one in said.items()},
        seconds_per_thousand=seconds,
        by_source=_grouped(said, [example.label.source for example in chosen], 1),
        by_language=_grouped(said, [_language(example) for example in chosen], _LEAST_ROWS),
        across=across_sources(examples, part),
        cascade=_curve(said, list(labellers), seconds),
        hindsight={name: measure_hindsight(chosen, one) for name, one in found.items()},
        readers=readers,
        unmatched=unmatched,
    )


def _said(
    examples: Sequence[Example], probabilities: NDArray[np.float64], labels: NDArray[np.int64] | None = None
) -> Said:
    import numpy as np

    return Said(
        np.array([CLASSES.index(example.label.label) for example in examples], dtype=np.int64),
        probabilities.argmax(axis=1) if labels is None else labels,
        probabilities,
        [example.label.conversation_id for example in examples],
    )


def _as_arrays(found: Sequence[FollowUp]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    import numpy as np

    rows = np.array([[one.probabilities.get(name, float(one.label is name)) for name in CLASSES] for one in found])
    return rows.reshape(len(found), len(CLASSES)), np.array([CLASSES.index(one.label) for one in found], dtype=np.int64)


def _grouped(said: dict[str, Said], names: Sequence[str], least: int) -> dict[str, dict[str, Quality]]:
    import numpy as np

    table: dict[str, dict[str, Quality]] = {}
    for name in sorted(set(names)):
        places = np.array([i for i, own in enumerate(names) if own == name], dtype=np.int64)
        if len(places) >= least:
            table[name] = {who: measure(one.part(places), intervals=False) for who, one in said.items()}
    return table


def _language(example: Example) -> str:
    """The log's own word for it; where it has none, the script of the follow-up."""
    from rlhi_training.labelling.texts import script_of

    return example.language or f"not named ({script_of(example.exchange.follow_up)})"


def across_sources(examples: Sequence[Example], part: ConversationPart) -> dict[str, Quality]:
    """Fit the fast tier on one source and try it on the part of each source, its own included."""
    import numpy as np

    table = {}
    for name in ("arena", "wildchat"):
        rows = [
            FitRow(e.exchange, e.label.label, e.label.subtype, e.label.conversation_id)
            for e in examples
            if e.label.source == name and part_of(e.label.conversation_id) != "held_out"
        ]
        if part != "held_out":
            rows = [row for row in rows if part_of(row.group) != part]
        if len({row.group for row in rows}) < 2 * 5:
            continue
        rows += invented_rows()
        looked = look(rows)
        scores = np.zeros((len(rows), N_OUTPUTS), dtype=np.float32)
        for train, held in folds(rows, 5, 1):
            scores[held] = fit_linear(looked.part(train)).scores([rows[i].exchange for i in held])
        real = [i for i, row in enumerate(rows) if row.group]
        decision = choose_decision(scores[real], np.array([CLASSES.index(rows[i].label) for i in real]))
        model = fit_linear(looked)
        for other in ("arena", "wildchat"):
            tried = [e for e in examples if e.label.source == other and part_of(e.label.conversation_id) == part]
            if tried:
                probabilities = decision.probabilities(model.scores([e.exchange for e in tried]))
                labels = np.array([CLASSES.index(one) for one in decision.labels(probabilities)], dtype=np.int64)
                table[f"{name} > {other}"] = measure(
                    _said(tried, probabilities.astype(np.float64), labels), intervals=False
                )
    return table


def _curve(said: dict[str, Said], names: Sequence[str], seconds: dict[str, float]) -> list[Step]:
    """What a cascade of the first two labellers would do at each threshold."""
    import numpy as np

    if len(names) < 2:  # noqa: PLR2004 - a curve needs two tiers
        return []
    first, second = (said[name] for name in names[:2])
    sure = first.probabilities.max(axis=1)
    steps = []
    for keeps in _STEPS:
        kept = sure >= keeps
        labels = np.where(kept, first.labels, second.labels)
        both = Said(first.truth, labels, first.probabilities, first.conversations)
        passed = float(1.0 - kept.mean())
        steps.append(
            Step(
                keeps=keeps,
                passed_on=passed,
                f1=measure(both, intervals=False).f1[CLASSES[1]].value,
                kept_accuracy=float((first.truth[kept] == first.labels[kept]).mean()) if kept.any() else None,
                seconds_per_thousand=seconds[names[0]] + passed * seconds[names[1]],
            )
        )
    return steps
