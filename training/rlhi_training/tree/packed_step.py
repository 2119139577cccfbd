"""One optimiser step of TRL's preference trainer in as many forward passes as a token budget takes.

The loss of a batch is a mean over its pairs (`sft`: over the tokens of its chosen answers). A pass sees some of them,
so its means are weighted with its share of the batch before they are added: the sum, and so its gradient, is the
batch's, whatever the passes are. What TRL logs is averaged in the same way, first over the passes of a process, then
over processes: passes of several processes hold different numbers of pairs, which no collective could put together.
Losses that compare pairs with each other are no such sum (`rlhi_training.train_checks`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from accelerate.utils import gather_object

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
    packs, cut = plan_packs(rows, shared.budget, shared.layout, pairwise=shared.scope == "pair")
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
    whole = _count(inputs)
    shares = [_share(_count(part), whole) for _, part in parts]
    tokens_before = trainer._total_train_tokens  # noqa: SLF001 - TRL has no public name for it
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
            with (
                _metrics_of_this_process(trainer.accelerator),
                nullcontext() if number == len(parts) else trainer.accelerator.no_sync(model),
            ):
                total += one(part)
    finally:
        trainer.loss_weights = weights
        trainer.shared.together = None
    _merge(trainer._metrics["train"], shares)  # noqa: SLF001 - TRL has no public name for them
    if trainer.accelerator.num_processes > 1:
        _average(trainer, inputs, tokens_before)
    return total


@contextmanager
def _metrics_of_this_process(accelerator: Any) -> Iterator[None]:
    """TRL logs what one process sees: as many values as its own pass has pairs."""
    if accelerator.num_processes == 1:
        yield
        return
    accelerator.gather = accelerator.gather_for_metrics = lambda values: values
    try:
        yield
    finally:
        del accelerator.gather, accelerator.gather_for_metrics


def _average(trainer: Any, inputs: Inputs, tokens_before: int) -> None:
    """Metrics of this batch over all processes, each weighted with its share of what they are means of."""
    metrics = trainer._metrics["train"]  # noqa: SLF001 - TRL has no public name for them
    own = {name: values[-1] for name, values in metrics.items()}
    every = gather_object([(own, _count(inputs), int(inputs["attention_mask"].sum()))])
    whole = _Count(*(sum(of) for of in zip(*(count for _, count, _ in every), strict=True)))
    for name, values in metrics.items():
        if name not in _COUNTS:
            values[-1] = sum(of[name] * _share(count, whole).of(name) for of, count, _ in every)
    trainer._total_train_tokens = tokens_before + sum(tokens for _, _, tokens in every)  # noqa: SLF001 - as above
    metrics["num_tokens"] = [trainer._total_train_tokens]  # noqa: SLF001 - as above


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


class _Count(NamedTuple):
    """Pairs, and the tokens of their answers."""

    pairs: int
    chosen: int
    rejected: int


def _count(inputs: Inputs) -> _Count:
    tokens = inputs["completion_mask"][:, 1:].sum(dim=1).tolist()
    pairs = len(tokens) // 2
    return _Count(pairs, sum(tokens[:pairs]), sum(tokens[pairs:]))


def _share(some: _Count, every: _Count) -> Share:
    return Share(
        pairs=some.pairs / every.pairs,
        chosen=some.chosen / max(1, every.chosen),
        rejected=some.rejected / max(1, every.rejected),
        tokens=(some.chosen + some.rejected) / max(1, every.chosen + every.rejected),
    )


def _merge(metrics: dict[str, list[float]], shares: Sequence[Share]) -> None:
    """One entry a batch in place of one a pass."""
    for name, values in metrics.items():
        if name not in _COUNTS:
            of_passes = values[-len(shares) :]
            values[-len(shares) :] = [sum(v * s.of(name) for v, s in zip(of_passes, shares, strict=True))]
