"""`rlhi-train compare-labellers`: candidates fitted on some conversations of train and development, tried on others.

The held-out third of the label set takes no part. Temperature, weights of the decision, and how two opinions are put
together are chosen on held rows other than those that they are then measured on (five parts, by conversation), so that
no figure here has seen its own answer.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from rlhi_plugin.errors import ConfigError
from rlhi_plugin.labelling import Labeller
from rlhi_plugin.records import Record
from rlhi_training.labelling.calibration import choose_decision
from rlhi_training.labelling.candidates import CandidateOptions, Fold, Tried, refuse_unknown, try_out
from rlhi_training.labelling.decision import CLASSES, verdicts
from rlhi_training.labelling.fit_fast import FitRow
from rlhi_training.labelling.fitting import fit_stack, folds
from rlhi_training.labelling.llm_trial import LLMTrial, ask_each, even_sample, trial
from rlhi_training.labelling.measuring import Difference, Quality, Said, difference, measure

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Scores = NDArray[np.float32]

_PARTS = 5
_FIRST = "fast"
"""The tier whose opinion is put together with each other candidate's."""
_WITH_FIRST = f" with {_FIRST}"


@dataclass(frozen=True)
class ComparisonOptions:
    """What is compared on which rows.

    Attributes:
        candidates: Names of `rlhi_training.labelling.candidates.CANDIDATES`.
        train_at_most: Labelled follow-ups that are learned from, whole conversations drawn by chance; None is all.
        try_at_most: Follow-ups that are tried, likewise.
        sample: Follow-ups that a language model is asked about, evenly over the classes.
        folds: In how many parts the conversations are cut.
        folds_used: How many of the parts are held back, one after the other; every candidate is fitted so often.
        seed: Cuts and draws.
        work: Folder for what was found already; None keeps nothing.
    """

    candidates: tuple[str, ...] = (_FIRST, "encoder")
    train_at_most: int | None = None
    try_at_most: int | None = None
    sample: int = 60
    folds: int = 3
    folds_used: int = 1
    seed: int = 1
    work: Path | None = None

    def __post_init__(self) -> None:
        # Before the logs are read and the first candidates are fitted.
        refuse_unknown(self.candidates)
        if _FIRST not in self.candidates:
            raise ConfigError(f"every comparison has the tier {_FIRST!r} in it. Add: --candidate {_FIRST}")
        least = min(self.sample, self.train_at_most or 1, self.try_at_most or 1)
        if self.folds < 2 or least < 1 or not 1 <= self.folds_used <= self.folds:  # noqa: PLR2004 - one part is no cut
            raise ConfigError(
                "a comparison needs two folds or more, of which one or more are used, and follow-ups to learn from and"
                " to try. Give numbers that can be."
            )


class Compared(Record):
    """A candidate, and what it took."""

    quality: Quality
    facts: dict[str, float]
    """See `rlhi_training.labelling.candidates.Tried`; the sum over folds."""
    gain: Difference
    """Over the fast tier alone."""


class Comparison(Record):
    """What a comparison found."""

    learned_from: int = Field(ge=0)
    """Labelled follow-ups, the mean of the folds; invented ones come on top."""
    invented: int = Field(ge=0)
    pool: int = Field(ge=0)
    """Follow-ups that nobody labelled; self-trained candidates learn from a part of them."""
    tried_on: int = Field(ge=0)
    candidates: dict[str, Compared]
    """Also each candidate's opinion together with that of the fast tier, weighed by a regression: its facts are the
    candidate's own."""
    llm: LLMTrial | None = None


def cut(rows: Sequence[FitRow], options: ComparisonOptions) -> list[Fold]:
    """For each fold, the rows that are learned from and those that are tried; fewer where that was asked for."""
    made = []
    for train, held in folds(rows, options.folds, options.seed)[: options.folds_used]:
        invented = [rows[i] for i in train if not rows[i].group]
        learned = _some([rows[i] for i in train if rows[i].group], options.train_at_most, options.seed)
        made.append(Fold([*learned, *invented], _some([rows[i] for i in held], options.try_at_most, options.seed)))
    return made


def _some(rows: list[FitRow], most: int | None, seed: int) -> list[FitRow]:
    """Whole conversations by chance, until there are enough; rows keep their order."""
    if most is None or len(rows) <= most:
        return rows
    groups = sorted({row.group for row in rows})
    random.Random(seed).shuffle(groups)
    sizes = dict.fromkeys(groups, 0)
    for row in rows:
        sizes[row.group] += 1
    chosen: set[str] = set()
    left = most
    for name in groups:
        if sizes[name] <= left:
            chosen.add(name)
            left -= sizes[name]
    return [row for row in rows if row.group in chosen]


async def compare(
    rows: Sequence[FitRow], options: ComparisonOptions, how: CandidateOptions, llm: Labeller | None = None
) -> Comparison:
    """Fit and measure every candidate, and a language model on a sample.

    Args:
        rows: Of `rlhi_training.labelling.fitting.rows_to_fit`.
        options: What is compared.
        how: How candidates are fitted.
        llm: Asked about the sample; None asks nobody.

    Raises:
        ConfigError: a candidate is not known or lacks what it learns from.
        ModelCallError: the language model cannot be asked.
    """
    import numpy as np

    cuts = cut(rows, options)
    held = [row for fold in cuts for row in fold.held]
    tried = {name: [try_out(name, fold, how, options.work) for fold in cuts] for name in options.candidates}
    scores = {name: np.concatenate([one.scores for one in several]) for name, several in tried.items()}
    facts = {name: _summed(several) for name, several in tried.items()}
    for name in [name for name in tried if not name.startswith(_FIRST)]:
        scores[name + _WITH_FIRST] = together(scores[name], scores[_FIRST], held)
        facts[name + _WITH_FIRST] = facts[name]
    said = {name: decided(one, held) for name, one in scores.items()}
    invented = sum(not row.group for row in cuts[0].train)
    return Comparison(
        learned_from=sum(len(fold.train) - invented for fold in cuts) // len(cuts),
        invented=invented,
        pool=len(how.self_training.pool) if how.self_training else 0,
        tried_on=len(held),
        candidates={
            name: Compared(quality=measure(one), facts=facts[name], gain=difference(one, said[_FIRST]))
            for name, one in said.items()
        },
        llm=None if llm is None else await _trial(llm, held, (said, facts), options),
    )


def _summed(several: Sequence[Tried]) -> dict[str, float]:
    return {name: sum(one.facts[name] for one in several) for name in several[0].facts}


async def _trial(
    llm: Labeller,
    held: Sequence[FitRow],
    before: tuple[dict[str, Said], dict[str, dict[str, float]]],
    options: ComparisonOptions,
) -> LLMTrial:
    """Ask about a sample; before the model, a cascade asks the fast tier and the best that there is of the others."""
    import numpy as np

    said, facts = before
    names = [name for name in (_FIRST, f"encoder{_WITH_FIRST}") if name in said]
    costs = {name: 1000 * facts[name]["label_cpu_s"] / len(held) for name in names}
    costs = {name: cost if name == _FIRST else cost + costs[_FIRST] for name, cost in costs.items()}
    places = even_sample([CLASSES.index(row.label) for row in held], options.sample, options.seed)
    at = np.array(places, dtype=np.int64)
    asked = await ask_each(llm, [held[i].exchange for i in places])
    return trial(llm.name, asked, {name: said[name].part(at) for name in names}, costs)


def decided(scores: Scores, rows: Sequence[FitRow]) -> Said:
    """Labels and probabilities from scores, each by a decision that was chosen on the rows of other conversations."""
    import numpy as np

    truth = _truth(rows)
    labels = np.zeros(len(rows), dtype=np.int64)
    probabilities = np.zeros((len(rows), len(CLASSES)))
    for others, own in _parts(rows):
        decision = choose_decision(scores[others], truth[others])
        said = verdicts([rows[i].exchange for i in own], scores[own], decision)
        labels[own] = [CLASSES.index(one) for one in said.labels]
        probabilities[own] = said.probabilities
    return Said(truth, labels, probabilities, [row.group for row in rows])


def together(first: Scores, second: Scores, rows: Sequence[FitRow]) -> Scores:
    """Scores of both opinions together, each by a regression that was fitted on the rows of other conversations."""
    import numpy as np

    truth = _truth(rows)
    found = np.zeros_like(first)
    for others, own in _parts(rows):
        found[own] = fit_stack(first[others], second[others], truth[others]).scores(first[own], second[own])
    return found


def _truth(rows: Sequence[FitRow]) -> NDArray[np.int64]:
    import numpy as np

    return np.array([CLASSES.index(row.label) for row in rows], dtype=np.int64)


def _parts(rows: Sequence[FitRow]) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    from sklearn.model_selection import GroupKFold

    groups = [row.group for row in rows]
    count = min(_PARTS, len(set(groups)))
    if count < 2:  # noqa: PLR2004 - nothing to choose on
        raise ConfigError("the rows that are tried come from one conversation. Try more: a larger --try-at-most")
    return list(GroupKFold(count, shuffle=True, random_state=0).split(groups, groups=groups))
