"""Pairs: the persona joins the prompt, by the same function that serves it, and provenance goes down to message ids."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from rlhi_training.filters.rewrites import is_guided
from rlhi_training.prompting import with_persona_message
from rlhi_training.records import Dropped, LabelledTurn, PreferencePair, ProposedPair, Provenance
from rlhi_training.run_directory import StageResult

PAIRS = "pairs.jsonl"


def render_pairs(proposed: Sequence[ProposedPair], turns: Mapping[str, LabelledTurn]) -> StageResult:
    """Render every proposal as TRL's conversational prompt, chosen and rejected.

    Drops: ``duplicate`` (two proposals that render to the same pair).
    """
    pairs: list[PreferencePair] = []
    dropped: list[Dropped] = []
    seen: set[str] = set()
    for proposal in proposed:
        pair = _render(proposal, turns[f"{proposal.conversation_id}#{proposal.turn}"])
        if pair.pair_id in seen:
            dropped.append(Dropped(stage="pairs", key=proposal.key, reason="duplicate"))
        else:
            seen.add(pair.pair_id)
            pairs.append(pair)
    notes = {
        "by_source": dict(sorted(Counter(p.source for p in pairs).items())),
        "users": len({p.user_id for p in pairs if p.user_id}),
        "without_persona": sum(p.persona_digest is None for p in pairs),
    }
    return StageResult(len(proposed), len(pairs), dropped, {PAIRS: pairs}, notes)


def _render(proposal: ProposedPair, turn: LabelledTurn) -> PreferencePair:
    persona = proposal.persona
    evidence = [e.message_id for s in persona.statements for e in s.evidence] if persona else []
    return PreferencePair(
        source=proposal.source,
        user_id=persona.user_id if persona else None,
        prompt=with_persona_message(turn.context, persona),
        chosen=proposal.chosen.text,
        rejected=proposal.rejected.text,
        margin=proposal.margin,
        persona_digest=persona.digest if persona else None,
        provenance=Provenance(
            conversation_id=turn.conversation_id,
            turn=turn.turn,
            request_id=turn.request_id,
            response_id=turn.response_id,
            follow_up_id=turn.follow_up_id if is_guided(proposal) else None,
            persona_message_ids=tuple(dict.fromkeys(evidence)),
            chosen_candidate=proposal.chosen.candidate_id,
            rejected_candidate=proposal.rejected.candidate_id,
        ),
    )
