"""Attention chain by chain on processors, as one of transformers' attention implementations.

Registered under `NAME`. A call whose mask was made by `chain_masks` computes each chain with the kernel that torch uses
for causal attention on processors, which skips what lies ahead; every other call is passed on to ``sdpa``. Keys and
values are kept once for all chains and all query heads that share them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from rlhi_training.tree.chains import Chain, chains
from rlhi_training.tree.prefix_tree import Forest

NAME = "rlhi_chains"
_PLAN = "rlhi_plan"
_forward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu  # noqa: SLF001 - the public function hides the log-sums that the backward pass needs
_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward  # noqa: SLF001 - see above


@dataclass(frozen=True, slots=True)
class _Piece:
    """One chain as the kernel takes it."""

    line: int
    queries: torch.Tensor | slice
    keys: torch.Tensor | slice
    mask: torch.Tensor | None
    """[queries, keys], 0 where a token sees another and minus infinity elsewhere; None: causal and nothing above."""


def register() -> None:
    """Make `NAME` known to transformers; calling it again changes nothing."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(NAME, attend)
    AttentionMaskInterface.register(NAME, sdpa_mask)


def chain_mask(forest: Forest, window: int | None, dtype: torch.dtype) -> torch.Tensor:
    """What a model takes as its ``attention_mask``: an empty one that carries the chains.

    Args:
        forest: What is laid out.
        window: Of the layers that it is for; None where they see everything.
        dtype: Of queries, keys and values.
    """
    # transformers hands masks of four dimensions on untouched.
    mask = torch.ones((forest.tokens.shape[0], 1, 1, 1), dtype=torch.bool)
    setattr(mask, _PLAN, tuple(_piece(chain, window, dtype) for chain in chains(forest)))
    return mask


def _piece(chain: Chain, window: int | None, dtype: torch.dtype) -> _Piece:
    if window is not None:
        chain = chain.within(window)
    causal = not len(chain.above) and (window is None or len(chain.places) <= window)
    mask = None
    if not causal:
        seen = torch.from_numpy(chain.mask(window))
        mask = torch.zeros(seen.shape, dtype=dtype).masked_fill_(~seen, float("-inf"))[None, None]
    return _Piece(chain.line, _index(chain.places), _index(chain.keys), mask)


def _index(places: Any) -> torch.Tensor | slice:
    """A slice where the places follow one another, which needs no copy."""
    first, last = int(places[0]), int(places[-1])
    return slice(first, last + 1) if last - first + 1 == len(places) else torch.from_numpy(places)


def attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """transformers' attention function.

    Args:
        module: The attention layer.
        query: [lines, heads, width, size].
        key: [lines, heads of keys, width, size].
        value: The same.
        attention_mask: Of `chain_mask`, or any that ``sdpa`` takes.
        options: transformers' own; ``scaling`` is read here.

    Returns:
        [lines, width, heads, size], and no weights.
    """
    plan = getattr(attention_mask, _PLAN, None)
    if plan is None:
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        passed: tuple[torch.Tensor, None] = sdpa_attention_forward(module, query, key, value, attention_mask, **options)
        return passed
    scale = options.get("scaling")
    seen = _Chains.apply(query, key, value, plan, query.shape[-1] ** -0.5 if scale is None else scale)  # type: ignore[no-untyped-call]
    return seen, None


class _Chains(torch.autograd.Function):
    """All chains of a layer; the output is [lines, width, heads, size]."""

    @staticmethod
    def forward(  # noqa: PLR0917 - torch passes the arguments of apply by position
        ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, plan: tuple[_Piece, ...], scale: float
    ) -> torch.Tensor:
        lines, heads, width, _ = query.shape
        out = query.new_zeros((lines, width, heads, value.shape[-1]))
        sums = query.new_zeros((lines, heads, width), dtype=torch.float32)
        shared = _Shared(heads, key.shape[1])
        for piece in plan:
            q, k, v = shared.parts(query, key, value, piece)
            seen, log_sum = _forward(q, k, v, 0.0, piece.mask is None, attn_mask=piece.mask, scale=scale)
            out[piece.line, piece.queries] = seen.flatten(0, 1).transpose(0, 1)
            sums[piece.line, :, piece.queries] = log_sum.flatten(0, 1)
        ctx.save_for_backward(query, key, value, out, sums)
        ctx.plan, ctx.scale = plan, scale
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Gradients of queries, keys and values; those of tokens that several chains see are added up."""
        query, key, value, out, sums = ctx.saved_tensors
        shared = _Shared(query.shape[1], key.shape[1])
        of_query, of_key, of_value = (torch.zeros_like(t, dtype=torch.float32) for t in (query, key, value))
        for piece in ctx.plan:
            q, k, v = shared.parts(query, key, value, piece)
            grad, seen = (
                shared.split(t[piece.line, piece.queries].transpose(0, 1)) for t in (gradients[0].to(query.dtype), out)
            )
            log_sum = shared.split(sums[piece.line, :, piece.queries])
            dq, dk, dv = _backward(
                grad, q, k, v, seen, log_sum, 0.0, piece.mask is None, attn_mask=piece.mask, scale=ctx.scale
            )
            of_query[piece.line, :, piece.queries] = dq.flatten(0, 1).float()
            of_key[piece.line, :, piece.keys] += dk.float().sum(1)
            of_value[piece.line, :, piece.keys] += dv.float().sum(1)
        return of_query.to(query.dtype), of_key.to(key.dtype), of_value.to(value.dtype), None, None


@dataclass(frozen=True, slots=True)
class _Shared:
    """Query heads in groups that share keys: the kernel sees one batch entry a group, and a key head only once."""

    heads: int
    key_heads: int

    def split(self, tensor: torch.Tensor) -> torch.Tensor:
        """[heads, ...] to [key heads, heads of each, ...]."""
        return tensor.unflatten(0, (self.key_heads, self.heads // self.key_heads))

    def parts(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, piece: _Piece
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        q = self.split(query[piece.line, :, piece.queries])
        k, v = (
            t[piece.line, :, piece.keys][:, None].expand(-1, self.heads // self.key_heads, -1, -1) for t in (key, value)
        )
        return q, k, v
