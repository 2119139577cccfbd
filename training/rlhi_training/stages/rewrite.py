"""User-Guided Rewrites (arXiv 2509.25137): a follow-up says how to improve, and the improved answer beats the original.

Several rewrites are drafted per turn: some see the old reply and the follow-up, as in the paper, some only the
follow-up. The one that meets most of what the follow-up asks for is proposed against the logged answer; whether it
meets enough is for the filter to say.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rlhi_plugin.chat import ChatClient
from rlhi_plugin.checks import CHECKS
from rlhi_plugin.prompt_files import load_prompt
from rlhi_plugin.records import ChatMessage, FollowUpLabel, Persona
from rlhi_training.asked_for import AskedFor
from rlhi_training.generation import Draft, Sampling, generate
from rlhi_training.prompting import fill
from rlhi_training.recipe import RewriteSection
from rlhi_training.records import Candidate, Dropped, LabelledTurn, ProposedPair
from rlhi_training.run_directory import StageResult
from rlhi_training.sentence_encoder import Encoder
from rlhi_training.soundness import flaw

REWRITES = "rewrites.jsonl"
PROMPTS = ("rewrite_seeing_reply", "rewrite_blind")


async def rewrite(
    turns: Sequence[LabelledTurn],
    personas: Mapping[str, Persona | None],
    client: ChatClient,
    reader: tuple[AskedFor, Encoder],
    recipe: tuple[RewriteSection, Sampling],
) -> StageResult:
    """Propose one pair per turn whose follow-up carries feedback.

    Args:
        turns: All labelled turns; those without such a follow-up are no input of this stage.
        personas: Persona as of before each conversation.
        client: Writes the rewrites.
        reader: Reads what a follow-up asks for; the encoder serves where that is nothing checkable.
        recipe: Section and sampling.

    Drops: ``too_long``, ``over_limit``, ``model_call_failed``, ``no_candidate``.
    """
    section, sampling = recipe
    asked_for, encoder = reader
    with_feedback = [turn for turn in turns if turn.label is FollowUpLabel.WITH_FEEDBACK]
    fitting = [turn for turn in with_feedback if _room(turn, section) >= 0]
    # A limit is best spent on turns of users of whom something is known: their pairs are conditioned on it.
    fitting.sort(key=lambda turn: personas.get(turn.conversation_id) is None)
    used = fitting[: section.max_turns]
    dropped = [Dropped(stage="rewrite", key=t.key, reason="over_limit") for t in fitting[len(used) :]]
    dropped += [Dropped(stage="rewrite", key=t.key, reason="too_long") for t in with_feedback if _room(t, section) < 0]
    drafts = [draft for turn in used for draft in _drafts(turn, section)]
    drafts.sort(key=lambda draft: draft.spec)
    drafted = await generate(drafts, client, sampling, description="rewrite")
    wishes = asked_for.read_all([turn.follow_up or "" for turn in used])
    proposed: list[ProposedPair] = []
    for turn, asked in zip(used, wishes, strict=True):
        kinds = [key for key in drafted.candidates if key[0] == turn.key]
        candidates = [c for key in kinds for c in drafted.candidates[key] if c.text != turn.response.strip()]
        if not candidates:
            errors = [drafted.failures[key] for key in kinds if key in drafted.failures]
            reason = "model_call_failed" if errors else "no_candidate"
            dropped.append(Dropped(stage="rewrite", key=turn.key, reason=reason, detail=errors[-1] if errors else ""))
            continue
        chosen = _best(candidates, turn, asked, encoder)
        proposed.append(_pair(turn, chosen, personas.get(turn.conversation_id), asked))
    notes = {"client": client.model, "drafts": len(drafts)}
    return StageResult(len(with_feedback), len(proposed), dropped, {REWRITES: proposed}, notes)


def kept_share(text: str, asked: Sequence[str]) -> float:
    """Share of the asked-for properties that a text has, in [0, 1]; 0 where nothing was asked for."""
    return sum(CHECKS[name].holds(text) for name in asked) / len(asked) if asked else 0.0


def _room(turn: LabelledTurn, section: RewriteSection) -> int:
    """Characters that are left for the old reply; negative where even the follow-up does not fit."""
    return section.max_prompt_chars - sum(len(m.content) for m in turn.context) - len(turn.follow_up or "")


def _drafts(turn: LabelledTurn, section: RewriteSection) -> list[Draft]:
    seeing = section.samples_seeing_reply if len(turn.response) <= _room(turn, section) else 0
    blind = section.samples_blind or section.samples_seeing_reply - seeing
    counts = dict(zip(PROMPTS, (seeing, blind), strict=True))
    drafts = []
    for name, count in counts.items():
        if count:
            content = fill(
                load_prompt("rlhi_training", name).text,
                request=turn.context[-1].content,
                reply=turn.response,
                follow_up=turn.follow_up or "",
            )
            messages = (*turn.context[:-1], ChatMessage(role="user", content=content))
            drafts.append(Draft(turn, name, messages, count, "rewrite", turn.follow_up_id))
    return drafts


def _best(candidates: list[Candidate], turn: LabelledTurn, asked: tuple[str, ...], encoder: Encoder) -> Candidate:
    """Meets most of what was asked; among equals a sound one; nothing checkable: the nearest to the feedback."""
    nearness = [0.0] * len(candidates)
    if not asked:
        vectors = encoder.encode([turn.follow_up or "", *(c.text for c in candidates)])
        nearness = [float(value) for value in vectors[1:] @ vectors[0]]

    def rank(index: int) -> tuple[float, bool, float, int]:
        candidate = candidates[index]
        sound = flaw(candidate.text, candidate.finish_reason, min_words=1, max_repeated_share=0.2) is None
        return kept_share(candidate.text, asked), sound, nearness[index], -index

    return candidates[max(range(len(candidates)), key=rank)]


def _pair(turn: LabelledTurn, chosen: Candidate, persona: Persona | None, asked: tuple[str, ...]) -> ProposedPair:
    original = Candidate(
        conversation_id=turn.conversation_id, turn=turn.turn, text=turn.response, origin="logged", model="logged"
    )
    return ProposedPair(
        source="rewrite",
        conversation_id=turn.conversation_id,
        turn=turn.turn,
        persona=persona,
        chosen=chosen,
        rejected=original,
        margin=kept_share(chosen.text, asked) - kept_share(original.text, asked),
        asked=asked,
    )
