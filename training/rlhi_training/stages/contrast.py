"""Persona contrast (ours): for one request, pairs whose choice nothing but the persona explains.

Naive pairs teach what everybody's complaints have in common, mostly brevity. Here one request gets a pool of
candidates, plain ones and ones guided to what personas ask for; the pool is ranked under several users' personas, and
pairs are taken where the ranking turns, with lengths as equal as can be. So the same text is chosen under one persona
and rejected under another. A few pairs without persona, in which the plain answer wins, teach when to leave things as
they are. Kin: arXiv 2405.17977 (contrast of system messages), 2501.11549 (personas for both sides of a pair).
"""

from __future__ import annotations

import math
import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from rlhi_plugin.chat import ChatClient
from rlhi_plugin.checks import CHECKS, word_count
from rlhi_plugin.records import FollowUpLabel, Persona
from rlhi_training.asked_for import AskedFor
from rlhi_training.demonstrations import guided_messages
from rlhi_training.generation import Draft, Drafted, Sampling, generate
from rlhi_training.recipe import ContrastSection
from rlhi_training.records import Candidate, CandidateOrigin, Dropped, LabelledTurn, ProposedPair
from rlhi_training.run_directory import StageResult
from rlhi_training.soundness import flaw
from rlhi_training.stages.audience import Audience, Listener, wanted_by_many

CONTRASTS = "contrasts.jsonl"
_PLAIN = "plain"
_MIN_WORDS = 6
_MAX_REPEATED = 0.08
"""Stricter than the filter: a repetitive text in a pool would win or lose for that alone."""
_LENGTH_WISHES = {"short", "detailed"}
_HELD_BY_DEFAULT = {"no_lists", "no_emojis"}
"""Plain answers have these anyway."""
# Weights of what makes a pair good, ours: more wishes kept, equal lengths, texts that are chosen as often as rejected.
_GAIN, _LENGTH, _BALANCE, _NO_TURN, _NOISE = 2.0, 1.5, 0.6, 0.7, 0.3


@dataclass
class _Tally:
    """How often a text has been chosen and rejected so far."""

    chosen: Counter[str] = field(default_factory=Counter)
    rejected: Counter[str] = field(default_factory=Counter)


async def contrast(
    turns: Sequence[LabelledTurn],
    audience: Audience,
    client: ChatClient,
    asked_for: AskedFor,
    recipe: tuple[ContrastSection, Sampling],
) -> StageResult:
    """Propose pairs for requests that several personas would have answered differently.

    Drops: ``not_a_request`` (the message is itself feedback or praise), ``feedback_in_context`` (the conversation so
    far already shows its author's wishes), ``duplicate_request``, ``cross_user_off``, ``no_persona`` (nobody's
    persona, as of then, asks for something checkable that enough users share), ``over_limit``, ``model_call_failed``,
    ``no_contrast`` (no two sound candidates that a persona ranks apart at comparable length).
    """
    section, sampling = recipe
    wishes = wanted_by_many(audience, asked_for, section.min_users_per_property)
    requests, dropped = _requests(turns, section)
    order = random.Random(sampling.seed)
    order.shuffle(requests)
    slots: list[tuple[LabelledTurn, list[Listener]]] = []
    listened: Counter[str] = Counter()
    for turn in requests:
        listeners = audience.listeners(turn, wishes, asked_for, section, order=order, listened=listened)
        full = section.max_requests is not None and len(slots) >= section.max_requests
        if not listeners or full:
            reason = "over_limit" if listeners else "no_persona"
            dropped.append(Dropped(stage="contrast", key=turn.key, reason=reason))
        else:
            slots.append((turn, listeners))
            listened.update(listener.persona.user_id for listener in listeners)
    drafts = _drafts(slots, section)
    drafted = await generate(drafts, client, sampling, description="write contrast candidates")
    pools = _pools(drafted)
    proposed, turned = _pairs(slots, pools, section, order)
    neutral = _neutral(slots, pools, wishes, math.floor(section.neutral_share * len(proposed)), order)
    passed = {f"{p.conversation_id}#{p.turn}" for p in [*proposed, *neutral]}
    failed = {key[0]: error for key, error in drafted.failures.items()}
    for turn, _ in slots:
        if turn.key not in passed:
            reason = "model_call_failed" if turn.key in failed and not pools[turn.key] else "no_contrast"
            dropped.append(Dropped(stage="contrast", key=turn.key, reason=reason, detail=failed.get(turn.key, "")))
    notes = {
        "client": client.model,
        "drafts": len(drafts),
        "wishes": sorted(wishes),
        "pairs": len(proposed),
        "turned": turned,
        "neutral": len(neutral),
    }
    return StageResult(len(turns), len(passed), dropped, {CONTRASTS: [*proposed, *neutral]}, notes)


def _requests(turns: Sequence[LabelledTurn], section: ContrastSection) -> tuple[list[LabelledTurn], list[Dropped]]:
    """Turns that begin something, in conversations that have shown no wishes yet; each wording once."""
    label_of = {(t.conversation_id, t.turn + 1): t.label for t in turns}
    spoilt: set[str] = set()
    seen: set[str] = set()
    kept: list[LabelledTurn] = []
    dropped: list[Dropped] = []
    for turn in sorted(turns, key=lambda t: (t.conversation_id, t.turn)):
        label = label_of.get((turn.conversation_id, turn.turn))
        text = turn.context[-1].content.strip().lower()
        reason = None
        if not section.cross_user:
            reason = "cross_user_off"
        elif turn.turn > 0 and label is not FollowUpLabel.NEW_REQUEST:
            reason = "not_a_request"
        elif turn.conversation_id in spoilt:
            reason = "feedback_in_context"
        elif text in seen:
            reason = "duplicate_request"
        if (turn.turn > 0 and label is not FollowUpLabel.NEW_REQUEST) or turn.label is FollowUpLabel.WITH_FEEDBACK:
            spoilt.add(turn.conversation_id)
        if reason is None:
            seen.add(text)
            kept.append(turn)
        else:
            dropped.append(Dropped(stage="contrast", key=turn.key, reason=reason))
    return kept, dropped


def _drafts(slots: Sequence[tuple[LabelledTurn, list[Listener]]], section: ContrastSection) -> list[Draft]:
    """Plain candidates and guided ones per distinct set of wishes; sorted so that equal beginnings are neighbours."""
    drafts = []
    for turn, listeners in slots:
        for asked in sorted({listener.asked for listener in listeners} | {()}):
            count = section.guided_samples if asked else section.plain_samples
            if count:
                name = "+".join(asked)
                messages = guided_messages(turn.context, asked, section.guidance)
                origin: CandidateOrigin = "guided" if asked else "sample"
                spec = f"guided:{name}" if asked else _PLAIN
                drafts.append(Draft(turn, spec, messages, count, origin, name or None))
    return sorted(drafts, key=lambda draft: (draft.spec, draft.turn.key))


def _pools(drafted: Drafted) -> dict[str, list[Candidate]]:
    """Sound, distinct candidates of each turn."""
    pools: dict[str, list[Candidate]] = defaultdict(list)
    for (key, _), candidates in sorted(drafted.candidates.items()):
        known = {c.text for c in pools[key]}
        for candidate in candidates:
            reason = flaw(
                candidate.text, candidate.finish_reason, min_words=_MIN_WORDS, max_repeated_share=_MAX_REPEATED
            )
            if reason is None and candidate.text not in known:
                known.add(candidate.text)
                pools[key].append(candidate)
    return pools


def _kept(text: str, asked: Iterable[str]) -> int:
    return sum(CHECKS[name].holds(text) for name in asked)


def _ratio(first: str, second: str) -> float:
    """Longer over shorter, in words; at least 1."""
    counts = sorted((max(1, word_count(first)), max(1, word_count(second))))
    return counts[1] / counts[0]


def _pairs(
    slots: Sequence[tuple[LabelledTurn, list[Listener]]],
    pools: Mapping[str, list[Candidate]],
    section: ContrastSection,
    order: random.Random,
) -> tuple[list[ProposedPair], int]:
    """One pair per request and persona where there is one; and how many another persona ranks the other way."""
    places = [(turn, listener, listeners) for turn, listeners in slots for listener in listeners]
    order.shuffle(places)
    tally = _Tally()
    pairs: list[ProposedPair] = []
    turned = 0
    for turn, listener, listeners in places:
        options = [
            (_cost(a, b, listener, listeners, tally) + order.random() * _NOISE, a, b)
            for a in pools[turn.key]
            for b in pools[turn.key]
            if _admissible(a.text, b.text, listener.asked, section)
        ]
        if not options:
            continue
        _, chosen, rejected = min(options, key=lambda option: option[0])
        tally.chosen[chosen.candidate_id] += 1
        tally.rejected[rejected.candidate_id] += 1
        turned += _turns(chosen, rejected, listeners)
        pairs.append(_proposal(turn, listener.persona, chosen, rejected, listener.asked))
    return pairs, turned


def _admissible(chosen: str, rejected: str, asked: tuple[str, ...], section: ContrastSection) -> bool:
    """Chosen keeps more of the wishes, and length does not give it away unless length is what they are about."""
    if _kept(chosen, asked) <= _kept(rejected, asked):
        return False
    return bool(_LENGTH_WISHES & set(asked)) or _ratio(chosen, rejected) <= section.max_length_ratio


def _turns(chosen: Candidate, rejected: Candidate, listeners: Sequence[Listener]) -> bool:
    """Whether another persona in the audience would choose the other way round."""
    return any(_kept(rejected.text, other.asked) > _kept(chosen.text, other.asked) for other in listeners)


def _cost(
    chosen: Candidate, rejected: Candidate, listener: Listener, listeners: Sequence[Listener], tally: _Tally
) -> float:
    """Lower is better."""
    gain = _kept(chosen.text, listener.asked) - _kept(rejected.text, listener.asked)
    about_length = bool(_LENGTH_WISHES & set(listener.asked))
    length = 0.0 if about_length else _ratio(chosen.text, rejected.text) - 1.0
    first, second = chosen.candidate_id, rejected.candidate_id
    balance = tally.chosen[first] - tally.rejected[first] + tally.rejected[second] - tally.chosen[second]
    no_turn = not _turns(chosen, rejected, listeners)
    return -_GAIN * gain + _LENGTH * length + _BALANCE * balance + _NO_TURN * no_turn


def _neutral(
    slots: Sequence[tuple[LabelledTurn, list[Listener]]],
    pools: Mapping[str, list[Candidate]],
    wishes: frozenset[str],
    count: int,
    order: random.Random,
) -> list[ProposedPair]:
    """Pairs without persona: a plain answer over one of about the same length that grants what others wished for."""
    special = wishes - _HELD_BY_DEFAULT
    found = []
    for turn, _ in slots:
        plain = [c for c in pools[turn.key] if c.guidance is None and not _kept(c.text, special)]
        guided = [c for c in pools[turn.key] if c.guidance is not None and _kept(c.text, special)]
        if plain and guided:
            chosen = plain[0]
            rejected = min(guided, key=lambda c: (_ratio(chosen.text, c.text), c.candidate_id))
            found.append(_proposal(turn, None, chosen, rejected, ()))
    order.shuffle(found)
    return found[:count]


def _proposal(
    turn: LabelledTurn, persona: Persona | None, chosen: Candidate, rejected: Candidate, asked: tuple[str, ...]
) -> ProposedPair:
    margin = (_kept(chosen.text, asked) - _kept(rejected.text, asked)) / len(asked) if asked else 0.0
    return ProposedPair(
        source="contrast",
        conversation_id=turn.conversation_id,
        turn=turn.turn,
        persona=persona,
        chosen=chosen,
        rejected=rejected,
        margin=margin,
        asked=asked,
    )
