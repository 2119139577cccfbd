"""User-Guided Rewrites (arXiv 2509.25137): a follow-up says how to improve, and the improved answer beats the original.

Several rewrites are drafted per turn: some see the old reply and the follow-up, as in the paper, some only the
follow-up. The one that meets most of what the follow-up asks for is proposed against the original, which is the logged
answer or one that the policy writes anew; whether it meets enough is for the filter to say. Without guidance (the
paper's ablation) neither the rewriter nor the choice knows what the user said.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from rlhi_plugin.chat import ChatClient
from rlhi_plugin.prompt_files import load_prompt
from rlhi_plugin.records import ChatMessage, FollowUpLabel, Persona
from rlhi_training.asked_for import AskedFor
from rlhi_training.generation import Draft, Sampling, generate
from rlhi_training.prompting import fill, with_persona_message
from rlhi_training.recipe import RewriteSection
from rlhi_training.records import UNGUIDED, Candidate, Dropped, LabelledTurn, ProposedPair
from rlhi_training.reward_models.checked import kept_share
from rlhi_training.run_directory import StageResult
from rlhi_training.sentence_encoder import Encoder
from rlhi_training.soundness import flaw

REWRITES = "rewrites.jsonl"
REWRITTEN = "rewrite_candidates.jsonl"
"""Every rewrite, also those not proposed: persona contrast takes them into its pools."""
_SEEING, _BLIND, _UNGUIDED, _SCRATCH = "rewrite_seeing_reply", "rewrite_blind", "rewrite_unguided", "scratch"
_ORIGINAL = "original"


@dataclass(frozen=True)
class Writers:
    """Who writes what.

    Attributes:
        rewriter: Writes the rewrites.
        policy: Writes originals anew, where the recipe asks for that.
    """

    rewriter: ChatClient
    policy: ChatClient


@dataclass
class _Originals:
    """The rejected sides, by turn key; and why a turn has none."""

    of: dict[str, Candidate] = field(default_factory=dict)
    failures: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Reason and detail."""


async def rewrite(
    turns: Sequence[LabelledTurn],
    personas: Mapping[str, Persona | None],
    writers: Writers,
    reader: tuple[AskedFor, Encoder],
    recipe: tuple[RewriteSection, Sampling],
) -> StageResult:
    """Propose one pair per turn whose follow-up carries feedback.

    Args:
        turns: All labelled turns; those without such a follow-up are no input of this stage.
        personas: Persona as of before each conversation.
        writers: Who writes.
        reader: Reads what a follow-up asks for; the encoder serves where that is nothing checkable.
        recipe: Section and sampling.

    Drops: ``too_long``, ``over_limit``, ``model_call_failed``, ``original_unfinished`` (the policy's own answer reached
    the token cap), ``no_original`` (it was empty), ``no_candidate``.
    """
    section, sampling = recipe
    with_feedback = [turn for turn in turns if turn.label is FollowUpLabel.WITH_FEEDBACK]
    used, dropped = _usable(with_feedback, personas, section)
    originals = await _originals(used, personas, writers.policy, recipe)
    dropped += [
        Dropped(stage="rewrite", key=key, reason=reason, detail=detail)
        for key, (reason, detail) in originals.failures.items()
    ]
    used = [turn for turn in used if turn.key in originals.of]
    drafts = [draft for turn in used for draft in _drafts(turn, originals.of[turn.key].text, section)]
    drafts.sort(key=lambda draft: draft.spec)
    drafted = await generate(drafts, writers.rewriter, sampling, description="rewrite")
    candidates: dict[str, list[Candidate]] = {turn.key: [] for turn in used}
    for (key, _), written in drafted.candidates.items():
        original = originals.of[key].text.strip()
        candidates[key] += [candidate for candidate in written if candidate.text != original]
    failures = {key[0]: error for key, error in drafted.failures.items()}
    chosen = _choose(used, candidates, reader, guided=section.guidance == "follow_up")
    proposed: list[ProposedPair] = []
    for turn in used:
        if turn.key in chosen:
            best, asked = chosen[turn.key]
            proposed.append(_pair(originals.of[turn.key], best, personas.get(turn.conversation_id), asked))
            continue
        reason = "model_call_failed" if turn.key in failures else "no_candidate"
        dropped.append(Dropped(stage="rewrite", key=turn.key, reason=reason, detail=failures.get(turn.key, "")))
    notes = {"drafts": len(drafts), **writer_notes(writers, section)}
    every = [candidate for turn in used for candidate in candidates[turn.key]]
    return StageResult(len(with_feedback), len(proposed), dropped, {REWRITES: proposed, REWRITTEN: every}, notes)


def writer_notes(writers: Writers, section: RewriteSection) -> dict[str, str]:
    """Who wrote, by what, and over which answers."""
    originals = writers.policy.model if section.original == "policy" else "logged"
    return {"client": writers.rewriter.model, "guidance": section.guidance, "originals": originals}


def _usable(
    turns: Sequence[LabelledTurn], personas: Mapping[str, Persona | None], section: RewriteSection
) -> tuple[list[LabelledTurn], list[Dropped]]:
    fitting = [turn for turn in turns if room_left(turn, section) >= 0]
    # A limit is best spent on turns of users of whom something is known: their pairs are conditioned on it.
    fitting.sort(key=lambda turn: personas.get(turn.conversation_id) is None)
    used = fitting[: section.max_turns]
    dropped = [Dropped(stage="rewrite", key=t.key, reason="over_limit") for t in fitting[len(used) :]]
    return used, dropped + [
        Dropped(stage="rewrite", key=t.key, reason="too_long") for t in turns if room_left(t, section) < 0
    ]


def room_left(turn: LabelledTurn, section: RewriteSection) -> int:
    """Characters that are left for the old reply; negative where even the follow-up does not fit."""
    return section.max_prompt_chars - sum(len(m.content) for m in turn.context) - len(turn.follow_up or "")


async def _originals(
    turns: Sequence[LabelledTurn],
    personas: Mapping[str, Persona | None],
    policy: ChatClient,
    recipe: tuple[RewriteSection, Sampling],
) -> _Originals:
    """The answers that the rewrites are to beat: as logged, or as the policy gives them under the pair's own prompt."""
    section, sampling = recipe
    out = _Originals()
    if section.original == "logged":
        for turn in turns:
            where = {"conversation_id": turn.conversation_id, "turn": turn.turn}
            out.of[turn.key] = Candidate(text=turn.response, origin="logged", model="logged", **where)
        return out
    drafts = [
        Draft(turn, _ORIGINAL, with_persona_message(turn.context, personas.get(turn.conversation_id)), 1, "sample")
        for turn in turns
    ]
    drafted = await generate(drafts, policy, sampling, description="write originals anew")
    for turn in turns:
        written = drafted.candidates[turn.key, _ORIGINAL]
        error = drafted.failures.get((turn.key, _ORIGINAL))
        if written and written[0].finish_reason == "stop":
            out.of[turn.key] = written[0]
        elif error is not None:
            out.failures[turn.key] = ("model_call_failed", error)
        else:
            out.failures[turn.key] = ("original_unfinished" if written else "no_original", "")
    return out


def _drafts(turn: LabelledTurn, reply: str, section: RewriteSection) -> list[Draft]:
    seeing = section.samples_seeing_reply if len(reply) <= room_left(turn, section) else 0
    blind = section.samples_blind or section.samples_seeing_reply - seeing
    guided = section.guidance == "follow_up"
    counts = {_SEEING if guided else _UNGUIDED: seeing, _BLIND if guided else _SCRATCH: blind}
    drafts = []
    for name, count in counts.items():
        if count:
            messages = turn.context if name == _SCRATCH else _messages(turn, reply, name)
            drafts.append(Draft(turn, name, messages, count, "rewrite", turn.follow_up_id if guided else UNGUIDED))
    return drafts


def _messages(turn: LabelledTurn, reply: str, prompt: str) -> tuple[ChatMessage, ...]:
    content = fill(
        load_prompt("rlhi_training", prompt).text,
        request=turn.context[-1].content,
        reply=reply,
        follow_up=turn.follow_up or "",
    )
    return (*turn.context[:-1], ChatMessage(role="user", content=content))


def _choose(
    turns: Sequence[LabelledTurn],
    candidates: Mapping[str, list[Candidate]],
    reader: tuple[AskedFor, Encoder],
    *,
    guided: bool,
) -> dict[str, tuple[Candidate, tuple[str, ...]]]:
    """Each turn's best rewrite and what was asked for; turns without a candidate are left out.

    Best is what meets most of what was asked; among equals a sound one; nothing checkable: the nearest to the feedback.
    Without guidance: the first sound one.
    """
    asked_for, encoder = reader
    some = [turn for turn in turns if candidates[turn.key]]
    if not guided:
        return {turn.key: (max(candidates[turn.key], key=_is_sound), ()) for turn in some}
    wishes = dict(zip([t.key for t in some], asked_for.read_all([t.follow_up or "" for t in some]), strict=True))
    near = _nearness([turn for turn in some if not wishes[turn.key]], candidates, encoder)
    best = {}
    for turn in some:
        asked, pool = wishes[turn.key], candidates[turn.key]
        closeness = near.get(turn.key, [0.0] * len(pool))
        ranks = [(kept_share(c.text, asked), _is_sound(c), closeness[i], -i) for i, c in enumerate(pool)]
        best[turn.key] = (pool[ranks.index(max(ranks))], asked)
    return best


def _nearness(
    turns: Sequence[LabelledTurn], candidates: Mapping[str, list[Candidate]], encoder: Encoder
) -> dict[str, list[float]]:
    """Cosine of each turn's candidates to what the user said; all texts are embedded at once."""
    if not turns:
        return {}
    texts = [text for turn in turns for text in (turn.follow_up or "", *(c.text for c in candidates[turn.key]))]
    vectors = encoder.encode(texts)
    found: dict[str, list[float]] = {}
    start = 0
    for turn in turns:
        stop = start + 1 + len(candidates[turn.key])
        found[turn.key] = (vectors[start + 1 : stop] @ vectors[start]).tolist()
        start = stop
    return found


def _is_sound(candidate: Candidate) -> bool:
    return flaw(candidate.text, candidate.finish_reason, min_words=1, max_repeated_share=0.2) is None


def _pair(original: Candidate, chosen: Candidate, persona: Persona | None, asked: tuple[str, ...]) -> ProposedPair:
    return ProposedPair.trusted(
        source="rewrite",
        conversation_id=original.conversation_id,
        turn=original.turn,
        persona=persona,
        chosen=chosen,
        rejected=original,
        margin=kept_share(chosen.text, asked) - kept_share(original.text, asked),
        asked=asked,
    )
