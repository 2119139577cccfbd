"""AlpacaEval's files: the 805 instructions with the baseline's outputs, a model's outputs, annotations, difficulties.

Everything is matched by instruction, as ``alpaca_eval`` does, but nothing is matched silently: what is missing, doubled
or unknown is named.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlhi_plugin.errors import ConfigError, RecordError

WHERE = (
    "It is published with https://github.com/tatsu-lab/alpaca_eval (results/ and the leaderboard) and, as "
    "alpaca_eval_gpt4_baseline.json, instruction_difficulty.csv and df_gamed.csv, in the hub's data set "
    "tatsu-lab/alpaca_eval."
)
BASELINE = "gpt4_1106_preview"
"""What AlpacaEval 2.0 compares with."""


@dataclass(frozen=True)
class Instruction:
    """One instruction of the evaluation set.

    Attributes:
        index: Its place in the set, from 0; difficulties are by this number.
        text: The instruction.
        dataset: The part of the set that it comes from.
        baseline_output: What the baseline answered; empty where the file holds none.
    """

    index: int
    text: str
    dataset: str
    baseline_output: str


@dataclass(frozen=True)
class Annotation:
    """What the judge made of one instruction.

    Attributes:
        index: Of the instruction.
        preference: 1 (the baseline is better) to 2 (the model is better); None is unscored.
        baseline_length: Characters of the baseline's output.
        model_length: Characters of the model's output.
        unscored: Why there is no preference.
    """

    index: int
    preference: float | None
    baseline_length: int
    model_length: int
    unscored: str | None = None

    @property
    def present(self) -> bool:
        """Whether there were two outputs to judge; false where the file of annotations has no such row."""
        return self.baseline_length + self.model_length > 0


def read_instructions(path: Path) -> tuple[Instruction, ...]:
    """Read the evaluation set: JSON or JSON lines with ``instruction``, and ``output`` or ``output_gpt4_1106_preview``.

    Raises:
        ConfigError: there is no such file, or an instruction occurs twice.
        RecordError: a row has no instruction.
    """
    rows = _rows(path, "the evaluation set")
    found = []
    for number, row in enumerate(rows, start=1):
        text = row.get("instruction")
        if not isinstance(text, str):
            raise RecordError("no instruction. Give rows with instruction and output.", path=path, line=number)
        output = row.get(f"output_{BASELINE}", row.get("output"))
        found.append(Instruction(int(row.get("index", number - 1)), text, str(row.get("dataset", "")), output or ""))
    _refuse_doubled((each.text for each in found), path)
    return tuple(found)


def read_outputs(path: Path, instructions: Sequence[Instruction]) -> dict[int, str]:
    """Read a model's outputs in AlpacaEval's format: a JSON list of ``{instruction, output, generator}``.

    Returns:
        The output by the instruction's index; an empty one is kept, for it is what a user would have received.

    Raises:
        ConfigError: there is no such file, or instructions are missing, doubled or unknown.
        RecordError: a row has no instruction or no output.
    """
    rows = _rows(path, "the file of outputs")
    by_text = {each.text: each.index for each in instructions}
    outputs: dict[str, str] = {}
    for number, row in enumerate(rows, start=1):
        text, output = row.get("instruction"), row.get("output")
        if not isinstance(text, str) or not isinstance(output, str):
            message = "instruction or output is no text. Give rows {instruction, output, generator}."
            raise RecordError(message, path=path, line=number, unit="record")
        outputs[text] = output
    _refuse_doubled((row["instruction"] for row in rows), path)
    missing = [text for text in by_text if text not in outputs]
    unknown = [text for text in outputs if text not in by_text]
    if missing or unknown:
        raise ConfigError(
            f"{path}: {len(missing)} of {len(by_text)} instructions have no output{_example(missing)}; "
            f"{len(unknown)} outputs belong to no instruction{_example(unknown)}. "
            "Answer the whole set, with the instructions copied unchanged."
        )
    return {by_text[text]: output for text, output in outputs.items()}


def read_annotations(
    path: Path, instructions: Sequence[Instruction], *, model: str | None = None
) -> tuple[Annotation, ...]:
    """Read a model's annotations; one for every instruction, those that are absent from the file as unscored.

    Args:
        path: ``annotations.json`` as ``alpaca_eval`` writes it, or a table (CSV) with the columns model, index,
            len_output_1, len_output_2, preference; either may be gzipped.
        instructions: The whole evaluation set.
        model: Which one, where the file holds several.

    Raises:
        ConfigError: there is no such file or model, or instructions are doubled or unknown.
    """
    tables = read_annotation_tables(path, instructions)
    if model is None and len(tables) == 1:
        return next(iter(tables.values()))
    if model not in tables:
        raise ConfigError(f"{path} holds annotations of {', '.join(sorted(tables))}. Name one of them with --model.")
    return tables[model]


def read_annotation_tables(path: Path, instructions: Sequence[Instruction]) -> dict[str, tuple[Annotation, ...]]:
    """All models in a file of annotations; see `read_annotations`."""
    by_text = {each.text: each.index for each in instructions}
    everywhere = {each.index for each in instructions}
    tables: dict[str, dict[int, Annotation]] = {}
    for number, row in enumerate(_rows(path, "the file of annotations"), start=1):
        model = str(row.get("generator_2", row.get("model", "model")))
        index = by_text.get(row["instruction"]) if "instruction" in row else int(row.get("index", -1))
        if index is None or index not in everywhere:
            message = "the annotation belongs to no instruction of the set. Give the set that was annotated."
            raise RecordError(message, path=path, line=number, unit="record")
        if index in tables.setdefault(model, {}):
            message = f"{model}: instruction {index} is annotated twice. Keep one annotation of each."
            raise RecordError(message, path=path, line=number, unit="record")
        tables[model][index] = annotation(index, row)
    absent = "no annotation of this instruction"
    return {
        model: tuple(table.get(index, Annotation(index, None, 0, 0, absent)) for index in sorted(everywhere))
        for model, table in tables.items()
    }


def annotation(index: int, row: Mapping[str, Any]) -> Annotation:
    """One row of ``alpaca_eval``, with a reason where its preference is no preference."""
    lengths = (
        int(row["len_output_1"]) if "len_output_1" in row else len(row.get("output_1") or ""),
        int(row["len_output_2"]) if "len_output_2" in row else len(row.get("output_2") or ""),
    )
    raw = row.get("preference")
    try:
        value = float("nan") if raw is None or raw == "" else float(raw)
    except (TypeError, ValueError):
        return Annotation(index, None, *lengths, f"the preference {str(raw)[:40]!r} is no number")
    if value != value:  # noqa: PLR0124 - NaN is the one number that differs from itself
        return Annotation(index, None, *lengths, "no verdict could be read from the judge's answer")
    if value == 0:  # an early way to write a draw
        value = 1.5
    if not 1 <= value <= 2:  # noqa: PLR2004 - AlpacaEval's scale
        return Annotation(index, None, *lengths, f"the preference {value:g} lies outside 1 to 2")
    return Annotation(index, value, *lengths)


def read_difficulties(path: Path) -> dict[int, float]:
    """Read ``instruction_difficulty.csv``: the difficulty of each instruction by its index.

    Raises:
        ConfigError: there is no such file, or it holds something else.
    """
    text = open_text(path, "the file of instruction difficulties")
    rows = list(csv.reader(io.StringIO(text)))[1:]
    try:
        return {int(row[0]): float(row[-1]) for row in rows}
    except (ValueError, IndexError) as error:
        raise ConfigError(f"{path} is no table of index and difficulty. {WHERE}") from error


def open_text(path: Path, what: str) -> str:
    """The content of a text file, unzipped.

    Raises:
        ConfigError: it cannot be read; the message says what it is and where it is published.
    """
    try:
        if path.suffix == ".gz":
            with gzip.open(path, "rt", encoding="utf-8") as file:
                return file.read()
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {what} cannot be read ({error}). {WHERE}") from error


def _rows(path: Path, what: str) -> list[dict[str, Any]]:
    text = open_text(path, what)
    kind = path.name.removesuffix(".gz")
    if kind.endswith(".csv"):
        return list(csv.DictReader(io.StringIO(text)))
    try:
        rows = json.loads(text) if text.lstrip().startswith("[") else [json.loads(line) for line in text.splitlines()]
    except ValueError as error:
        raise ConfigError(f"{path}: {what} is no JSON ({error}). {WHERE}") from error
    if not all(isinstance(row, dict) for row in rows):
        raise ConfigError(f"{path}: {what} holds something else than objects. {WHERE}")
    return list(rows)


def _refuse_doubled(texts: Iterable[str], path: Path) -> None:
    doubled = [text for text, count in Counter(texts).items() if count > 1]
    if doubled:
        raise ConfigError(f"{path}: {len(doubled)} instructions occur twice{_example(doubled)}. Keep one of each.")


def _example(texts: Sequence[str]) -> str:
    return f" (such as {texts[0][:60]!r})" if texts else ""
