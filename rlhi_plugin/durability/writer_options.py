"""How the writer between an assistant and its store works."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rlhi_plugin.durability.status import Durability
from rlhi_plugin.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class WriterOptions:
    """How a writer works.

    Attributes:
        durability: See `Durability`.
        journal: Folder of the journal, or None for none: then what the store does not take is dropped.
        inherits: Other folders in which earlier processes may have left turns for the same store.
        store_timeout_s: Seconds for which a turn waits for the store before it goes to the journal.
        queue_size: With ``async``, turns in memory at most; a further one is dropped and counted.

    Raises:
        ConfigError: a value cannot work.
    """

    durability: Durability = "sync"
    journal: Path | None = None
    inherits: tuple[Path, ...] = ()
    store_timeout_s: float = 2.0
    queue_size: int = 10_000

    def __post_init__(self) -> None:
        if self.durability not in ("sync", "async"):
            raise ConfigError(f"durability={self.durability!r} is not a mode. Choose 'sync' or 'async'.")
        if not self.store_timeout_s > 0:
            raise ConfigError(f"store_timeout_s={self.store_timeout_s} leaves no time. Give seconds, more than 0.")
        if self.queue_size < 1:
            raise ConfigError(f"queue_size={self.queue_size} holds nothing. Give 1 or more turns.")
