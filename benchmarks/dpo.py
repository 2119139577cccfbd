"""How much faster is DPO training when equal prefixes are computed once? TRL's own trainer against ours.

All sides train the same LoRA on the same pairs with TRL's losses: TRL as it comes, TRL at its best (reference
log-probabilities computed before, no gradient checkpointing, the micro-batch that is fastest here), prefix sharing
within a pair (the peer is arXiv 2410.20305; this is ours with conversations kept apart), and conversation trees. Random
weights of the model's shape cost the same as trained ones. One timed step is forward, backward and optimiser over all
pairs; sides take turns. Peak memory is measured in a process of its own for each side.

    python benchmarks/dpo.py --quick --json dpo.json
"""

from __future__ import annotations

import json
import math
import os
import platform
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer

from rlhi_plugin import terminal

Pair = dict[str, list[int]]

CPU_TARGETS = {"natural_speedup": 3.0, "turns_4_speedup": 4.0, "turns_8_speedup": 6.0, "turns_4_over_pairwise": 1.5}
CUDA_TARGETS = {"natural_speedup": 2.0, "turns_4_speedup": 2.5, "turns_8_speedup": 4.0, "turns_4_over_pairwise": 1.5}
"""Lower bounds, ours, as ratios to TRL's best. On CPUs TRL also scores every prompt position."""
CPU_MEMORY, CUDA_MEMORY = 0.5, 1.0
"""Upper bounds, ours, of peak memory over TRL's best at four turns."""

_USER_TOKENS = (6, 7, 11, 15, 21, 27, 37, 55, 97, 394)
_ANSWER_TOKENS = (2, 55, 114, 184, 277, 371, 489, 594, 709, 953)
_TURNS = (1, 2, 2, 2, 3, 3, 4, 4, 5, 8)
"""Lower ends of the ten tenths of 400 WildChat conversations of 3 to 50 messages (allenai/WildChat-1M, ODC-BY), tokens
by SmolLM2's tokenizer: later user messages, answers, and user messages a conversation."""
_PERSONA, _USER, _ANSWER = 150, 50, 250
"""Tokens in conversations of a fixed number of turns (ours)."""


@dataclass(frozen=True)
class Shape:
    """A model's shape."""

    name: str
    vocabulary: int
    hidden: int
    intermediate: int
    layers: int
    heads: int
    key_value_heads: int
    tied: bool


SMOLLM2 = Shape("SmolLM2-135M", 49152, 576, 1536, 30, 9, 3, tied=True)
LLAMA_8B = Shape("Llama-3.1-8B", 128256, 4096, 14336, 32, 32, 8, tied=False)


@dataclass(frozen=True)
class Size:
    """How large a run is.

    Attributes:
        layers: Of the model; None is all of them.
        shrink: Divides every length.
        pairs: In a step, at least.
        repeats: Timed steps of each side.
        micro_batches: That TRL is tried with; the fastest counts.
    """

    layers: int | None
    shrink: int
    pairs: int
    repeats: int
    micro_batches: tuple[int, ...]


FULL = Size(layers=None, shrink=1, pairs=8, repeats=3, micro_batches=(1, 2, 8))
QUICK = Size(layers=4, shrink=8, pairs=4, repeats=2, micro_batches=(4,))
QUICK_WORKLOADS = ("turns_4", "natural")
WORKLOADS = ("turns_1", "turns_2", "turns_4", "turns_8", "natural")


def workload(name: str, size: Size, vocabulary: int, seed: int = 0) -> list[Pair]:
    """Pairs of whole conversations: persona, then turns whose rejected originals are the next turns' past."""
    draw = random.Random(seed)
    rows: list[Pair] = []
    while len(rows) < size.pairs:
        turns = draw.choice(_TURNS) if name == "natural" else int(name.removeprefix("turns_"))
        context = _tokens(draw, _PERSONA // size.shrink, vocabulary)
        for _ in range(turns):
            context = context + _tokens(draw, _length(draw, name, _USER, _USER_TOKENS, size), vocabulary)
            original, rewrite = (
                _tokens(draw, _length(draw, name, _ANSWER, _ANSWER_TOKENS, size), vocabulary) for _ in range(2)
            )
            rows.append({"prompt_ids": context, "chosen_ids": rewrite, "rejected_ids": original})
            context = context + original
    return rows


def _length(draw: random.Random, name: str, fixed: int, tenths: Sequence[int], size: Size) -> int:
    """Tokens of one message, at least 2."""
    if name != "natural":
        return max(2, int(fixed * draw.uniform(0.8, 1.2)) // size.shrink)
    tenth = draw.randrange(len(tenths))
    # The longest tenth ends where it begins: a few texts of tens of thousands of tokens would be all that is measured.
    upper = tenths[min(tenth + 1, len(tenths) - 1)]
    return max(2, draw.randint(tenths[tenth], upper) // size.shrink)


def _tokens(draw: random.Random, n: int, vocabulary: int) -> list[int]:
    return [draw.randrange(3, vocabulary) for _ in range(n)]


@dataclass(frozen=True)
class Method:
    """A way to train.

    Attributes:
        sharing: What shares prefixes: nothing (TRL), ``pair`` or ``batch``.
        micro_batch: Pairs in one forward pass; None is all of a step.
        as_it_comes: TRL's own defaults: the reference at every step, and activations computed twice.
    """

    sharing: str | None
    micro_batch: int | None = None
    as_it_comes: bool = False


class Side:
    """A trainer whose steps are timed."""

    def __init__(self, rows: Sequence[Pair], shape: Shape, size: Size, method: Method, folder: Path) -> None:
        import torch
        from datasets import Dataset
        from peft import LoraConfig
        from trl import DPOConfig

        from rlhi_adapters.loading import pick_device, pick_dtype, quiet
        from rlhi_training.tree.trl_trainer import TreeDPOTrainer

        device = pick_device()
        half = pick_dtype("auto", device) == "bfloat16"
        micro = method.micro_batch or len(rows)
        with quiet():
            config = DPOConfig(
                output_dir=str(folder),
                per_device_train_batch_size=micro,
                precompute_ref_log_probs=not method.as_it_comes,
                loss_type=["sigmoid", "sft"],
                loss_weights=[1.0, 0.2],
                max_length=None,
                gradient_checkpointing=method.as_it_comes,
                bf16=half,
                use_cpu=device == "cpu",
                dataloader_pin_memory=False,
                report_to=[],
                disable_tqdm=True,
            )
            self.trainer = TreeDPOTrainer(
                share_prefixes=method.sharing is not None,
                scope="pair" if method.sharing == "pair" else "batch",
                groups=[("", "") for _ in rows],
                on_reference=lambda _: None,
                model=_model(shape, size, torch.bfloat16 if half else torch.float32).to(device),
                args=config,
                train_dataset=Dataset.from_list(list(rows)),
                processing_class=_tokenizer(),
                peft_config=LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"),
            )
        self.trainer.model.train()
        data = list(self.trainer.train_dataset)
        self._shares = [data[start : start + micro] for start in range(0, len(data), micro)]
        self._batches = [self.trainer.data_collator(some) for some in self._shares]
        trained = [parameter for parameter in self.trainer.model.parameters() if parameter.requires_grad]
        self._optimizer = torch.optim.AdamW(trained, lr=1e-4)

    def step(self) -> tuple[float, float]:
        """One step over all pairs: seconds, and its loss as a mean over pairs."""
        import torch

        started = time.perf_counter()
        total = 0.0
        pairs = sum(map(len, self._shares))
        for some, batch in zip(self._shares, self._batches, strict=True):
            # What the trainer's own training step does, without its bookkeeping of accumulated batches.
            inputs = self.trainer._prepare_inputs(dict(batch))  # noqa: SLF001 - see above
            with self.trainer.compute_loss_context_manager():
                loss = self.trainer.compute_loss(self.trainer.model, inputs) * (len(some) / pairs)
            loss.backward()
            total += loss.item()
        self._optimizer.step()
        self._optimizer.zero_grad()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return time.perf_counter() - started, total


def _model(shape: Shape, size: Size, dtype: Any) -> Any:
    """A shape with random weights, equal for equal sizes."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=size.layers or shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.key_value_heads,
        tie_word_embeddings=shape.tied,
        max_position_embeddings=131072,
    )
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        default = torch.get_default_dtype()
        torch.set_default_dtype(dtype)
        try:
            return LlamaForCausalLM(config)
        finally:
            torch.set_default_dtype(default)


def _tokenizer() -> Any:
    """Only its pad token is used: the pairs are token ids already."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    pad, eos, unk = "<pad>", "<eos>", "<unk>"
    core = Tokenizer(models.WordLevel({pad: 0, eos: 1, unk: 2}, unk_token=unk))
    return PreTrainedTokenizerFast(tokenizer_object=core, pad_token=pad, eos_token=eos, unk_token=unk)


def methods(size: Size) -> dict[str, Method]:
    """All sides by name; those of TRL at its best differ in the micro-batch."""
    best = {f"trl_best_{micro}": Method(None, micro_batch=micro) for micro in size.micro_batches}
    return {
        "trl_default": Method(None, micro_batch=size.micro_batches[-1], as_it_comes=True),
        **best,
        "pairwise": Method("pair"),
        "tree": Method("batch"),
    }


def compare(name: str, shape: Shape, size: Size, advance: Callable[[int], None]) -> dict[str, float]:
    """Time all sides in turn and return the figures, each name beginning with `name`."""
    rows = workload(name, size, shape.vocabulary)
    with tempfile.TemporaryDirectory() as folder:
        sides = {label: Side(rows, shape, size, how, Path(folder)) for label, how in methods(size).items()}
        seconds: dict[str, list[float]] = {label: [] for label in sides}
        losses: dict[str, float] = {}
        for repeat in range(size.repeats + 1):
            for label, side in sides.items():
                spent, loss = side.step()
                advance(1)
                losses.setdefault(label, loss)
                # The first step of each side warms up allocators and kernels.
                if repeat:
                    seconds[label].append(spent)
    best = min((label for label in sides if label.startswith("trl_best")), key=lambda label: min(seconds[label]))
    useful = sum(len(row["chosen_ids"]) + len(row["rejected_ids"]) for row in rows)
    figures: dict[str, float] = {}
    for label, of in (("trl_default", "trl_default"), ("trl_best", best), ("pairwise", "pairwise"), ("tree", "tree")):
        each = [value / len(rows) for value in seconds[of]]
        figures[f"{name}_{label}_s_per_pair"] = statistics.median(each)
        figures |= {f"{name}_{label}_s_per_pair_min": min(each), f"{name}_{label}_s_per_pair_max": max(each)}
        figures[f"{name}_{label}_answer_tokens_per_s"] = useful / statistics.median(seconds[of])
    figures |= _ratio(f"{name}_speedup", seconds[best], seconds["tree"])
    figures |= _ratio(f"{name}_over_default", seconds["trl_default"], seconds["tree"])
    figures |= _ratio(f"{name}_over_pairwise", seconds["pairwise"], seconds["tree"])
    shared = sides["tree"].trainer.shared
    if shared.reason is not None:
        raise typer.BadParameter(f"prefixes were not shared: {shared.reason}")
    work = _matmul_work(shape, size) * shared.tokens_computed / (size.repeats + 2)
    figures[f"{name}_tree_matmul_share"] = work / statistics.median(seconds["tree"]) / matmul_rate()
    return figures | {
        f"{name}_token_ratio": shared.tokens_in / shared.tokens_computed,
        f"{name}_pairs": float(len(rows)),
        f"{name}_micro_batch": float(best.rpartition("_")[2]),
        f"{name}_loss_difference": abs(losses[best] - losses["tree"]),
    }


def _ratio(key: str, slower: Sequence[float], faster: Sequence[float]) -> dict[str, float]:
    ratios = [a / b for a, b in zip(slower, faster, strict=True)]
    return {key: statistics.median(ratios), f"{key}_min": min(ratios), f"{key}_max": max(ratios)}


def _matmul_work(shape: Shape, size: Size) -> float:
    """Floating-point operations a token in the linear layers, forward and back to the activations; no attention."""
    per_head = shape.hidden // shape.heads
    layer = 2 * shape.hidden**2 + 2 * shape.hidden * shape.key_value_heads * per_head
    layer += 3 * shape.hidden * shape.intermediate
    return 4.0 * layer * (size.layers or shape.layers)


def matmul_rate() -> float:
    """Floating-point operations a second of a large matrix product in the format that is trained in."""
    import torch

    from rlhi_adapters.loading import pick_device, pick_dtype

    device = pick_device()
    dtype = getattr(torch, pick_dtype("auto", device))
    n = 8192 if device == "cuda" else 1024
    a, b = (torch.randn(n, n, device=device).to(dtype) for _ in range(2))
    seconds = []
    for _ in range(8):
        started = time.perf_counter()
        a @ b
        if device == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
    return 2.0 * n**3 / statistics.median(seconds[2:])


def peaks(name: str, size: Size, best: int, advance: Callable[[int], None]) -> dict[str, float]:
    """Peak memory in MiB that one step adds to a loaded model, of each side in a process of its own."""
    figures = {}
    for label, how in (("trl_best", f"trl_best_{best}"), ("pairwise", "pairwise"), ("tree", "tree")):
        command = [sys.executable, __file__, "--peak-of", f"{name} {how}", *(["--quick"] if size == QUICK else [])]
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - this very file
        if done.returncode:
            raise typer.BadParameter(f"measuring the memory of {how} failed: {done.stderr[-2000:]}")
        figures[f"{name}_{label}_peak_mib"] = float(done.stdout.split()[-1])
        advance(1)
    figures[f"{name}_memory_ratio"] = figures[f"{name}_tree_peak_mib"] / figures[f"{name}_trl_best_peak_mib"]
    return figures


def peak_of(what: str, shape: Shape, size: Size) -> float:
    """MiB that two steps of one side add to what its model takes."""
    import torch

    name, label = what.split()
    with tempfile.TemporaryDirectory() as folder:
        side = Side(workload(name, size, shape.vocabulary), shape, size, methods(size)[label], Path(folder))
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            side.step()
            side.step()
            return (torch.cuda.max_memory_allocated() - before) / 2**20
        before_mib = _resident_mib()
        side.step()
        side.step()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - before_mib


def _resident_mib() -> float:
    return int(Path("/proc/self/statm").read_text("ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def machine() -> dict[str, str | int]:
    """What the figures were measured on."""
    import torch

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    packages = {name: version(name) for name in ("torch", "transformers", "trl", "peft")}
    return {
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count() or 1,
        "threads": torch.get_num_threads(),
        "load": f"{os.getloadavg()[0]:.1f}",
        "device": device,
        **packages,
    }


def main(
    quick: Annotated[bool, typer.Option("--quick", help="Smaller sizes, at most 45 s on two cores.")] = False,
    only: Annotated[list[str] | None, typer.Option("--only", help=f"Some of: {', '.join(WORKLOADS)}.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the figures to this file.")] = None,
    peak: Annotated[str | None, typer.Option("--peak-of", hidden=True, help="One side's memory.")] = None,
) -> None:
    """Compare TRL's trainer with sharing within pairs and with conversation trees.

    Example: python benchmarks/dpo.py --quick
    """
    import torch

    cuda = torch.cuda.is_available()
    size, shape = QUICK if quick else FULL, LLAMA_8B if cuda and not quick else SMOLLM2
    if peak is not None:
        typer.echo(f"{peak_of(peak, shape, size):.1f}")
        return
    names = [name for name in WORKLOADS if name in (only or (QUICK_WORKLOADS if quick else WORKLOADS))]
    figures: dict[str, float] = {}
    steps = len(names) * len(methods(size)) * (size.repeats + 1) + 3
    with terminal.progress("DPO steps", steps) as advance:
        for name in names:
            figures |= compare(name, shape, size, advance)
        memory = "turns_4" if "turns_4" in names else names[-1]
        figures |= peaks(memory, size, int(figures[f"{memory}_micro_batch"]), advance)
    targets = {name: bound for name, bound in (CUDA_TARGETS if cuda else CPU_TARGETS).items() if name in figures}
    met = {name: figures[name] >= bound for name, bound in targets.items()}
    bound = CUDA_MEMORY if cuda else CPU_MEMORY
    targets[f"{memory}_memory_ratio"] = bound
    met[f"{memory}_memory_ratio"] = figures[f"{memory}_memory_ratio"] <= bound
    _show(names, memory, figures, shape, size)
    for name, reached in met.items():
        terminal.stdout.print(f"{name}: {figures[name]:.2f}, target {targets[name]}: {'met' if reached else 'missed'}")
    if json_file is not None:
        body = {"figures": figures, "targets": targets, "met": met, "machine": machine()}
        json_file.write_text(json.dumps(body, indent=2) + "\n", "utf-8")


def _show(names: Sequence[str], memory: str, figures: dict[str, float], shape: Shape, size: Size) -> None:
    columns = (
        "conversations", "pairs", "TRL default", "TRL best", "pairwise", "trees", "over TRL's best", "over pairwise",
        "tokens", "matmul rate",
    )  # fmt: skip
    rows = [
        (
            name.replace("_", " "),
            f"{figures[f'{name}_pairs']:.0f}",
            *(
                f"{figures[f'{name}_{label}_s_per_pair']:.3f}"
                for label in ("trl_default", "trl_best", "pairwise", "tree")
            ),
            _spread(figures, f"{name}_speedup"),
            _spread(figures, f"{name}_over_pairwise"),
            f"{figures[f'{name}_token_ratio']:.2f}x",
            f"{figures[f'{name}_tree_matmul_share']:.0%}",
        )
        for name in names
    ]
    title = f"DPO, {shape.name} with {size.layers or shape.layers} layers: seconds a pair"
    terminal.stdout.print(terminal.table(title, columns, rows))
    sides = ("trl_best", "pairwise", "tree")
    peaks = [(label, f"{figures[f'{memory}_{label}_peak_mib']:.0f}") for label in sides]
    terminal.stdout.print(terminal.table(f"Peak memory of a step beside the model, MiB ({memory})", ("", "MiB"), peaks))
    worst = max(figures[f"{name}_loss_difference"] for name in names)
    terminal.stdout.print(f"largest difference of a step's loss from TRL's: {worst:.1e}")
    if math.isnan(worst):
        raise typer.BadParameter("a loss is not a number")


def _spread(figures: dict[str, float], key: str) -> str:
    return f"{figures[key]:.2f} ({figures[f'{key}_min']:.2f}-{figures[f'{key}_max']:.2f})"


if __name__ == "__main__":
    typer.run(main)
