"""How much faster is DPO training when equal prefixes are computed once? TRL's own forward pass against ours.

Both train the same LoRA on the same pairs with TRL's trainer and precomputed reference log-probabilities (TRL's best
setting); only the forward pass differs. The model has SmolLM2-135M's shape and random weights, which cost the same as
trained ones. One timed step is forward, backward and optimiser.

    python benchmarks/dpo.py --quick --json dpo.json
"""

from __future__ import annotations

import json
import os
import platform
import random
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer

from rlhi_plugin import terminal

Pair = dict[str, list[int]]

TARGETS = {"own_prompts_speedup": 3.0, "four_turns_speedup": 4.0}
"""Lower bounds, ours, for CPUs, where TRL also scores every prompt position."""
SECONDS_PER_PAIR_TARGET = 0.65
"""Upper bound for prompts of 80 and answers of 55 tokens on 2 cores with bfloat16 (full size only)."""
_VOCABULARY = 49152


@dataclass(frozen=True)
class Size:
    """How large a run is."""

    layers: int
    pairs: int
    repeats: int


FULL, QUICK = Size(layers=30, pairs=8, repeats=5), Size(layers=8, pairs=4, repeats=3)


def own_prompts(pairs: int, seed: int = 0) -> list[Pair]:
    """Pairs whose prompts (80 tokens) share only the first 40, the frame that personas are rendered into."""
    draw = random.Random(seed)
    frame = _tokens(draw, 40)
    return [
        {
            "prompt_ids": frame + _tokens(draw, draw.randint(30, 50)),
            "chosen_ids": _tokens(draw, draw.randint(40, 70)),
            "rejected_ids": _tokens(draw, draw.randint(40, 70)),
        }
        for _ in range(pairs)
    ]


def four_turns(pairs: int, seed: int = 0) -> list[Pair]:
    """Conversations of four turns: persona 80, user 30, answers 55 tokens; originals are the next turns' past."""
    draw = random.Random(seed)
    rows: list[Pair] = []
    while len(rows) < pairs:
        context = _tokens(draw, 80)
        for _ in range(4):
            context = context + _tokens(draw, 30)
            original = _tokens(draw, draw.randint(40, 70))
            rewrite = _tokens(draw, draw.randint(40, 70))
            rows.append({"prompt_ids": context, "chosen_ids": rewrite, "rejected_ids": original})
            context = context + original
    return rows[:pairs]


def _tokens(draw: random.Random, n: int) -> list[int]:
    return [draw.randrange(3, _VOCABULARY) for _ in range(n)]


class Side:
    """A trainer whose steps are timed."""

    def __init__(self, rows: Sequence[Pair], size: Size, *, shared: bool, folder: Path) -> None:
        import torch
        from datasets import Dataset
        from peft import LoraConfig
        from trl import DPOConfig

        from rlhi_adapters.loading import pick_device, pick_dtype, quiet
        from rlhi_training.tree.trl_trainer import TreeDPOTrainer

        device = pick_device()
        half = pick_dtype("auto", device) == "bfloat16"
        with quiet():
            config = DPOConfig(
                output_dir=str(folder),
                per_device_train_batch_size=len(rows),
                precompute_ref_log_probs=True,
                loss_type=["sigmoid", "sft"],
                loss_weights=[1.0, 0.2],
                max_length=None,
                gradient_checkpointing=False,
                bf16=half,
                use_cpu=device == "cpu",
                dataloader_pin_memory=False,
                report_to=[],
                disable_tqdm=True,
            )
            self.trainer = TreeDPOTrainer(
                share_prefixes=shared,
                groups=[("", "") for _ in rows],
                on_reference=lambda _: None,
                model=_model(size, torch.bfloat16 if half else torch.float32),
                args=config,
                train_dataset=Dataset.from_list(list(rows)),
                processing_class=_tokenizer(),
                peft_config=LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"),
            )
        self.trainer.model.train()
        self.batch = self.trainer.data_collator(list(self.trainer.train_dataset))
        trained = [parameter for parameter in self.trainer.model.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.AdamW(trained, lr=1e-4)

    def step(self) -> tuple[float, float]:
        """One step: seconds, loss."""
        import torch

        started = time.perf_counter()
        # What the trainer's own training step does, without its bookkeeping of accumulated batches.
        inputs = self.trainer._prepare_inputs(dict(self.batch))  # noqa: SLF001 - see above
        with self.trainer.compute_loss_context_manager():
            loss = self.trainer.compute_loss(self.trainer.model, inputs)
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return time.perf_counter() - started, loss.item()


def _model(size: Size, dtype: Any) -> Any:
    """SmolLM2-135M's shape with random weights, equal for equal sizes."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=_VOCABULARY,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=size.layers,
        num_attention_heads=9,
        num_key_value_heads=3,
        tie_word_embeddings=True,
        max_position_embeddings=8192,
    )
    return LlamaForCausalLM(config).to(dtype)


def _tokenizer() -> Any:
    """Only its pad token is used: the pairs are token ids already."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    pad, eos, unk = "<pad>", "<eos>", "<unk>"
    core = Tokenizer(models.WordLevel({pad: 0, eos: 1, unk: 2}, unk_token=unk))
    return PreTrainedTokenizerFast(tokenizer_object=core, pad_token=pad, eos_token=eos, unk_token=unk)


def compare(name: str, rows: list[Pair], size: Size) -> dict[str, float]:
    """Time both sides in turn and return the figures, each name beginning with `name`."""
    with tempfile.TemporaryDirectory() as folder:
        sides = {label: Side(rows, size, shared=label == "tree", folder=Path(folder)) for label in ("trl", "tree")}
        seconds: dict[str, list[float]] = {label: [] for label in sides}
        losses: dict[str, float] = {}
        with terminal.progress(name.replace("_", " "), size.repeats * 2 + 2) as advance:
            for repeat in range(size.repeats + 1):
                for label, side in sides.items():
                    spent, loss = side.step()
                    advance(1)
                    losses.setdefault(label, loss)
                    # The first step of each side warms up allocators and kernels.
                    if repeat:
                        seconds[label].append(spent / len(rows))
    figures = {f"{name}_{label}_s_per_pair": statistics.median(values) for label, values in seconds.items()}
    for label, values in seconds.items():
        figures |= {f"{name}_{label}_s_per_pair_min": min(values), f"{name}_{label}_s_per_pair_max": max(values)}
    ratios = [trl / tree for trl, tree in zip(seconds["trl"], seconds["tree"], strict=True)]
    shared = sides["tree"].trainer.shared
    return figures | {
        f"{name}_speedup": statistics.median(ratios),
        f"{name}_speedup_min": min(ratios),
        f"{name}_speedup_max": max(ratios),
        f"{name}_token_ratio": shared.tokens_in / shared.tokens_computed,
        f"{name}_loss_difference": abs(losses["trl"] - losses["tree"]),
    }


def machine() -> dict[str, str | int]:
    """What the figures were measured on."""
    import torch

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    packages = {name: version(name) for name in ("torch", "transformers", "trl", "peft")}
    return {
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count() or 1,
        "threads": torch.get_num_threads(),
        "device": device,
        **packages,
    }


def main(
    quick: Annotated[bool, typer.Option("--quick", help="Smaller sizes, at most 45 s on two cores.")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the figures to this file.")] = None,
) -> None:
    """Compare TRL's forward pass with prefix trees.

    Example: python benchmarks/dpo.py --quick
    """
    size = QUICK if quick else FULL
    figures = compare("own_prompts", own_prompts(size.pairs), size)
    figures |= compare("four_turns", four_turns(size.pairs), size)
    met = {name: figures[name] >= bound for name, bound in TARGETS.items()}
    targets = dict(TARGETS)
    if not quick:
        targets["own_prompts_tree_s_per_pair"] = SECONDS_PER_PAIR_TARGET
        met["own_prompts_tree_s_per_pair"] = figures["own_prompts_tree_s_per_pair"] <= SECONDS_PER_PAIR_TARGET
    rows = [_row(name, figures) for name in ("own_prompts", "four_turns")]
    columns = ("pairs", "TRL, s/pair", "trees, s/pair", "speed-up (min-max)", "tokens, TRL/trees", "target")
    terminal.stdout.print(terminal.table(f"DPO, {size.layers} layers, {size.pairs} pairs a step", columns, rows))
    for name, reached in met.items():
        terminal.stdout.print(f"{name}: {figures[name]:.2f}, target {targets[name]}: {'met' if reached else 'missed'}")
    if json_file is not None:
        body = {"figures": figures, "targets": targets, "met": met, "machine": machine()}
        json_file.write_text(json.dumps(body, indent=2) + "\n", "utf-8")


def _row(name: str, figures: dict[str, float]) -> list[str]:
    low, high = figures[f"{name}_speedup_min"], figures[f"{name}_speedup_max"]
    return [
        name.replace("_", " "),
        f"{figures[f'{name}_trl_s_per_pair']:.3f}",
        f"{figures[f'{name}_tree_s_per_pair']:.3f}",
        f"{figures[f'{name}_speedup']:.2f} ({low:.2f}-{high:.2f})",
        f"{figures[f'{name}_token_ratio']:.2f}",
        f">= {TARGETS[f'{name}_speedup']}",
    ]


if __name__ == "__main__":
    typer.run(main)
