"""What tokenises but cannot be trained on, being longer than base or pass; and the largest pass of what is."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from rlhi_training.methods.choice import TokenisedItem
from rlhi_training.plan.training_memory import Load
from rlhi_training.records import Dropped
from rlhi_training.tokenised_pairs import TokenisedPair
from rlhi_training.train_options import TrainSection
from rlhi_training.tree.packing import pair_tokens
from rlhi_training.tree.prefix_tree import Layout, tree_tokens

_LOOKED_AT = 16
"""Batches, those with the most tokens, whose trees are made to find the largest pass (ours)."""


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


def largest_pass(items: Sequence[TokenisedItem], train: TrainSection) -> Load:
    """The largest pass with gradients, as the first epoch's order makes them.

    Args:
        items: What is trained on; at least one.
        train: Names the size of a pass, and what shares a tree.
    """
    from rlhi_training.tree.trl_trainer import GroupedOrder

    size = train.micro_batch_size if train.token_budget is None else train.batch_size
    order = list(GroupedOrder([item.group for item in items], seed=train.seed))
    batches = [[items[i] for i in order[start : start + size]] for start in range(0, len(order), size)]
    batches.sort(key=lambda batch: -sum(len(row) for item in batch for row in _rows(item, train)))
    tokens, answers = max((_computed(batch, train), _scored(batch, train)) for batch in batches[:_LOOKED_AT])
    smallest = max(_alone(item, train) for item in items)
    if train.token_budget is not None:
        tokens = min(tokens, max(train.token_budget, smallest))
    return Load(tokens, min(tokens, answers), smallest)


def _computed(batch: Sequence[TokenisedItem], train: TrainSection) -> int:
    """Tokens of one pass over a batch, at least."""
    rows = [row for item in batch for row in _rows(item, train)]
    if not train.share_prefixes:
        return len(rows) * max(map(len, rows))
    apart = [list(_rows(item, train)) for item in batch] if train.share_within == "pair" else [rows]
    return sum(tree_tokens(some, Layout(sparse=True)) for some in apart)


def _scored(batch: Sequence[TokenisedItem], train: TrainSection) -> int:
    return sum(len(answer) for item in batch for answer in _answers(item, train))


def _alone(item: TokenisedItem, train: TrainSection) -> int:
    rows = list(_rows(item, train))
    if isinstance(item, TokenisedPair) and len(rows) > 1:
        return pair_tokens(item.prompt_ids, item.chosen_ids, item.rejected_ids, shared=train.share_prefixes)
    return len(rows[0])


def _rows(item: TokenisedItem, train: TrainSection) -> Iterator[list[int]]:
    """The sequences of an item that gradients go through."""
    return (item.prompt_ids + answer for answer in _answers(item, train))


def _answers(item: TokenisedItem, train: TrainSection) -> list[list[int]]:
    if not isinstance(item, TokenisedPair):
        return [item.answer_ids]
    return [item.chosen_ids] if train.method == "sft" else [item.chosen_ids, item.rejected_ids]


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
