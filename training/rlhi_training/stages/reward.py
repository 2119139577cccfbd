"""User-Based Rewards (arXiv 2509.25137): where there is no feedback, sample answers and let the persona decide.

N answers are sampled with the persona in the prompt and scored by a reward model conditioned on it; the best is
proposed over the worst. `RewardSection.persona` off is the paper's user-agnostic ablation: same prompts, same answers,
a score that does not know the user.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from rlhi_plugin.calls.concurrently import each
from rlhi_plugin.chat import ChatClient
from rlhi_plugin.checks import word_count
from rlhi_plugin.records import FollowUpLabel, Persona, Record
from rlhi_training.asked_for import AskedFor
from rlhi_training.counts import COUNTS, MODEL, prefixed, under
from rlhi_training.generation import CONCURRENCY, Draft, Sampling, generate
from rlhi_training.prompting import with_persona_message
from rlhi_training.recipe import RewardSection
from rlhi_training.records import Candidate, Dropped, LabelledTurn, ProposedPair, ScoredCandidate
from rlhi_training.reward_models import RewardModel, Verdict
from rlhi_training.reward_models.length_bias import length_bias_of, length_counts
from rlhi_training.run_directory import StageResult

REWARDS = "rewards.jsonl"
SCORED = "scored_candidates.jsonl"
_LENGTHS, _UNSCORED = "lengths", "unscored"


async def reward(
    turns: Sequence[LabelledTurn],
    personas: Mapping[str, Persona | None],
    client: ChatClient,
    judge: tuple[RewardModel, AskedFor],
    recipe: tuple[RewardSection, Sampling],
) -> StageResult:
    """Propose one pair per turn without feedback.

    Drops: the reward model's own reasons (``no_persona``, ``nothing_checkable``, ``judge_failed``, ``judge_undecided``,
    ``too_long``, ``not_finite``), ``over_limit``, ``model_call_failed``, ``too_few_candidates``, ``no_difference``
    (best and worst closer than `RewardSection.min_margin`, all equal among them).
    """
    section, sampling = recipe
    model, asked_for = judge
    before = Counter(model.seen)
    eligible = [turn for turn in turns if turn.label is not FollowUpLabel.WITH_FEEDBACK]
    used, people, dropped = _usable(eligible, personas, model, section)
    shown = [personas.get(turn.conversation_id) if section.persona_in_prompt else None for turn in used]
    drafts = [_draft(turn, persona, section.samples) for turn, persona in zip(used, shown, strict=True)]
    drafted = await generate(drafts, client, sampling, description="sample for rewards")
    pools = [_distinct(drafted.candidates[draft.turn.key, draft.spec]) for draft in drafts]
    tables = await each(range(len(used)), lambda i: model.score(used[i], pools[i], people[i]), at_once=CONCURRENCY)
    proposed: list[ProposedPair] = []
    scored: list[list[ScoredCandidate]] = []
    for draft, pool, persona, seen, verdicts in zip(drafts, pools, people, shown, tables, strict=True):
        turn = draft.turn
        rated = [
            ScoredCandidate.trusted(
                candidate=c, user_id=persona.user_id if persona else None, score=v.value, reward_model=model.name
            )
            for c, v in zip(pool, verdicts, strict=True)
            if v.value is not None
        ]
        scored.append(rated)
        error = drafted.failures.get((turn.key, draft.spec))
        if error is not None:
            dropped.append(Dropped(stage="reward", key=turn.key, reason="model_call_failed", detail=error))
        elif len(rated) < 2:  # noqa: PLR2004 - a pair takes two
            unscored = next((v.unscored for v in verdicts if v.unscored), None)
            dropped.append(Dropped(stage="reward", key=turn.key, reason=unscored or "too_few_candidates"))
        else:
            best, worst = max(rated, key=lambda s: s.score), min(rated, key=lambda s: s.score)
            if best.score == worst.score or best.score - worst.score < section.min_margin:
                dropped.append(Dropped(stage="reward", key=turn.key, reason="no_difference"))
            else:
                asked = asked_for.of_persona(persona)
                proposed.append(_pair(turn, seen, best, worst, asked))
    files: dict[str, Sequence[Record]] = {REWARDS: proposed, SCORED: [row for rows in scored for row in rows]}
    counts = _score_counts(scored, proposed, tables)
    counts.update(prefixed(MODEL, Counter(model.seen) - before))
    notes = {"client": client.model, "drafts": len(drafts)}
    notes |= {COUNTS: counts} if sampling.part else score_notes(model, counts)
    return StageResult(len(eligible), len(proposed), dropped, files, notes)


def _usable(
    turns: Sequence[LabelledTurn],
    personas: Mapping[str, Persona | None],
    model: RewardModel,
    section: RewardSection,
) -> tuple[list[LabelledTurn], list[Persona | None], list[Dropped]]:
    """What answers are sampled for, the persona that they are scored under, and what is left out."""
    used: list[LabelledTurn] = []
    people: list[Persona | None] = []
    dropped: list[Dropped] = []
    for turn in turns:
        persona = personas.get(turn.conversation_id) if section.persona else None
        why_not = model.unscorable(persona)
        if why_not is None and section.max_turns is not None and len(used) >= section.max_turns:
            why_not = "over_limit"
        if why_not is None:
            used.append(turn)
            people.append(persona)
        else:
            dropped.append(Dropped.trusted(stage="reward", key=turn.key, reason=why_not))
    return used, people, dropped


def _draft(turn: LabelledTurn, persona: Persona | None, samples: int) -> Draft:
    return Draft(turn, "sample", with_persona_message(turn.context, persona), samples, "sample")


def _distinct(candidates: Sequence[Candidate]) -> list[Candidate]:
    return list({candidate.text: candidate for candidate in candidates}.values())


def _score_counts(
    scored: Sequence[Sequence[ScoredCandidate]], proposed: Sequence[ProposedPair], tables: Sequence[Sequence[Verdict]]
) -> Counter[str]:
    """For `score_notes`; counts of parts add up."""
    unscored = Counter(verdict.unscored for verdicts in tables for verdict in verdicts if verdict.unscored)
    lengths = [[(s.score, word_count(s.candidate.text)) for s in rows] for rows in scored]
    words = [(word_count(pair.chosen.text), word_count(pair.rejected.text)) for pair in proposed]
    counts = prefixed(_LENGTHS, length_counts(lengths))
    counts.update(prefixed(_UNSCORED, unscored))
    counts.update({"lengths_differ": sum(a != b for a, b in words), "chosen_is_longer": sum(a > b for a, b in words)})
    return counts


def score_notes(model: RewardModel, counts: Mapping[str, int]) -> dict[str, Any]:
    """What scored, what it left unscored, and what it thinks of length."""
    differ = counts.get("lengths_differ", 0)
    return {
        "reward_model": model.name,
        "unscored": dict(sorted(under(_UNSCORED, counts).items())),
        "length_bias": {
            **length_bias_of(under(_LENGTHS, counts)),
            "chosen_is_longer": round(counts["chosen_is_longer"] / differ, 4) if differ else None,
        },
        **model.notes(under(MODEL, counts)),
    }


def _pair(
    turn: LabelledTurn,
    persona: Persona | None,
    best: ScoredCandidate,
    worst: ScoredCandidate,
    asked: tuple[str, ...],
) -> ProposedPair:
    return ProposedPair.trusted(
        source="reward",
        conversation_id=turn.conversation_id,
        turn=turn.turn,
        persona=persona,
        chosen=best.candidate,
        rejected=worst.candidate,
        margin=best.score - worst.score,
        asked=asked,
    )
