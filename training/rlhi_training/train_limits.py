"""What tokenises but cannot be trained on: longer than the base reads, or than a forward pass may be."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from rlhi_training.methods.choice import TokenisedItem
from rlhi_training.recipe import TrainSection
from rlhi_training.records import Dropped
from rlhi_training.tokenised_pairs import TokenisedPair
from rlhi_training.tree.packing import pair_tokens


def within_limits(
    items: Sequence[TokenisedItem], train: TrainSection, window: int | None
) -> tuple[list[TokenisedItem], list[Dropped]]:
    """The items that fit, in order, and the others.

    Args:
        items: Pairs, or logged answers with their follow-ups, of any length.
        train: Names the token budget, and whether prefixes are shared.
        window: Most tokens that the base reads; None is not known.

    Drops: ``over_window`` (the base would read beyond the positions that it was trained on), ``over_token_budget``
    (larger alone than ``train.tokens_per_batch``).
    """
    kept: list[TokenisedItem] = []
    dropped: list[Dropped] = []
    for item in items:
        reason, detail = _fault(item, train, window)
        if reason:
            dropped.append(Dropped(stage="train", key=item.pair_id, reason=reason, detail=detail))
        else:
            kept.append(item)
    return kept, dropped


def _fault(item: TokenisedItem, train: TrainSection, window: int | None) -> tuple[str | None, str]:
    longest = _longest(item)
    if window is not None and longest > window:
        return "over_window", f"{longest} tokens; the base reads {window}"
    if train.token_budget is not None and isinstance(item, TokenisedPair):
        alone = pair_tokens(item.prompt_ids, item.chosen_ids, item.rejected_ids, shared=train.share_prefixes)
        if alone > train.token_budget:
            return "over_token_budget", f"{alone} tokens alone; train.tokens_per_batch is {train.tokens_per_batch}"
    return None, ""


def _longest(item: TokenisedItem) -> int:
    """Tokens of the longest sequence that an item needs a pass for."""
    if isinstance(item, TokenisedPair):
        return len(item.prompt_ids) + max(len(item.chosen_ids), len(item.rejected_ids))
    return max(len(item.prompt_ids), len(item.teacher_prompt_ids)) + len(item.answer_ids)


def window_of(base: Path) -> int | None:
    """Most positions of a base model, by its ``config.json``; None where that does not say."""
    config = json.loads((base / "config.json").read_text("utf-8"))
    known = config.get("max_position_embeddings") or config.get("text_config", {}).get("max_position_embeddings")
    return int(known) if known else None
