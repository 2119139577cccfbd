"""From the journal into the store: in order, each once, and no line stands in the way of other conversations."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from rlhi_plugin.durability.journal import Entry, Journal, Key
from rlhi_plugin.durability.readmission import Withheld
from rlhi_plugin.durability.turn_file import JournalledTurn
from rlhi_plugin.errors import OwnerMismatchError

Put = Callable[[JournalledTurn], Withheld | None]
"""Stores one turn, or says why that must not be, or raises."""

_Outcome = Literal["replayed", "refused", "withheld"]

STRIKES = 20
STRIKES_S = 60.0
"""A line is set aside when the store failed it so often, over so many seconds, each time just before or after it took
another one (ours): then the line is at fault. A store that takes nothing is down, and everything waits."""
FAILURES_IN_A_ROW = 3
"""Conversations that fail one after the other before the store is taken to be down and the round ends (ours)."""


@dataclass(frozen=True, slots=True)
class Round:
    """What one pass over the journal did.

    Attributes:
        replayed: Turns that the store took.
        refused: Turns that were set aside.
        left: Turns that still wait.
        error: The failure that was met last, or None.
        withheld: Turns that must not be stored any more (see `Withheld`), and were erased.
    """

    replayed: int = 0
    refused: int = 0
    left: int = 0
    error: Exception | None = None
    withheld: int = 0


def replay(
    journal: Journal, put: Put, *, alive: bool = False, strikes: int = STRIKES, strikes_s: float = STRIKES_S
) -> Round:
    """Offer every waiting turn to the store, oldest first.

    Where a turn fails, the later ones of its conversation are passed over. Conversations that failed before come after
    all others, so that no number of bad lines stands in the way of good ones. When `FAILURES_IN_A_ROW` fail one after
    the other, or the store hangs, it is taken to be down, and the round ends.

    Args:
        journal: What waits.
        put: Stores one turn.
        alive: Whether the store took turns of others since the last round.
        strikes: See `STRIKES`.
        strikes_s: See `STRIKES_S`.
    """
    outcomes: Counter[_Outcome] = Counter()
    taking = alive
    failed: set[Key] = set()
    in_a_row: list[Entry] = []
    at_fault: list[Entry] = []
    error: Exception | None = None
    for entry in _suspects_last(journal.entries()):
        if entry.key in failed:
            continue
        try:
            outcome = _offer(journal, entry, put)
        except Exception as problem:  # noqa: BLE001 - a store may raise anything; the turn stays where it is
            failed.add(entry.key)
            in_a_row.append(entry)
            if taking:
                at_fault.append(entry)
            taking = False
            entry.failures, error = entry.failures + 1, problem
            if len(in_a_row) == FAILURES_IN_A_ROW or isinstance(problem, OSError):
                break
            continue
        outcomes[outcome] += 1
        if outcome == "replayed":
            # What failed between two lines that were taken did not fail because the store was down.
            at_fault += [entry for entry in in_a_row if entry not in at_fault]
            in_a_row, taking = [], True
    refused = outcomes["refused"] + sum(_struck_out(journal, entry, error, strikes, strikes_s) for entry in at_fault)
    return Round(outcomes["replayed"], refused, len(journal), error, outcomes["withheld"])


def _suspects_last(entries: list[Entry]) -> list[Entry]:
    suspects = {entry.key for entry in entries if entry.failures}
    return sorted(entries, key=lambda entry: entry.key in suspects)  # stable: order within a conversation stays


def _offer(journal: Journal, entry: Entry, put: Put) -> _Outcome:
    line = journal.read(entry)
    if line.turn is None:
        journal.refuse(entry, line.problem or "damaged")
        return "refused"
    try:
        withheld = put(line.turn)
    except OwnerMismatchError as mismatch:
        journal.refuse(entry, str(mismatch))
        return "refused"
    if withheld is not None:
        journal.erase(entry, withheld, line.turn.size)
        return "withheld"
    journal.done(entry)
    return "replayed"


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
