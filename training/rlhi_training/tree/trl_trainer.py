"""TRL's `DPOTrainer` on prefix trees. Losses, metrics, optimiser, logging and checkpoints stay as they are there."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate.utils import broadcast_object_list, gather_object
from torch.utils.data import Sampler
from trl import DPOTrainer
from trl.trainer.utils import FusedCausalLMOutput

from rlhi_plugin.errors import ConfigError
from rlhi_training.reference_vault import ReferenceVault, Row
from rlhi_training.tree import packed_step
from rlhi_training.tree.forward import Scope, SharedForward, install

_log = logging.getLogger("rlhi.training")

Group = tuple[str, str]
"""Conversation, and request in it."""

COMPLETE = "complete"
"""File that is written into a checkpoint last; without it the checkpoint was cut short by a kill."""


class TreeDPOTrainer(DPOTrainer):  # type: ignore[misc]  # TRL publishes no types
    """`DPOTrainer` that takes token ids, shares prefixes, and keeps the pairs of a conversation together.

    Args:
        share_prefixes: False runs TRL's own forward pass.
        groups: One key a pair; see `GroupedOrder`.
        on_reference: Called with the number of pairs whose reference log-probabilities are known now.
        vault: Keeps them between runs; None computes them all.
        scope: What may share a prefix.
        tokens_per_batch: Most tokens of a forward pass; a batch takes as many passes as that needs
            (`rlhi_training.tree.packed_step`). None: one.
        reference: What a model that comes with an adapter is compared with: that adapter as it is now (``start``), or
            the model without it (``base``). ``round`` is for `rlhi_training.methods.round_reference`.
        check_parity: Whether the first batch is compared with TRL's own pass; see `SharedForward`.
        options: TRL's own arguments. The data set has ``prompt_ids``, ``chosen_ids`` and ``rejected_ids``.
    """

    def __init__(
        self,
        *,
        share_prefixes: bool,
        groups: Sequence[Group],
        on_reference: Callable[[int], None],
        vault: ReferenceVault | None = None,
        scope: Scope = "batch",
        tokens_per_batch: int | None = None,
        reference: Literal["start", "base", "round"] = "start",
        check_parity: bool = True,
        **options: Any,
    ) -> None:
        off = None if share_prefixes else "train.share_prefixes is off"
        self.shared = SharedForward(reason=off, scope=scope, budget=tokens_per_batch)
        self._check_parity = check_parity
        self._groups = groups
        self._reference = reference
        self._on_reference = on_reference
        self._vault = vault
        self.reference_reused = 0
        """Pairs whose reference log-probabilities an earlier run had computed."""
        super().__init__(**options)
        if self.shared.budget is not None and self.aux_loss_enabled:
            raise ConfigError(
                "the router loss of a mixture of experts is no sum over parts of a batch. Leave train.tokens_per_batch "
                "out and set train.micro_batch_size."
            )

    def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
        """Pairs arrive as token ids (see `rlhi_training.tokenised_pairs`)."""
        return dataset

    def _precompute_ref_logps(self, dataset: Any, _: str, batch_size: int) -> Any:
        """As TRL's, on prefix trees, with progress; TRL calls this at the end of its constructor."""
        if self.shared.reason is None:
            base = self.model.get_base_model() if hasattr(self.model, "get_base_model") else self.model
            self.shared = install(base, FusedCausalLMOutput, self.shared.scope, budget=self.shared.budget)
            if self.use_weighting:
                self.shared.fall_back(
                    "use_weighting (WPO) needs sums of squared probabilities, which trees do not keep"
                )
            if not self._check_parity:
                self.shared.trust()
        if self._reference == "base":
            self._drop_copy()
        found = self._reference_pass(dataset, batch_size)
        self._drop_copy()
        return found

    def _drop_copy(self) -> None:
        """TRL keeps a second copy of a continued adapter to compare with, and would save it: known is enough."""
        if "ref" in getattr(self.model, "peft_config", {}):
            self.model.delete_adapter("ref")

    def _reference_pass(self, dataset: Any, batch_size: int) -> Any:
        sides = [_sides(dataset[i]) for i in range(len(dataset))]
        # What one process finds is what all go by: a vault may change between two looks, and all must meet as often.
        (known,) = broadcast_object_list([self._from_vault(sides)])
        self.reference_reused = len(known)
        self._on_reference(len(known))
        # Neighbours in this order have equal prompts and like lengths; padding and repeated prompts cost least so.
        order = [i for i in range(len(dataset)) if i not in known]
        order.sort(key=lambda i: (len(dataset[i]["prompt_ids"]), self._groups[i]))
        batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
        together, own = self.accelerator.num_processes, self.accelerator.process_index
        for number in range(0, len(batches), together):
            # Each process computes one batch of as many as there are processes; all of them learn what all found.
            indices = batches[number + own] if number + own < len(batches) else []
            computed = gather_object([self._compute_reference(dataset, indices)])
            found = {place: values for of_process in computed for place, values in of_process.items()}
            known |= found
            if self._vault is not None and self.accelerator.is_main_process:
                self._vault.put([side for i in found for side in sides[i]], [v for i in found for v in found[i]])
            self._on_reference(len(found))
        chosen, rejected = ([known[i][side] for i in range(len(dataset))] for side in (0, 1))
        return dataset.add_column("ref_chosen_logps", chosen).add_column("ref_rejected_logps", rejected)

    def _compute_reference(self, dataset: Any, indices: Sequence[int]) -> dict[int, tuple[float, float]]:
        if not indices:
            return {}
        batch = self._prepare_inputs(self.data_collator([dataset[i] for i in indices]))
        chosen, rejected = (values.tolist() for values in self.compute_ref_log_probs(self.model, batch))
        return dict(zip(indices, zip(chosen, rejected, strict=True), strict=True))

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> torch.Tensor:
        """TRL's, in as many passes as the token budget takes."""
        one = super().training_step
        if self.shared.budget is None:
            return one(model, inputs, num_items_in_batch)  # type: ignore[no-any-return]
        inputs = self._prepare_inputs(inputs)
        return packed_step.step(self, model, inputs, lambda part: one(model, part, num_items_in_batch))

    def compute_ref_log_probs(self, model: Any, inputs: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """TRL's, in as many passes as the token budget takes."""
        if self.shared.budget is None:
            return self._ask_reference(model, inputs)
        found = torch.empty((2, inputs["input_ids"].shape[0] // 2), device=inputs["input_ids"].device)
        for pack, part in packed_step.passes(self, inputs):
            found[:, list(pack.pairs)] = torch.stack(self._ask_reference(model, part)).to(found)
        return found[0], found[1]

    def _ask_reference(self, model: Any, inputs: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """What the reference thinks of a pass: [pairs] of chosen, [pairs] of rejected."""
        return super().compute_ref_log_probs(model, inputs)  # type: ignore[no-any-return]

    def _from_vault(self, sides: Sequence[tuple[Row, Row]]) -> dict[int, tuple[float, float]]:
        """Log-probabilities of chosen and rejected by the pair's place, where both are kept."""
        if self._vault is None:
            return {}
        values = self._vault.get([side for pair in sides for side in pair])
        return {
            place: (chosen, rejected)
            for place, (chosen, rejected) in enumerate(zip(values[::2], values[1::2], strict=True))
            if chosen is not None and rejected is not None
        }

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int]:
        del train_dataset
        return GroupedOrder(self._groups, seed=self.args.data_seed or self.args.seed)

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """Checkpoints need no card; the adapter gets its own (`rlhi_training.model_card`)."""

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        super()._save_checkpoint(model, trial)
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            folder = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
            (folder / COMPLETE).touch()


def _sides(pair: Mapping[str, Sequence[int]]) -> tuple[Row, Row]:
    return (pair["prompt_ids"], pair["chosen_ids"]), (pair["prompt_ids"], pair["rejected_ids"])


class GroupedOrder(Sampler[int]):
    """A new shuffled order each epoch, the same for the same seed, in which groups stay together.

    Args:
        groups: One key an item: its conversation, and its request in it. Conversations are shuffled; within one,
            requests are, and the items of one request are neighbours.
        seed: Seeds the shuffle together with the epoch.
    """

    def __init__(self, groups: Sequence[Group], *, seed: int) -> None:
        self._groups = groups
        self._seed = seed
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order comes next."""
        self._epoch = epoch

    def __len__(self) -> int:
        return len(self._groups)

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self._seed * 1_000_003 + self._epoch)
        order = torch.randperm(len(self._groups), generator=generator).tolist()
        members: dict[str, dict[str, list[int]]] = {}
        for index in order:
            conversation, request = self._groups[index]
            members.setdefault(conversation, {}).setdefault(request, []).append(index)
        return iter([index for requests in members.values() for group in requests.values() for index in group])
