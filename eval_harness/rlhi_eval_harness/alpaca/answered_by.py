"""Which model answered each annotation: a column in ``alpaca_eval``'s files, carried like its others.

The package keeps of a reply what it parses, and the model's name is not in that. Our client writes the name into each
choice; here it is taken out again before anything is parsed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

IN_CHOICE = "served_by"
"""Where a choice holds the model on its way from the client to here."""
COLUMN = "preference_answered_by"
"""The column in cache.json and annotations.json; ``alpaca_eval`` begins the names of what it adds with the score's."""
_SAID = "preference_date"
"""A column that it fills for what a judge said; equal outputs are a draw without asking."""


def keep_answered_by(annotator: Any) -> None:
    """Make an annotator keep, of every annotation from now on, the model that the reply named.

    Args:
        annotator: ``alpaca_eval``'s ``PairwiseAnnotator``.
    """
    annotator.other_output_keys_to_keep.append(COLUMN)
    annotator.other_keys_to_keep.append(COLUMN)
    for single in annotator.annotators.values():
        single.fn_completions = _naming(single.fn_completions)


def _naming(complete: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    def named(**request: Any) -> dict[str, Any]:
        found = complete(**request)
        count = len(found["completions"])
        whole = found.get("completions_all")
        # Other decoders than OpenAI's have choices of other kinds, and come without the name.
        choices = whole if isinstance(whole, list) and len(whole) == count else [None] * count
        names = [each.pop(IN_CHOICE, None) if isinstance(each, dict) else None for each in choices]
        return {**found, COLUMN.removeprefix("preference_"): names}

    return named


def answered_by(rows: Iterable[Mapping[Any, Any]]) -> list[str | None]:
    """For each annotation that a judge gave, the model that its reply named; None where none is on record.

    ``alpaca_eval`` keeps nothing of a reply that it cannot read, so unscored annotations are not among them.
    """
    return [_text(row.get(COLUMN)) for row in rows if _text(row.get(_SAID)) is not None]


def _text(value: Any) -> str | None:
    """A cell's text; None of an empty one, which a table has as NaN."""
    return None if value is None or value != value else str(value)  # noqa: PLR0124 - NaN
