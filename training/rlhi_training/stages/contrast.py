"""Persona contrast (ours): for one request, pairs whose choice nothing but the persona explains.

Naive pairs teach what everybody's complaints have in common, mostly brevity. Here one request gets a pool of
candidates: plain ones, ones guided to what personas ask for, and what the stages rewrite and reward wrote for it. The
pool is ranked under several users' personas, and pairs are taken where the ranking turns, with lengths as equal as can
be. So the same text is chosen under one persona and rejected under another. A few pairs without persona, and a few
under a persona that has nothing to say about the request, in which the plain answer wins, teach when to leave things
as they are. Kin: arXiv 2405.17977 (contrast of system messages), 2501.11549 (personas for both sides of a pair).

What crosses between users, exactly. In a pair whose request is A's and whose persona is B's, the prompt is B's persona
and A's conversation up to the request; both answers were written by this run's models for that request, neither is a
logged answer; and neither repeats five consecutive words (a shorter text of three or four: all of it) of A's follow-up,
of A's persona, or of any other persona that the request was ranked under, unless A's conversation up to the request
holds them too. ``cross_user = false`` makes no contrast pairs at all.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rlhi_plugin.chat import ChatClient
from rlhi_plugin.checks import word_count
from rlhi_plugin.records import FollowUpLabel
from rlhi_training.asked_for import AskedFor
from rlhi_training.contrasting.choosing import choose, irrelevant, neutral, share_of
from rlhi_training.contrasting.pools import Gathered, Pool, Slot, gather, rank
from rlhi_training.counts import MODEL, prefixed, under
from rlhi_training.demonstrations import guided_messages
from rlhi_training.draws import drawn
from rlhi_training.generation import Draft, Drafted, Sampling, generate
from rlhi_training.prompting import with_persona_message
from rlhi_training.recipe import ContrastSection
from rlhi_training.records import Candidate, Dropped, LabelledTurn, ProposedPair
from rlhi_training.reward_models.protocol import RewardModel
from rlhi_training.run_directory import StageResult
from rlhi_training.stages.audience import Audience, wanted_by_many

CONTRASTS = "contrasts.jsonl"
_PLAIN = "plain"
_ORIGINS, _LEFT_OUT = "origin", "left_out"


@dataclass(frozen=True)
class Material:
    """What a pool may be made of and ranked by, besides what the stage writes itself.

    Attributes:
        audience: Whose personas there are.
        asked_for: Reads wishes.
        more: By turn key, candidates that earlier stages wrote for the request.
        reward_model: Ranks, where the recipe says so; else None.
    """

    audience: Audience
    asked_for: AskedFor
    more: Mapping[str, Sequence[Candidate]] = field(default_factory=dict)
    reward_model: RewardModel | None = None


async def contrast(
    turns: Sequence[LabelledTurn],
    material: Material,
    client: ChatClient,
    recipe: tuple[ContrastSection, Sampling],
) -> StageResult:
    """Propose pairs for requests that several personas would have answered differently.

    Drops: ``not_a_request`` (the message is itself feedback or praise), ``feedback_in_context`` (the conversation so
    far already shows its author's wishes), ``duplicate_request``, ``cross_user_off``, ``no_persona`` (nobody's
    persona, as of then, asks for something checkable that enough users share), ``over_limit``, ``model_call_failed``,
    ``no_contrast`` (no two sound candidates that a persona ranks apart at comparable length).
    """
    section, sampling = recipe
    wishes = sorted(wanted_by_many(material.audience, material.asked_for, section.min_users_per_property))
    requests, dropped = eligible(turns, section)
    requests, again = once_each(requests, sampling.seed)
    slots, unused = seats(requests, material, frozenset(wishes), section, sampling.seed)
    found = await contrast_slots(slots, material, client, (section, sampling), wishes)
    extras = found.drawn(section)
    every = [*found.proposed, *extras]
    passed = {f"{p.conversation_id}#{p.turn}" for p in every}
    dropped += [*again, *unused, *(drop for key, drop in found.empty_handed.items() if key not in passed)]
    neutral_pairs = sum(pair.persona is None for pair in extras)
    notes = {"client": client.model, "wishes": wishes, "turned": found.turned}
    notes |= {"pairs": len(found.proposed), "neutral": neutral_pairs, "irrelevant": len(extras) - neutral_pairs}
    notes |= pool_notes(pool_counts(found, every), material.reward_model)
    return StageResult(len(turns), len(passed), dropped, {CONTRASTS: every}, notes)


@dataclass
class Contrasted:
    """What `contrast_slots` found.

    Attributes:
        proposed: Pairs, in the order of the slots.
        neutral: One more for each request that could have one, without a persona; the run's share of them is drawn.
        irrelevant: The same under a persona that does not matter.
        empty_handed: By turn key, why a request gives no pair if none of its neutral and irrelevant ones is drawn.
        drafts: How many were asked for.
        turned: How many of the pairs another persona ranks the other way.
        pools: Requests with their candidates.
        gathered: What was written, and left out.
        seed: Draws.
        seen: What the reward model counted meanwhile.
    """

    proposed: list[ProposedPair]
    neutral: list[ProposedPair]
    irrelevant: list[ProposedPair]
    empty_handed: dict[str, Dropped]
    drafts: int
    turned: int
    pools: list[Pool]
    gathered: Gathered
    seed: int
    seen: Counter[str]

    def drawn(self, section: ContrastSection) -> list[ProposedPair]:
        """The share of the neutral and of the irrelevant ones, counted on all proposed."""
        picked: list[ProposedPair] = []
        for found, share in ((self.neutral, section.neutral_share), (self.irrelevant, section.irrelevant_share)):
            ranked = sorted(found, key=lambda pair: extra_rank(pair, self.seed))
            picked += ranked[: share_of(share, len(self.proposed))]
        return picked


def extra_rank(pair: ProposedPair, seed: int) -> int:
    """Draws which neutral and irrelevant pairs there are."""
    return drawn(seed, "extra", f"{pair.conversation_id}#{pair.turn}")


def request_rank(turn_key: str, seed: int) -> int:
    """Draws the order of requests."""
    return drawn(seed, "request", turn_key)


async def contrast_slots(
    slots: Sequence[Slot],
    material: Material,
    client: ChatClient,
    recipe: tuple[ContrastSection, Sampling],
    wishes: Sequence[str],
) -> Contrasted:
    """Write and rank candidates for requests, and pair them. What a request gives depends on it alone."""
    section, sampling = recipe
    drafts = [draft for slot in slots for draft in _drafts(slot, section)]
    # Equal beginnings are neighbours.
    drafts.sort(key=lambda draft: (draft.spec, draft.turn.key))
    drafted = await generate(drafts, client, sampling, description="write contrast candidates")
    gathered = gather(slots, _written(drafted), material.more)
    before = _seen(material)
    pools = await rank(slots, gathered, wishes, material.reward_model)
    proposed, turned = choose(pools, section, sampling.seed)
    passed = {f"{p.conversation_id}#{p.turn}" for p in proposed}
    empty = {drop.key: drop for drop in _empty_handed(slots, passed, drafted, gathered)}
    plain, apart = neutral(pools, wishes), irrelevant(pools, wishes)
    seen = _seen(material) - before
    return Contrasted(proposed, plain, apart, empty, len(drafts), turned, pools, gathered, sampling.seed, seen)


def _seen(material: Material) -> Counter[str]:
    return Counter(material.reward_model.seen if material.reward_model else {})


def eligible(turns: Sequence[LabelledTurn], section: ContrastSection) -> tuple[list[LabelledTurn], list[Dropped]]:
    """Turns that begin something, in conversations that have shown no wishes yet."""
    judged = [(turn, _unfit(turn, reason)) for turn, reason in judged_requests(turns, section)]
    return [turn for turn, drop in judged if drop is None], [drop for _, drop in judged if drop is not None]


def _unfit(turn: LabelledTurn, reason: str | None) -> Dropped | None:
    return None if reason is None else Dropped.trusted(stage="contrast", key=turn.key, reason=reason)


def judged_requests(
    turns: Sequence[LabelledTurn], section: ContrastSection
) -> Iterator[tuple[LabelledTurn, str | None]]:
    """Turns with the reason why they are not `eligible`; None for those that are."""
    label_of = {(t.conversation_id, t.turn + 1): t.label for t in turns}
    spoilt: set[str] = set()
    for turn in sorted(turns, key=lambda t: (t.conversation_id, t.turn)):
        label = label_of.get((turn.conversation_id, turn.turn))
        reason = None
        if not section.cross_user:
            reason = "cross_user_off"
        elif turn.turn > 0 and label is not FollowUpLabel.NEW_REQUEST:
            reason = "not_a_request"
        elif turn.conversation_id in spoilt:
            reason = "feedback_in_context"
        if (turn.turn > 0 and label is not FollowUpLabel.NEW_REQUEST) or turn.label is FollowUpLabel.WITH_FEEDBACK:
            spoilt.add(turn.conversation_id)
        yield turn, reason


def wording(turn: LabelledTurn) -> str:
    """What makes two requests the same."""
    return turn.context[-1].content.strip().lower()


def once_each(requests: Sequence[LabelledTurn], seed: int) -> tuple[list[LabelledTurn], list[Dropped]]:
    """Requests in the order of their draws, each wording once."""
    seen: set[str] = set()
    kept: list[LabelledTurn] = []
    dropped: list[Dropped] = []
    for turn in sorted(requests, key=lambda turn: request_rank(turn.key, seed)):
        text = wording(turn)
        if text in seen:
            dropped.append(Dropped(stage="contrast", key=turn.key, reason="duplicate_request"))
        else:
            seen.add(text)
            kept.append(turn)
    return kept, dropped


def seats(
    requests: Sequence[LabelledTurn],
    material: Material,
    wishes: frozenset[str],
    section: ContrastSection,
    seed: int,
) -> tuple[list[Slot], list[Dropped]]:
    """Requests with those who listen, and those without."""
    slots: list[Slot] = []
    dropped: list[Dropped] = []
    audience, asked_for = material.audience, material.asked_for
    for turn in requests:
        if section.max_requests is not None and len(slots) >= section.max_requests:
            dropped.append(Dropped(stage="contrast", key=turn.key, reason="over_limit"))
            continue
        listeners = list(audience.listeners(turn, wishes, asked_for, section, seed=seed))
        odd = None
        if section.gate and section.irrelevant_share:
            odd = audience.irrelevant(turn, wishes, asked_for, section, seed=seed)
        if not listeners and odd is None:
            dropped.append(Dropped(stage="contrast", key=turn.key, reason="no_persona"))
            continue
        slots.append(Slot(turn, tuple(listeners), odd, audience.author_of(turn)))
    return slots, dropped


def has_seat(
    turn: LabelledTurn, material: Material, wishes: frozenset[str], section: ContrastSection, seed: int
) -> bool:
    """Whether `seats` gives a request a slot, where no limit is in the way; found out in a fraction of the time."""
    audience, asked_for = material.audience, material.asked_for
    if next(audience.listeners(turn, wishes, asked_for, section, seed=seed), None) is not None:
        return True
    if not (section.gate and section.irrelevant_share):
        return False
    return audience.irrelevant(turn, wishes, asked_for, section, seed=seed) is not None


def _drafts(slot: Slot, section: ContrastSection) -> list[Draft]:
    """Plain candidates, and guided ones per distinct set of wishes; under the persona itself where it names none."""
    turn = slot.turn
    drafts = []
    if section.plain_samples:
        messages = guided_messages(turn.context, (), section.guidance)
        drafts.append(Draft(turn, _PLAIN, messages, section.plain_samples, "sample", None))
    if not section.guided_samples:
        return drafts
    everybody = [*slot.listeners, *([slot.irrelevant] if slot.irrelevant else [])]
    for asked in sorted({listener.asked for listener in everybody if listener.asked}):
        name = "+".join(asked)
        messages = guided_messages(turn.context, asked, section.guidance)
        drafts.append(Draft(turn, f"guided:{name}", messages, section.guided_samples, "guided", name))
    silent = {listener.persona.digest: listener.persona for listener in slot.listeners if not listener.asked}
    for digest, persona in sorted(silent.items()):
        name = f"persona:{digest[:16]}"
        messages = with_persona_message(turn.context, persona)
        drafts.append(Draft(turn, name, messages, section.guided_samples, "guided", name))
    return drafts


def _written(drafted: Drafted) -> dict[str, list[tuple[Candidate, bool]]]:
    """By turn key: what was written, and whether without guidance."""
    written: dict[str, list[tuple[Candidate, bool]]] = defaultdict(list)
    for (key, spec), candidates in sorted(drafted.candidates.items()):
        written[key] += [(candidate, spec == _PLAIN) for candidate in candidates]
    return written


def _empty_handed(slots: Sequence[Slot], passed: set[str], drafted: Drafted, gathered: Gathered) -> list[Dropped]:
    """Requests that gave no pair, and why."""
    failed = {key[0]: error for key, error in drafted.failures.items()}
    dropped = []
    for slot in slots:
        key = slot.turn.key
        if key not in passed:
            reason = "model_call_failed" if key in failed and not gathered.candidates[key] else "no_contrast"
            dropped.append(Dropped(stage="contrast", key=key, reason=reason, detail=failed.get(key, "")))
    return dropped


def pool_counts(found: Contrasted, pairs: Iterable[ProposedPair]) -> Counter[str]:
    """For `pool_notes`; counts of parts add up."""
    origins = Counter(str(candidate.origin) for pool in found.pools for candidate in pool.candidates)
    counts = Counter({"drafts": found.drafts})
    for prefix, some in ((_ORIGINS, origins), (_LEFT_OUT, found.gathered.left_out), (MODEL, found.seen)):
        counts.update(prefixed(prefix, some))
    for pair in pairs:
        counts.update(word_counts(pair))
    return counts


def word_counts(pair: ProposedPair) -> dict[str, int]:
    """What a pair adds to `pool_counts`."""
    chosen, rejected = word_count(pair.chosen.text), word_count(pair.rejected.text)
    return {"measured": 1, "words:chosen": chosen, "words:rejected": rejected}


def pool_notes(counts: Mapping[str, int], reward_model: RewardModel | None) -> dict[str, Any]:
    """Where the candidates came from, which were left out, and how long chosen and rejected are."""
    measured = counts.get("measured", 0)
    sides = ("chosen", "rejected")
    notes: dict[str, Any] = {
        "drafts": counts.get("drafts", 0),
        "candidates": dict(sorted(under(_ORIGINS, counts).items())),
        "left_out": dict(sorted(under(_LEFT_OUT, counts).items())),
        "mean_words": {side: round(counts[f"words:{side}"] / measured, 1) if measured else None for side in sides},
    }
    if reward_model is not None:
        notes |= {"reward_model": reward_model.name, **reward_model.notes(under(MODEL, counts))}
    return notes
