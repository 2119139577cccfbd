"""From the journal into the store: in order, each once, and no line stands in the way of other conversations.

A store that takes turns is given many together, for one transaction. What it does not take of them is offered again at
once, one after the other, and so is everything as long as it takes nothing.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from rlhi_plugin.durability.entries import Entry
from rlhi_plugin.durability.journal import Journal
from rlhi_plugin.durability.readmission import Withheld
from rlhi_plugin.durability.turn_file import JournalledTurn, Key
from rlhi_plugin.errors import OwnerMismatchError

Put = Callable[[JournalledTurn], Withheld | None]
"""Stores one turn, or says why that must not be, or raises."""
PutTogether = Callable[[Sequence[JournalledTurn]], Sequence[Withheld | Exception | None]]
"""Stores several turns: for each None, why it must not be, or why it was not. Of each conversation it stores all that
may be stored, or nothing. Raises where nothing is known of any of them."""

_Outcome = Literal["replayed", "refused", "withheld"]

STRIKES = 20
STRIKES_S = 60.0
"""A line is set aside when the store failed it so often, over so many seconds, each time just before or after it took
another one (ours): then the line is at fault. A store that takes nothing is down, and everything waits."""
FAILURES_IN_A_ROW = 3
"""Conversations that fail one after the other before the store is taken to be down and the round ends (ours)."""
GROUP = 64
"""Turns that are offered together at most (ours). The wait for the disk is a small part of their transaction by then,
and a user's turn that comes meanwhile waits for some milliseconds of it."""
GROUP_BYTES = 1 << 20
"""And their bytes, for the same reason: a group of long turns is a small one (ours)."""


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
    journal: Journal,
    put: Put,
    put_together: PutTogether | None = None,
    *,
    alive: bool = False,
    strikes: int = STRIKES,
    strikes_s: float = STRIKES_S,
) -> Round:
    """Offer the waiting turns to the store, oldest first.

    Where a turn fails, the later ones of its conversation are passed over. Conversations that failed before come after
    all others, so that no number of bad lines stands in the way of good ones. When `FAILURES_IN_A_ROW` fail one after
    the other, or the store hangs, it is taken to be down, and the round ends.

    Args:
        journal: What waits; of a long one a round offers a part, see `Journal.unread`.
        put: Stores one turn.
        put_together: Stores several, where the store can.
        alive: Whether the store took turns of others since the last round.
        strikes: See `STRIKES`.
        strikes_s: See `STRIKES_S`.
    """
    done = _Pass(journal, put, put_together, taking=alive)
    done.offer(deque(_suspects_last(journal.entries())))
    struck = sum(_struck_out(journal, entry, done.error, strikes, strikes_s) for entry in done.at_fault)
    outcomes = done.outcomes
    return Round(
        outcomes["replayed"],
        outcomes["refused"] + struck,
        len(journal),
        done.error or journal.problem,
        outcomes["withheld"],
    )


class _Pass:
    """One pass over the journal."""

    def __init__(self, journal: Journal, put: Put, put_together: PutTogether | None, *, taking: bool) -> None:
        self.outcomes: Counter[_Outcome] = Counter()
        self.at_fault: list[Entry] = []
        self.error: Exception | None = None
        self._journal = journal
        self._put = put
        self._put_together = put_together
        self._taking = taking
        """Whether the store took what it was offered last."""
        self._failed: set[Key] = set()
        self._in_a_row: list[Entry] = []
        self._is_over = False

    def offer(self, waiting: deque[Entry]) -> None:
        """Offer everything, in order, unless the store turns out to be down."""
        while waiting:
            group = self._next(waiting)
            for entry in self._offer_together(group) if len(group) > 1 else group:
                if not self._is_over and entry.key not in self._failed:
                    self._offer_alone(entry)
            if self._is_over:
                return

    def _next(self, waiting: deque[Entry]) -> list[Entry]:
        """What is offered next: several entries only to a store that takes turns, and none that has failed before."""
        group = [waiting.popleft()]
        size = group[0].length
        if self._put_together is None or not self._taking or not self._may_be_together(group[0]):
            return group
        while waiting and len(group) < GROUP and self._may_be_together(waiting[0]):
            size += waiting[0].length
            if size > GROUP_BYTES:
                break
            group.append(waiting.popleft())
        return group

    def _may_be_together(self, entry: Entry) -> bool:
        return not entry.failures and not entry.alone and entry.key not in self._failed

    def _offer_together(self, group: list[Entry]) -> list[Entry]:
        """Offer a group; what is to be offered alone, now."""
        turns, rest = self._joining(group)
        assert self._put_together is not None  # noqa: S101 - else `_next` gives no group
        try:
            outcomes = self._put_together(list(turns.values())) if turns else []
        except Exception as problem:  # noqa: BLE001 - a store may raise anything; the turns stay where they are
            self._taking, self.error = False, problem
            if not isinstance(problem, OSError):
                return group
            # One of them may be why the store hangs: alone, it is found out, and holds up no other.
            for entry in group:
                entry.alone = True
            self._is_over = True
            return []
        stored = [entry for entry, outcome in zip(turns, outcomes, strict=True) if outcome is None]
        self._journal.done(*stored)
        if stored:
            self._took(len(stored))
        elif any(isinstance(outcome, Exception) for outcome in outcomes):
            self._taking = False
        for entry, outcome in zip(turns, outcomes, strict=True):
            if isinstance(outcome, Exception) or (
                outcome is not None and not self._erased(entry, turns[entry], outcome)
            ):
                rest.add(entry)
        return [entry for entry in group if entry in rest]

    def _joining(self, group: list[Entry]) -> tuple[dict[Entry, JournalledTurn], set[Entry]]:
        """Turns that may be stored together, and the entries that may not, nor later ones of their conversations."""
        turns: dict[Entry, JournalledTurn] = {}
        rest: set[Entry] = set()
        dated: dict[Key, bool] = {}
        # Of any user: the first one of a name has it.
        left_out: set[str] = set()
        for entry in group:
            turn = None if entry.key[0] in left_out else self._read(entry)
            # The time of a message counts for those without one, which must not get that of another turn.
            if (
                turn is None
                or (is_dated := _is_dated(turn)) is None
                or dated.setdefault(entry.key, is_dated) != is_dated
            ):
                left_out.add(entry.key[0])
                rest.add(entry)
            else:
                turns[entry] = turn
        return turns, rest

    def _read(self, entry: Entry) -> JournalledTurn | None:
        try:
            turn = self._journal.read(entry).turn
        except OSError:  # met again when it is offered alone
            return None
        return turn if turn is not None and turn.feedback is None else None

    def _erased(self, entry: Entry, turn: JournalledTurn, reason: Withheld) -> bool:
        try:
            self._journal.erase(entry, reason, turn.size)
        except OSError:  # met again when it is offered alone
            return False
        self.outcomes["withheld"] += 1
        return True

    def _offer_alone(self, entry: Entry) -> None:
        try:
            outcome = _offer(self._journal, entry, self._put)
        except Exception as problem:  # noqa: BLE001 - a store may raise anything; the turn stays where it is
            self._failed.add(entry.key)
            self._in_a_row.append(entry)
            if self._taking:
                self.at_fault.append(entry)
            self._taking = False
            entry.failures, self.error = entry.failures + 1, problem
            self._is_over = len(self._in_a_row) == FAILURES_IN_A_ROW or isinstance(problem, OSError)
            return
        if outcome == "replayed":
            self._took(1)
        else:
            self.outcomes[outcome] += 1

    def _took(self, turns: int) -> None:
        self.outcomes["replayed"] += turns
        # What failed between two lines that were taken did not fail because the store was down.
        self.at_fault += [entry for entry in self._in_a_row if entry not in self.at_fault]
        self._in_a_row, self._taking = [], True


def _is_dated(turn: JournalledTurn) -> bool | None:
    """Whether its messages have times; None where some have, or there are none."""
    having = {message.created_at is not None for message in turn.messages}
    return having.pop() if len(having) == 1 else None


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
