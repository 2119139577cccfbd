"""Which logged messages are for training and which for evaluation.

``rlhi-train ingest`` writes it as ``split.jsonl``; a later run can go on from it (``split.frozen``).
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path

from pydantic import Field, ValidationError

from rlhi_plugin.errors import ConfigError, RecordError
from rlhi_plugin.records import Record, UserId


class SplitPart(StrEnum):
    """What a conversation may be used for."""

    TRAIN = "train"
    """Personas and pairs of users in training. A persona is that of the moment before each conversation."""
    LATER = "later"
    """Evaluation of users in training: begun after the last word of what they are trained on."""
    HISTORY = "history"
    """Of a held-out user: what their persona may be built from."""
    EVALUATION = "evaluation"
    """Of a held-out user: begun after the last word of their history."""
    SET_ASIDE = "set_aside"
    """For nothing: it lies across the moment that parts two others, or is a held-out user's and has no time."""


class SplitEntry(Record):
    """One conversation of the manifest, with the ids of all its messages."""

    conversation_id: str
    user_id: UserId | None = None
    part: SplitPart
    message_ids: tuple[str, ...] = Field(min_length=1)


def read_split(path: str | Path) -> Iterator[SplitEntry]:
    """The entries of a manifest (``split.jsonl`` of a run), one after the other.

    Raises:
        ConfigError: there is no such file.
        RecordError: a line is no entry; to go on without it could leak evaluation into training.
    """
    file = Path(path)
    try:
        with file.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                try:
                    yield SplitEntry.model_validate_json(line)
                except ValidationError as error:
                    why = f"no entry of a split: {error.errors()[0]['msg']}. Restore the file."
                    raise RecordError(why, path=file, line=number) from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the split {file}: {error}. Give split.jsonl of a run.") from error
