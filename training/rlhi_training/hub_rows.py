"""Rows of a data set on the Hugging Face hub, or in a folder that `datasets` reads, as a stream.

``hf://datasets/allenai/WildChat-1M``, with ``@REVISION`` and ``?split=NAME`` where they are wanted; a local folder is
``hf://datasets//the/folder``. What the rows are is told from their fields, as for every other log.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlhi_plugin.errors import ConfigError, MissingExtraError, RecordError
from rlhi_plugin.importers import Row, read_rows
from rlhi_plugin.records import Conversation
from rlhi_training.run_directory import digest_path

# `Path` makes one slash of two.
_ADDRESS = re.compile(r"hf:/{1,2}datasets/(?P<name>[^?@]+)(@(?P<revision>[^?]+))?(\?split=(?P<split>\w+))?")
_UNREAD = ("openai_moderation", "detoxify_moderation")


@dataclass(frozen=True, slots=True)
class HubDataset:
    """Where a data set is.

    Attributes:
        name: ``owner/name``, or an absolute folder.
        revision: Branch, tag or commit; None is the newest.
        split: Which part of it.
    """

    name: str
    revision: str | None = None
    split: str = "train"

    @property
    def is_local(self) -> bool:
        """Whether it is a folder of this machine."""
        return self.name.startswith("/")

    def conversations(self) -> Iterator[Conversation | RecordError]:
        """Each row's conversation, or the error that says why there is none.

        Raises:
            ConfigError: there is no such data set, or the hub cannot be reached.
            MissingExtraError: `datasets` is not installed.
        """
        records = read_rows(self._rows())
        return (record for record in records if isinstance(record, Conversation | RecordError))

    def digest(self) -> str:
        """What changes when the data does: the commit on the hub, or the digest of the folder.

        Raises:
            ConfigError, MissingExtraError: as in `conversations`.
        """
        if self.is_local:
            return digest_path(Path(self.name))
        try:
            from huggingface_hub import HfApi
        except ImportError as error:
            raise MissingExtraError("huggingface_hub", "train") from error
        try:
            return f"{self.name}@{HfApi().dataset_info(self.name, revision=self.revision).sha}"
        except Exception as error:
            raise self._unreachable(error) from error

    def _rows(self) -> Iterator[Row | RecordError]:
        try:
            from datasets import load_dataset
        except ImportError as error:
            raise MissingExtraError("datasets", "train") from error
        try:
            stream: Any = load_dataset(self.name, split=self.split, revision=self.revision, streaming=True)
        except Exception as error:
            raise self._unreachable(error) from error
        unread = [name for name in _UNREAD if name in (stream.column_names or [])]
        if unread:
            # Four fifths of WildChat's bytes, and nobody looks at them.
            stream = stream.remove_columns(unread)
        number = 0
        rows = iter(stream)
        while True:
            number += 1
            try:
                row = next(rows, None)
            except Exception as error:  # noqa: BLE001 - whatever a remote file's reader raises, the rest cannot be read
                why = f"the data set is damaged from here on: {error}. Load it again."
                yield RecordError(why, path=self.name, line=number, unit="record")
                return
            if row is None:
                return
            yield Row(row, Path(self.name), number, "record")

    def _unreachable(self, error: Exception) -> ConfigError:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        return ConfigError(
            f"cannot open the data set {self.name}: {first} Check its name and the network (HF_HUB_OFFLINE has to be"
            " unset), or download it elsewhere and give its folder or Parquet files."
        )


def hub_dataset(address: str) -> HubDataset | None:
    """The data set that an address names; None for what is no such address.

    Raises:
        ConfigError: it begins as one and is none.
    """
    if not address.startswith("hf:/"):
        return None
    found = _ADDRESS.fullmatch(address)
    if found is None:
        raise ConfigError(f"{address} names no data set. Write it as hf://datasets/OWNER/NAME, maybe with ?split=train")
    return HubDataset(found["name"].rstrip("/"), found["revision"], found["split"] or "train")
