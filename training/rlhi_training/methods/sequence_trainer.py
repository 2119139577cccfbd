"""TRL's `SFTTrainer` on prefix trees, for answers that stand alone: SFT on chosen ones, and self-distillation.

Both take token ids, share the beginnings of a batch (`rlhi_training.tree`), keep a conversation's rows together, and
leave optimiser, logging and checkpoints as they are there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import fields
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch.utils.data import Sampler
from transformers import TrainingArguments
from trl import SFTConfig, SFTTrainer
from trl.trainer.utils import FusedCausalLMOutput

from rlhi_training.train_options import TrainSection
from rlhi_training.tree.forward import Scope, SharedForward, install
from rlhi_training.tree.trl_trainer import COMPLETE, Group, GroupedOrder

_IGNORED = -100
_TEACHER = "teacher_log_probs"


class TreeSFTTrainer(SFTTrainer):  # type: ignore[misc]  # TRL publishes no types
    """SFT on answers: the mean negative log-likelihood of a step's answer tokens, prompts left out.

    Args:
        share_prefixes: False runs TRL's own forward pass.
        groups: One key a row; see `GroupedOrder`.
        on_reference: Called with the number of rows that need no pass of a reference any more.
        vault: For `TreeDPOTrainer`'s signature; there is no reference to keep.
        scope: Of the prefixes; rows are no pairs, so it is always the batch.
        tokens_per_batch: Of DPO's; None here (`rlhi_training.train_options.TrainSection.token_budget`).
        reference: Of DPO's.
        check_parity: Whether the first batch is compared with TRL's own pass; see `SharedForward`.
        args: TRL's settings for DPO, of which everything that a `TrainingArguments` has is taken.
        train: The recipe's section.
        options: TRL's own arguments. The data set has ``prompt_ids`` and ``answer_ids``.
    """

    train_dataset: Any

    def __init__(
        self,
        *,
        share_prefixes: bool,
        groups: Sequence[Group],
        on_reference: Callable[[int], None],
        args: Any,
        train: TrainSection,
        vault: Any = None,
        scope: Scope = "batch",
        tokens_per_batch: int | None = None,
        reference: str = "start",
        check_parity: bool = True,
        **options: Any,
    ) -> None:
        del vault, scope, tokens_per_batch, reference
        self.shared = SharedForward(reason=None if share_prefixes else "train.share_prefixes is off")
        self.reference_reused = 0
        self._groups = groups
        self._on_reference = on_reference
        self._recipe = train
        tokenizer = options["processing_class"]
        super().__init__(args=_sft_config(args), data_collator=Collator(tokenizer.pad_token_id), **options)
        if self.shared.reason is None:
            self.shared = install(self.model.get_base_model(), FusedCausalLMOutput)
            if not check_parity:
                self.shared.trust()
        self._ask_reference()

    def _ask_reference(self) -> None:
        self._on_reference(len(self.train_dataset))

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int]:
        del train_dataset
        return GroupedOrder(self._groups, seed=self.args.data_seed or self.args.seed)

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """Checkpoints need no card; the adapter gets its own (`rlhi_training.model_card`)."""

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        super()._save_checkpoint(model, trial)
        (Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}" / COMPLETE).touch()


class SelfDistillationTrainer(TreeSFTTrainer):
    """Follow-up self-distillation (arXiv 2603.12273).

    Loss: -1/N sum_i 1/T_i sum_t A_it log p(y_it | x_i, y_i<t) over N answers of T_i tokens, where
    A_it = log q(y_it | x_i, follow-up_i, y_i<t) - log p(y_it | x_i, y_i<t) has no gradient and is held within
    `TrainSection.advantage_clip`, and q is `TrainSection.teacher`. So a token gets likelier as long as the teacher
    finds it likelier. The mean over each answer's tokens, and then over answers, is what the paper's authors compute.

    Args:
        options: As for `TreeSFTTrainer`. The data set has ``teacher_prompt_ids``, too.
    """

    metrics: ClassVar = ("advantage/mean", "advantage/size", "advantage/positive", "advantage/clipped")
    """Mean and mean absolute advantage before clipping, in nats a token; share of tokens above 0; of clipped ones."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        # The loss is a mean over rows, which the training loop divides over the micro-batches of a step.
        self.model_accepts_loss_kwargs = False

    def _ask_reference(self) -> None:
        """What a teacher that stands still thinks, once, before the first step."""
        teacher = self._recipe.teacher
        self.data_collator.teacher = teacher == "current"
        if teacher == "current":
            self._on_reference(len(self.train_dataset))
            return
        rows, size = list(self.train_dataset), 4 * self.args.per_device_train_batch_size
        # Neighbours in this order share most.
        order = sorted(range(len(rows)), key=lambda i: (self._groups[i], len(rows[i]["teacher_prompt_ids"])))
        known: dict[int, list[float]] = {}
        for start in range(0, len(order), size):
            some = order[start : start + size]
            batch = self._prepare_inputs(padded([teacher_row(rows[i]) for i in some], self.data_collator.pad))
            with self.model.disable_adapter() if teacher == "base" else nullcontext():
                flat = self._teacher_pass(self.model, batch).cpu()
            parts = torch.split(flat, [len(rows[i]["answer_ids"]) for i in some])
            known |= {i: part.tolist() for i, part in zip(some, parts, strict=True)}
            self._on_reference(len(some))
        self.train_dataset = self.train_dataset.add_column(_TEACHER, [known[i] for i in range(len(rows))])

    def _teacher_pass(self, model: Any, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Log-probabilities of all answer tokens of a batch, row after row, without gradient or dropout."""
        training = model.training
        model.eval()
        try:
            with torch.no_grad(), self.accelerator.autocast():
                output = model(**batch, use_cache=False, fused_lm_head=True)
        finally:
            model.train(training)
        log_probs: torch.Tensor = output.log_probs[output.label_mask]
        return log_probs.float()

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The loss of a micro-batch; see the class. `num_items_in_batch` counts tokens, and rows count here."""
        del num_items_in_batch
        rows = {name: inputs[name] for name in ("input_ids", "attention_mask", "labels")}
        teacher = inputs[_TEACHER] if _TEACHER in inputs else self._teacher_pass(model, inputs["teacher"])
        output = model(**rows, use_cache=False, fused_lm_head=True)
        mask = output.label_mask
        log_probs = output.log_probs[mask].float()
        advantage = teacher - log_probs.detach()
        clip = self._recipe.advantage_clip
        share = 1.0 / (mask.sum(dim=1, keepdim=True).clamp(min=1) * mask.shape[0])
        loss = -(advantage.clamp(-clip, clip) * log_probs * share.expand_as(mask)[mask]).sum()
        self._note(advantage, output, rows)
        return (loss, output) if return_outputs else loss

    def _note(self, advantage: torch.Tensor, output: Any, rows: Mapping[str, torch.Tensor]) -> None:
        mode = "train" if self.model.training else "eval"
        mask, clip = output.label_mask, self._recipe.advantage_clip
        self._total_train_tokens += int(rows["attention_mask"].sum()) if mode == "train" else 0
        values = (
            advantage.mean(),
            advantage.abs().mean(),
            (advantage > 0).float().mean(),
            (advantage.abs() > clip).float().mean(),
            output.entropy.detach()[mask].mean(),
            output.is_top1[mask].float().mean(),
        )
        for name, value in zip((*self.metrics, "entropy", "mean_token_accuracy"), values, strict=True):
            self._metrics[mode][name].append(float(self.accelerator.gather_for_metrics(value).mean()))
        self._metrics[mode]["num_tokens"] = [self._total_train_tokens]


class Collator:
    """Rows of token ids become a right-padded batch in TRL's layout; prompts are not scored.

    Args:
        pad: Token id of padding.
    """

    def __init__(self, pad: int) -> None:
        self.pad = pad
        self.teacher = False
        """Whether a batch holds the teacher's rows, too."""

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """``input_ids``, ``attention_mask`` and ``labels``, [rows, length] each, and what is known of the teacher."""
        batch: dict[str, Any] = padded(rows, self.pad)
        if self.teacher:
            batch["teacher"] = padded([teacher_row(row) for row in rows], self.pad)
        elif _TEACHER in rows[0]:
            batch[_TEACHER] = torch.tensor([value for row in rows for value in row[_TEACHER]])
        return batch


def teacher_row(row: Mapping[str, Any]) -> dict[str, list[int]]:
    """The same answer under what the teacher sees."""
    return {"prompt_ids": row["teacher_prompt_ids"], "answer_ids": row["answer_ids"]}


def padded(rows: Sequence[Mapping[str, Any]], pad: int) -> dict[str, torch.Tensor]:
    """Prompt and answer end to end, padded on the right."""
    ids = [[*row["prompt_ids"], *row["answer_ids"]] for row in rows]
    width = max(map(len, ids))
    batch = {
        "input_ids": torch.full((len(rows), width), pad),
        "attention_mask": torch.zeros((len(rows), width), dtype=torch.long),
        "labels": torch.full((len(rows), width), _IGNORED),
    }
    for number, (row, tokens) in enumerate(zip(rows, ids, strict=True)):
        line = torch.tensor(tokens)
        batch["input_ids"][number, : len(tokens)] = line
        batch["attention_mask"][number, : len(tokens)] = 1
        start = len(row["prompt_ids"])
        batch["labels"][number, start : len(tokens)] = line[start:]
    return batch


def _sft_config(args: Any) -> Any:
    """TRL's settings for SFT, as far as those for DPO say them."""
    if isinstance(args, SFTConfig):
        return args
    kept = {entry.name: getattr(args, entry.name) for entry in fields(TrainingArguments) if entry.init}
    return SFTConfig(
        **kept | {"remove_unused_columns": False},
        max_length=None,
        packing=False,
        dataset_kwargs={"skip_prepare_dataset": True},
    )
