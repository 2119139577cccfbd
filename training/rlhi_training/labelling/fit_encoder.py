"""Fitting the encoder tier's network on the CPU: AdamW, linear decay, bfloat16 where the processor has it."""

from __future__ import annotations

import logging
import math
import random
import time
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from rlhi_training.labelling.decision import CLASSES, SUBTYPES
from rlhi_training.labelling.fit_fast import FitRow
from rlhi_training.labelling.network import FROZEN, UpperLayers, minilm, run_layers
from rlhi_training.labelling.tokens import Row, RowMaker, batches, padded

logger = logging.getLogger("rlhi.training")


@dataclass(frozen=True)
class EncoderOptions:
    """How the network is fitted; each default by cross-validation (``README.md``)."""

    epochs: int = 4
    learning_rate: float = 1e-3
    """Of the LoRA matrices."""
    head_learning_rate: float = 1e-3
    batch: int = 32
    subtype_weight: float = 0.5
    """Of the second task's loss."""
    smoothing: float = 0.05
    """Of the labels: readers are wrong now and then."""
    seed: int = 0


_IGNORED = -100
"""Target of a row whose sub-type nobody said."""
_WARM_UP = 0.1


class Prepared:
    """Rows with what the frozen layers make of them, in bfloat16; computed once for every fold.

    Args:
        rows: What is to be learned or labelled.
    """

    def __init__(self, rows: Sequence[FitRow]) -> None:
        self.rows = list(rows)
        self.pieces = RowMaker().rows([row.exchange for row in rows])
        self.hidden = _lower(self.pieces)

    def and_rows(self, more: Sequence[FitRow]) -> Prepared:
        """These rows, and others behind them."""
        whole, added = copy(self), Prepared(more)
        whole.rows = [*self.rows, *added.rows]
        whole.pieces, whole.hidden = [*self.pieces, *added.pieces], [*self.hidden, *added.hidden]
        return whole

    def targets(self, places: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Class, sub-type and weight of some rows."""
        rows = [self.rows[i] for i in places]
        kinds = [_IGNORED if row.subtype is None else SUBTYPES.index(row.subtype) for row in rows]
        return (
            torch.tensor([CLASSES.index(row.label) for row in rows]),
            torch.tensor(kinds),
            torch.tensor([row.weight for row in rows]),
        )

    def batch(self, places: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """Hidden states and segments of some rows, padded."""
        _, segments, _ = padded([self.pieces[i] for i in places])
        hidden = torch.zeros(*segments.shape, self.hidden[0].shape[-1], dtype=torch.bfloat16)
        for k, i in enumerate(places):
            hidden[k, : len(self.hidden[i])] = self.hidden[i]
        return hidden, segments


def _lower(pieces: Sequence[Row]) -> list[torch.Tensor]:
    encoder = minilm(torch.bfloat16)
    found: dict[int, torch.Tensor] = {}
    with torch.inference_mode():
        for places in batches(pieces, 64):
            ids, segments, mask = padded([pieces[i] for i in places])
            hidden = encoder.embeddings(input_ids=ids, token_type_ids=(segments > 0).long())
            hidden = run_layers(encoder.encoder.layer[:FROZEN], hidden, mask.bool())
            for k, i in enumerate(places):
                found[i] = hidden[k, : len(pieces[i].ids)].clone()
    return [found[i] for i in range(len(pieces))]


def fit_network(prepared: Prepared, places: Sequence[int], options: EncoderOptions) -> UpperLayers:
    """Train on some of the rows."""
    torch.manual_seed(options.seed)
    draw = random.Random(options.seed)
    network = UpperLayers().train()
    low = [p for p in network.layers.parameters() if p.requires_grad]
    heads = list(network.heads.parameters())
    groups = [{"params": low, "lr": options.learning_rate}, {"params": heads, "lr": options.head_learning_rate}]
    optimiser = torch.optim.AdamW(groups, weight_decay=0.01)
    steps = math.ceil(len(places) / options.batch) * options.epochs
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda k: min(1.0, (k + 1) / (_WARM_UP * steps)) * max(0.0, (steps - k) / steps)
    )
    for epoch in range(options.epochs):
        started, total = time.monotonic(), 0.0
        for chosen in _shuffled(prepared, places, options.batch, draw):
            loss = _loss(network, prepared, chosen, options)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
            nn.utils.clip_grad_norm_([*low, *heads], 1.0)
            optimiser.step()
            schedule.step()
            total += float(loss.detach()) * len(chosen)
        logger.info("epoch %d: loss %.4f, %.0f s", epoch + 1, total / len(places), time.monotonic() - started)
    return network.eval()


def _loss(network: UpperLayers, prepared: Prepared, places: Sequence[int], options: EncoderOptions) -> torch.Tensor:
    hidden, segments = prepared.batch(places)
    classes, kinds, weights = prepared.targets(places)
    with torch.autocast("cpu", torch.bfloat16):
        said, kind = network(hidden, segments)
    first = nn.functional.cross_entropy(said.float(), classes, reduction="none", label_smoothing=options.smoothing)
    second = nn.functional.cross_entropy(
        kind.float(), kinds, reduction="none", ignore_index=_IGNORED, label_smoothing=options.smoothing
    )
    return ((first + options.subtype_weight * second) * weights).mean()


def network_scores(network: UpperLayers, prepared: Prepared, places: Sequence[int]) -> Any:
    """Scores of some rows, shape (places, 4 + 16), float32."""
    import numpy as np

    scores = np.zeros((len(places), len(CLASSES) + len(SUBTYPES)), dtype=np.float32)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        for inside in batches([prepared.pieces[i] for i in places], 64):
            said, kind = network(*prepared.batch([places[i] for i in inside]))
            scores[inside] = torch.cat([said, kind], dim=1).float().numpy()
    return scores


def _shuffled(prepared: Prepared, places: Sequence[int], size: int, draw: random.Random) -> list[list[int]]:
    """Batches of rows of about the same length, in another order each time."""
    order = list(places)
    draw.shuffle(order)
    made = []
    for start in range(0, len(order), size * 16):
        near = sorted(order[start : start + size * 16], key=lambda i: len(prepared.pieces[i].ids))
        made += [near[k : k + size] for k in range(0, len(near), size)]
    draw.shuffle(made)
    return made
