"""Filter: what a proposed pair must survive. The paper (arXiv 2509.25137) calls quality filtering essential.

Cheap filters come first, so that judges and reward models are asked about survivors only. Each filter drops with a
name, is counted, and has its option in `FilterSection`; the implementations are in `rlhi_training.filters`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rlhi_training.filters.caps import Claim, claim, evenly, owner, within_cap
from rlhi_training.filters.contamination import EvaluationPrompts
from rlhi_training.filters.predicates import (
    identical,
    lengths_apart,
    other_language,
    small_margin,
    unsound,
    without_persona,
)
from rlhi_training.filters.rewrites import RewriteJudges, addresses_feedback, not_worse
from rlhi_training.recipe import FilterSection
from rlhi_training.records import Dropped, LabelledTurn, ProposedPair
from rlhi_training.run_directory import StageResult
from rlhi_training.sentence_encoder import Encoder

KEPT = "filtered.jsonl"

Reason = tuple[str, str]
"""Name and detail."""


async def filter_pairs(
    proposed: Sequence[ProposedPair],
    turns: Mapping[str, LabelledTurn],
    tools: tuple[Encoder, RewriteJudges, EvaluationPrompts | None],
    section: FilterSection,
    seed: int,
) -> StageResult:
    """Keep the pairs that pass every filter, then cap each user's share and the total.

    Args:
        proposed: What the pair sources propose.
        turns: By turn key.
        tools: Sentence encoder; what decides about rewrites; evaluation prompts to keep out.
        section: The recipe's section.
        seed: Draws what is over a cap.

    Drops: ``duplicate``, ``identical``, ``no_persona``, ``chosen_<flaw>`` (`rlhi_training.soundness`),
    ``small_margin``, ``lengths_apart``, ``other_language``, ``contaminated``, ``feedback_not_addressed``,
    ``nothing_to_mend``, ``worse_in_general``, ``judge_undecided``, ``judge_failed``, a reward model's own reasons,
    ``user_cap``, ``over_limit``.
    """
    _, judges, evaluation = tools
    before = judges.seen
    verdicts = await judge_pairs(proposed, turns, tools, section)
    kept = [pair for pair, drop in zip(proposed, verdicts, strict=True) if drop is None]
    dropped = [drop for drop in verdicts if drop is not None]
    drawn, over = _limit(kept, turns, section, seed)
    notes = {"by_source": dict(sorted(Counter(p.source for p in drawn).items()))}
    notes |= filter_notes(judges, evaluation, judges.seen - before)
    return StageResult(len(proposed), len(drawn), dropped + over, {KEPT: drawn}, notes)


def filter_notes(
    judges: RewriteJudges, evaluation: EvaluationPrompts | None, seen: Mapping[str, int]
) -> dict[str, Any]:
    """What the judges counted, and how many evaluation prompts were kept out."""
    prompts = {} if evaluation is None else {"evaluation_prompts": len(evaluation)}
    return {**judges.report(seen), **prompts}


async def judge_pairs(
    proposed: Sequence[ProposedPair],
    turns: Mapping[str, LabelledTurn],
    tools: tuple[Encoder, RewriteJudges, EvaluationPrompts | None],
    section: FilterSection,
) -> list[Dropped | None]:
    """Every filter but the caps: for each pair why it is dropped, or None. That depends on it and its turn alone."""
    encoder, judges, evaluation = tools
    reasons: dict[int, Reason] = {}
    times: Counter[str] = Counter()
    number: list[int] = []
    for index, pair in enumerate(proposed):
        key = pair.key
        times[key] += 1
        number.append(times[key])
        reason = "duplicate" if number[index] > 1 else None
        reason = reason or _cheap(pair, section)
        if reason is not None:
            reasons[index] = (reason, "")
    if section.quality:
        left = _left(proposed, reasons)
        verdicts = other_language([(pair, turns[_turn_key(pair)]) for pair in left.values()], section)
        reasons |= {index: (reason, "") for index, reason in zip(left, verdicts, strict=True) if reason is not None}
    if evaluation is not None:
        for index, pair in _left(proposed, reasons).items():
            if found := _contaminated(pair, turns[_turn_key(pair)], evaluation):
                reasons[index] = ("contaminated", found)
    if section.quality:
        left = _left(proposed, reasons)
        wanting = await addresses_feedback(list(left.values()), turns, encoder, judges, section)
        reasons |= {index: (wanting[pair.key], "") for index, pair in left.items() if pair.key in wanting}
        left = _left(proposed, reasons)
        wanting = await not_worse(list(left.values()), turns, judges, section)
        reasons |= {index: (wanting[pair.key], "") for index, pair in left.items() if pair.key in wanting}
    return [
        Dropped(stage="filter", key=_drop_key(pair, number[index]), reason=reasons[index][0], detail=reasons[index][1])
        if index in reasons
        else None
        for index, pair in enumerate(proposed)
    ]


def _left(proposed: Sequence[ProposedPair], reasons: Mapping[int, Reason]) -> dict[int, ProposedPair]:
    """What has passed so far, by place."""
    return {index: pair for index, pair in enumerate(proposed) if index not in reasons}


def _turn_key(pair: ProposedPair) -> str:
    return f"{pair.conversation_id}#{pair.turn}"


def _drop_key(pair: ProposedPair, number: int) -> str:
    return pair.key if number == 1 else f"{pair.key}@{number}"


def _cheap(pair: ProposedPair, section: FilterSection) -> str | None:
    """The first reason that one pair tells without a model."""
    always: tuple[Callable[[], str | None], ...] = (
        lambda: identical(pair),
        lambda: without_persona(pair, section),
    )
    quality: tuple[Callable[[], str | None], ...] = (
        lambda: None if section.not_worse == "off" else unsound(pair, section),
        lambda: small_margin(pair, section),
        lambda: lengths_apart(pair, section),
    )
    return next((reason for ask in (*always, *(quality if section.quality else ())) if (reason := ask())), None)


def _contaminated(pair: ProposedPair, turn: LabelledTurn, evaluation: EvaluationPrompts) -> str | None:
    """The evaluation prompt that stands in the conversation, in the chosen or in the rejected answer."""
    texts = (*(m.content for m in turn.context if m.role != "system"), pair.chosen.text, pair.rejected.text)
    return next((found for text in texts if (found := evaluation.found_in(text))), None)


def _limit(
    kept: Sequence[ProposedPair], turns: Mapping[str, LabelledTurn], section: FilterSection, seed: int
) -> tuple[list[ProposedPair], list[Dropped]]:
    """What the caps leave, and what they take."""
    taken, capped = what_caps_leave([claim(pair, owner(pair, turns), seed) for pair in kept], section)
    return [pair for place, pair in enumerate(kept) if place in taken], [
        capped_pair(pair.key, within=place in capped) for place, pair in enumerate(kept) if place not in taken
    ]


def what_caps_leave(claims: Sequence[Claim], section: FilterSection) -> tuple[set[int], set[int]]:
    """Places of what all caps leave, and of what the caps per user leave."""
    capped = within_cap(claims, section.max_pairs_per_user_share, section.max_pairs_per_user)
    return evenly(claims, capped, section.max_pairs), capped


def capped_pair(key: str, *, within: bool) -> Dropped:
    """Which cap took a pair: that of its user, or, `within` it, the limit on all."""
    return Dropped(stage="filter", key=key, reason="over_limit" if within else "user_cap")
