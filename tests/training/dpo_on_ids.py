"""TRL's trainer and ours on the same token ids, in the same order, from the same adapter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig
from trl import DPOConfig, DPOTrainer

from rlhi_adapters.loading import load_causal_lm, load_tokenizer, quiet
from rlhi_training.tree.trl_trainer import GroupedOrder, TreeDPOTrainer

LEARNING_RATE = 5e-3


class StockTrainer(DPOTrainer):
    """TRL's own, but that it takes token ids, in the order that it is given."""

    groups: list[tuple[str, str]]

    def _prepare_dataset(self, dataset, *_, **__):
        return dataset

    def _get_train_sampler(self, train_dataset=None):
        return GroupedOrder(self.groups, seed=self.args.data_seed or self.args.seed)


def conversations(turns: list[int], *, vocabulary: int = 390, seed: int = 0) -> tuple[list[dict[str, list[int]]], list]:
    """Rows of token ids, and a group each: persona, then turns whose originals are the next turns' past."""
    draw = torch.Generator().manual_seed(seed)

    def text(length: int) -> list[int]:
        return torch.randint(3, vocabulary, (length,), generator=draw).tolist()

    rows, groups = [], []
    for number, count in enumerate(turns):
        context = text(9)
        for turn in range(count):
            context = context + text(3 + (number + turn) % 3)
            original, rewrite = text(1 + (turn + number) % 6), text(2 + number % 5)
            rows.append({"prompt_ids": context, "chosen_ids": rewrite, "rejected_ids": original})
            groups.append((str(number), str(turn)))
            context = context + original
    return rows, groups


def trainer(kind: str, folder: Path, base: Path, turns: list[int], **options: Any) -> DPOTrainer:
    """A trainer of a kind (``stock`` or ``tree``) with dropout off and every step logged."""
    rows, groups = conversations(turns)
    settings = {
        "output_dir": str(folder),
        "max_length": None,
        "gradient_checkpointing": False,
        "bf16": False,
        "use_cpu": True,
        "report_to": [],
        "disable_tqdm": True,
        "save_strategy": "no",
        "logging_steps": 1,
        "learning_rate": LEARNING_RATE,
        "dataloader_pin_memory": False,
        "seed": 3,
        "precompute_ref_log_probs": kind == "tree",
        **options,
    }
    shared = {
        "model": load_causal_lm(base, dtype="float32", device="cpu"),
        "train_dataset": Dataset.from_list(rows),
        "processing_class": load_tokenizer(base),
        "peft_config": LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM"),
    }
    with quiet():
        args = DPOConfig(**settings)
        # PEFT draws A from the global generator.
        torch.manual_seed(11)
        if kind == "stock":
            made = StockTrainer(args=args, **shared)
            made.groups = groups
            return made
        return TreeDPOTrainer(share_prefixes=True, groups=groups, on_reference=lambda _: None, args=args, **shared)


def train(made: DPOTrainer) -> list[float]:
    """Losses of all steps."""
    with quiet():
        made.train()
    return [entry["loss"] for entry in made.state.log_history if "loss" in entry]
