"""Scores the candidates of one request in one forward pass that reads their common beginning once.

The rows (persona, context, answer) become one prefix tree (`rlhi_training.tree.prefix_tree`): a token attends to its
own ancestors only, so the states of every row's last token are what reading the row alone gives, up to rounding. A
model whose attention a tree does not express is read row by row, and `cannot_share` says why.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch

from rlhi_training.tree.prefix_tree import plant

_ATTENTION = ("sdpa", "eager")
"""Implementations that take a mask with one row per query."""
_MAX_TOKENS = 16384
"""Tokens of one tree: its mask has the square of that many bits (256 MiB). Ours."""
_BATCH = 8
"""Rows that are read side by side where nothing is shared."""


def cannot_share(model: Any, backbone: Any) -> str | None:
    """Why this classifier's rows cannot be read as a tree, or None when they can.

    Args:
        model: The sequence classifier.
        backbone: What it computes hidden states with.
    """
    config = model.config.get_text_config()
    attention = getattr(config, "_attn_implementation", None)
    if attention not in _ATTENTION:
        return f"attention {attention!r} takes no mask of its own (sdpa does)"
    kinds = set(getattr(config, "layer_types", None) or ()) - {"full_attention"}
    window = getattr(config, "sliding_window", None)
    if kinds or (window and getattr(config, "use_sliding_window", True)):
        return f"{config.model_type} limits attention per layer ({', '.join(sorted(kinds)) or f'window {window}'})"
    if getattr(config, "use_bidirectional_attention", None):
        return f"{config.model_type} reads in both directions"
    if "position_ids" not in inspect.signature(backbone.forward).parameters:
        return f"{config.model_type} takes no explicit positions"
    return None


def shared_states(backbone: Any, rows: Sequence[Sequence[int]], places: Sequence[int]) -> tuple[torch.Tensor, int]:
    """Hidden states at one place of each row, on trees of at most 16,384 tokens.

    Args:
        backbone: A causal transformer without head.
        rows: Token ids, none empty.
        places: For each row, the 0-based place to read.

    Returns:
        States [rows, size], and how many tokens were computed for them.
    """
    states: list[torch.Tensor] = []
    computed = 0
    start = 0
    while start < len(rows):
        stop, size = start, 0
        while stop < len(rows) and (stop == start or size + len(rows[stop]) <= _MAX_TOKENS):
            size += len(rows[stop])
            stop += 1
        part, tokens = _tree_states(backbone, rows[start:stop], places[start:stop])
        states.append(part)
        computed += tokens
        start = stop
    return torch.cat(states), computed


def _tree_states(backbone: Any, rows: Sequence[Sequence[int]], places: Sequence[int]) -> tuple[torch.Tensor, int]:
    forest = plant(rows)
    device = backbone.device
    mask = torch.from_numpy(forest.mask())[:, None].to(device)
    if backbone.config.get_text_config()._attn_implementation == "eager":  # noqa: SLF001 - transformers has no public name for it
        dtype = backbone.dtype
        mask = torch.zeros(mask.shape, dtype=dtype, device=device).masked_fill(~mask, torch.finfo(dtype).min)
    hidden = backbone(
        input_ids=torch.from_numpy(forest.tokens).to(device),
        position_ids=torch.from_numpy(forest.depth).to(device),
        attention_mask=mask,
        use_cache=False,
    ).last_hidden_state.flatten(0, 1)
    flat = torch.tensor([int(path[place]) for path, place in zip(forest.rows, places, strict=True)], device=device)
    return hidden[flat], forest.nodes


def row_states(backbone: Any, rows: Sequence[Sequence[int]], places: Sequence[int], pad: int) -> torch.Tensor:
    """The same, each row read alone beside others of like length: [rows, size].

    Args:
        backbone: A causal transformer without head.
        rows: Token ids, none empty.
        places: For each row, the 0-based place to read.
        pad: Id that fills shorter rows on the right, where a causal model never looks.
    """
    order = sorted(range(len(rows)), key=lambda index: len(rows[index]))
    states: list[torch.Tensor | None] = [None] * len(rows)
    for start in range(0, len(order), _BATCH):
        chosen = order[start : start + _BATCH]
        ids, mask = _padded([rows[i] for i in chosen], pad, backbone.device)
        hidden = backbone(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
        for line, index in enumerate(chosen):
            states[index] = hidden[line, places[index]]
    return torch.stack([state for state in states if state is not None])


def _padded(rows: Sequence[Sequence[int]], pad: int, device: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows filled up on the right, and their attention mask; [rows, length] each."""
    width = max(map(len, rows))
    ids = torch.full((len(rows), width), pad, dtype=torch.long, device=device)
    mask = torch.zeros_like(ids)
    for line, row in enumerate(rows):
        ids[line, : len(row)] = torch.tensor(row, dtype=torch.long, device=device)
        mask[line, : len(row)] = 1
    return ids, mask
