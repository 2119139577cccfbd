"""From the journal into the store: in order, each once, and no line stands in the way of other conversations."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from rlhi_plugin.durability.journal import Entry, Journal, Key
from rlhi_plugin.durability.turn_file import JournalledTurn
from rlhi_plugin.errors import OwnerMismatchError

Put = Callable[[JournalledTurn], None]
"""Stores one turn, or raises."""

STRIKES = 5
STRIKES_S = 60.0
"""A line is set aside when the store failed it in so many rounds, over so many seconds, in each of which it took other
lines (ours): then the line is at fault. A store that takes nothing is down, and everything waits."""


@dataclass(frozen=True, slots=True)
class Round:
    """What one pass over the journal did.

    Attributes:
        replayed: Turns that the store took.
        refused: Turns that were set aside.
        left: Turns that still wait.
        error: The failure that was met last, or None.
    """

    replayed: int = 0
    refused: int = 0
    left: int = 0
    error: Exception | None = None


def replay(
    journal: Journal, put: Put, *, alive: bool = False, strikes: int = STRIKES, strikes_s: float = STRIKES_S
) -> Round:
    """Offer every waiting turn to the store, oldest first.

    Where a turn fails, the later ones of its conversation are passed over. Where the first two conversations fail, the
    store is taken to be down and the round ends.

    Args:
        journal: What waits.
        put: Stores one turn.
        alive: Whether the store took turns of others since the last round.
        strikes: See `STRIKES`.
        strikes_s: See `STRIKES_S`.
    """
    replayed = refused = 0
    failed: dict[Key, Entry] = {}
    error: Exception | None = None
    for entry in journal.entries():
        if entry.key in failed:
            continue
        try:
            reason = _offer(journal, entry, put)
        except Exception as problem:  # noqa: BLE001 - a store may raise anything; the turn stays where it is
            failed[entry.key], error = entry, problem
            if not replayed and (len(failed) > 1 or isinstance(problem, OSError | TimeoutError)):
                break
            continue
        replayed += reason is None
        refused += reason is not None
    if replayed or alive:
        refused += sum(_struck_out(journal, entry, error, strikes, strikes_s) for entry in failed.values())
    return Round(replayed, refused, len(journal), error)


def _offer(journal: Journal, entry: Entry, put: Put) -> str | None:
    """None when the store took it, else why it was set aside."""
    line = journal.read(entry)
    reason = line.problem
    if line.turn is not None:
        try:
            put(line.turn)
        except OwnerMismatchError as mismatch:
            reason = str(mismatch)
    if reason is None:
        journal.done(entry)
    else:
        journal.refuse(entry, reason)
    return reason


def _struck_out(journal: Journal, entry: Entry, error: Exception | None, strikes: int, strikes_s: float) -> bool:
    now = time.monotonic()
    entry.strikes += 1
    if entry.strikes == 1:
        entry.first_strike_s = now
    if entry.strikes < strikes or now - entry.first_strike_s < strikes_s:
        return False
    try:
        journal.refuse(entry, f"refused {entry.strikes} times, at last with: {error}")
    except OSError:
        return False
    return True
