"""GPU hours of the policy: writing its candidates, and training its adapter.

Memory is `rlhi_training.plan.training_memory`'s. Formulas for time:

- time of training: 2 operations a weight and token forward (Kaplan et al., arXiv 2001.08361, section 2.1), as many
  backward, since frozen weights need no gradient; which tokens go where is `rlhi_training.plan.training_work`'s.
- time of writing: 2 operations a weight and prompt token, then one pass over the weights in memory a step, shared by
  all rows of a batch.

Assumptions, ours: the shares of peak speed below, batches of 48 rows, prefixes of pairs computed twice, and what
`training_memory.slowdown` says of the options that save memory.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

from rlhi_adapters.base_models import EMBEDDED

TRAINING_SHARE = 0.35
"""Share of peak operations that training reaches (ours; 0.3 to 0.5 is usual)."""
READING_SHARE = 0.5
"""Share of peak operations while prompts are read (ours)."""
BANDWIDTH_SHARE = 0.5
"""Share of peak bandwidth while answers are written (ours)."""
ROWS = 48
"""Rows that are written at once, as the in-process client does."""
GIB = 2**30
BYTES = 2
"""Of a weight in bfloat16."""


@dataclass(frozen=True, slots=True)
class Card:
    """A GPU, by its data sheet.

    Attributes:
        name: What it is called.
        memory_gib: Its memory.
        tflops: Dense bfloat16 operations a second, in 10**12.
        bandwidth: Bytes a second, in 10**12.
    """

    name: str
    memory_gib: float
    tflops: float
    bandwidth: float


CARDS = (
    Card("L4", 24, 121, 0.30),
    Card("RTX 4090", 24, 165, 1.01),
    Card("A100 80GB", 80, 312, 2.04),
    Card("H100 80GB", 80, 989, 3.35),
)


@dataclass(frozen=True, slots=True)
class Shape:
    """A transformer's size.

    Attributes:
        parameters: Weights.
        layers: Blocks.
        hidden: Width.
        vocabulary: Tokens that it knows.
        inner: Width of the feed-forward layers.
        keys: Width of keys, and of values.
        source: Where the numbers are from.
    """

    parameters: float
    layers: int
    hidden: int
    vocabulary: int
    inner: int
    keys: int
    source: str


def shape_of(base: str) -> Shape | None:
    """Size of a base model: by its folder's ``config.json``, else by the number in its name; None without either."""
    if base == EMBEDDED:
        return Shape(134_515_008, 30, 576, 49_152, 1_536, 192, "what the package holds")
    config = Path(base) / "config.json"
    if config.is_file():
        known = json.loads(config.read_text("utf-8"))
        known |= known.get("text_config") or {}
        if not {"num_hidden_layers", "hidden_size", "vocab_size"} <= known.keys():
            return None
        layers, hidden, vocabulary = known["num_hidden_layers"], known["hidden_size"], known["vocab_size"]
        stored = sum(path.stat().st_size for path in Path(base).glob("*.safetensors"))
        width = 4 if known.get("dtype", known.get("torch_dtype")) == "float32" else 2
        parameters = stored / width if stored else 12.0 * layers * hidden**2 + vocabulary * hidden
        heads = known.get("num_attention_heads", 1)
        head = known.get("head_dim") or hidden // heads
        keys = head * known.get("num_key_value_heads", heads)
        return Shape(
            parameters, layers, hidden, vocabulary, known.get("intermediate_size", 4 * hidden), keys, "its config.json"
        )
    named = re.search(r"(\d+(?:\.\d+)?)\s*([bm])(?![a-z0-9])", base.rpartition("/")[2], re.IGNORECASE)
    if named is None:
        return None
    parameters = float(named[1]) * (1e9 if named[2].lower() == "b" else 1e6)
    # A transformer has about 12 x layers x hidden**2 weights, and is about 128 times as wide as deep (ours).
    layers = max(1, round((parameters / (12 * 128**2)) ** (1 / 3)))
    # Llama-3.1's proportions: feed-forward layers 3.5 times as wide, a key for every four queries.
    return Shape(parameters, layers, 128 * layers, 128_000, 448 * layers, 32 * layers, "its name")


def training_hours(shape: Shape, card: Card, *, forward: float, backward: float) -> float:
    """Hours for so many tokens forward and so many backward, all epochs together."""
    return 2 * shape.parameters * (forward + backward) / (TRAINING_SHARE * card.tflops * 1e12) / 3600


def reading_hours(shape: Shape, card: Card, tokens: float) -> float:
    """Hours to read so many tokens, as a reward model does."""
    return 2 * shape.parameters * tokens / (READING_SHARE * card.tflops * 1e12) / 3600


def writing_hours(shape: Shape, card: Card, *, prompt_tokens: float, completion_tokens: float) -> float:
    """Hours to read so many prompt tokens and to write so many answer tokens."""
    reading = 2 * shape.parameters * prompt_tokens / (READING_SHARE * card.tflops * 1e12)
    writing = completion_tokens / ROWS * 2 * shape.parameters / (BANDWIDTH_SHARE * card.bandwidth * 1e12)
    return (reading + writing) / 3600
