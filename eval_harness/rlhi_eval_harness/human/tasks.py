"""Which pair a rater judges next, and where each answer stands: decided by the seed and by what has been said so far.

A pair that others have begun is finished first, so that raters overlap early and a study that ends before its time can
still say whether they agree. Once every pair has as many raters as planned, further verdicts are spread evenly.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from rlhi_eval_harness.human.records import Check, HumanVerdict, Study
from rlhi_eval_harness.prompting import seed_of


@dataclass(frozen=True)
class Task:
    """One pair for one rater.

    Attributes:
        item_id: Whose answers.
        left: The subject on the left; in an identical pair on both sides.
        check: Set where it is an attention check.
    """

    item_id: str
    left: str
    check: Check | None = None


@dataclass(frozen=True)
class Others:
    """What other raters are doing.

    Attributes:
        looking_at: Items that they have before them at this moment, one entry a rater.
    """

    looking_at: Collection[str] = field(default_factory=tuple)


def next_task(
    study: Study, rater: str, verdicts: Sequence[HumanVerdict], others: Others = Others(), *, beyond: bool = False
) -> Task | None:
    """The next pair of a rater.

    Args:
        study: What is asked.
        rater: Who.
        verdicts: All that stand, in their order.
        others: What the other raters are looking at.
        beyond: Go on once every pair has as many raters as planned.

    Returns:
        None where nothing is left for them.
    """
    mine = [each for each in verdicts if each.rater == rater]
    if (check := _check(study, rater, mine)) is not None:
        return check
    raters = judged_by(study, verdicts)
    seen = {each.item_id for each in mine if each.check is None}

    def place(item_id: str) -> tuple[int, int, int]:
        done = raters[item_id]
        begun = done + sum(item_id == each for each in others.looking_at)
        if done >= study.overlap:
            return 4, begun, seed_of(study.seed, f"{rater}/{item_id}")
        tier = 3 if begun >= study.overlap else 0 if done else 1 if begun else 2
        return tier, 0, seed_of(study.seed, f"{rater}/{item_id}")

    open_ = [
        item.item_id
        for item in study.items
        if item.item_id not in seen and (beyond or raters[item.item_id] < study.overlap)
    ]
    if not open_:
        return None
    chosen = min(open_, key=place)
    return Task(chosen, _left(study, rater, chosen))


def judged_by(study: Study, verdicts: Sequence[HumanVerdict]) -> dict[str, int]:
    """How many raters have judged each item; skips and checks do not count."""
    found: dict[str, set[str]] = {item.item_id: set() for item in study.items}
    for each in verdicts:
        if each.check is None and each.skipped is None and each.item_id in found:
            found[each.item_id].add(each.rater)
    return {item_id: len(raters) for item_id, raters in found.items()}


def _left(study: Study, rater: str, item_id: str) -> str:
    return study.subject if seed_of(study.seed, f"{rater}/{item_id}/left") % 2 else study.versus


def _check(study: Study, rater: str, mine: Sequence[HumanVerdict]) -> Task | None:
    """The attention check that is due, if one is: mirrored and identical pairs by turns."""
    judged = [each for each in mine if each.check is None and each.skipped is None]
    given = [each for each in mine if each.check is not None]
    if not study.check_every or len(judged) // study.check_every <= len(given):
        return None
    if len(given) % 2:
        again = {each.item_id for each in given if each.check == "identical"}
        source = next((each for each in judged if each.item_id not in again), judged[0])
        return Task(source.item_id, _left(study, rater, f"{source.item_id}/identical"), "identical")
    again = {each.item_id for each in given if each.check == "mirrored"}
    source = next((each for each in judged if each.item_id not in again), judged[0])
    return Task(source.item_id, study.versus if source.left == study.subject else study.subject, "mirrored")
