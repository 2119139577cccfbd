"""Filter: what a proposed pair must survive. The paper (arXiv 2509.25137) calls quality filtering essential.

Two questions are asked apart, because rewrites that answer a complaint are often worse answers (arXiv 2507.23158): does
the chosen answer *address the feedback*, and is it, blind to the feedback, *not worse*? Each predicate returns the name
of the reason for dropping, or None.
"""

from __future__ import annotations

import math
import random
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from rlhi_plugin.checks import CHECKS
from rlhi_training.recipe import FilterSection
from rlhi_training.records import Dropped, LabelledTurn, ProposedPair
from rlhi_training.run_directory import StageResult
from rlhi_training.sentence_encoder import Encoder
from rlhi_training.soundness import flaw

KEPT = "filtered.jsonl"


def filter_pairs(
    proposed: Sequence[ProposedPair],
    turns: Mapping[str, LabelledTurn],
    encoder: Encoder,
    section: FilterSection,
    seed: int,
) -> StageResult:
    """Keep the pairs that pass every predicate, then cap each user's share and the total.

    Drops: ``duplicate``, ``identical``, ``no_persona``, ``chosen_<flaw>`` (`rlhi_training.soundness`),
    ``feedback_not_addressed``, ``nothing_to_mend``, ``user_cap``, ``over_limit``.
    """
    dropped: list[Dropped] = []
    kept: list[ProposedPair] = []
    seen: Counter[str] = Counter()
    for pair in proposed:
        seen[pair.key] += 1
        reason = "duplicate" if seen[pair.key] > 1 else None
        reason = reason or identical(pair) or without_persona(pair, section) or not_worse(pair, section)
        if reason is None and pair.source == "rewrite":
            reason = addresses_feedback(pair, turns[f"{pair.conversation_id}#{pair.turn}"], encoder, section)
        if reason is None:
            kept.append(pair)
        else:
            key = pair.key if seen[pair.key] == 1 else f"{pair.key}@{seen[pair.key]}"
            dropped.append(Dropped(stage="filter", key=key, reason=reason))
    owners = {pair.key: owner(pair, turns) for pair in kept}
    capped = cap_users(kept, owners, section.max_pairs_per_user_share, seed)
    drawn = draw_evenly(capped, owners, section.max_pairs, seed)
    remaining, final = {p.key for p in capped}, {p.key for p in drawn}
    for pair in kept:
        if pair.key not in final:
            reason = "over_limit" if pair.key in remaining else "user_cap"
            dropped.append(Dropped(stage="filter", key=pair.key, reason=reason))
    notes = {"by_source": dict(sorted(Counter(p.source for p in drawn).items()))}
    return StageResult(len(proposed), len(drawn), dropped, {KEPT: drawn}, notes)


def identical(pair: ProposedPair) -> str | None:
    """Chosen and rejected are the same text but for white space."""
    return "identical" if pair.chosen.text.split() == pair.rejected.text.split() else None


def without_persona(pair: ProposedPair, section: FilterSection) -> str | None:
    """No persona where the recipe asks for one. Neutral pairs of persona contrast are exempt: it is their point."""
    return "no_persona" if section.require_persona and pair.persona is None and pair.source != "contrast" else None


def not_worse(pair: ProposedPair, section: FilterSection) -> str | None:
    """Blind to the feedback: the chosen answer is whole, not repetitive, long enough, and language."""
    min_words = 1 if "short" in pair.asked else section.min_chosen_words
    problem = flaw(
        pair.chosen.text,
        pair.chosen.finish_reason,
        min_words=min_words,
        max_repeated_share=section.max_repeated_share,
    )
    return f"chosen_{problem}" if problem else None


def addresses_feedback(pair: ProposedPair, turn: LabelledTurn, encoder: Encoder, section: FilterSection) -> str | None:
    """Whether a rewrite does what the follow-up asked for.

    Where that is checkable: every property holds in the rewrite, and one at least was missing before. Else: the rewrite
    is nearer to the feedback than the original was, by `FilterSection.min_similarity_gain`.
    """
    if pair.asked:
        if not all(CHECKS[name].holds(pair.chosen.text) for name in pair.asked):
            return "feedback_not_addressed"
        return "nothing_to_mend" if all(CHECKS[n].holds(pair.rejected.text) for n in pair.asked) else None
    vectors = encoder.encode([turn.follow_up or "", pair.chosen.text, pair.rejected.text])
    gain = float(vectors[1] @ vectors[0] - vectors[2] @ vectors[0])
    return "feedback_not_addressed" if gain < section.min_similarity_gain else None


def owner(pair: ProposedPair, turns: Mapping[str, LabelledTurn]) -> str:
    """Whose preference a pair states: the persona's user, else the turn's user, else the anonymous conversation."""
    if pair.persona is not None:
        return pair.persona.user_id
    turn = turns[f"{pair.conversation_id}#{pair.turn}"]
    return turn.user_id or f"#{pair.conversation_id}"


def cap_users(pairs: Sequence[ProposedPair], owners: Mapping[str, str], share: float, seed: int) -> list[ProposedPair]:
    """At most ``ceil(share * len(pairs))`` pairs per owner, drawn at random; in the given order.

    Neutral pairs state nobody's preference and are not counted.
    """
    cap = math.ceil(share * len(pairs))
    order = random.Random(seed)
    by_owner: dict[str, list[str]] = defaultdict(list)
    for pair in pairs:
        if not (pair.source == "contrast" and pair.persona is None):
            by_owner[owners[pair.key]].append(pair.key)
    out: set[str] = set()
    for _, keys in sorted(by_owner.items()):
        out |= set(order.sample(keys, len(keys))[cap:])
    return [pair for pair in pairs if pair.key not in out]


def draw_evenly(
    pairs: Sequence[ProposedPair], owners: Mapping[str, str], limit: int | None, seed: int
) -> list[ProposedPair]:
    """At most `limit` pairs, taken in turn from each source and, within a source, from each owner."""
    if limit is None or len(pairs) <= limit:
        return list(pairs)
    order = random.Random(seed)
    piles: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for pair in order.sample(list(pairs), len(pairs)):
        piles[pair.source][owners[pair.key]].append(pair.key)
    rounds = {source: _in_turn(list(by_owner.values())) for source, by_owner in sorted(piles.items())}
    drawn = set(_in_turn(list(rounds.values()))[:limit])
    return [pair for pair in pairs if pair.key in drawn]


def _in_turn(piles: Sequence[Sequence[str]]) -> list[str]:
    """First of each pile, then second of each, and so on."""
    longest = max((len(pile) for pile in piles), default=0)
    return [pile[i] for i in range(longest) for pile in piles if i < len(pile)]
