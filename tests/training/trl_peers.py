"""TRL's own trainer on small random models of the architectures that people train, to compare ours with."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from rlhi_adapters.loading import load_causal_lm, load_tokenizer, quiet

SMALL = {
    "vocab_size": 400,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "initializer_range": 0.25,
}
WINDOW = 8
"""Shorter than the rows, so that it matters."""
LINEAR = {"rope_type": "linear", "factor": 2.0, "rope_theta": 10000.0}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
    "rope_theta": 500000.0,
}
ARCHITECTURES = {
    "smollm2": ("Llama", {"tie_word_embeddings": True}),
    "llama_3.1": ("Llama", {"rope_parameters": LLAMA3}),
    "llama_linear_rope": ("Llama", {"rope_parameters": LINEAR, "num_key_value_heads": 1}),
    "qwen2": ("Qwen2", {"tie_word_embeddings": True}),
    "qwen2_windows": ("Qwen2", {"use_sliding_window": True, "sliding_window": WINDOW, "max_window_layers": 1}),
    "qwen3": ("Qwen3", {"head_dim": 16}),
    "gemma_3": ("Gemma3Text", {"head_dim": 16, "sliding_window": WINDOW, "sliding_window_pattern": 2}),
    "mistral": ("Mistral", {"sliding_window": WINDOW}),
    "mistral_whole": ("Mistral", {"sliding_window": None}),
    "granite": ("Granite", {"logits_scaling": 4.0, "embedding_multiplier": 2.0}),
}


def build(name: str, folder: Path, tokenizer_dir: Path, **wider) -> Path:
    import transformers

    family, more = ARCHITECTURES[name]
    config = getattr(transformers, f"{family}Config")(
        **{**SMALL, **more, **wider}, pad_token_id=0, bos_token_id=1, eos_token_id=2
    )
    head = "Gemma3ForCausalLM" if family == "Gemma3Text" else f"{family}ForCausalLM"
    torch.manual_seed(3)
    with quiet():
        getattr(transformers, head)(config).save_pretrained(folder)
        load_tokenizer(tokenizer_dir).save_pretrained(folder)
    shutil.copy(tokenizer_dir / "chat_template.jinja", folder)
    return folder


def trainer(
    folder: Path, implementation: str, *, device: str = "cpu", four_bit: bool = False, checkpointing=False, **lora
):
    """TRL's own trainer with LoRA weights that are not zero; `lora` are options of its configuration."""
    from datasets import Dataset
    from peft import LoraConfig
    from trl import DPOConfig, DPOTrainer

    class OnIds(DPOTrainer):
        def _prepare_dataset(self, dataset, *_, **__):
            return dataset

    model = load_causal_lm(folder, dtype="float32", device=device, four_bit=four_bit)
    model.set_attn_implementation(implementation)
    with quiet():
        config = DPOConfig(
            output_dir=str(folder / "out"),
            max_length=None,
            gradient_checkpointing=checkpointing,
            loss_type=["sigmoid", "sft"],
            loss_weights=[1.0, 0.2],
            bf16=False,
            use_cpu=device == "cpu",
            report_to=[],
            disable_tqdm=True,
        )
        made = OnIds(
            model=model,
            args=config,
            train_dataset=Dataset.from_list(rows_of([((5, 6), (7,), (8,))])),
            processing_class=load_tokenizer(folder),
            peft_config=LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM", **lora),
        )
    generator = torch.Generator().manual_seed(1)
    for name, parameter in made.model.named_parameters():
        # B starts at zero, where A has no gradient.
        if "lora_" in name:
            parameter.data = (torch.randn(parameter.shape, generator=generator) * 0.1).to(parameter.device)
    return made


def rows_of(pairs):
    return [{"prompt_ids": list(p), "chosen_ids": list(c), "rejected_ids": list(r)} for p, c, r in pairs]


def loss_and_gradients(made, batch):
    made.model.train()
    made.model.zero_grad()
    loss = made.compute_loss(made.model, batch)
    loss.backward()
    return loss.item(), gradients_of(made)


def gradients_of(made):
    return {n: p.grad.clone() for n, p in made.model.named_parameters() if p.grad is not None}


def a_conversation(turns: int, *, persona: int = 9, seed: int = 0):
    """Persona, then turns whose originals are the next turns' past."""
    draw = torch.Generator().manual_seed(seed)

    def text(length):
        return tuple(torch.randint(3, 400, (length,), generator=draw).tolist())

    context, pairs = text(persona), []
    for turn in range(turns):
        context = (*context, *text(3 + turn))
        original, rewrite = text(5 + turn), text(4 + 2 * turn)
        pairs.append((context, rewrite, original))
        context = (*context, *original)
    return pairs


def assert_same(found, expected, *, tolerance: float = 1e-4) -> None:
    """Loss and gradients of two ways, as `loss_and_gradients` gives them, within a relative error."""
    assert found[0] == pytest.approx(expected[0], rel=tolerance / 10, abs=1e-6)
    assert found[1].keys() == expected[1].keys()
    whole = torch.cat([gradient.flatten() for gradient in expected[1].values()]).norm()
    for name, gradient in found[1].items():
        # Where a gradient is nothing but rounding, its error is measured against all of them.
        scale = torch.maximum(expected[1][name].norm(), 1e-3 * whole)
        assert ((gradient - expected[1][name]).norm() / scale) < tolerance, name
