"""From what annotators wrote to the label set: one line per follow-up, checked and joined with its text.

A folder of annotations holds ``key.json`` (for each name in the files its source, conversation and turn),
``texts.json`` (for each name the follow-up) and ``out/partN.tsv`` (first readings by reader N) and ``out/secondN.tsv``
(readings by reader N of what another had read). A line is: name, label (n, f, r, p), subtype, confidence (h, m, l) and
the words of the follow-up that decided it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from pydantic import ValidationError

from rlhi_plugin.errors import ConfigError
from rlhi_plugin.records import FollowUpLabel
from rlhi_training.labelling.label_set.reading import Label, digest_of_text

_LABELS = {
    "n": FollowUpLabel.NEW_REQUEST,
    "f": FollowUpLabel.WITH_FEEDBACK,
    "r": FollowUpLabel.WITHOUT_FEEDBACK,
    "p": FollowUpLabel.POSITIVE_FEEDBACK,
}
_CONFIDENCE = {"h": "high", "m": "medium", "l": "low"}
_FIELDS = 5
_FILE = re.compile(r"(part|second)(\d+)\.tsv")


class Annotations(NamedTuple):
    """What a folder of annotations holds."""

    first: list[Label]
    second: list[Label]
    refused: list[str]
    """Lines that are no label, as ``file:line: why``."""


def read_annotations(folder: Path) -> Annotations:
    """Read and check a folder of annotations; of a follow-up that a file has twice, the last line counts.

    Raises:
        ConfigError: a file that the folder must hold is absent.
    """
    try:
        key: dict[str, dict[str, object]] = json.loads((folder / "key.json").read_text("utf-8"))
        texts: dict[str, str] = json.loads((folder / "texts.json").read_text("utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read {error.filename}: {error.strerror}. Give a folder of annotations.") from error
    found: dict[str, dict[str, Label]] = {"part": {}, "second": {}}
    refused: list[str] = []
    for path in sorted((folder / "out").glob("*.tsv")):
        named = _FILE.fullmatch(path.name)
        if named is None:
            continue
        for number, fields in _lines(path):
            try:
                name = fields[0]
                found[named[1]][name] = _label(fields, key, texts, int(named[2]))
            except (KeyError, IndexError, ValueError) as error:
                refused.append(f"{path.name}:{number}: {_first(error)}")
    return Annotations(list(found["part"].values()), list(found["second"].values()), refused)


def _lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    for number, line in enumerate(path.read_text("utf-8").split("\n"), start=1):
        if line.strip():
            fields = line.split("\t") if "\t" in line else re.split(r" \| ?", line)
            fields = [field.strip() for field in fields]
            yield number, [*fields[: _FIELDS - 1], " | ".join(fields[_FIELDS - 1 :])]


def _label(fields: list[str], key: dict[str, dict[str, object]], texts: dict[str, str], reader: int) -> Label:
    name, label, subtype, confidence, evidence = fields
    place, text = key[name], texts[name]
    span = find_span(evidence, text) if evidence else None
    return Label.model_validate(
        {
            "source": place["source"],
            "conversation_id": place["hash"],
            "turn": place["user_turn"],
            "digest": digest_of_text(text),
            "label": _LABELS[label],
            "subtype": subtype,
            "confidence": _CONFIDENCE[confidence],
            "start": span[0] if span else None,
            "end": span[1] if span else None,
            "reader": reader,
        }
    )


def find_span(quote: str, text: str) -> tuple[int, int] | None:
    """Where a quotation stands in a text, in characters; case and white space may differ. None where it does not."""
    words = [re.escape(word) for word in quote.split()]
    found = re.search(r"\s+".join(words), text, re.IGNORECASE) if words else None
    return found.span() if found else None


def _first(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    return f"{type(error).__name__}: {error}"
