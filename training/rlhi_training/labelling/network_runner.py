"""The fitted network as it labels: LoRA merged into plain layers, in the processor's fastest number format."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import torch

from rlhi_adapters.loading import pick_dtype
from rlhi_training.labelling.network import FROZEN, UpperLayers, minilm, pool, run_layers
from rlhi_training.labelling.tokens import Row, padded

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class NetworkRunner:
    """Scores rows.

    Args:
        tensors: What `UpperLayers.trained` gave.
    """

    def __init__(self, tensors: dict[str, NDArray[Any]]) -> None:
        dtype = torch.bfloat16 if pick_dtype("auto", "cpu") == "bfloat16" else torch.float32
        network = UpperLayers().eval()
        network.restore(tensors)
        encoder = minilm(dtype)
        self._embeddings = encoder.embeddings
        self._layers = [*encoder.encoder.layer[:FROZEN], *network.merged().to(dtype)]
        # Both heads as one matrix: one product for classes and sub-types.
        heads = [cast("torch.nn.Linear", head) for head in network.heads]
        self._weight = torch.cat([head.weight for head in heads]).detach()
        self._bias = torch.cat([head.bias for head in heads]).detach()

    @torch.inference_mode()
    def __call__(self, rows: Sequence[Row]) -> NDArray[np.float32]:
        """Scores of a batch, shape (rows, 4 + 16)."""
        ids, segments, mask = padded(rows)
        hidden = self._embeddings(input_ids=ids, token_type_ids=(segments > 0).long())
        hidden = run_layers(self._layers, hidden, mask.bool())
        scores: NDArray[np.float32] = torch.addmm(self._bias, pool(hidden.float(), segments), self._weight.T).numpy()
        return scores
