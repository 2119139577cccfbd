"""What a run has asked of models so far, as a table."""

from __future__ import annotations

from pathlib import Path

from rich.table import Table

from rlhi_plugin.calls.journal import CallJournal
from rlhi_plugin.terminal import table

_COLUMNS = ("stage", "model", "answered", "sent", "prompt tokens", "answer tokens", "USD", "maybe paid twice")


def render_calls(journal: Path) -> Table | None:
    """One row for each stage and model; None where there is no journal, or nothing in it.

    Raises:
        ArtefactError: the journal cannot be read.
    """
    if not journal.is_file():
        return None
    with CallJournal(journal) as opened:
        rows = [
            (
                use.purpose,
                use.model,
                use.answered,
                use.attempts,
                f"{use.prompt_tokens:,}",
                f"{use.completion_tokens:,}",
                "unknown" if use.cost_usd is None else f"{use.cost_usd:.4f}",
                use.maybe_twice,
            )
            for use in opened.usage()
        ]
    if not rows:
        return None
    shown = table("Model calls", _COLUMNS, rows)
    shown.columns[1].justify = "left"
    return shown
