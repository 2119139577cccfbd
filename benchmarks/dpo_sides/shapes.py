"""Model shapes with random weights, which cost the same as trained ones, and the hardware's rate."""

from __future__ import annotations

import copy
import statistics
import time
from dataclasses import dataclass
from functools import cache
from typing import Any


@dataclass(frozen=True)
class Shape:
    """A model's shape."""

    name: str
    vocabulary: int
    hidden: int
    intermediate: int
    layers: int
    heads: int
    key_value_heads: int
    tied: bool

    def matmul_work(self) -> float:
        """Floating-point operations a token in the linear layers, forward and back to the activations.

        Attention, LoRA and the output layer are not counted.
        """
        per_head = self.hidden // self.heads
        layer = 2 * self.hidden**2 + 2 * self.hidden * self.key_value_heads * per_head
        layer += 3 * self.hidden * self.intermediate
        return 4.0 * layer * self.layers

    def head_work(self) -> float:
        """The same for the output layer, a scored token."""
        return 4.0 * self.hidden * self.vocabulary


SMOLLM2 = Shape("SmolLM2-135M", 49152, 576, 1536, 30, 9, 3, tied=True)
LLAMA_8B = Shape("Llama-3.1-8B", 128256, 4096, 14336, 32, 32, 8, tied=False)
SMALL = Shape("4 layers and 8,192 tokens of SmolLM2-135M", 8192, 576, 1536, 4, 9, 3, tied=True)


def build(shape: Shape, dtype: Any, device: str) -> Any:
    """A Llama of that shape. Equal arguments give models of their own that hold the same weights, once in memory."""
    first = _build(shape, dtype, device)
    return copy.deepcopy(first, {id(weight): weight for weight in first.parameters()})


@cache
def _build(shape: Shape, dtype: Any, device: str) -> Any:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.key_value_heads,
        tie_word_embeddings=shape.tied,
        max_position_embeddings=131072,
    )
    default = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            return LlamaForCausalLM(config)
    finally:
        torch.set_default_dtype(default)


def tokenizer() -> Any:
    """Only its pad token is used: the pairs are token ids already."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    pad, eos, unk = "<pad>", "<eos>", "<unk>"
    core = Tokenizer(models.WordLevel({pad: 0, eos: 1, unk: 2}, unk_token=unk))
    return PreTrainedTokenizerFast(tokenizer_object=core, pad_token=pad, eos_token=eos, unk_token=unk)


def matmul_rate() -> float:
    """Floating-point operations a second of a large matrix product in the format that is trained in."""
    import torch

    from rlhi_adapters.loading import pick_device, pick_dtype

    device = pick_device()
    dtype = getattr(torch, pick_dtype("auto", device))
    n = 8192 if device == "cuda" else 2048
    a, b = (torch.randn(n, n, device=device).to(dtype) for _ in range(2))
    seconds = []
    for _ in range(6):
        started = time.perf_counter()
        a @ b
        if device == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
    return 2.0 * n**3 / statistics.median(seconds[2:])
