"""User-Based Rewards (arXiv 2509.25137): where there is no feedback, sample answers and let the persona decide.

N answers are sampled with the persona in the prompt and scored by a reward model conditioned on it; the best is
proposed over the worst.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rlhi_plugin.calls.concurrently import each
from rlhi_plugin.chat import ChatClient
from rlhi_plugin.records import FollowUpLabel, Persona, Record
from rlhi_training.asked_for import AskedFor
from rlhi_training.generation import CONCURRENCY, Draft, Sampling, generate
from rlhi_training.prompting import with_persona_message
from rlhi_training.recipe import RewardSection
from rlhi_training.records import Candidate, Dropped, LabelledTurn, ProposedPair, ScoredCandidate
from rlhi_training.reward_models import RewardModel
from rlhi_training.run_directory import StageResult

REWARDS = "rewards.jsonl"
SCORED = "scored_candidates.jsonl"
_MIN_MARGIN = 0.05
"""Best and worst closer than this are equal: a little repetition is no preference (ours)."""


async def reward(
    turns: Sequence[LabelledTurn],
    personas: Mapping[str, Persona | None],
    client: ChatClient,
    judge: tuple[RewardModel, AskedFor],
    recipe: tuple[RewardSection, Sampling],
) -> StageResult:
    """Propose one pair per turn without feedback.

    Drops: the reward model's own reasons (``no_persona``, ``nothing_checkable``, ``judge_failed``), ``over_limit``,
    ``model_call_failed``, ``too_few_candidates``, ``no_difference``.
    """
    section, sampling = recipe
    model, asked_for = judge
    eligible = [turn for turn in turns if turn.label is not FollowUpLabel.WITH_FEEDBACK]
    dropped: list[Dropped] = []
    used: list[LabelledTurn] = []
    for turn in eligible:
        why_not = model.unscorable(_persona(turn, personas, section))
        if why_not is None and section.max_turns is not None and len(used) >= section.max_turns:
            why_not = "over_limit"
        if why_not is None:
            used.append(turn)
        else:
            dropped.append(Dropped(stage="reward", key=turn.key, reason=why_not))
    drafts = [_draft(turn, _persona(turn, personas, section), section.samples) for turn in used]
    drafted = await generate(drafts, client, sampling, description="sample for rewards")
    proposed: list[ProposedPair] = []
    scored: list[ScoredCandidate] = []
    pools = [_distinct(drafted.candidates[draft.turn.key, draft.spec]) for draft in drafts]
    people = [_persona(turn, personas, section) for turn in used]
    tables = await each(range(len(used)), lambda i: model.score(used[i], pools[i], people[i]), at_once=CONCURRENCY)
    for turn, draft, pool, persona, verdicts in zip(used, drafts, pools, people, tables, strict=True):
        rated = [
            ScoredCandidate(
                candidate=c, user_id=persona.user_id if persona else None, score=v.value, reward_model=model.name
            )
            for c, v in zip(pool, verdicts, strict=True)
            if v.value is not None
        ]
        scored += rated
        reason = drafted.failures.get((turn.key, draft.spec))
        if reason is not None:
            dropped.append(Dropped(stage="reward", key=turn.key, reason="model_call_failed", detail=reason))
        elif len(rated) < 2:  # noqa: PLR2004 - a pair takes two
            unscored = next((v.unscored for v in verdicts if v.unscored), None)
            dropped.append(Dropped(stage="reward", key=turn.key, reason=unscored or "too_few_candidates"))
        else:
            best, worst = max(rated, key=lambda s: s.score), min(rated, key=lambda s: s.score)
            if best.score - worst.score < _MIN_MARGIN:
                dropped.append(Dropped(stage="reward", key=turn.key, reason="no_difference"))
            else:
                proposed.append(_pair(turn, persona, best, worst, asked_for))
    files: dict[str, Sequence[Record]] = {REWARDS: proposed, SCORED: scored}
    notes = {"client": client.model, "reward_model": model.name, "drafts": len(drafts)}
    return StageResult(len(eligible), len(proposed), dropped, files, notes)


def _persona(turn: LabelledTurn, personas: Mapping[str, Persona | None], section: RewardSection) -> Persona | None:
    return personas.get(turn.conversation_id) if section.persona else None


def _draft(turn: LabelledTurn, persona: Persona | None, samples: int) -> Draft:
    return Draft(turn, "sample", with_persona_message(turn.context, persona), samples, "sample")


def _distinct(candidates: Sequence[Candidate]) -> list[Candidate]:
    return list({candidate.text: candidate for candidate in candidates}.values())


def _pair(
    turn: LabelledTurn,
    persona: Persona | None,
    best: ScoredCandidate,
    worst: ScoredCandidate,
    asked_for: AskedFor,
) -> ProposedPair:
    return ProposedPair(
        source="reward",
        conversation_id=turn.conversation_id,
        turn=turn.turn,
        persona=persona,
        chosen=best.candidate,
        rejected=worst.candidate,
        margin=best.score - worst.score,
        asked=asked_for.of_persona(persona),
    )
