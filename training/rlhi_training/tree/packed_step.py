"""One optimiser step of TRL's preference trainer in as many forward passes as a token budget takes.

The loss of a batch is a mean over its pairs (`sft`: over the tokens of its chosen answers). A pass sees some of them,
so its means are weighted with its share of the batch before they are added: the sum, and so its gradient, is the
batch's, whatever the passes are. What TRL logs is averaged in the same way. Losses that compare pairs with each other
are no such sum (`rlhi_training.train_checks`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch

from rlhi_training.tree.packing import Pack, plan_packs, plan_padded

_BY_CHOSEN_TOKEN = {"sft", "logits/chosen", "mean_token_accuracy"}
_BY_REJECTED_TOKEN = {"logits/rejected"}
_BY_TOKEN = {"entropy"}
_COUNTS = {"num_tokens"}

Inputs = Mapping[str, torch.Tensor]


@dataclass(frozen=True, slots=True)
class Share:
    """How much of a batch a pass holds, each from 0 to 1."""

    pairs: float
    chosen: float
    """Of the tokens of chosen answers."""
    rejected: float
    tokens: float
    """Of the tokens of all answers."""

    def of(self, name: str) -> float:
        """The share that weighs a loss or a metric of TRL's."""
        if name in _BY_CHOSEN_TOKEN:
            return self.chosen
        if name in _BY_REJECTED_TOKEN:
            return self.rejected
        return self.tokens if name in _BY_TOKEN else self.pairs


NOTHING = Share(0.0, 0.0, 0.0, 0.0)


def plan(trainer: Any, inputs: Inputs) -> list[Pack]:
    """The passes for a batch as TRL's collator makes it."""
    shared = trainer.shared
    lengths = inputs["attention_mask"].sum(dim=1).tolist()
    if shared.reason is not None:
        half = len(lengths) // 2
        return plan_padded([max(pair) for pair in zip(lengths[:half], lengths[half:], strict=True)], shared.budget)
    rows = [row[:length] for row, length in zip(inputs["input_ids"].tolist(), lengths, strict=True)]
    packs, cut = plan_packs(rows, shared.budget, pairwise=shared.scope == "pair")
    shared.trees_cut += cut
    return packs


def passes(trainer: Any, inputs: Inputs) -> Iterator[tuple[Pack, Inputs]]:
    """Each pass with its part of the batch; what may share a tree is set while it is worked on."""
    for pack in plan(trainer, inputs):
        trainer.shared.together = pack.together
        try:
            yield pack, _part(inputs, pack.pairs)
        finally:
            trainer.shared.together = None


def step(trainer: Any, model: Any, inputs: Inputs, one: Callable[[Inputs], torch.Tensor]) -> torch.Tensor:
    """Loss of a batch, with its gradients accumulated.

    Args:
        trainer: TRL's, with a `SharedForward` as ``shared``.
        model: As TRL's training step gets it; processes exchange gradients at the last pass only.
        inputs: A batch as TRL's collator makes it, on the model's device.
        one: TRL's own training step on a part of it.
    """
    parts = list(passes(trainer, inputs))
    shares = [_share(part, inputs) for _, part in parts]
    # Every process must meet the others as often as they meet it: some repeat a pass that counts for nothing.
    idle = _most(trainer, len(parts)) - len(parts)
    parts += parts[-1:] * idle
    shares += [NOTHING] * idle
    weights = trainer.loss_weights
    total = torch.zeros((), device=inputs["input_ids"].device)
    try:
        for number, ((pack, part), share) in enumerate(zip(parts, shares, strict=True), start=1):
            trainer.shared.together = pack.together
            trainer.loss_weights = [w * share.of(kind) for w, kind in zip(weights, trainer.loss_types, strict=True)]
            with nullcontext() if number == len(parts) else trainer.accelerator.no_sync(model):
                total += one(part)
    finally:
        trainer.loss_weights = weights
        trainer.shared.together = None
    _merge(trainer._metrics["train"], shares)  # noqa: SLF001 - TRL has no public name for them
    return total


def _most(trainer: Any, count: int) -> int:
    if trainer.accelerator.num_processes == 1:
        return count
    counts = trainer.accelerator.gather(torch.tensor([count], device=trainer.accelerator.device))
    return int(counts.max().item())


def _part(inputs: Inputs, pairs: Sequence[int]) -> Inputs:
    """The batch's rows of these pairs, without the padding that only others need."""
    some = torch.tensor(pairs, device=inputs["input_ids"].device)
    half = inputs["input_ids"].shape[0] // 2
    rows = torch.cat([some, some + half])
    longest = int(inputs["attention_mask"][rows].sum(dim=1).max())
    return {name: value[rows, :longest] if value.dim() > 1 else value[some] for name, value in inputs.items()}


def _share(part: Inputs, whole: Inputs) -> Share:
    some, every = (values["completion_mask"][:, 1:].sum(dim=1).tolist() for values in (part, whole))
    pairs, all_pairs = len(some) // 2, len(every) // 2
    chosen, rejected = sum(some[:pairs]), sum(some[pairs:])
    all_chosen, all_rejected = sum(every[:all_pairs]), sum(every[all_pairs:])
    return Share(
        pairs=pairs / all_pairs,
        chosen=chosen / max(1, all_chosen),
        rejected=rejected / max(1, all_rejected),
        tokens=(chosen + rejected) / max(1, all_chosen + all_rejected),
    )


def _merge(metrics: dict[str, list[float]], shares: Sequence[Share]) -> None:
    """One entry a batch in place of one a pass."""
    for name, values in metrics.items():
        if name not in _COUNTS:
            of_passes = values[-len(shares) :]
            values[-len(shares) :] = [sum(v * s.of(name) for v, s in zip(of_passes, shares, strict=True))]
