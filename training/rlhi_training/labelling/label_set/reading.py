"""The label set: one row per follow-up that a person read, by conversation and turn, without its text."""

from __future__ import annotations

import csv
import hashlib
import io
from importlib.resources import files
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from rlhi_plugin.errors import ConfigError
from rlhi_plugin.records import FollowUpLabel, FollowUpSubtype, Record

ConversationPart = Literal["train", "development", "held_out"]
PARTS: tuple[ConversationPart, ...] = ("train", "development", "held_out")
"""Half, a sixth and a third of the conversations."""

_SALT = "rlhi-follow-ups:"
"""Never change it: what was held out would be trained on."""
COLUMNS = ("source", "conversation_id", "turn", "digest", "label", "subtype", "confidence", "start", "end", "reader")
_FIRST, _SECOND = "follow_ups.csv", "second_readings.csv"


class Label(Record):
    """What one reader decided about one follow-up."""

    source: str
    """``wildchat``, ``arena`` or ``oasst``."""
    conversation_id: str
    """WildChat's ``conversation_hash``, or the ``id`` of the other collections."""
    turn: int = Field(ge=2)
    """Which of the conversation's user messages it is; the initial request is 1."""
    digest: str
    """First 8 hex digits of the SHA-256 of the follow-up (UTF-8): another text under the same id is noticed."""
    label: FollowUpLabel
    subtype: FollowUpSubtype
    confidence: Literal["high", "medium", "low"]
    start: int | None = Field(default=None, ge=0)
    """Where the words that decided it begin in the follow-up, in characters; None where none was marked."""
    end: int | None = Field(default=None, ge=1)
    """Where they end."""
    reader: int = Field(ge=0)
    """Number of the reader."""

    @property
    def key(self) -> tuple[str, str, int, str]:
        """Source, conversation, turn and digest."""
        return self.source, self.conversation_id, self.turn, self.digest


def digest_of_text(text: str) -> str:
    """The `Label.digest` of a follow-up."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:8]


def part_of(conversation_id: str) -> ConversationPart:
    """Which part of the label set a conversation belongs to, by its id alone and for ever."""
    number = int(hashlib.sha256(f"{_SALT}{conversation_id}".encode()).hexdigest()[:8], 16) % 6
    return "held_out" if number % 3 == 0 else "development" if number == 1 else "train"


def read_labels(path: str | Path | None = None) -> list[Label]:
    """The first readings, in the order of the file.

    Args:
        path: Another file of the same columns; None is the one in this package.

    Raises:
        ConfigError: the file is absent, or a row is not a label; the message names it.
    """
    return _read(path, _FIRST)


def read_second_readings(path: str | Path | None = None) -> list[Label]:
    """The readings of those follow-ups that two people read; as `read_labels`."""
    return _read(path, _SECOND)


def _read(path: str | Path | None, name: str) -> list[Label]:
    shown = str(path or name)
    try:
        source = files("rlhi_training") / "labelling" / "label_set" / name if path is None else Path(path)
        text = source.read_text("utf-8")
    except OSError as error:
        raise ConfigError(f"cannot read {shown}: {error.strerror}. Name a file of labels.") from error
    labels = []
    for number, row in enumerate(csv.DictReader(io.StringIO(text)), start=2):
        try:
            labels.append(Label.model_validate({k: v for k, v in row.items() if v != ""}))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise ConfigError(f"{shown}:{number}: {where}: {first['msg']}. Correct the row.") from error
    return labels


def write_labels(path: Path, labels: list[Label]) -> None:
    """Write a file that `read_labels` reads; rows in the order of source, conversation and turn."""
    with path.open("w", encoding="utf-8", newline="") as stream:
        rows = csv.writer(stream, lineterminator="\n")
        rows.writerow(COLUMNS)
        for label in sorted(labels, key=lambda one: (one.source, one.conversation_id, one.turn, one.digest)):
            values = label.model_dump(mode="json")
            rows.writerow(["" if values[name] is None else values[name] for name in COLUMNS])
