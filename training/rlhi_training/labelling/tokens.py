"""What the encoder reads of an exchange: follow-up, request and reply in one row of word pieces, clipped in the middle.

``[CLS] follow-up [SEP] request [SEP] reply [SEP]``. Of each text the beginning and the end are kept: whether a reply
was a refusal or asked back shows where it begins and ends, and every token costs time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rlhi_plugin.labelling import Exchange
from rlhi_training.sentence_encoder import minilm_folder

if TYPE_CHECKING:
    import torch

KEPT = ((40, 12), (20, 6), (16, 12))
"""Word pieces kept at the beginning and the end of follow-up, request and reply (ours): 62 a row on average."""
_CLS, _SEP, _GAP = 101, 102, 1012
"""Ids of [CLS], [SEP] and the full stop, two of which stand where something was left out."""
_CHARS = 8
"""Characters per word piece that suffice to fill it: the rest is not even split."""
FOLLOW_UP, REQUEST, REPLY = 0, 1, 2


@dataclass(frozen=True)
class Row:
    """One exchange as word pieces.

    Attributes:
        ids: Word pieces.
        segments: Which text each belongs to, separators to the text before them.
    """

    ids: list[int]
    segments: list[int]


class RowMaker:
    """Makes rows; holds the tokenizer.

    Raises:
        MissingEncoderError: the package with the tokenizer is not installed.
    """

    def __init__(self) -> None:
        from tokenizers import Tokenizer

        self._tokenizer = Tokenizer.from_file(str(minilm_folder() / "tokenizer.json"))
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()

    def rows(self, exchanges: Sequence[Exchange]) -> list[Row]:
        """One row per exchange."""
        texts = [
            _ends(text, *kept)
            for exchange in exchanges
            for text, kept in zip((exchange.follow_up, exchange.request, exchange.reply), KEPT, strict=True)
        ]
        pieces = [found.ids for found in self._tokenizer.encode_batch(texts, add_special_tokens=False)]
        made = []
        for start in range(0, len(pieces), len(KEPT)):
            ids, segments = [_CLS], [FOLLOW_UP]
            for segment, (found, kept) in enumerate(zip(pieces[start : start + len(KEPT)], KEPT, strict=True)):
                part = [*_clip(found, *kept), _SEP]
                ids += part
                segments += [segment] * len(part)
            made.append(Row(ids, segments))
        return made


def _ends(text: str, head: int, tail: int) -> str:
    if len(text) <= _CHARS * (head + tail):
        return text
    return f"{text[: 10 * head]} {text[-_CHARS * tail :]}"


def _clip(ids: list[int], head: int, tail: int) -> list[int]:
    return ids if len(ids) <= head + tail else [*ids[:head], _GAP, _GAP, *ids[len(ids) - tail + 2 :]]


def batches(rows: Sequence[Row], size: int) -> Iterator[list[int]]:
    """Places of rows of about the same length, `size` at a time."""
    order = sorted(range(len(rows)), key=lambda i: len(rows[i].ids))
    for start in range(0, len(order), size):
        yield order[start : start + size]


def padded(rows: Sequence[Row]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Word pieces, segments (-1 is padding) and mask, each of shape (rows, longest)."""
    import torch

    longest = max(len(row.ids) for row in rows)

    def filled(values: Sequence[list[int]], empty: int) -> Any:
        return torch.tensor([[*one, *[empty] * (longest - len(one))] for one in values], dtype=torch.long)

    segments = filled([row.segments for row in rows], -1)
    return filled([row.ids for row in rows], 0), segments, (segments >= 0).long()
