"""GPU memory and hours of the policy: writing its candidates, and training its adapter.

Formulas, all for bfloat16 weights and a LoRA adapter in float32:

- memory of training: 2 bytes a weight; 16 bytes an adapter weight (weight, gradient, and Adam's two moments;
  Rajbhandari et al., arXiv 1910.02054, section 3.1); activations 34 x tokens x hidden x layers bytes (Korthikanti et
  al., arXiv 2205.05198, equation 1, without the term of the attention matrix, which fused attention does not keep);
  logits 4 bytes x answer tokens x vocabulary, twice for their gradient.
- time of training: 2 operations a weight and token forward (Kaplan et al., arXiv 2001.08361, section 2.1), as many
  backward, since frozen weights need no gradient, and as many for the reference: 6 a weight and token.
- time of writing: 2 operations a weight and prompt token, then one pass over the weights in memory a step, shared by
  all rows of a batch.

Assumptions, ours: the shares of peak speed below, batches of 48 rows, prefixes of pairs computed twice.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

TRAINING_SHARE = 0.35
"""Share of peak operations that training reaches (ours; 0.3 to 0.5 is usual)."""
READING_SHARE = 0.5
"""Share of peak operations while prompts are read (ours)."""
BANDWIDTH_SHARE = 0.5
"""Share of peak bandwidth while answers are written (ours)."""
ROWS = 48
"""Rows that are written at once, as the in-process client does."""
GIB = 2**30


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
        source: Where the numbers are from.
    """

    parameters: float
    layers: int
    hidden: int
    vocabulary: int
    source: str


def shape_of(base: str) -> Shape | None:
    """Size of a base model: by its folder's ``config.json``, else by the number in its name; None without either."""
    config = Path(base) / "config.json"
    if config.is_file():
        known = json.loads(config.read_text("utf-8"))
        layers, hidden, vocabulary = known["num_hidden_layers"], known["hidden_size"], known["vocab_size"]
        stored = sum(path.stat().st_size for path in Path(base).glob("*.safetensors"))
        width = 4 if known.get("dtype", known.get("torch_dtype")) == "float32" else 2
        parameters = stored / width if stored else 12.0 * layers * hidden**2 + vocabulary * hidden
        return Shape(parameters, layers, hidden, vocabulary, "its config.json")
    named = re.search(r"(\d+(?:\.\d+)?)\s*([bm])(?![a-z0-9])", base.rpartition("/")[2], re.IGNORECASE)
    if named is None:
        return None
    parameters = float(named[1]) * (1e9 if named[2].lower() == "b" else 1e6)
    # A transformer has about 12 x layers x hidden**2 weights, and is about 128 times as wide as deep (ours).
    layers = max(1, round((parameters / (12 * 128**2)) ** (1 / 3)))
    return Shape(parameters, layers, 128 * layers, 128_000, "its name")


def training_memory_gib(shape: Shape, *, rank: int, tokens: int, answer_tokens: int) -> float:
    """GiB at the peak of training, for so many tokens a forward pass, of which so many are answers'."""
    adapter = 21.5 * rank * shape.layers * shape.hidden  # inputs and outputs of a Llama block's seven matrices
    activations = 34.0 * tokens * shape.hidden * shape.layers
    logits = 8.0 * answer_tokens * shape.vocabulary
    return (2 * shape.parameters + 16 * adapter + activations + logits) / GIB


def training_hours(shape: Shape, card: Card, *, tokens: float) -> float:
    """Hours for so many tokens, all epochs together."""
    return 6 * shape.parameters * tokens / (TRAINING_SHARE * card.tflops * 1e12) / 3600


def writing_hours(shape: Shape, card: Card, *, prompt_tokens: float, completion_tokens: float) -> float:
    """Hours to read so many prompt tokens and to write so many answer tokens."""
    reading = 2 * shape.parameters * prompt_tokens / (READING_SHARE * card.tflops * 1e12)
    writing = completion_tokens / ROWS * 2 * shape.parameters / (BANDWIDTH_SHARE * card.bandwidth * 1e12)
    return (reading + writing) / 3600
