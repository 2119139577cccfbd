"""Attention chain by chain on processors, as one of transformers' attention implementations.

Registered under `NAME`. A call whose mask was made by `chain_mask` computes each chain with the kernel that torch uses
for attention on processors: causally on the chain itself, where it skips what lies ahead, and without any mask on the
tokens above. The two are put together by their log-sums (as FlashAttention's split keys are, arXiv 2307.08691). Every
other call is passed on to ``sdpa``. Keys and values are kept once for all chains and all query heads that share them.
"""

from __future__ import annotations

from collections.abc import Iterable
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
class _Part:
    """Keys that a chain's queries see in one way."""

    keys: torch.Tensor | slice
    causal: bool
    """Whether the keys are the queries' own tokens, which see what comes before them."""
    mask: torch.Tensor | None = None
    """[queries, keys], 0 where a token sees another and minus infinity elsewhere; None: `causal` says it all."""


@dataclass(frozen=True, slots=True)
class _Piece:
    """One chain as the kernel takes it; places count on from line to line."""

    queries: torch.Tensor | slice
    parts: tuple[_Part, ...]
    """Every token sees something in the first."""


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
    # transformers hands masks of four dimensions on untouched; what has no room for a token is no mask to anyone else.
    mask = torch.empty((forest.tokens.shape[0], 1, 0, 0), dtype=torch.bool)
    width = forest.tokens.shape[1]
    setattr(mask, _PLAN, tuple(_piece(chain, width, window, dtype) for chain in chains(forest)))
    return mask


def _piece(chain: Chain, width: int, window: int | None, dtype: torch.dtype) -> _Piece:
    start = chain.line * width
    own = _index(chain.places + start)
    if window is not None and len(chain.above) + len(chain.places) > window:
        chain = chain.within(window)
        seen = torch.from_numpy(chain.mask(window))
        mask = torch.zeros(seen.shape, dtype=dtype).masked_fill_(~seen, float("-inf"))[None, None]
        return _Piece(own, (_Part(_index(chain.keys + start), causal=False, mask=mask),))
    parts = [_Part(own, causal=True)]
    if len(chain.above):
        parts.append(_Part(_index(chain.above + start), causal=False))
    return _Piece(own, tuple(parts))


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
    """Attention as transformers calls it.

    Args:
        module: The attention layer.
        query: [lines, heads, width, size].
        key: [lines, heads of keys, width, size].
        value: The same.
        attention_mask: Of `chain_mask`, or any that ``sdpa`` takes.
        options: transformers' own; ``scaling`` and ``dropout`` are read here.

    Returns:
        [lines, width, heads, size], and no weights.

    Raises:
        ValueError: chains are to drop weights, which they cannot.
    """
    plan = getattr(attention_mask, _PLAN, None)
    if plan is None:
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        passed: tuple[torch.Tensor, None] = sdpa_attention_forward(module, query, key, value, attention_mask, **options)
        return passed
    if options.get("dropout"):
        raise ValueError("attention chain by chain drops no weights: set the model's attention to sdpa")
    scale = options.get("scaling")
    seen = _Chains.apply(query, key, value, plan, query.shape[-1] ** -0.5 if scale is None else scale)  # type: ignore[no-untyped-call]
    return seen, None


class _Chains(torch.autograd.Function):
    """All chains of a layer; the output is [lines, width, heads, size]."""

    @staticmethod
    def forward(  # noqa: PLR0917 - torch passes the arguments of apply by position
        ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, plan: tuple[_Piece, ...], scale: float
    ) -> torch.Tensor:
        q, k, v = (_tokens(tensor) for tensor in (query, key, value))
        group = q.shape[1] // k.shape[1]
        out = q.new_zeros((*q.shape[:2], v.shape[2]))
        sums = []
        for piece in plan:
            queries = _heads(_take(q, piece.queries), group)
            seen, log_sum = _joined(
                _forward(queries, *_keys(k, v, part, group), 0.0, part.causal, attn_mask=part.mask, scale=scale)
                for part in piece.parts
            )
            _put(out, piece.queries, seen.permute(2, 0, 1, 3).flatten(1, 2))
            sums.append(log_sum)
        ctx.save_for_backward(q, k, v, out)
        ctx.plan, ctx.scale, ctx.sums, ctx.lines = plan, scale, sums, query.shape[0]
        return out.reshape(query.shape[0], -1, *out.shape[1:])

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Gradients of queries, keys and values; those of tokens that several chains see are added up."""
        q, k, v, out = ctx.saved_tensors
        group = q.shape[1] // k.shape[1]
        gradient = gradients[0].flatten(0, 1).to(q.dtype)
        of_query = torch.empty_like(q)
        of_key, of_value = (torch.zeros_like(t, dtype=torch.float32) for t in (k, v))
        for piece, log_sum in zip(ctx.plan, ctx.sums, strict=True):
            grad, queries, seen = (_heads(_take(t, piece.queries), group) for t in (gradient, q, out))
            of_queries = []
            for part in piece.parts:
                # Output and log-sums over all parts make the kernel's weights those of the whole row.
                options = {"attn_mask": part.mask, "scale": ctx.scale}
                keys, values = _keys(k, v, part, group)
                dq, dk, dv = _backward(grad, queries, keys, values, seen, log_sum, 0.0, part.causal, **options)
                of_queries.append(dq)
                # Query heads that share a key head add up to its gradient.
                _add(of_key, part.keys, dk.float().sum(1).transpose(0, 1))
                _add(of_value, part.keys, dv.float().sum(1).transpose(0, 1))
            _put(of_query, piece.queries, sum(of_queries[1:], of_queries[0]).permute(2, 0, 1, 3).flatten(1, 2))
        found = (
            t.reshape(ctx.lines, -1, *t.shape[1:]).transpose(1, 2)
            for t in (of_query, of_key.to(k.dtype), of_value.to(v.dtype))
        )
        return (*found, None, None)


def _tokens(tensor: torch.Tensor) -> torch.Tensor:
    """[lines, heads, width, size] to [lines * width, heads, size]: what is kept, and a row a token to copy."""
    return tensor.transpose(1, 2).flatten(0, 1).contiguous()


def _heads(tensor: torch.Tensor, group: int) -> torch.Tensor:
    """[tokens, heads, size] to [key heads, heads of each, tokens, size]: the kernel's batch entries share a key."""
    tokens, heads, size = tensor.shape
    return tensor.reshape(tokens, heads // group, group, size).permute(1, 2, 0, 3)


def _keys(k: torch.Tensor, v: torch.Tensor, part: _Part, group: int) -> tuple[torch.Tensor, torch.Tensor]:
    keys, values = (_heads(_take(t, part.keys), 1).expand(-1, group, -1, -1) for t in (k, v))
    return keys, values


def _joined(parts: Iterable[tuple[torch.Tensor, torch.Tensor]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Outputs [..., queries, size] and log-sums [..., queries] over disjoint keys, as if computed over all of them."""
    first, *others = parts
    out, log_sum = first
    for seen, other in others:
        both = torch.logaddexp(log_sum, other)
        # In half precision, rounding the shares too would cost another digit.
        share, rest = ((each - both).exp()[..., None] for each in (log_sum, other))
        out, log_sum = (share * out + rest * seen).to(out.dtype), both
    return out, log_sum


def _take(tensor: torch.Tensor, places: torch.Tensor | slice) -> torch.Tensor:
    return tensor[places] if isinstance(places, slice) else tensor.index_select(0, places)


def _put(tensor: torch.Tensor, places: torch.Tensor | slice, values: torch.Tensor) -> None:
    if isinstance(places, slice):
        tensor[places] = values
    else:
        tensor.index_copy_(0, places, values)


def _add(tensor: torch.Tensor, places: torch.Tensor | slice, values: torch.Tensor) -> None:
    if isinstance(places, slice):
        tensor[places] += values
    else:
        tensor.index_add_(0, places, values)
