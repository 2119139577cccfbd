"""The encoder tier's network: all-MiniLM-L6-v2 with LoRA in its upper layers, read as a cross-encoder.

Follow-up, request and reply attend to each other in one row (`rlhi_training.labelling.tokens`). What the heads see is
the first position, the mean of each text, and the products of the follow-up's mean with the others': where two texts
agree. The lower layers stay as they were; in training they are computed once.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn

from rlhi_training.labelling.decision import CLASSES, SUBTYPES
from rlhi_training.labelling.tokens import FOLLOW_UP, REPLY, REQUEST
from rlhi_training.sentence_encoder import minilm_folder

if TYPE_CHECKING:
    from numpy.typing import NDArray

WIDTH, LAYERS = 384, 6
FROZEN = 3
"""Lower layers that are not adapted (ours, by cost and cross-validation, see the README)."""
RANK, ALPHA = 16, 32
"""LoRA's r and alpha (Hu et al., arXiv 2106.09685); ours."""
_POOLED = 6 * WIDTH
_MATRICES = (
    "attention.self.query",
    "attention.self.key",
    "attention.self.value",
    "attention.output.dense",
    "intermediate.dense",
    "output.dense",
)


class LowRank(nn.Module):
    """A frozen linear map plus a low-rank one: W x + (alpha / r) B A x."""

    def __init__(self, whole: nn.Linear) -> None:
        super().__init__()
        self.whole = whole
        self.a = nn.Parameter(torch.randn(RANK, whole.in_features) / math.sqrt(whole.in_features))
        self.b = nn.Parameter(torch.zeros(whole.out_features, RANK))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Shape (..., in) to (..., out)."""
        low = nn.functional.linear(nn.functional.linear(x, self.a), self.b)
        mapped: torch.Tensor = self.whole(x)
        return mapped + (ALPHA / RANK) * low


def minilm(dtype: torch.dtype = torch.float32) -> Any:
    """The unchanged encoder.

    Raises:
        MissingEncoderError: the package with the weights is not installed.
    """
    from transformers import AutoModel

    from rlhi_adapters.loading import quiet

    with quiet():
        return AutoModel.from_pretrained(minilm_folder(), dtype=dtype).eval()


class UpperLayers(nn.Module):
    """What is trained: LoRA in the layers from `FROZEN` on, and two heads."""

    def __init__(self, drop: float = 0.1) -> None:
        super().__init__()
        self.layers = nn.ModuleList(minilm().encoder.layer[FROZEN:])
        for layer in self.layers:
            for parameter in layer.parameters():
                parameter.requires_grad = False
            for name in _MATRICES:
                parent = layer.get_submodule(name.rpartition(".")[0])
                setattr(parent, name.rpartition(".")[2], LowRank(cast("nn.Linear", layer.get_submodule(name))))
        self.drop = nn.Dropout(drop)
        heads = [nn.Linear(_POOLED, count) for count in (len(CLASSES), len(SUBTYPES))]
        for head in heads:
            nn.init.normal_(head.weight, std=0.02)
            nn.init.zeros_(head.bias)
        self.heads = nn.ModuleList(heads)

    def forward(self, hidden: torch.Tensor, segments: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Scores of classes and sub-types.

        Args:
            hidden: What the lower layers gave, shape (rows, longest, 384).
            segments: Shape (rows, longest), -1 where there is padding.
        """
        hidden = run_layers(self.layers, hidden, segments >= 0)
        pooled = self.drop(pool(hidden.float(), segments))
        return self.heads[0](pooled), self.heads[1](pooled)

    def trained(self) -> dict[str, NDArray[Any]]:
        """What differs from the package's weights, in half precision."""
        return {
            name: parameter.detach().to(torch.float16).numpy()
            for name, parameter in self.named_parameters()
            if parameter.requires_grad
        }

    def restore(self, tensors: dict[str, NDArray[Any]]) -> None:
        """Take over what `trained` gave."""
        state = {name: torch.from_numpy(value).float() for name, value in tensors.items()}
        unknown = self.load_state_dict(state, strict=False).unexpected_keys
        if unknown:
            raise KeyError(unknown[0])

    def merged(self) -> nn.ModuleList:
        """The layers with LoRA added into their matrices: plain ones, as fast as the encoder's own."""
        for layer in self.layers:
            for name in _MATRICES:
                parent = layer.get_submodule(name.rpartition(".")[0])
                low = cast("LowRank", layer.get_submodule(name))
                with torch.no_grad():
                    low.whole.weight += (ALPHA / RANK) * (low.b @ low.a)
                setattr(parent, name.rpartition(".")[2], low.whole)
        return self.layers


def run_layers(layers: Iterable[nn.Module], hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """BERT layers, one after the other; positions outside `mask` are not attended to."""
    bias = torch.zeros(mask.shape[0], 1, 1, mask.shape[1], dtype=hidden.dtype)
    bias = bias.masked_fill(~mask[:, None, None, :], torch.finfo(torch.bfloat16).min)
    for layer in layers:
        given = layer(hidden, bias)
        hidden = given[0] if isinstance(given, tuple) else given
    return hidden


def pool(hidden: torch.Tensor, segments: torch.Tensor) -> torch.Tensor:
    """First position, the three texts' means, and two products: shape (rows, 2304)."""
    means = []
    for segment in (FOLLOW_UP, REQUEST, REPLY):
        inside = (segments == segment).unsqueeze(-1).to(hidden.dtype)
        means.append((hidden * inside).sum(1) / inside.sum(1).clamp(min=1.0))
    follow_up, request, reply = means
    return torch.cat([hidden[:, 0], follow_up, request, reply, follow_up * request, follow_up * reply], dim=1)
