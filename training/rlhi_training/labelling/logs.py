"""Logs whose texts a label set is joined with: their conversations, and a word about what could not be read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from rlhi_plugin import terminal
from rlhi_plugin.errors import ConfigError, RecordError
from rlhi_plugin.importers import read_log
from rlhi_plugin.records import Conversation


def conversations_of(logs: Iterable[Path]) -> Iterator[Conversation]:
    """The conversations of all logs, in order; on the error output, how many rows of a log were set aside, and why.

    Args:
        logs: Files, archives or folders of any format that can be imported.

    Raises:
        ConfigError: there is no such log, or one of them holds no conversation.
    """
    for path in logs:
        conversations = refused = 0
        because = ""
        for record in read_log(path, any_order=True):
            if isinstance(record, Conversation):
                conversations += 1
                yield record
            elif isinstance(record, RecordError):
                refused += 1
                because = because or f", the first because: {str(record).rstrip('.')}"
        if not conversations:
            raise ConfigError(f"{path} holds no conversation that could be read{because}. Give a log.")
        if refused:
            terminal.stderr.print(f"{refused:,} row(s) of {path} were set aside{because}", style="yellow", markup=False)
