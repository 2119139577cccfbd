"""The one rule ``j <= i < end[j]`` in the form that a model's attention takes, with a window where it has one.

A window of w lets a token see w tokens of its own row, itself included. On a tree, the distance between two tokens of
one row is the difference of their depths, so the rule gains ``depth[i] - depth[j] < w``. Models whose layers differ
(Gemma 3) get one mask for each kind of layer. FlexAttention takes the rule itself, and skips blocks in which it holds
for no pair of tokens; on processors `rlhi_training.tree.chain_attention` computes chain by chain.
"""

from __future__ import annotations

from typing import Any

import torch

from rlhi_training.tree.chain_attention import NAME, chain_mask
from rlhi_training.tree.prefix_tree import Forest, Layout

DENSE = ("sdpa", "eager")
"""Implementations that take a mask with one row per query."""
FLEX = "flex_attention"
CHAINS = NAME
"""Ours, for processors; see `rlhi_training.tree.chain_attention`."""
FLEX_BLOCK = 128
"""FlexAttention's own block size: lines are padded to a multiple of it."""
_FULL, _SLIDING = "full_attention", "sliding_attention"
_DROPOUT = ("attention_dropout", "attn_dropout", "attn_pdrop", "attention_probs_dropout_prob")


def windows(config: Any) -> dict[str, int | None] | None:
    """How far each kind of layer looks back, by transformers' name for it; None where a kind is unknown here.

    Args:
        config: Of a text model.
    """
    window = getattr(config, "sliding_window", None)
    kinds = set(getattr(config, "layer_types", None) or ())
    if not kinds:
        uses = window is not None and getattr(config, "use_sliding_window", True)
        kinds = {_SLIDING if uses else _FULL}
    if not kinds <= {_FULL, _SLIDING} or (_SLIDING in kinds and not window):
        return None
    return {kind: int(window) if kind == _SLIDING and window else None for kind in sorted(kinds)}


def layout(implementation: str) -> Layout:
    """How one of `DENSE`, `FLEX` or `CHAINS` takes a forest."""
    if implementation == FLEX:
        return Layout(sparse=True, block=FLEX_BLOCK)
    return Layout(sparse=implementation == CHAINS)


def drops(config: Any) -> bool:
    """Whether a text model drops attention weights while it trains, by the names that its configuration may use."""
    return any(getattr(config, name, None) for name in _DROPOUT)


def masks(forest: Forest, config: Any, *, implementation: str, dtype: torch.dtype, device: torch.device) -> Any:
    """What a model takes as its ``attention_mask``: one mask, or one for each kind of layer.

    Args:
        forest: What is laid out, for FlexAttention in lines of whole blocks.
        config: Of the text model; `windows` knows its layers.
        implementation: One of `DENSE`, `FLEX` or `CHAINS`.
        dtype: What attention computes in. A dense mask is given as what is added to the scores: of truth values, SDPA
            would make and keep such a copy in every layer.
        device: Where the model is.
    """
    kinds = windows(config)
    assert kinds is not None  # noqa: S101 - `forward.unsupported` has asked
    if implementation == CHAINS:
        made = {kind: chain_mask(forest, window, dtype) for kind, window in kinds.items()}
        return made if len(made) > 1 else next(iter(made.values()))
    make = _flex if implementation == FLEX else _dense
    made = {kind: make(forest, window, device) for kind, window in kinds.items()}
    if implementation != FLEX:
        lowest = torch.finfo(dtype).min
        made = {k: torch.zeros(m.shape, dtype=dtype, device=device).masked_fill(~m, lowest) for k, m in made.items()}
    return made if len(made) > 1 else next(iter(made.values()))


def _dense(forest: Forest, window: int | None, device: torch.device) -> torch.Tensor:
    return torch.from_numpy(forest.mask(window))[:, None].to(device)


def _flex(forest: Forest, window: int | None, device: torch.device) -> Any:
    from torch.nn.attention.flex_attention import create_block_mask

    lines, width = forest.tokens.shape
    end, depth = torch.from_numpy(forest.end).to(device), torch.from_numpy(forest.depth).to(device)

    def rule(line: torch.Tensor, _head: torch.Tensor, i: torch.Tensor, j: torch.Tensor) -> torch.Tensor:
        seen = (j <= i) & (i < end[line, j])
        return seen if window is None else seen & (depth[line, i] - depth[line, j] < window)

    return create_block_mask(
        rule,
        B=lines,
        H=None,
        Q_LEN=width,
        KV_LEN=width,
        device=device,
        BLOCK_SIZE=FLEX_BLOCK,
        # Uncompiled, every pair of tokens is in memory at once.
        _compile=device.type == "cuda",
    )
