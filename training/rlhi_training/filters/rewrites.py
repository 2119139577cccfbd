"""The two questions that every rewrite has to answer: what answers a complaint is often worse (arXiv 2507.23158).

Does it *address the feedback*, and is it, blind to the feedback, *not worse in general*? Each is decided by code, by a
judge or by a reward model, as the recipe says. Judges see the answers in both orders.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from rlhi_plugin.calls.concurrently import each
from rlhi_plugin.checkable import check
from rlhi_plugin.records import ChatMessage
from rlhi_training.counts import prefixed, under
from rlhi_training.generation import CONCURRENCY
from rlhi_training.prompting import conversation_text, fill
from rlhi_training.recipe import FilterSection
from rlhi_training.records import UNGUIDED, Candidate, LabelledTurn, ProposedPair
from rlhi_training.reward_models.comparing import Comparer, Comparison
from rlhi_training.reward_models.protocol import RewardModel, Verdict
from rlhi_training.sentence_encoder import Encoder

NOT_ADDRESSED = "feedback_not_addressed"
Reasons = dict[str, str]
"""Why pairs are dropped, by pair key; pairs that pass are not in it."""

Turns = Mapping[str, LabelledTurn]


@dataclass(frozen=True)
class RewriteJudges:
    """What the recipe's filters decide with; each is None where it is not needed.

    Attributes:
        addresses: Judge with ``prompts/judge_addresses_feedback.md``.
        not_worse: Judge with ``prompts/judge_not_worse.md``.
        reward_model: Scores answers without a persona.
    """

    addresses: Comparer | None = None
    not_worse: Comparer | None = None
    reward_model: RewardModel | None = None

    @property
    def seen(self) -> Counter[str]:
        """What each judge has counted so far; those of parts of a run add up."""
        counts: Counter[str] = Counter()
        for name, judge in self._named().items():
            counts.update(prefixed(name, judge.seen))
        return counts

    def report(self, seen: Mapping[str, int]) -> dict[str, Any]:
        """Position bias of each judge in what was counted."""
        return {name: judge.notes(under(name, seen)) for name, judge in self._named().items()}

    def _named(self) -> dict[str, Comparer]:
        named = {"addresses_feedback": self.addresses, "not_worse": self.not_worse}
        return {name: judge for name, judge in named.items() if judge is not None}


def is_guided(pair: ProposedPair) -> bool:
    """Whether the chosen answer was written in the light of a follow-up. Without guidance there is none to address."""
    return pair.source == "rewrite" and pair.chosen.guidance != UNGUIDED


async def addresses_feedback(
    pairs: Sequence[ProposedPair], turns: Turns, encoder: Encoder, judges: RewriteJudges, section: FilterSection
) -> Reasons:
    """Which rewrites do not do what the follow-up asked for: ``feedback_not_addressed`` or ``nothing_to_mend``.

    By code: every checkable property that was asked for holds in the rewrite, and one at least was missing before;
    where none is checkable, the rewrite is nearer to the feedback than the original was. A judge (``judge_undecided``,
    ``judge_failed``) must find that the rewrite does more of it; a reward model (``unscored``) must score it higher
    with the follow-up in the request.
    """
    guided = [pair for pair in pairs if is_guided(pair)]
    if section.addresses_feedback == "code":
        return _by_code(guided, turns, encoder, section)
    if section.addresses_feedback == "judge":
        assert judges.addresses is not None  # noqa: S101 - made together with the section
        outcomes = await _compare(guided, turns, judges.addresses)
        return _from_outcomes(guided, outcomes, section, passes=("first",), reason=NOT_ADDRESSED)
    if section.addresses_feedback == "reward_model":
        said = {pair.key: _with_follow_up(turns[_turn_key(pair)]) for pair in guided}
        return await _by_scores(
            guided, said, judges.reward_model, lambda gain: gain > section.min_gain, reason=NOT_ADDRESSED
        )
    return {}


async def not_worse(
    pairs: Sequence[ProposedPair], turns: Turns, judges: RewriteJudges, section: FilterSection
) -> Reasons:
    """Which rewrites are worse answers, whatever the user said: ``worse_in_general``.

    A judge drops those that it finds worse in both orders (and undecided ones, `FilterSection.undecided`); a reward
    model those that it scores lower than the original by more than `FilterSection.max_loss`. Code has looked for flaws
    already (`rlhi_training.filters.predicates.unsound`).
    """
    rewrites = [pair for pair in pairs if pair.source == "rewrite"]
    if section.not_worse == "judge":
        assert judges.not_worse is not None  # noqa: S101 - made together with the section
        outcomes = await _compare(rewrites, turns, judges.not_worse)
        return _from_outcomes(rewrites, outcomes, section, passes=("first", "equal"), reason="worse_in_general")
    if section.not_worse == "reward_model":
        plain = {pair.key: turns[_turn_key(pair)] for pair in rewrites}
        return await _by_scores(
            rewrites, plain, judges.reward_model, lambda gain: gain >= -section.max_loss, reason="worse_in_general"
        )
    return {}


def _turn_key(pair: ProposedPair) -> str:
    return f"{pair.conversation_id}#{pair.turn}"


def _by_code(pairs: Sequence[ProposedPair], turns: Turns, encoder: Encoder, section: FilterSection) -> Reasons:
    reasons: Reasons = {}
    for pair in pairs:
        if pair.asked:
            if not all(check(name).holds(pair.chosen.text) for name in pair.asked):
                reasons[pair.key] = NOT_ADDRESSED
            elif all(check(name).holds(pair.rejected.text) for name in pair.asked):
                reasons[pair.key] = "nothing_to_mend"
    vague = [pair for pair in pairs if not pair.asked]
    if vague:
        said = encoder.encode([turns[_turn_key(pair)].follow_up or "" for pair in vague])
        after = encoder.encode([pair.chosen.text for pair in vague])
        before = encoder.encode([pair.rejected.text for pair in vague])
        gains = ((after - before) * said).sum(axis=1)
        for pair, gain in zip(vague, gains.tolist(), strict=True):
            if gain < section.min_similarity_gain:
                reasons[pair.key] = NOT_ADDRESSED
    return reasons


async def _compare(pairs: Sequence[ProposedPair], turns: Turns, judge: Comparer) -> list[Comparison]:
    """Chosen (first) against rejected (second)."""

    async def one(pair: ProposedPair) -> Comparison:
        turn = turns[_turn_key(pair)]
        return await judge.compare(
            pair.chosen.text,
            pair.rejected.text,
            request=conversation_text(turn.context),
            follow_up=turn.follow_up or "",
        )

    return await each(pairs, one, at_once=CONCURRENCY)


def _from_outcomes(
    pairs: Sequence[ProposedPair],
    outcomes: Sequence[Comparison],
    section: FilterSection,
    *,
    passes: tuple[Literal["first", "second", "equal"], ...],
    reason: str,
) -> Reasons:
    reasons: Reasons = {}
    for pair, outcome in zip(pairs, outcomes, strict=True):
        better = outcome.better
        if outcome.reason == "judge_undecided" and section.undecided == "keep":
            better = "equal"
        if better is None:
            reasons[pair.key] = outcome.reason or "judge_failed"
        elif better not in passes:
            reasons[pair.key] = reason
    return reasons


async def _by_scores(
    pairs: Sequence[ProposedPair],
    turns: Turns,
    model: RewardModel | None,
    passes: Callable[[float], bool],
    *,
    reason: str,
) -> Reasons:
    """Drop by the difference of scores, chosen minus rejected, under no persona; `turns` are by pair key."""
    assert model is not None  # noqa: S101 - made together with the section

    async def both(pair: ProposedPair) -> list[Verdict]:
        candidates: list[Candidate] = [pair.chosen, pair.rejected]
        return await model.score(turns[pair.key], candidates, None)

    reasons: Reasons = {}
    for pair, (chosen, rejected) in zip(pairs, await each(pairs, both, at_once=CONCURRENCY), strict=True):
        if chosen.value is None or rejected.value is None:
            reasons[pair.key] = chosen.unscored or rejected.unscored or "unscored"
        elif not passes(chosen.value - rejected.value):
            reasons[pair.key] = reason
    return reasons


def _with_follow_up(turn: LabelledTurn) -> LabelledTurn:
    """The same turn, whose request says what the user said afterwards."""
    from rlhi_plugin.prompt_files import load_prompt

    content = fill(
        load_prompt("rlhi_training", "rewrite_blind").text,
        request=turn.context[-1].content,
        follow_up=turn.follow_up or "",
    )
    return turn.model_copy(update={"context": (*turn.context[:-1], ChatMessage(role="user", content=content))})
