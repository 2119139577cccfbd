"""Whether a turn that waited may still be stored: its user may have been forgotten, or withdrawn, meanwhile."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Literal

from rlhi_plugin.durability.owned import OwnedAppends
from rlhi_plugin.durability.turn_file import JournalledTurn
from rlhi_plugin.records import ConsentDecision, Purpose
from rlhi_plugin.stores import ConsentStore, ForgettingStore
from rlhi_plugin.stores.shortcuts import shortcut

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
        appends: Puts them there.
    """

    def __init__(self, store: object, appends: OwnedAppends) -> None:
        self._decisions = store if isinstance(store, ConsentStore) else None
        self._of_several = shortcut(store, "consents", "consents_of")
        self._forgetting = store if isinstance(store, ForgettingStore) else None
        self._appends = appends
        self._stones: Mapping[str, datetime] = {}
        self._read_at = -STONES_S

    def put(self, turn: JournalledTurn) -> Withheld | None:
        """Store the turn, or say why that must not be.

        Raises:
            Exception: what the store raises, also where it cannot be asked: the turn then waits on.
        """
        withheld = self._withheld(turn, None)
        if withheld is None:
            self._appends.put(turn)
        return withheld

    @property
    def together(self) -> bool:
        """Whether the store takes several turns at once."""
        return self._appends.together

    def put_together(self, turns: Sequence[JournalledTurn]) -> list[Withheld | Exception | None]:
        """Store several turns, where `together`; their users are asked about once.

        Args:
            turns: See `OwnedAppends.put_together`.

        Returns:
            For each None where it is stored, why that must not be, or what the store raised about it.

        Raises:
            Exception: the store cannot be asked; nothing was stored.
        """
        asked = self._withdrawn({turn.user_id for turn in turns if turn.user_id is not None})
        withheld = [self._withheld(turn, asked) for turn in turns]
        admitted = [turn for turn, reason in zip(turns, withheld, strict=True) if reason is None]
        stored = iter(self._appends.put_together(admitted))
        return [next(stored) if reason is None else reason for reason in withheld]

    def _withheld(self, turn: JournalledTurn, withdrawn: Collection[str] | None) -> Withheld | None:
        """Why not to store it; `withdrawn` are those of several users who have, and None asks about this one."""
        if turn.user_id is None:
            return None
        forgotten_at = self._tombstones().get(turn.user_id)
        if forgotten_at is not None and all(said_at is None or said_at <= forgotten_at for said_at in _times(turn)):
            return "forgotten"
        if withdrawn is None:
            withdrawn = self._withdrawn({turn.user_id})
        return "withdrawn" if turn.user_id in withdrawn else None

    def _withdrawn(self, users: Collection[str]) -> set[str]:
        """Those of the users who do not allow logs any more."""
        if self._decisions is None or not users:
            return set()
        if self._of_several is not None and len(users) > 1:
            found = self._of_several(sorted(users))
        else:
            found = {user: self._decisions.consents(user) for user in users}
        return {user for user, decisions in found.items() if _refuses(decisions)}

    def _tombstones(self) -> Mapping[str, datetime]:
        if self._forgetting is not None and time.monotonic() - self._read_at >= STONES_S:
            self._stones = {stone.user_id: stone.forgotten_at for stone in self._forgetting.tombstones()}
            self._read_at = time.monotonic()
        return self._stones


def _refuses(decisions: Mapping[Purpose, ConsentDecision]) -> bool:
    decision = decisions.get(Purpose.LOG)
    return decision is not None and not decision.granted


def _times(turn: JournalledTurn) -> list[datetime | None]:
    """When each thing of a turn was said; one without a time counts with the first that has one."""
    times = [message.created_at for message in turn.messages]
    if turn.feedback is not None:
        times.append(turn.feedback.created_at)
    first = next((said_at for said_at in times if said_at is not None), None)
    return [said_at or first for said_at in times]
