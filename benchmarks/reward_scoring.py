"""How much faster is a reward model that reads the common beginning of a request's candidates once?

The same classifier scores the same candidates twice: row by row, in padded batches, and as prefix trees. The model has
SmolLM2-135M's shape and random weights, which cost the same as trained ones. Scores are compared too: sharing must not
change them.

    python benchmarks/reward_scoring.py --quick --json reward_scoring.json
"""

from __future__ import annotations

import json
import os
import platform
import random
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from rlhi_plugin import terminal

TARGETS = {"persona_150_n4_speedup": 1.5, "history_600_n8_speedup": 3.0}
"""Lower bounds, ours."""
MAX_DIFFERENCE = 1e-3
"""Largest difference of two scores of one candidate, float32."""
_VOCABULARY = 49152


@dataclass(frozen=True)
class Case:
    """One request: how long what the candidates share is, how many there are, and how long they are (tokens)."""

    name: str
    shared: int
    candidates: int
    answer: int


CASES = (
    Case("persona_150_n4", shared=200, candidates=4, answer=120),
    Case("persona_150_n8", shared=200, candidates=8, answer=120),
    Case("history_600_n8", shared=650, candidates=8, answer=120),
)


def _rows(case: Case, draw: random.Random) -> list[list[int]]:
    beginning = [draw.randrange(3, _VOCABULARY) for _ in range(case.shared)]
    lengths = [draw.randint(case.answer - 40, case.answer + 40) for _ in range(case.candidates)]
    return [beginning + [draw.randrange(3, _VOCABULARY) for _ in range(length)] for length in lengths]


def _model(layers: int) -> Any:
    import torch
    from transformers import LlamaConfig, LlamaForSequenceClassification

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=_VOCABULARY,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=layers,
        num_attention_heads=9,
        num_key_value_heads=3,
        max_position_embeddings=8192,
        num_labels=1,
        pad_token_id=2,
    )
    return LlamaForSequenceClassification(config).eval()


def _measure(case: Case, model: Any, repeats: int) -> dict[str, float]:
    """Median seconds of both, interleaved, and the largest difference of a score."""
    import torch

    from rlhi_training.reward_models.shared_prefix import row_states, shared_states

    rows = _rows(case, random.Random(1))
    places = [len(row) - 1 for row in rows]
    backbone = model.base_model

    def shared() -> Any:
        return model.score(shared_states(backbone, rows, places)[0])[:, 0]

    def alone() -> Any:
        return model.score(row_states(backbone, rows, places, 2))[:, 0]

    sides: dict[str, Callable[[], Any]] = {"alone": alone, "shared": shared}
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    with torch.inference_mode():
        difference = float((shared() - alone()).abs().max())
        for _ in range(repeats):
            for name, score in sides.items():
                started = time.perf_counter()
                score()
                seconds[name].append(time.perf_counter() - started)
        computed = shared_states(backbone, rows, places)[1]
    ratios = [a / b for a, b in zip(seconds["alone"], seconds["shared"], strict=True)]
    return {
        "alone_s": statistics.median(seconds["alone"]),
        "shared_s": statistics.median(seconds["shared"]),
        "speedup": statistics.median(ratios),
        "speedup_low": min(ratios),
        "speedup_high": max(ratios),
        "tokens_saved": 1.0 - computed / sum(map(len, rows)),
        "difference": difference,
    }


def main(
    quick: Annotated[bool, typer.Option("--quick", help="Fewer layers and repeats.")] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the figures here.")] = None,
) -> None:
    """Score the same candidates with and without sharing, and print the table."""
    import torch

    model = _model(3 if quick else 30)
    figures: dict[str, float] = {}
    rows = []
    for case in CASES:
        found = _measure(case, model, 2 if quick else 7)
        figures |= {f"{case.name}_{name}": round(value, 6) for name, value in found.items()}
        rows.append(
            (
                f"{case.candidates} answers, {case.shared} tokens shared",
                f"{found['alone_s'] * 1000:.0f} ms",
                f"{found['shared_s'] * 1000:.0f} ms",
                f"{found['speedup']:.2f} ({found['speedup_low']:.2f} to {found['speedup_high']:.2f})",
                f"{found['tokens_saved']:.0%}",
                f"{found['difference']:.1e}",
            )
        )
    columns = ("request", "row by row", "shared", "times faster", "tokens saved", "largest difference")
    terminal.stdout.print(terminal.table("Scoring the candidates of one request", columns, rows))
    met = {name: figures[name] >= bound for name, bound in TARGETS.items()}
    for name, reached in met.items():
        outcome = "met" if reached else "missed"
        terminal.stdout.print(f"{name}: {figures[name]:.2f}, target {TARGETS[name]}: {outcome}", markup=False)
    met["same_scores"] = all(figures[f"{case.name}_difference"] <= MAX_DIFFERENCE for case in CASES)
    terminal.stdout.print(f"scores differ by at most {MAX_DIFFERENCE}: {met['same_scores']}", markup=False)
    if json_file is not None:
        machine = {"processor": platform.processor(), "threads": torch.get_num_threads(), "cpus": os.cpu_count()}
        report = {"figures": figures, "targets": TARGETS, "met": met, "machine": machine}
        json_file.write_text(json.dumps(report, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    typer.run(main)
