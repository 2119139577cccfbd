"""Whether a turn that waited may still be stored: its user may have been forgotten, or withdrawn, meanwhile."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Literal

from rlhi_plugin.durability.turn_file import JournalledTurn
from rlhi_plugin.records import Purpose
from rlhi_plugin.stores import ConsentStore, ForgettingStore

Withheld = Literal["forgotten", "withdrawn"]
"""Why a turn stays out of the store: its user was forgotten after they said it, or does not allow logs any more."""

STONES_S = 1.0
"""Seconds for which tombstones are not read again (ours). The store refuses what a forgotten user had said in any case;
reading them here is what lets the words go, and be counted, in the journal."""


class Readmission:
    """Asks a store about consent and tombstones before what waited for it is put into it. Usable from any thread.

    The newest decision counts. A user who has decided nothing was asked about, under the app's policy, when the turn
    was said, and so is a user of a store that keeps no decisions.

    Args:
        store: Where the turns belong.
        put: Stores one turn.
    """

    def __init__(self, store: object, put: Callable[[JournalledTurn], object]) -> None:
        self._decisions = store if isinstance(store, ConsentStore) else None
        self._forgetting = store if isinstance(store, ForgettingStore) else None
        self._put = put
        self._stones: Mapping[str, datetime] = {}
        self._read_at = -STONES_S

    def put(self, turn: JournalledTurn) -> Withheld | None:
        """Store the turn, or say why that must not be.

        Raises:
            Exception: what the store raises, also where it cannot be asked: the turn then waits on.
        """
        withheld = self._withheld(turn)
        if withheld is None:
            self._put(turn)
        return withheld

    def _withheld(self, turn: JournalledTurn) -> Withheld | None:
        if turn.user_id is None:
            return None
        forgotten_at = self._tombstones().get(turn.user_id)
        if forgotten_at is not None and all(said_at is None or said_at <= forgotten_at for said_at in _times(turn)):
            return "forgotten"
        if self._decisions is not None:
            decision = self._decisions.consents(turn.user_id).get(Purpose.LOG)
            if decision is not None and not decision.granted:
                return "withdrawn"
        return None

    def _tombstones(self) -> Mapping[str, datetime]:
        if self._forgetting is not None and time.monotonic() - self._read_at >= STONES_S:
            self._stones = {stone.user_id: stone.forgotten_at for stone in self._forgetting.tombstones()}
            self._read_at = time.monotonic()
        return self._stones


def _times(turn: JournalledTurn) -> list[datetime | None]:
    """When each thing of a turn was said; one without a time counts with the first that has one."""
    times = [message.created_at for message in turn.messages]
    if turn.feedback is not None:
        times.append(turn.feedback.created_at)
    first = next((said_at for said_at in times if said_at is not None), None)
    return [said_at or first for said_at in times]
