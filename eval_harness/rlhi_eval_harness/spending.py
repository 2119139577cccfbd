"""What an evaluation may spend on served models: one budget for its subjects and judges, over all its starts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from rlhi_eval_harness.run_folder import RunFolder
from rlhi_plugin import terminal
from rlhi_plugin.calls.budget import Budget
from rlhi_plugin.calls.options import CallOptions
from rlhi_plugin.calls.stack import equip
from rlhi_plugin.chat import ChatClient
from rlhi_plugin.errors import ArtefactError, ConfigError

IN_FLIGHT = 8
"""Calls of one client at once (ours): so many at most are paid for in vain when an evaluation is killed."""


def spent_usd(path: Path) -> float:
    """US dollars that the answers and judgments of a folder are on record with; 0 where there is no folder.

    Raises:
        ArtefactError: a line is damaged.
    """
    folder = RunFolder(path)
    return sum(_costs(folder.outputs)) + sum(_costs(folder.judgments))


def _costs(file: Path) -> Iterator[float]:
    """Of each whole line. A last one without its end is left alone: another process may be writing it."""
    text = file.read_text("utf-8") if file.exists() else ""
    for number, line in enumerate(text.split("\n")[:-1], start=1):
        try:
            yield json.loads(line).get("cost_usd") or 0.0
        except (ValueError, AttributeError) as error:
            raise ArtefactError(f"{file}:{number}: damaged line ({error}). Remove the line and run again.") from error


def budget_for(path: Path, max_cost: float | None) -> Budget | None:
    """The budget of an evaluation, less what its earlier starts have spent; None where there is no limit.

    Raises:
        ConfigError: a limit of nothing.
        ArtefactError: the folder is damaged.
    """
    return None if max_cost is None else Budget(max_cost, spent_usd=spent_usd(path))


def equipped(client: ChatClient, budget: Budget | None = None, *, own_server: bool = False) -> ChatClient:
    """The client with retries, a limit of calls in flight, and a budget. Its answers are on record in the folder.

    Args:
        client: A served model's.
        budget: What may be spent; None is no limit.
        own_server: Whether it has an address of its own, and so may cost nothing.

    Raises:
        ConfigError: money is limited, and nobody knows what the model costs.
    """
    if budget is not None and client.capabilities.price is None:
        if not own_server:
            raise ConfigError(
                f"the price of {client.model} is not known, so --max-cost cannot be kept. Name a model whose price "
                "LiteLLM knows, or leave --max-cost out."
            )
        terminal.stderr.print(
            f"{client.model} has an address of its own and no known price: --max-cost does not count it",
            markup=False,
            highlight=False,
        )
        budget = None
    return equip(client, CallOptions(max_concurrency=IN_FLIGHT), budget=budget)
