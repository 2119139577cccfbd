"""Where the conversations of a run come from: a file, an archive, a folder, or a data set on a hub."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rlhi_plugin.errors import RecordError, UserError
from rlhi_plugin.logs import read_conversations
from rlhi_plugin.privacy.exclusions import NO_EXCLUSIONS, Exclusions, read_exclusions
from rlhi_plugin.privacy.tombstones import TOMBSTONES_SUFFIX, read_tombstones
from rlhi_plugin.records import Conversation, Tombstone
from rlhi_training.hub_rows import HubDataset, hub_dataset
from rlhi_training.run_directory import digest_path


@dataclass(frozen=True, slots=True)
class LogSource:
    """A log, wherever it is.

    Attributes:
        name: As it was given.
        hub: The data set, where it is one.
    """

    name: str
    hub: HubDataset | None = None

    @property
    def path(self) -> Path:
        """The file or folder."""
        return Path(self.name)

    @property
    def exists(self) -> bool:
        """Whether it is there; of a data set on a hub only opening it can tell, so it counts as there."""
        return self.hub is not None or self.path.exists()

    def require(self) -> None:
        """Make sure that there is something.

        Raises:
            UserError: there is not.
        """
        if not self.exists:
            raise UserError(
                f"{self.name} does not exist. Give a log file (.jsonl, .json, .csv, .parquet, .zip, also with .gz), a"
                " folder of them, or hf://datasets/OWNER/NAME"
            )

    def digest(self) -> str:
        """SHA-256 of its bytes, or what stands for it on a hub.

        Raises:
            ConfigError: the hub cannot be reached.
        """
        return self.hub.digest() if self.hub else digest_path(self.path)

    def beside(self) -> dict[str, str]:
        """Digest of the file of tombstones beside it, where there is one; those in the log are in its own digest."""
        file = self.path.with_name(self.path.name + TOMBSTONES_SUFFIX)
        return {} if self.hub or not file.is_file() else {"forgotten": digest_path(file)}

    def conversations(self) -> Iterator[Conversation | RecordError]:
        """Each row's conversation, or the error that says why there is none.

        Raises:
            ConfigError: it cannot be opened.
        """
        return self.hub.conversations() if self.hub else read_conversations(self.path)

    def tombstones(self) -> list[Tombstone]:
        """Users whose words must not be used. A folder's are in its files and beside them.

        Raises:
            ConfigError: a tombstone is damaged.
        """
        if self.hub:
            return []
        if not self.path.is_dir():
            return read_tombstones(self.path)
        files = [file for file in sorted(self.path.rglob("*")) if file.is_file()]
        logs = [file for file in files if file.suffix != TOMBSTONES_SUFFIX]
        return [*read_tombstones(self.path), *(stone for log in logs for stone in read_tombstones(log))]

    def exclusions(self) -> Exclusions:
        """Conversations that their users keep out of learning. A folder's are in its files, each for all of them.

        Raises:
            ConfigError: an exclusion is damaged.
        """
        return NO_EXCLUSIONS if self.hub else read_exclusions(self.path)


def log_source(name: str | Path) -> LogSource:
    """The log of this name: a path, or ``hf://datasets/OWNER/NAME``.

    Raises:
        ConfigError: an address of a hub that is none.
    """
    return LogSource(str(name), hub_dataset(str(name)))
