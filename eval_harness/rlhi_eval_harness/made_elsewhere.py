"""Answers that were made elsewhere: a file with one answer for each item of the plan, no more and no fewer.

JSON lines or a JSON list. A row says whose answer it is by ``item_id``, or as AlpacaEval does (``instruction``,
``output``), or as Arena-Hard does (``uid``, ``messages``).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, ValidationError

from rlhi_eval_harness.arena_hard.files import answer_text
from rlhi_eval_harness.records import PlannedSample
from rlhi_plugin.chat import FinishReason
from rlhi_plugin.errors import ConfigError, RecordError
from rlhi_plugin.records import Record

SHOWN = 3
"""Ids that a message names."""


class OutsideOutput(Record):
    """One line of an outputs file."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    item_id: str
    """``user/item``, as plan.jsonl has it without the subject."""
    output: str
    finish_reason: FinishReason = "stop"


def read_outputs(path: Path, plan: Sequence[PlannedSample]) -> dict[str, OutsideOutput]:
    """Read one subject's outputs, by item.

    Args:
        path: JSON lines or a list, see above; further fields are passed over.
        plan: This subject's samples.

    Raises:
        ConfigError: there is no such file, or ids are missing, doubled or unknown.
        RecordError: a line is damaged.
    """
    found: dict[str, OutsideOutput] = {}
    doubled = []
    names = _Names(plan)
    for number, row in _rows(path):
        try:
            output = OutsideOutput.model_validate(names.plain(row))
        except (ValueError, ValidationError) as error:
            raise RecordError(
                "no JSON object with item_id and output. Mend the line.", path=path, line=number
            ) from error
        if output.item_id in found:
            doubled.append(output.item_id)
        found[output.item_id] = output
    asked = {sample.item_id for sample in plan}
    # Where only a part of a benchmark is asked, a file may answer all of it.
    part = any(sample.facts.get("of", 0) > len(asked) for sample in plan)
    problems = [
        f"{len(ids)} {what} ({', '.join(ids[:SHOWN])}{', ...' if len(ids) > SHOWN else ''})"
        for ids, what in (
            (sorted(asked - found.keys()), "missing"),
            (sorted(set(doubled)), "doubled"),
            ([] if part else sorted(found.keys() - asked), "not asked for"),
        )
        if ids
    ]
    if problems:
        raise ConfigError(
            f"{path} does not fit the plan of {len(asked)} items: {'; '.join(problems)}. Write one line an item_id of "
            "plan.jsonl (rlhi-eval answer --plan-only makes it)."
        )
    return {name: output for name, output in found.items() if name in asked}


class _Names:
    """Finds the item that a row of another harness's form answers."""

    def __init__(self, plan: Sequence[PlannedSample]) -> None:
        self._by_request = {sample.request: sample.item_id for sample in plan}
        self._by_uid = {str(sample.facts["uid"]): sample.item_id for sample in plan if "uid" in sample.facts}

    def plain(self, row: Any) -> Any:
        """The row with ``item_id`` and ``output``; as it is, where it has neither form."""
        if not isinstance(row, Mapping) or "item_id" in row:
            return row
        if isinstance(text := row.get("instruction"), str):
            return {**row, "item_id": self._by_request.get(text, text)}
        uid = row.get("uid", row.get("question_id"))
        if isinstance(uid, str):
            return {**row, "item_id": self._by_uid.get(uid, uid), "output": answer_text(row)}
        return row


def _rows(path: Path) -> Iterator[tuple[int, Any]]:
    """Rows with their numbers; what is no JSON comes as its text."""
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"cannot read the outputs {path}: {getattr(error, 'strerror', None) or 'it is no text'}. Check the path."
        ) from error
    if text.lstrip().startswith("["):
        try:
            yield from enumerate(json.loads(text), start=1)
        except ValueError as error:
            raise ConfigError(f"{path} is no JSON list: {error}. Mend the file.") from error
        return
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                yield number, json.loads(line)
            except ValueError:
                yield number, line
