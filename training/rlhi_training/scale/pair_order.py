"""The order in which one process would have written the pairs that the shards make."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import cast

from rlhi_training.records import ProposedPair
from rlhi_training.run_directory import StageResult
from rlhi_training.scale.learned import Learned
from rlhi_training.scale.lines import Key
from rlhi_training.scale.proposal import IRRELEVANT, NEUTRAL
from rlhi_training.stages.contrast import Contrasted, extra_rank, request_rank
from rlhi_training.stages.reward import REWARDS
from rlhi_training.stages.rewrite import REWRITES


def in_order(
    results: tuple[StageResult | None, StageResult | None],
    contrasted: Contrasted | None,
    learned: Mapping[str, Learned],
) -> list[tuple[Key, ProposedPair, str | None, int]]:
    """Keys by which the shards' pairs are merged into the order that one process would have written them in."""
    found: list[tuple[Key, ProposedPair, str | None, int]] = []
    for number, (result, name) in enumerate(zip(results, (REWRITES, REWARDS), strict=True)):
        for pair in cast("Sequence[ProposedPair]", result.files[name] if result else ()):
            bare = number == 0 and learned[pair.conversation_id].persona is None
            found.append(((number, int(bare), learned[pair.conversation_id].seq, pair.turn), pair, None, 0))
    if contrasted is None:
        return found
    seed = contrasted.seed
    rows: Counter[str] = Counter()
    for pair in contrasted.proposed:
        key = f"{pair.conversation_id}#{pair.turn}"
        found.append(((2, 0, request_rank(key, seed), rows[key]), pair, None, 0))
        rows[key] += 1
    for number, (kind, pairs) in enumerate(((NEUTRAL, contrasted.neutral), (IRRELEVANT, contrasted.irrelevant))):
        for pair in pairs:
            rank = extra_rank(pair, seed)
            found.append(((2, number + 1, rank, 0), pair, kind, rank))
    return found
