"""Log-probabilities of answer tokens under a frozen output layer, without keeping logits.

For logits z = s (W h + b), capped to c tanh(z / c) where the model does so, the derivative of log p(t) with respect to
h is s W^T (onehot(t) - softmax(z)), times 1 - tanh^2 where capped. That product has the size of the hidden states, so
the forward pass keeps it and the backward pass only scales it: no logits are computed again, and at no time is there
more than one chunk of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

_CPU_CHUNK = 128  # 128 rows of a 50,000-token vocabulary stay near the processor's cache.
_CUDA_CHUNK = 2048


@dataclass(frozen=True, slots=True)
class HeadForm:
    """What a model does to its logits.

    Attributes:
        scale: Factor on the logits before the cap; not 0.
        softcap: c in c tanh(z / c), or None.
    """

    scale: float = 1.0
    softcap: float | None = None


@dataclass(frozen=True, slots=True)
class TokenScores:
    """Per-token results, each [n], float32 unless said otherwise. Only `log_probs` carries a gradient."""

    log_probs: torch.Tensor
    entropy: torch.Tensor
    """In nats."""
    mean_logits: torch.Tensor
    is_top1: torch.Tensor
    """Bool: whether the token is the likeliest one."""


def score_tokens(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    targets: torch.Tensor,
    form: HeadForm,
) -> TokenScores:
    """Score tokens given the hidden states before them.

    Args:
        hidden: [n, size].
        weight: [vocabulary, size], frozen: it gets no gradient.
        bias: [vocabulary], frozen, or None.
        targets: [n] token ids.
        form: Scale and cap of the logits.

    Raises:
        ValueError: the output layer is being trained, for which this has no gradient.
    """
    if weight.requires_grad or (bias is not None and bias.requires_grad):
        raise ValueError("score_tokens needs a frozen output layer")
    log_probs, entropy, mean_logits, is_top1 = _FrozenHead.apply(hidden, weight, bias, targets, form)  # type: ignore[no-untyped-call]
    return TokenScores(log_probs, entropy, mean_logits, is_top1)


class _FrozenHead(torch.autograd.Function):
    @staticmethod
    def forward(  # noqa: PLR0917 - torch passes the arguments of apply by position
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        targets: torch.Tensor,
        form: HeadForm,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        n = hidden.shape[0]
        scores = hidden.new_empty((3, n), dtype=torch.float32)
        is_top1 = torch.empty(n, dtype=torch.bool, device=hidden.device)
        slope = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        chunk = _CPU_CHUNK if hidden.device.type == "cpu" else _CUDA_CHUNK
        # Autocast would turn the float32 parts below back into half precision.
        compute = compute_dtype(hidden.dtype, hidden.device)
        with torch.autocast(hidden.device.type, enabled=False):
            frozen = weight.to(compute)
            for start in range(0, n, chunk):
                part = slice(start, start + chunk)
                logits, bent = _logits(hidden[part].to(compute), frozen, bias, form)
                target = targets[part, None]
                top, best = logits.max(dim=1)
                shares = (logits - top[:, None]).exp_()
                total = shares.sum(dim=1)
                normaliser = top + total.log()
                shares /= total[:, None]
                scores[0, part] = logits.gather(1, target)[:, 0] - normaliser
                scores[1, part] = normaliser - torch.einsum("nv,nv->n", shares, logits)
                scores[2, part] = logits.mean(dim=1)
                is_top1[part] = best == target[:, 0]
                if slope is not None:
                    slope[part] = _slope(shares, bent, target, frozen, form).to(slope.dtype)
        ctx.save_for_backward(slope)
        log_probs, entropy, mean_logits = scores.unbind(0)
        ctx.mark_non_differentiable(entropy, mean_logits, is_top1)
        ctx.set_materialize_grads(False)
        return log_probs.clone(), entropy.clone(), mean_logits.clone(), is_top1

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[torch.Tensor | None, None, None, None, None]:
        """Scale the kept slope; the first gradient is that of `log_probs`, the others do not exist."""
        gradient = gradients[0]
        (slope,) = ctx.saved_tensors
        if gradient is None or slope is None:
            return None, None, None, None, None
        return (gradient[:, None] * slope).to(slope.dtype), None, None, None, None


def compute_dtype(plain: torch.dtype, device: torch.device) -> torch.dtype:
    """What matrix products run in: autocast's dtype inside autocast, else the given one."""
    return torch.get_autocast_dtype(device.type) if torch.is_autocast_enabled(device.type) else plain


def _logits(
    hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, form: HeadForm
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Float32 logits [chunk, vocabulary], and tanh(z / c) where they are capped."""
    z = (hidden @ weight.t()).float()
    if bias is not None:
        z += bias.float()
    if form.scale != 1.0:
        z *= form.scale
    if form.softcap is None:
        return z, None
    bent = torch.tanh(z / form.softcap)
    return bent * form.softcap, bent


def _slope(
    shares: torch.Tensor, bent: torch.Tensor | None, target: torch.Tensor, weight: torch.Tensor, form: HeadForm
) -> torch.Tensor:
    """Derivative of log p(target) with respect to the hidden states, [chunk, size], float32; overwrites `shares`."""
    if bent is None:
        # Kept apart from the product: 1 - p would lose its small parts to rounding in half precision.
        return form.scale * (weight[target[:, 0]].float() - (shares.to(weight.dtype) @ weight).float())
    slope = shares.neg_().scatter_add_(1, target, torch.ones_like(target, dtype=shares.dtype))
    slope *= (1.0 - bent * bent) * form.scale
    return (slope.to(weight.dtype) @ weight).float()
