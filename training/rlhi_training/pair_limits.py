"""Pairs that tokenise but cannot be trained on: longer than the base reads, or than a forward pass may be."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from rlhi_training.recipe import TrainSection
from rlhi_training.records import Dropped
from rlhi_training.tokenised_pairs import TokenisedPair
from rlhi_training.tree.packing import pair_tokens


def within_limits(
    pairs: Sequence[TokenisedPair], train: TrainSection, window: int | None
) -> tuple[list[TokenisedPair], list[Dropped]]:
    """The pairs that fit, in order, and the others.

    Args:
        pairs: Of any length.
        train: Names the token budget, and whether prefixes are shared.
        window: Most tokens that the base reads; None is not known.

    Drops: ``over_window`` (the base would read beyond the positions that it was trained on), ``over_token_budget``
    (larger alone than ``train.tokens_per_batch``).
    """
    kept: list[TokenisedPair] = []
    dropped: list[Dropped] = []
    for pair in pairs:
        reason, detail = _fault(pair, train, window)
        if reason:
            dropped.append(Dropped(stage="train", key=pair.pair_id, reason=reason, detail=detail))
        else:
            kept.append(pair)
    return kept, dropped


def _fault(pair: TokenisedPair, train: TrainSection, window: int | None) -> tuple[str | None, str]:
    longest = len(pair.prompt_ids) + max(len(pair.chosen_ids), len(pair.rejected_ids))
    if window is not None and longest > window:
        return "over_window", f"{longest} tokens; the base reads {window}"
    if train.tokens_per_batch is not None:
        alone = pair_tokens(pair.prompt_ids, pair.chosen_ids, pair.rejected_ids, shared=train.share_prefixes)
        if alone > train.tokens_per_batch:
            return "over_token_budget", f"{alone} tokens alone; train.tokens_per_batch is {train.tokens_per_batch}"
    return None, ""


def window_of(base: Path) -> int | None:
    """Most positions of a base model, by its ``config.json``; None where that does not say."""
    config = json.loads((base / "config.json").read_text("utf-8"))
    known = config.get("max_position_embeddings") or config.get("text_config", {}).get("max_position_embeddings")
    return int(known) if known else None
