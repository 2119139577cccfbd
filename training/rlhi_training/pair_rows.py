"""A preference pair as a row that trainers read: TRL's conversational form, and what other trainers want beside it.

``prompt``, ``chosen`` and ``rejected`` are lists of messages (TRL, Axolotl). ``chosen_message`` and
``rejected_message`` hold the same answers as single messages, which is how LLaMA-Factory wants them. All other columns
say where the pair comes from; trainers pass them over.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlhi_plugin.errors import MissingExtraError
from rlhi_training.drafts import whole

if TYPE_CHECKING:
    from rlhi_training.records import PreferencePair

_ANSWERS = ("chosen", "rejected")
_SAID = frozenset(("prompt", *_ANSWERS, *(f"{name}_message" for name in _ANSWERS)))
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
    return row_line(row_of(pair))


def row_line(row: Mapping[str, Any]) -> str:
    """A row as one line of JSON, without its end."""
    # Both answers are in it twice, and are spelt once.
    chosen, rejected = (_spelt(row[f"{name}_message"]) for name in _ANSWERS)
    rest = {name: value for name, value in row.items() if name not in _SAID}
    return (
        f'{{"prompt": {_spelt(row["prompt"])}, "chosen": [{chosen}], "rejected": [{rejected}],'
        f' "chosen_message": {chosen}, "rejected_message": {rejected}, {_spelt(rest)[1:]}'
    )


_spelt = json.JSONEncoder(ensure_ascii=False).encode


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
    """`write_lines_parquet` of pairs."""
    write_lines_parquet(path, (line_of(pair).encode() for pair in pairs))


def write_lines_parquet(path: Path, found: Iterable[bytes]) -> None:
    """Write rows, each a line of JSON, as Parquet, a thousand at a time. The same pairs give the same bytes.

    Raises:
        MissingExtraError: pyarrow is not installed.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise MissingExtraError("pyarrow", "parquet") from error
    schema = _schema(pa)
    lines = iter(found)
    with whole(path) as stream, pq.ParquetWriter(stream, schema, compression="zstd") as writer:
        while True:
            some = list(islice(lines, _BATCH))
            writer.write_table(_table(some, schema) if some else schema.empty_table())
            if len(some) < _BATCH:
                break


def _table(lines: Sequence[bytes], schema: Any) -> Any:
    """Lines of JSON as columns, without an object of Python for each value."""
    import pyarrow as pa
    from pyarrow import json as arrow_json

    body = b"\n".join(lines)
    table = arrow_json.read_json(
        pa.BufferReader(body),
        # In one block: no line may lie across two.
        read_options=arrow_json.ReadOptions(use_threads=False, block_size=len(body) + 1),
        parse_options=arrow_json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="error"),
    )
    return table.select(schema.names)


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
