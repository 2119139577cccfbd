"""DPO whose reference is the adapter with which a round began, instead of the base."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from rlhi_training.tree.trl_trainer import TreeDPOTrainer


class RoundReferenceTrainer(TreeDPOTrainer):
    """`TreeDPOTrainer` that asks the adapter as it is when the trainer is made for the reference log-probabilities.

    Args:
        before: Checkpoint whose adapter that is; None: a fresh one, which is the base.
        options: As for `TreeDPOTrainer`.
    """

    def __init__(self, *, before: Path | None, **options: Any) -> None:
        self._before = before
        super().__init__(**options)

    def _precompute_ref_logps(self, dataset: Any, name: str, batch_size: int) -> Any:
        if self._before is not None:
            from peft import set_peft_model_state_dict
            from safetensors.torch import load_file

            set_peft_model_state_dict(self.model, load_file(self._before / "adapter_model.safetensors"))
        return super()._precompute_ref_logps(dataset, name, batch_size)

    def _ask_reference(self, model: Any, inputs: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """As TRL's, with the adapter on."""
        labels = inputs["input_ids"].masked_fill(inputs["completion_mask"] == 0, -100)
        training = model.training
        model.eval()
        with torch.no_grad(), self.accelerator.autocast():
            output = model(
                input_ids=inputs["input_ids"],
                attention_mask=inputs["attention_mask"],
                labels=labels,
                use_cache=False,
                fused_lm_head=True,
            )
        model.train(training)
        chosen, rejected = output.log_probs.sum(dim=1).chunk(2, dim=0)
        return chosen, rejected
