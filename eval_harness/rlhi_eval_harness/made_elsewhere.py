"""Answers that were made elsewhere: a JSONL file with one answer for each item of the plan, no more and no fewer."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from pydantic import ConfigDict, ValidationError

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
        path: JSONL with ``item_id`` and ``output``; further fields are passed over.
        plan: This subject's samples.

    Raises:
        ConfigError: there is no such file, or ids are missing, doubled or unknown.
        RecordError: a line is damaged.
    """
    try:
        lines = path.read_text("utf-8").split("\n")
    except OSError as error:
        raise ConfigError(f"cannot read the outputs {path}: {error.strerror}. Check the path.") from error
    found: dict[str, OutsideOutput] = {}
    doubled = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            output = OutsideOutput.model_validate(json.loads(line))
        except (ValueError, ValidationError) as error:
            raise RecordError(
                "no JSON object with item_id and output. Mend the line.", path=path, line=number
            ) from error
        if output.item_id in found:
            doubled.append(output.item_id)
        found[output.item_id] = output
    asked = {sample.item_id for sample in plan}
    problems = [
        f"{len(ids)} {what} ({', '.join(ids[:SHOWN])}{', ...' if len(ids) > SHOWN else ''})"
        for ids, what in (
            (sorted(asked - found.keys()), "missing"),
            (sorted(set(doubled)), "doubled"),
            (sorted(found.keys() - asked), "not asked for"),
        )
        if ids
    ]
    if problems:
        raise ConfigError(
            f"{path} does not fit the plan of {len(asked)} items: {'; '.join(problems)}. Write one line an item_id of "
            "plan.jsonl (rlhi-eval answer --plan-only makes it)."
        )
    return found
