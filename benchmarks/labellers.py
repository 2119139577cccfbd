"""How many follow-ups a second does each embedded tier label?

Exchanges are made up of sentences, with the lengths that real ones have (medians: follow-up 60 characters, reply 700;
every fifth is long). The fast tier runs in one process and in as many as there are cores; the encoder uses torch's
threads; the cascade is both. Weights are read and processes started before the clock.

    python benchmarks/labellers.py --quick --json labellers.json
"""

from __future__ import annotations

import asyncio
import json
import os
import platform
import random
import statistics
import time
from importlib.resources import files
from pathlib import Path
from typing import Annotated

import typer

from rlhi_plugin import terminal
from rlhi_plugin.labelling import Exchange, Labeller
from rlhi_training.labelling.cascade import CascadeLabeller
from rlhi_training.labelling.encoder import EncoderLabeller
from rlhi_training.labelling.fast import FastLabeller

TARGETS = {"fast_turns_per_second": 5000.0, "encoder_turns_per_second": 150.0}
"""Lower bounds on two cores."""


def made_up(count: int, seed: int = 0) -> list[Exchange]:
    """Exchanges of the invented examples, with replies and some follow-ups lengthened."""
    draw = random.Random(seed)
    lines = (files("rlhi_training") / "labelling" / "examples.jsonl").read_text("utf-8").splitlines()
    known = [json.loads(line) for line in lines]
    sentences = [one["reply"] for one in known]
    found = []
    for number in range(count):
        one = draw.choice(known)
        reply = " ".join([one["reply"], *draw.sample(sentences, draw.choice((2, 4, 4, 6, 12)))])
        more = draw.sample(sentences, 3 if draw.random() < 0.2 else 0)  # noqa: PLR2004 - every fifth is long
        found.append(
            Exchange(
                conversation_id=f"c{number}",
                turn=draw.randint(1, 6),
                message_id=f"m{number}",
                request=f"{one['request']} ({number})",
                reply=f"{number}: {reply}",
                follow_up=" ".join([one["follow_up"], *more]),
                earlier=tuple(other["request"] for other in draw.sample(known, 2)),
            )
        )
    return found


async def rate(labeller: Labeller, exchanges: list[Exchange], repeats: int) -> tuple[list[float], list[float]]:
    """Follow-ups a second by the clock, and a second of this process's own processor time; once for each repeat."""
    await labeller.label(exchanges[: len(exchanges) // 2])
    rates, own = [], []
    for _ in range(repeats):
        started, worked = time.monotonic(), time.process_time()
        await labeller.label(exchanges)
        rates.append(len(exchanges) / (time.monotonic() - started))
        own.append(len(exchanges) / (time.process_time() - worked))
    return rates, own


def main(
    quick: Annotated[bool, typer.Option("--quick", help="Fewer exchanges.")] = False,
    out: Annotated[Path | None, typer.Option("--json", help="Write figures here.")] = None,
) -> None:
    """Print the table."""
    cores = os.cpu_count() or 1
    count, slow, repeats = (4_000, 400, 3) if quick else (20_000, 2_000, 5)
    pooled = FastLabeller(workers=cores)
    tiers: list[tuple[str, Labeller, int]] = [
        ("fast", pooled, count),
        ("fast_one_process", FastLabeller(), count),
        ("encoder", EncoderLabeller(), slow),
        ("cascade", CascadeLabeller(), slow),
    ]
    figures, rows = {}, []
    for name, labeller, size in tiers:
        rates, own = asyncio.run(rate(labeller, made_up(size), repeats))
        figures[f"{name}_turns_per_second"] = statistics.median(rates)
        worked = "-"
        if labeller is not pooled:  # whose workers' time is not this process's
            figures[f"{name}_turns_per_cpu_second"] = statistics.median(own)
            worked = f"{statistics.median(own):,.0f}"
        rows.append((name, f"{statistics.median(rates):,.0f}", f"{min(rates):,.0f} to {max(rates):,.0f}", worked))
    pooled.close()
    terminal.stdout.print(
        terminal.table("Labellers", ("tier", "follow-ups a second", "over repeats", "a second of processor time"), rows)
    )
    met = {name: figures[name] >= bound for name, bound in TARGETS.items()}
    if out is not None:
        machine = {"python": platform.python_version(), "cores": cores, "load": os.getloadavg()[0]}
        report = {"figures": figures, "targets": TARGETS, "met": met, "machine": machine}
        out.write_text(json.dumps(report, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    typer.run(main)
