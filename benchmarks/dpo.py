"""How much faster is DPO training when equal prefixes are computed once? TRL's own trainer against ours.

All sides train the same LoRA on the same pairs with TRL's loss: TRL as it comes, TRL at its best (reference
log-probabilities computed before, no gradient checkpointing, the micro-batch that is fastest here), prefix sharing
within a pair (the peer is arXiv 2410.20305; this is ours with conversations kept apart), and conversation trees, one
conversation a pass. One timed step is forward, backward and optimiser over all pairs; sides take turns, TRL as it comes
only once. The one pass for the reference is in nobody's time. Peak memory is that of the largest pass, measured in a
process of its own for each side.

    python benchmarks/dpo.py --quick --json dpo.json

A whole run on two cores takes about an hour; `--only`, `--pairs` and `--repeats` measure a part of it. On a machine
with a GPU the same command takes the shape of Llama-3.1-8B.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from dpo_sides import memory, printing
from dpo_sides.shapes import LLAMA_8B, SMALL, SMOLLM2, Shape
from dpo_sides.sides import flash_pref_absence, methods
from dpo_sides.times import Plan, compare, seconds_of
from dpo_sides.workloads import WORKLOADS, Pair, workload

from rlhi_plugin import terminal

FULL = Plan(pairs=8, shrink=1, repeats=3, micro_batches=(1, 4))
QUICK = Plan(pairs=4, shrink=8, repeats=2, micro_batches=(4,))
QUICK_WORKLOADS = ("turns_4", "natural")


def main(  # noqa: PLR0917 - a command's options, not a call's arguments
    quick: Annotated[
        bool, typer.Option("--quick", help="A small model and short texts, a minute on two cores.")
    ] = False,
    only: Annotated[list[str] | None, typer.Option("--only", help=f"Some of: {', '.join(WORKLOADS)}.")] = None,
    pairs: Annotated[int | None, typer.Option("--pairs", min=1, help="Pairs of a step, at least.")] = None,
    repeats: Annotated[int | None, typer.Option("--repeats", min=1, help="Timed steps of each side.")] = None,
    micro: Annotated[list[int] | None, typer.Option("--micro-batch", min=1, help="To try TRL's best with.")] = None,
    side: Annotated[list[str] | None, typer.Option("--side", help="Beside trl_best and tree; none: neither.")] = None,
    every: Annotated[int, typer.Option("--trl-every", min=1, help="Time every so many-th of TRL's best passes.")] = 1,
    what: Annotated[list[str] | None, typer.Option("--what", help="times, memory; none: both.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the figures to this file.")] = None,
    peak: Annotated[str | None, typer.Option("--peak-of", hidden=True, help="One side's memory.")] = None,
    alone: Annotated[str | None, typer.Option("--seconds-of", hidden=True, help="One side's step.")] = None,
) -> None:
    """Compare TRL's trainer with sharing within pairs and with conversation trees.

    Example: python benchmarks/dpo.py --quick
    """
    import torch

    cuda = torch.cuda.is_available()
    plan, shape = QUICK if quick else FULL, SMALL if quick else (LLAMA_8B if cuda else SMOLLM2)
    plan = Plan(
        pairs or plan.pairs,
        plan.shrink,
        repeats or plan.repeats,
        tuple(micro) if micro else plan.micro_batches,
        tuple(side) if side else plan.sides,
        every,
        ("--pairs", str(pairs or plan.pairs), *(["--quick"] if quick else [])),
    )
    if peak is not None or alone is not None:
        name, how = (peak or alone or "").split()
        measure = memory.peak_of if peak is not None else seconds_of
        typer.echo(f"{measure(_data(name, plan, shape), shape, methods(plan.micro_batches)[how]):.1f}")
        return
    names = _known(only or (QUICK_WORKLOADS if quick else WORKLOADS))
    wanted = what or ["times", "memory"]
    figures: dict[str, float] = {}
    for name in names:
        data = _data(name, plan, shape)
        if "times" in wanted:
            of_pairwise = plan.repeats * ("pairwise" in plan.sides) + ("trl_default" in plan.sides)
            total = sum(map(len, data)) * (2 * plan.repeats + of_pairwise)
            with terminal.progress(f"{name}: pairs trained on", total) as advance:
                figures |= compare(name, data, shape, plan, advance)
        if "memory" in wanted:
            best = int(figures.get(f"{name}_micro_batch", plan.micro_batches[0]))
            kinds = [kind for kind in ("trl_best", "pairwise", "tree") if kind != "pairwise" or kind in plan.sides]
            with terminal.progress(f"{name}: memory", len(kinds)) as advance:
                figures |= memory.peaks(name, [*plan.arguments, "--micro-batch", str(best)], best, kinds, advance)
    printing.show(names, figures, shape.name)
    terminal.stdout.print(flash_pref_absence())
    targets, met = printing.judge(figures, cuda=cuda)
    if json_file is not None:
        notes = {"flash_pref": flash_pref_absence()}
        body = {"figures": figures, "targets": targets, "met": met, "machine": printing.machine(), "notes": notes}
        json_file.write_text(json.dumps(body, indent=2) + "\n", "utf-8")


def _known(names: list[str] | tuple[str, ...]) -> list[str]:
    unknown = sorted(set(names) - set(WORKLOADS))
    if unknown:
        raise typer.BadParameter(f"no workload is called {unknown[0]}. There are: {', '.join(WORKLOADS)}.")
    return [name for name in WORKLOADS if name in names]


def _data(name: str, plan: Plan, shape: Shape) -> list[list[Pair]]:
    return workload(name, pairs=plan.pairs, shrink=plan.shrink, vocabulary=shape.vocabulary)


if __name__ == "__main__":
    typer.run(main)
