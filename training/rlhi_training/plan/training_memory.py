"""Memory at the peak of training an adapter, part by part, and what to change where a card has less.

- base: its weights in their number format; in NF4 the linear layers take 0.516 bytes a weight, scales included (4 bits,
  and 0.127 bits for two levels of scales: arXiv 2305.14314, section 3), embeddings and output layer stay as they are.
- adapter: 16 bytes a weight in float32 (weight, gradient, Adam's two moments: arXiv 1910.02054, section 3.1).
- activations: bytes a token and layer that autograd keeps for a Llama block with LoRA on all seven matrices, as
  `tests/training/test_training_memory.py` measures them. On a processor some of them are made again
  (`rlhi_training.tree.rematerialise`), and keys and values are kept once for all query heads that share them
  (`rlhi_training.tree.chain_attention`); with gradient checkpointing there is one state a token and layer. Each has a
  whole layer more, for what is being worked on.
- answers: one state an answer token, and three chunks of logits in float32 (`rlhi_training.tree.answer_head`).

Attention keeps no matrix of scores: it is fused, or computed in blocks. Memory in use is counted; on a processor glibc
may keep as much again that was freed (`rlhi_training.allocator`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from rlhi_training.plan.hardware import GIB, Shape
from rlhi_training.train_checks import divisible
from rlhi_training.train_options import TrainSection

DType = Literal["float32", "bfloat16"]

_WIDTH = {"float32": 4, "bfloat16": 2}
_KEPT = {"float32": (29.0, 4.5, 17.0), "bfloat16": (27.0, 2.5, 8.6)}
"""Bytes a token and layer: times the hidden width, the width of keys, the width of the feed-forward layer."""
_MADE_AGAIN = {"float32": (8.0, 8.0), "bfloat16": (1.0, 2.0)}
"""Bytes of these that a processor does not keep, times the hidden and the feed-forward width: norms, gated products."""
_NF4 = 0.516
_CHUNK = {"cpu": 128, "cuda": 2048}
"""Rows of logits at once (`rlhi_training.tree.answer_head`)."""
_LEAST = 64
"""What the recipe takes as the smallest budget."""
SPARE = 0.9
"""Share of a card that training may take: the rest is the driver's and the allocator's (ours)."""


@dataclass(frozen=True, slots=True)
class Load:
    """What one forward and backward pass works on.

    Attributes:
        tokens: Tokens of the pass, prefixes that are computed once counted once.
        answer_tokens: Those that are scored.
        smallest: Fewest tokens that a pass can be cut down to: those of the largest pair.
    """

    tokens: int
    answer_tokens: int
    smallest: int


@dataclass(frozen=True, slots=True)
class TrainingMemory:
    """Bytes at the peak, by what they are for."""

    base: float
    adapter: float
    activations: float
    answers: float

    @property
    def gib(self) -> float:
        """All of it."""
        return (self.base + self.adapter + self.activations + self.answers) / GIB


def training_memory(
    shape: Shape, train: TrainSection, load: Load, *, dtype: DType = "bfloat16", device: str = "cuda"
) -> TrainingMemory:
    """Memory at the peak of training.

    Args:
        shape: Of the base.
        train: Options of training; its token budget is not looked at, `load` is.
        load: The largest pass.
        dtype: Number format of the base, and what is computed in.
        device: ``cuda`` or ``cpu``.
    """
    width = _WIDTH[dtype]
    linear = shape.layers * _block(shape)
    base = width * shape.parameters
    if train.quantize == "nf4":
        base = _NF4 * linear + width * max(0.0, shape.parameters - linear)
    hidden, keys, inner = _KEPT[dtype]
    layer = load.tokens * (hidden * shape.hidden + keys * shape.keys + inner * shape.inner)
    if train.gradient_checkpointing:
        activations = width * load.tokens * shape.hidden * shape.layers + 2 * layer
    else:
        less = _not_kept(shape, dtype) if device == "cpu" and train.share_prefixes else 0.0
        activations = (layer - load.tokens * less) * shape.layers + layer
    if train.dora:
        # The norm of a layer's weights needs them once whole, in float32.
        activations += 2 * 4.0 * shape.hidden * shape.inner
    chunk = min(_CHUNK[device], load.answer_tokens)
    answers = width * load.answer_tokens * shape.hidden + 3 * 4.0 * chunk * shape.vocabulary
    return TrainingMemory(base, 16.0 * train.lora_rank * _adapted(shape), activations, answers)


def _not_kept(shape: Shape, dtype: DType) -> float:
    """Bytes a token and layer that trees on a processor do without."""
    norms, gates = _MADE_AGAIN[dtype]
    repeated = 2 * _WIDTH[dtype] * max(0, shape.hidden - shape.keys)
    return norms * shape.hidden + gates * shape.inner + repeated


def slowdown(train: TrainSection) -> float:
    """How much longer a token takes for the options that save memory (ours: a third more for each)."""
    checkpoints = 4 / 3 if train.gradient_checkpointing else 1.0
    return checkpoints * (4 / 3 if train.quantize == "nf4" else 1.0)


def would_fit(
    shape: Shape, train: TrainSection, load: Load, gib: float, *, dtype: DType = "bfloat16", device: str = "cuda"
) -> str | None:
    """Options, as ``--set`` takes them, with which training fits into so much memory; None where nothing helps.

    The cheapest comes first: smaller passes cost next to nothing, then gradient checkpointing, then 4 bits.
    """
    for changed in _savings(train):
        options = train.model_copy(update=changed)
        for tokens, smaller in _passes(train, load):
            part = Load(tokens, min(load.answer_tokens, tokens), load.smallest)
            if training_memory(shape, options, part, dtype=dtype, device=device).gib <= SPARE * gib:
                return " ".join(f"--set train.{name}={_word(value)}" for name, value in {**smaller, **changed}.items())
    return None


def _savings(train: TrainSection) -> Iterator[dict[str, object]]:
    checkpoints = {} if train.gradient_checkpointing else {"gradient_checkpointing": True}
    bits = {} if train.quantize != "none" else {"quantize": "nf4"}
    seen: list[dict[str, object]] = []
    for changed in ({}, checkpoints, bits, {**checkpoints, **bits}):
        if changed not in seen:
            seen.append(dict(changed))
            yield dict(changed)


def _passes(train: TrainSection, load: Load) -> Iterator[tuple[int, dict[str, object]]]:
    """The pass as it is, then smaller ones with the option that makes them so, down to the largest item alone."""
    yield load.tokens, {}
    if not divisible(train):
        for micro in range(train.micro_batch_size - 1, 0, -1):
            if train.batch_size % micro == 0:
                tokens = max(load.smallest, load.tokens * micro // train.micro_batch_size)
                yield tokens, {"micro_batch_size": micro}
        return
    least = max(load.smallest, _LEAST)
    tokens = load.tokens // 2
    while tokens > least:
        yield tokens, {"tokens_per_batch": tokens}
        tokens //= 2
    if least < load.tokens:
        yield least, {"tokens_per_batch": least}


def _word(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _block(shape: Shape) -> float:
    """Weights of a block's seven matrices."""
    return 2.0 * shape.hidden**2 + 2.0 * shape.hidden * shape.keys + 3.0 * shape.hidden * shape.inner


def _adapted(shape: Shape) -> float:
    """Inputs and outputs of all blocks' matrices: weights of an adapter of rank one."""
    return shape.layers * (9.0 * shape.hidden + 2.0 * shape.keys + 3.0 * shape.inner)
