"""Reads PrefEval's files, which the user brings: they are not ours to ship (CC BY-NC 4.0)."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from rlhi_plugin.errors import ArtefactError, ConfigError
from rlhi_plugin.records import ChatMessage, Record

OPTIONS = "mcq_options"
CHOICES = "implicit_preference/choice-based"
HOW_TO_GET = (
    "Get them with: git clone https://github.com/amazon-science/PrefEval, and give the folder benchmark_dataset with "
    "--set data=FOLDER (or RLHI_EVAL_DATA)"
)
ACKNOWLEDGED = "Noted, thank you for telling me."
"""What the assistant says to a preference that was said plainly (ours; PrefEval lets the model under test answer)."""

Form = Literal["explicit", "choice"]


class PrefItem(Record):
    """One preference and one question that it matters to."""

    item_id: str
    """``topic-000``."""
    topic: str
    preference: str
    question: str
    options: tuple[Annotated[str, Field(min_length=1)], ...] = Field(min_length=2)
    """The first one follows the preference, the others do not; they are shuffled before anybody sees them."""
    said: tuple[ChatMessage, ...]
    """How the user let the preference be known: an exchange, or a choice that shows it."""


def read_items(folder: Path | None, form: Form) -> tuple[list[PrefItem], str]:
    """All items, in the order of their ids, and a digest of the files.

    Args:
        folder: PrefEval's ``benchmark_dataset``.
        form: ``explicit``: the user says it plainly; ``choice``: the user chooses among four suggestions.

    Raises:
        ConfigError: the folder, or one of its parts, is absent; the message says how to get it.
        ArtefactError: a file is damaged.
    """
    if folder is None:
        raise ConfigError(f"PrefEval's files are missing: no folder was given. {HOW_TO_GET}.")
    parts = [OPTIONS, *([CHOICES] if form == "choice" else [])]
    for part in parts:
        if not any((folder / part).glob("*.json")):
            raise ConfigError(f"PrefEval's files are missing: {folder / part} holds none. {HOW_TO_GET}.")
    digest = hashlib.sha256()
    items = []
    # The published folder holds one topic twice, as a file manager's copy.
    for file in sorted(path for path in (folder / OPTIONS).glob("*.json") if " " not in path.stem):
        rows, choices = _rows(file, digest), {}
        if form == "choice":
            choices = {row["preference"]: row for row in _rows(folder / CHOICES / file.name, digest)}
        items += [_item(file, number, row, choices if form == "choice" else None) for number, row in enumerate(rows)]
    return items, digest.hexdigest()


def _rows(file: Path, digest: Any) -> list[dict[str, Any]]:
    try:
        content = file.read_bytes()
        rows = json.loads(content)
    except (OSError, ValueError) as error:
        raise ArtefactError(f"{file} cannot be read: {error}. Get PrefEval's files again.") from error
    digest.update(content)
    return list(rows)


def _item(file: Path, number: int, row: dict[str, Any], choices: dict[str, Any] | None) -> PrefItem:
    try:
        if choices is None:
            said = [("user", row["preference"]), ("assistant", ACKNOWLEDGED)]
        else:
            talk = choices[row["preference"]]["conversation"]
            said = [
                ("user", talk["query"]),
                ("assistant", talk["assistant_options"]),
                ("user", talk["user_selection"]),
                ("assistant", talk["assistant_acknowledgment"]),
            ]
        return PrefItem(
            item_id=f"{file.stem}-{number:03d}",
            topic=file.stem,
            preference=row["preference"],
            question=row["question"],
            options=tuple(row["classification_task_options"]),
            said=tuple(ChatMessage.model_validate({"role": role, "content": text}) for role, text in said),
        )
    except (KeyError, TypeError, ValidationError) as error:
        raise ArtefactError(
            f"{file}: item {number} has another form: {error!r}. Get PrefEval's files again."
        ) from error
