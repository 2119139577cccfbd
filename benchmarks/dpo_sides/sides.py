"""The ways to train on the same pairs, each as a trainer whose steps are timed."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path
from typing import Any

from dpo_sides.shapes import Shape, build, tokenizer
from dpo_sides.workloads import Pair

LORA_RANK = 16


@dataclass(frozen=True)
class Method:
    """A way to train.

    Attributes:
        sharing: What shares prefixes: nothing (TRL), ``pair`` or ``batch``.
        micro_batch: Pairs in one forward pass; None is one conversation.
        as_it_comes: TRL's own defaults: the reference at every step, and activations computed twice.
    """

    sharing: str | None
    micro_batch: int | None
    as_it_comes: bool = False


def methods(micro_batches: Sequence[int]) -> dict[str, Method]:
    """All sides by name; those of TRL at its best differ in the micro-batch."""
    best = {f"trl_best_{micro}": Method(None, micro) for micro in micro_batches}
    default = Method(None, 8, as_it_comes=True)
    return {**best, "tree": Method("batch", None), "pairwise": Method("pair", 1), "trl_default": default}


def flash_pref_absence() -> str:
    """Why the peer `flash-pref` is not among the sides.

    It is never installed beside the trainer that the others run on, so its published factors (arXiv 2410.20305) and our
    own pair-level sharing stand for it.
    """
    try:
        pins = [line for line in requires("flash-pref") or [] if line.startswith("transformers")]
    except PackageNotFoundError:
        pins = ["transformers<4.52.0,>=4.49.0"]
    return (
        f"flash-pref 0.1.1 is not run: it needs {pins[0]} where TRL 1.16 needs transformers 5, and FlashAttention-2, "
        "which is for CUDA alone"
    )


class Side:
    """A trainer whose steps are timed.

    Args:
        conversations: Pairs, by conversation.
        shape: Of the model.
        method: How it trains.
        folder: For the trainer's files; nothing is written there.
    """

    def __init__(self, conversations: Sequence[Sequence[Pair]], shape: Shape, method: Method, folder: Path) -> None:
        import torch

        rows = [pair for conversation in conversations for pair in conversation]
        self.trainer = _trainer(rows, shape, method, folder)
        self.trainer.model.train()
        data = list(self.trainer.train_dataset)
        if method.micro_batch is None:
            ends = _cumulated(list(map(len, conversations)))
        else:
            ends = [*range(method.micro_batch, len(data), method.micro_batch), len(data)]
        self._shares = [data[start:end] for start, end in zip([0, *ends], ends, strict=False)]
        self._batches = [self.trainer.data_collator(some) for some in self._shares]
        trained = [parameter for parameter in self.trainer.model.parameters() if parameter.requires_grad]
        self._optimizer = torch.optim.AdamW(trained, lr=1e-4)

    def step(
        self, advance: Callable[[int], None] = lambda _: None, *, at_most: int | None = None, every: int = 1
    ) -> tuple[float, float]:
        """One step: forward, backward and optimiser.

        Args:
            advance: Told of each forward and backward pass.
            at_most: Passes; None is all of them, and only then are weights changed.
            every: Which passes are made: each so many-th, from the first.

        Returns:
            Seconds, for all passes where only some are made by their share of the tokens, and the loss as a mean over
            the pairs of those that were made.
        """
        started = time.perf_counter()
        total = 0.0
        passes = list(zip(self._shares, self._batches, strict=True))[:at_most]
        whole = _tokens(batch for _, batch in passes)
        passes = passes[::every]
        pairs = sum(len(some) for some, _ in passes)
        for some, batch in passes:
            # What the trainer's own training step does, without its bookkeeping of accumulated batches.
            inputs = self.trainer._prepare_inputs(dict(batch))  # noqa: SLF001 - see above
            with self.trainer.compute_loss_context_manager():
                loss = self.trainer.compute_loss(self.trainer.model, inputs) * (len(some) / pairs)
            loss.backward()
            total += loss.item()
            advance(len(some))
        if at_most is None:
            self._optimizer.step()
        self._optimizer.zero_grad()
        _synchronise()
        return (time.perf_counter() - started) * whole / _tokens(batch for _, batch in passes), total

    def __len__(self) -> int:
        """Passes of a step."""
        return len(self._batches)

    def forget(self) -> None:
        """Leave nothing of a step that failed behind."""
        import torch

        self._optimizer.zero_grad()
        torch.cuda.empty_cache()

    def largest_alone(self) -> None:
        """Run the pass with the most tokens, padding included, and no other."""
        largest = max(range(len(self._batches)), key=lambda i: int(self._batches[i]["input_ids"].numel()))
        self._shares, self._batches = [self._shares[largest]], [self._batches[largest]]
        self.step()


def _cumulated(sizes: Sequence[int]) -> list[int]:
    return [sum(sizes[: i + 1]) for i in range(len(sizes))]


def _tokens(batches: Iterable[Any]) -> int:
    """Tokens, padding included."""
    return sum(int(batch["input_ids"].numel()) for batch in batches)


def _synchronise() -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _trainer(rows: Sequence[Pair], shape: Shape, method: Method, folder: Path) -> Any:
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from trl import DPOConfig

    from rlhi_adapters.loading import pick_device, pick_dtype, quiet
    from rlhi_training.tree.trl_trainer import TreeDPOTrainer

    device = pick_device()
    half = pick_dtype("auto", device) == "bfloat16"

    class WithoutReferencePass(TreeDPOTrainer):  # type: ignore[misc]
        """Precomputed reference values cost nothing a step: those of a model that finds all tokens equally likely.

        Random weights are nearly such a model. Far from it most losses are saturated, as nobody trains.
        """

        def compute_ref_log_probs(self, model: Any, inputs: Any) -> Any:
            del model
            of_rows = inputs["completion_mask"].sum(dim=1) * -math.log(shape.vocabulary)
            return of_rows.chunk(2)

    with quiet():
        config = DPOConfig(
            output_dir=str(folder),
            per_device_train_batch_size=method.micro_batch or 1,
            precompute_ref_log_probs=not method.as_it_comes,
            max_length=None,
            gradient_checkpointing=method.as_it_comes,
            bf16=half,
            use_cpu=device == "cpu",
            dataloader_pin_memory=False,
            report_to=[],
            disable_tqdm=True,
        )
        return WithoutReferencePass(
            share_prefixes=method.sharing is not None,
            scope="pair" if method.sharing == "pair" else "batch",
            groups=[("", "") for _ in rows],
            on_reference=lambda _: None,
            # What it costs is `parity_seconds` in a run's metrics; here the losses are compared.
            check_parity=False,
            model=build(shape, torch.bfloat16 if half else torch.float32, device),
            args=config,
            train_dataset=Dataset.from_list(list(rows)),
            processing_class=tokenizer(),
            peft_config=LoraConfig(r=LORA_RANK, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"),
        )
