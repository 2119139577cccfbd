"""What a writer says about itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Durability = Literal["sync", "async"]
"""``sync``: on return the turn is on disk. ``async``: on return it is in memory, and a crash loses it."""


@dataclass(frozen=True, slots=True)
class DurabilityStatus:
    """How the logging of one process stands.

    Attributes:
        mode: ``sync`` or ``async``.
        queued: Turns in memory, not on disk yet; 0 with ``sync``.
        dropped: Messages and feedback events that neither store nor journal took. Messages that a later turn still
            carries in its history are offered again.
        journalled: Turns that went to the journal, or were found in it, since the start.
        waiting: Turns that are in the journal now. While `reading`, those that were found so far, and at least 1.
        replayed: Turns that went from the journal to the store.
        refused: Turns that the store refused for good, kept in files that end in ``.refused``.
        withheld: Turns that waited in the journal until their user was forgotten or withdrew their consent: they were
            not stored, and erased.
        torn: Last lines of dead processes' files that a crash had cut short; none was ever acknowledged.
        store_ok: Whether the store took what it was offered last.
        last_error: What went wrong last, or None.
        journal: Folder of the journal, or None.
        reading: Whether files of ended processes are still being looked over, as after a long outage: until that is
            done, every turn goes to the journal, and theirs are not counted in `journalled`.
    """

    mode: Durability
    queued: int
    dropped: int
    journalled: int
    waiting: int
    replayed: int
    refused: int
    withheld: int
    torn: int
    store_ok: bool
    last_error: str | None
    journal: str | None
    reading: bool = False
