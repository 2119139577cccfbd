"""Puts prefix trees under TRL's preference trainers: same inputs, same outputs, fewer tokens.

TRL calls ``model(input_ids, attention_mask, labels, fused_lm_head=True)`` and reads per-token log-probabilities.
`install` replaces that one call: the batch becomes a forest, the backbone runs once per tree instead of once per row,
the output layer scores answer tokens only, and the results go back to where TRL expects them. Losses and metrics stay
TRL's. Models whose attention this does not express keep TRL's own call, with a reason in the log.
"""

from __future__ import annotations

import functools
import inspect
import logging
import time
import types
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch.distributed.tensor import DTensor

from rlhi_training.tree.answer_head import HeadForm, TokenScores, compute_dtype, score_tokens
from rlhi_training.tree.attention import CHAINS, DENSE, FLEX, drops, layout, masks, windows
from rlhi_training.tree.chain_attention import register
from rlhi_training.tree.prefix_tree import DENSE_LAYOUT, Forest, Layout, plant
from rlhi_training.tree.rematerialise import Rematerialisation

_log = logging.getLogger("rlhi.training")

_TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-6}
_HALF_TOLERANCE = 0.2
"""Mean absolute difference of log-probabilities that rounding explains; a wrong mask gives whole nats (ours)."""
_COMPARED = 8
"""Pairs that are compared with TRL's own pass; more cost more and show the same (ours)."""
_IGNORED = -100
"""Label of a token that is not scored, in TRL and transformers."""


Scope = Literal["batch", "pair"]
"""What may share a tree: all rows of a batch, or only the chosen and the rejected row of a pair."""


@dataclass(slots=True)
class SharedForward:
    """What an installed forward pass has done so far.

    Attributes:
        reason: Why TRL's own call is used instead, or None while trees are.
        tokens_in: Tokens of all rows, padding left out.
        tokens_computed: Tokens that went through the backbone for them, padding included.
        verified: Whether a batch was compared with TRL's own call.
        verified_training: Whether one of those that are trained on was.
        difference: The largest mean difference of a token's log-probability found so, in nats.
        seconds: What comparing took.
        scope: See `Scope`.
        budget: Tokens that a pass may compute, padding included; None is no limit.
        together: Which rows of the coming call may share a tree; None leaves that to `scope`.
        passes: Calls so far.
        largest: Tokens that the largest of them computed, padding included.
        trees_cut: Trees that were cut into several because of the budget.
        layout: How the model's attention takes trees.
        rematerialisation: What is made again in the backward pass instead of being kept; None keeps everything.
    """

    reason: str | None = None
    tokens_in: int = 0
    tokens_computed: int = 0
    verified: bool = False
    verified_training: bool = False
    difference: float | None = None
    seconds: float = 0.0
    scope: Scope = "batch"
    budget: int | None = None
    together: Sequence[Sequence[int]] | None = None
    passes: int = 0
    largest: int = 0
    trees_cut: int = 0
    layout: Layout = DENSE_LAYOUT
    rematerialisation: Rematerialisation | None = None

    def saving(self, model: Any) -> AbstractContextManager[None]:
        """Keep fewer activations for the backward pass, where nothing else takes care of that."""
        checkpoints = any(getattr(part, "gradient_checkpointing", False) for part in model.modules())
        if self.rematerialisation is None or checkpoints:
            return nullcontext()
        return self.rematerialisation.saving()

    def trust(self) -> None:
        """Compare nothing."""
        self.verified = self.verified_training = True

    @property
    def unverified(self) -> bool:
        """Whether the coming call is to be compared first: the first of all, and the first with gradients.

        The two differ: the reference pass takes pairs of like lengths, training takes whole conversations.
        """
        return not (self.verified_training if torch.is_grad_enabled() else self.verified)

    def fall_back(self, reason: str) -> None:
        """Use TRL's own call from here on."""
        self.reason = reason
        _log.warning("prefixes are not shared: %s; training is exact but slower", reason)


def install(
    model: Any, output: Callable[..., Any], scope: Scope = "batch", *, budget: int | None = None
) -> SharedForward:
    """Replace the fused forward pass that TRL gave a causal language model.

    Args:
        model: The base model (inside any PEFT wrapper) after TRL's ``add_fused_lm_head``.
        output: TRL's output class, called with its fields as keywords.
        scope: See `Scope`.
        budget: Tokens of a call, padding included; calls with more (`rlhi_training.tree.packed_step` makes none) are
            computed all the same.

    Returns:
        A record of what was shared, or why nothing is.
    """
    state = SharedForward(scope=scope, budget=budget)
    if model.device.type == "cpu":
        # On CUDA its gain has not been measured.
        state.rematerialisation = Rematerialisation(model)
    original = model.forward
    _prefer_sparse(model)
    if reason := unsupported(model):
        state.fall_back(reason)
        return state
    state.layout = _layout(model)

    @functools.wraps(type(model).forward)
    def forward(self: Any, *args: Any, fused_lm_head: bool = False, **kwargs: Any) -> Any:
        if not fused_lm_head:
            return original(*args, **kwargs)
        batch = _Batch.of(args, kwargs)
        if state.reason is not None or batch is None:
            return original(*args, fused_lm_head=True, **kwargs)
        if state.unverified:
            _verify(self, batch, original, state)
            if state.reason is not None:
                return original(*args, fused_lm_head=True, **kwargs)
        return _forward(self, batch, output, state)

    model.forward = types.MethodType(forward, model)
    return state


def _prefer_sparse(model: Any) -> None:
    """Skip what nobody sees: blocks of a tree on CUDA, other branches on processors. A dense mask computes it all.

    Neither way drops attention weights, so a model that does keeps its dense mask.
    """
    if implementation(model) != DENSE[0] or drops(model.config.get_text_config()):
        return
    if model.device.type == "cuda" and getattr(model, "_supports_flex_attn", False):
        model.set_attn_implementation(FLEX)
    elif model.device.type == "cpu":
        register()
        model.set_attn_implementation(CHAINS)


def unsupported(model: Any) -> str | None:
    """Why a model's attention cannot be laid out as trees here, or None when it can."""
    config = model.config.get_text_config()
    attention = implementation(model)
    if attention not in (*DENSE, FLEX, CHAINS):
        return f"attention {attention!r} takes no mask of its own (sdpa does)"
    if windows(config) is None:
        kinds = ", ".join(sorted(set(getattr(config, "layer_types", None) or ()))) or "a window of no size"
        return f"{config.model_type} limits attention per layer ({kinds})"
    if "position_ids" not in inspect.signature(model.base_model.forward).parameters:
        return f"{config.model_type} takes no explicit positions"
    if getattr(config, "output_router_logits", False):
        return "a mixture of experts balances its load over every row's tokens"
    weight = model.get_output_embeddings().weight
    if weight.requires_grad:
        return "the output layer is being trained"
    return None


@dataclass(frozen=True, slots=True)
class _Batch:
    """A right-padded batch in TRL's layout, [rows, length] each."""

    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    labels: torch.Tensor

    @classmethod
    def of(cls, args: tuple[Any, ...], kwargs: dict[str, Any]) -> _Batch | None:
        """The batch of a call, or None when the call is not the plain one that trees can stand in for."""
        known = {"input_ids", "attention_mask", "labels", "use_cache"}
        present = {name for name, value in kwargs.items() if value is not None}
        if args or not {"input_ids", "attention_mask", "labels"} <= present or not present <= known:
            return None
        mask = kwargs["attention_mask"]
        right_padded = bool((mask[:, :-1] >= mask[:, 1:]).all()) and bool(mask[:, 0].all())
        return cls(kwargs["input_ids"], mask, kwargs["labels"]) if right_padded else None

    def pairs(self, places: Sequence[int]) -> _Batch:
        """Some pairs, without the padding that only others need: TRL stacks all chosen over all rejected."""
        rows = [*places, *(place + self.input_ids.shape[0] // 2 for place in places)]
        longest = int(self.attention_mask[rows].sum(dim=1).max())
        return _Batch(*(t[rows, :longest] for t in (self.input_ids, self.attention_mask, self.labels)))


def _forward(model: Any, batch: _Batch, output: Callable[..., Any], state: SharedForward) -> Any:
    lengths = batch.attention_mask.sum(dim=1).tolist()
    rows = [row[:length] for row, length in zip(batch.input_ids.tolist(), lengths, strict=True)]
    # TRL stacks all chosen rows over all rejected ones.
    half = len(rows) // 2
    together = [[row, row + half] for row in range(half)] if state.scope == "pair" else None
    forest = plant(rows, state.layout, together=state.together or together, budget=state.budget)
    state.tokens_in += sum(lengths)
    state.tokens_computed += forest.tokens.size
    state.passes += 1
    state.largest = max(state.largest, forest.tokens.size)
    scored, scores = _score(model, batch, forest, state)
    # One node may stand for the same token of several rows: its gradient is the sum of theirs.
    log_probs, entropy, mean_logits, is_top1 = (
        values.new_zeros(scored.shape).masked_scatter(scored, values)
        for values in (scores.log_probs, scores.entropy, scores.mean_logits, scores.is_top1)
    )
    return output(
        loss=-log_probs.sum() / scored.sum().clamp(min=1),
        log_probs=log_probs,
        entropy=entropy,
        log_sum_sq_probs=None,
        mean_logits=mean_logits,
        is_top1=is_top1,
        label_mask=scored,
        aux_loss=None,
    )


def _score(model: Any, batch: _Batch, forest: Forest, state: SharedForward) -> tuple[torch.Tensor, TokenScores]:
    """Which shifted positions are scored, [rows, length - 1], and their scores in row-major order."""
    device = batch.input_ids.device
    scored = batch.labels[:, 1:] != _IGNORED
    place = torch.full(batch.input_ids.shape, -1, dtype=torch.long)
    for index, path in enumerate(forest.rows):
        place[index, : len(path)] = torch.from_numpy(path)
    nodes, back = torch.unique(place[:, 1:][scored.cpu()], return_inverse=True)
    before = torch.from_numpy(forest.parent)[nodes].to(device)
    with state.saving(model):
        hidden = _hidden_states(model, forest, device).flatten(0, 1)[before]
    head = model.get_output_embeddings()
    targets = torch.from_numpy(forest.tokens).flatten()[nodes].to(device)
    scores = score_tokens(
        hidden, _whole(head.weight), _whole(getattr(head, "bias", None)), targets, head_form(model.config)
    )
    back = back.to(device)
    return scored, TokenScores(
        scores.log_probs[back], scores.entropy[back], scores.mean_logits[back], scores.is_top1[back]
    )


def _whole(weight: Any) -> Any:
    """A weight that FSDP has cut into shards, put together: the output layer is read without being called."""
    return weight.full_tensor() if isinstance(weight, DTensor) else weight


def _layout(model: Any) -> Layout:
    return layout(implementation(model))


def implementation(model: Any) -> str:
    """Name of a model's attention implementation."""
    return str(model.config.get_text_config()._attn_implementation)  # noqa: SLF001 - transformers has no public name for it


def _hidden_states(model: Any, forest: Forest, device: torch.device) -> torch.Tensor:
    """Last hidden states of every token of the forest, [lines, width, size]."""
    states: torch.Tensor = model.base_model(
        input_ids=torch.from_numpy(forest.tokens).to(device),
        position_ids=torch.from_numpy(forest.depth).to(device),
        attention_mask=masks(
            forest,
            model.config.get_text_config(),
            implementation=implementation(model),
            dtype=compute_dtype(model.dtype, device),
            device=device,
        ),
        use_cache=False,
    ).last_hidden_state
    return states


def head_form(config: Any) -> HeadForm:
    """Scale and cap of a model's logits, from the names that its configuration may use for them."""
    text = config.get_text_config()
    scale = 1.0
    for name in ("logit_scale", "output_multiplier", "lm_head_multiplier"):
        if (value := getattr(text, name, None)) is not None:
            scale = float(value)
            break
    else:
        if (divisor := getattr(text, "logits_scaling", None)) is not None:
            scale = float(divisor) if text.model_type == "hyperclovax" else 1.0 / float(divisor)
    return HeadForm(scale, getattr(text, "final_logit_softcapping", None))


def _verify(model: Any, batch: _Batch, original: Callable[..., Any], state: SharedForward) -> None:
    """Compare a batch's first pairs with TRL's own call; what rounding does not explain turns sharing off."""
    if batch.input_ids.shape[0] < 2:  # noqa: PLR2004 - a row alone shares nothing
        return
    started = time.monotonic()
    state.verified = True
    state.verified_training |= torch.is_grad_enabled()
    places = range(min(_COMPARED, batch.input_ids.shape[0] // 2))
    with torch.no_grad(), _without_dropout(model):
        expected = torch.cat([_plain(batch.pairs([place]), original) for place in places])
        _match(model, batch.pairs(places), expected, state)
    state.seconds += time.monotonic() - started


@contextmanager
def _without_dropout(model: Any) -> Iterator[None]:
    """Two passes would drop different weights, which is all that a comparison could then show."""
    training = [part for part in model.modules() if part.training]
    model.eval()
    try:
        yield
    finally:
        for part in training:
            part.training = True


def _plain(pair: _Batch, original: Callable[..., Any]) -> torch.Tensor:
    """TRL's own log-probabilities of a pair's scored tokens, chosen before rejected."""
    found = original(
        input_ids=pair.input_ids,
        attention_mask=pair.attention_mask,
        labels=pair.labels,
        use_cache=False,
        fused_lm_head=True,
    )
    of_tokens: torch.Tensor = found.log_probs[pair.labels[:, 1:] != _IGNORED]
    return of_tokens.float()


def _match(model: Any, batch: _Batch, expected: torch.Tensor, state: SharedForward) -> None:
    """Take the first way of sharing that gives what is expected, or none."""
    try:
        log_probs = _forward(model, batch, types.SimpleNamespace, SharedForward(layout=_layout(model))).log_probs
        half = log_probs.shape[0] // 2
        scored = batch.labels[:, 1:] != _IGNORED
        by_pair = [log_probs[row][scored[row]] for place in range(half) for row in (place, place + half)]
        difference = (torch.cat(by_pair).float() - expected).abs().mean().item()
    except (RuntimeError, TypeError, ValueError, KeyError) as error:
        why = f"{model.config.model_type} does not take them ({_line(error)})"
    else:
        if difference <= _TOLERANCE.get(model.dtype, _HALF_TOLERANCE):
            state.difference = max(difference, state.difference or 0.0)
            return
        why = f"the first batch's log-probabilities differ from the plain ones by {difference:.3g} nats a token"
    if implementation(model) in {FLEX, CHAINS}:
        # Kernels know fewer shapes than they should; the dense mask knows all.
        _log.warning("trees under %s: %s; using a dense mask", implementation(model), why)
        model.set_attn_implementation(DENSE[0])
        state.layout = _layout(model)
        _match(model, batch, expected, state)
    else:
        state.fall_back(why)


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
