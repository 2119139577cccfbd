"""A preference pair as a row that trainers read: TRL's conversational form, and what other trainers want beside it.

``prompt``, ``chosen`` and ``rejected`` are lists of messages (TRL, Axolotl). ``chosen_message`` and
``rejected_message`` hold the same answers as single messages, which is how LLaMA-Factory wants them. All other columns
say where the pair comes from; trainers pass them over.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlhi_plugin.errors import MissingExtraError

if TYPE_CHECKING:
    from rlhi_training.records import PreferencePair

_ANSWERS = ("chosen", "rejected")
_BATCH = 1000


def row_of(pair: PreferencePair) -> dict[str, Any]:
    """The row; every column is there, absent values are None, so that all rows of a file have one schema."""
    fields = pair.model_dump(mode="json")
    answers = {name: {"role": "assistant", "content": fields[name]} for name in _ANSWERS}
    return {
        "prompt": fields.pop("prompt"),
        **{name: [answers[name]] for name in _ANSWERS},
        **{f"{name}_message": answers[name] for name in _ANSWERS},
        "pair_id": pair.pair_id,
        **{name: value for name, value in fields.items() if name not in _ANSWERS},
    }


def line_of(pair: PreferencePair) -> str:
    """The row as one line of JSON, without its end."""
    return json.dumps(row_of(pair), ensure_ascii=False)


def fields_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of the record that a row was made of; one that is no row is given back as it is.

    Raises:
        ValueError: an answer is not a single message of the assistant.
    """
    fields = {
        name: value for name, value in row.items() if name not in ("pair_id", "chosen_message", "rejected_message")
    }
    for name in _ANSWERS:
        said = fields.get(name)
        if isinstance(said, list | tuple):
            if len(said) != 1 or not isinstance(said[0], Mapping) or said[0].get("role") != "assistant":
                raise ValueError(f"{name} is not a single message of the assistant")
            fields[name] = said[0].get("content")
    return fields


def write_pairs_parquet(path: Path, pairs: Iterable[PreferencePair]) -> None:
    """`write_rows_parquet` of pairs."""
    write_rows_parquet(path, map(row_of, pairs))


def write_rows_parquet(path: Path, found: Iterable[dict[str, Any]]) -> None:
    """Write the rows as Parquet, a thousand at a time. The same pairs give the same bytes.

    Raises:
        MissingExtraError: pyarrow is not installed.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise MissingExtraError("pyarrow", "parquet") from error
    schema = _schema(pa)
    draft = path.with_name(f".{path.name}.draft")
    try:
        with pq.ParquetWriter(draft, schema, compression="zstd") as writer:
            rows: list[dict[str, Any]] = []
            for row in found:
                rows.append(row)
                if len(rows) == _BATCH:
                    writer.write_table(pa.Table.from_pylist(rows, schema))
                    rows = []
            writer.write_table(pa.Table.from_pylist(rows, schema))
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def _schema(pa: Any) -> Any:
    text = pa.string()
    message = pa.struct([("role", text), ("content", text)])
    messages = pa.list_(message)
    provenance = pa.struct(
        [
            *((name, text) for name in ("conversation_id",)),
            ("turn", pa.int64()),
            *((name, text) for name in ("request_id", "response_id", "follow_up_id")),
            ("persona_message_ids", pa.list_(text)),
            *((name, text) for name in ("chosen_candidate", "rejected_candidate")),
        ]
    )
    return pa.schema(
        [
            *((name, messages) for name in ("prompt", *_ANSWERS)),
            *((f"{name}_message", message) for name in _ANSWERS),
            *((name, text) for name in ("pair_id", "source", "user_id")),
            ("margin", pa.float64()),
            ("persona_digest", text),
            ("provenance", provenance),
            *((name, text) for name in ("label", "labeller", "chosen_model", "rejected_model", "log", "language")),
        ]
    )
