"""Pairs: the persona joins the prompt, by the same function that serves it, and provenance goes down to message ids."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from rlhi_plugin.records import Conversation
from rlhi_training.filters.rewrites import is_guided
from rlhi_training.prompting import with_persona_message
from rlhi_training.records import Dropped, LabelledTurn, PreferencePair, ProposedPair, Provenance
from rlhi_training.run_directory import StageResult
from rlhi_training.screens.refusal import each_declines

PAIRS = "pairs.jsonl"


@dataclass(frozen=True, kw_only=True)
class PairOrigin:
    """What is known of where proposals come from, beside their turns.

    Attributes:
        conversations: By id; of one that is not there no time, log and language are known.
        labeller: Name and version of what labelled the follow-ups.
        against_refusals: Whether a pair may prefer another answer over a refusal.
    """

    conversations: Mapping[str, Conversation] = field(default_factory=dict)
    labeller: str | None = None
    against_refusals: bool = False


def render_pairs(
    proposed: Sequence[ProposedPair], turns: Mapping[str, LabelledTurn], origin: PairOrigin | None = None
) -> StageResult:
    """Render every proposal as TRL's conversational prompt, chosen and rejected.

    Drops: ``persona_too_late`` (the author's persona holds words from after their request's conversation began),
    ``against_refusal`` (an answer is preferred over one that declines), ``duplicate`` (two proposals that render to
    the same pair).
    """
    known = origin or PairOrigin()
    pairs: list[PreferencePair] = []
    dropped: list[Dropped] = []
    seen: set[str] = set()
    theirs = [turns[f"{proposal.conversation_id}#{proposal.turn}"] for proposal in proposed]
    for proposal, made in zip(proposed, render_each(proposed, theirs, known), strict=True):
        if isinstance(made, Dropped):
            dropped.append(made)
        elif (name := made.pair_id) in seen:
            dropped.append(Dropped(stage="pairs", key=proposal.key, reason="duplicate"))
        else:
            seen.add(name)
            pairs.append(made)
    notes = {
        "by_source": dict(sorted(Counter(p.source for p in pairs).items())),
        "users": len({p.user_id for p in pairs if p.user_id}),
        "without_persona": sum(p.persona_digest is None for p in pairs),
    }
    return StageResult(len(proposed), len(pairs), dropped, {PAIRS: pairs}, notes)


def render_each(
    proposed: Sequence[ProposedPair], turns: Sequence[LabelledTurn], known: PairOrigin
) -> list[PreferencePair | Dropped]:
    """Each proposal, given with its turn, as a pair or with what is wrong with it, whatever the others are."""
    refusals = _against_refusals(proposed) if not known.against_refusals else [None] * len(proposed)
    found: list[PreferencePair | Dropped] = []
    for proposal, turn, refusal in zip(proposed, turns, refusals, strict=True):
        reason, detail = _fault(proposal, turn, known, refusal)
        if reason is not None:
            found.append(Dropped(stage="pairs", key=proposal.key, reason=reason, detail=detail))
        else:
            found.append(_render(proposal, turn, known))
    return found


def _against_refusals(proposed: Sequence[ProposedPair]) -> list[str | None]:
    """For each pair in which only the rejected answer declines, the passage in which it does."""
    rejected = each_declines([proposal.rejected.text for proposal in proposed])
    declining = [proposal.chosen.text for proposal, passage in zip(proposed, rejected, strict=True) if passage]
    chosen = iter(each_declines(declining))
    return [passage if passage and not next(chosen) else None for passage in rejected]


def _fault(
    proposal: ProposedPair, turn: LabelledTurn, known: PairOrigin, refusal: str | None
) -> tuple[str | None, str]:
    persona = proposal.persona
    conversation = known.conversations.get(turn.conversation_id)
    began = conversation.started_at if conversation else None
    # Another user's persona, in a pair of persona contrast, knows nothing of this conversation.
    if persona and began and persona.user_id == turn.user_id and persona.covers_until and persona.covers_until >= began:
        return "persona_too_late", f"it covers words until {persona.covers_until}, the conversation began {began}"
    return ("against_refusal", refusal) if refusal else (None, "")


def _render(proposal: ProposedPair, turn: LabelledTurn, known: PairOrigin) -> PreferencePair:
    persona = proposal.persona
    evidence = [e.message_id for s in persona.statements for e in s.evidence] if persona else []
    conversation = known.conversations.get(turn.conversation_id)
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
        label=turn.label,
        labeller=known.labeller if turn.label else None,
        chosen_model=proposal.chosen.model,
        rejected_model=proposal.rejected.model,
        log=conversation.source if conversation else None,
        language=conversation.language if conversation else None,
    )
