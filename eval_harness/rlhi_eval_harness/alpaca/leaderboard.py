"""The leaderboard's numbers of an evaluation's subjects, as a table of its report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rlhi_eval_harness.alpaca.files import Annotation
from rlhi_eval_harness.alpaca.length_control import fit
from rlhi_eval_harness.alpaca.win_rates import WinRate, win_rate
from rlhi_plugin.errors import ConfigError

COLUMNS = (
    "Subject",
    "Win rate",
    "Standard error",
    "Length-controlled",
    "How",
    "Discrete",
    "Characters",
    "Longer wins",
    "Unscored",
)
NONE = "–"  # noqa: RUF001 - a dash where there is no number


def table(
    annotations: Mapping[str, Sequence[Annotation]],
    difficulties: Mapping[int, float],
    gamed: Path | None,
    *,
    comparable: bool,
) -> dict[str, Any]:
    """Title, columns, rows and note, ready to print.

    Args:
        annotations: By subject.
        difficulties: Of the instructions; empty where they are not known.
        gamed: ``df_gamed.csv``, for the leaderboard's own fit.
        comparable: Whether judge and set are the leaderboard's.
    """
    rows = [_row(name, each, difficulties, gamed) for name, each in annotations.items()]
    meaning = (
        "Win rates are 0 to 100; the length-controlled one is what the subject would win if its answers were as long "
        "as the baseline's."
    )
    note = [meaning]
    if not difficulties and gamed is None:
        note.append(
            "It was not computed: instruction_difficulty.csv is not in the data folder (df_gamed.csv would do as well)."
        )
    elif gamed is None:
        note.append("It is a refit: the leaderboard's own fit needs df_gamed.csv in the data folder.")
    note.append(
        "Annotator, set and the judge's name are the leaderboard's."
        if comparable
        else "Another judge or set than the leaderboard's: do not compare these numbers with it."
    )
    return {"title": "AlpacaEval 2.0", "columns": list(COLUMNS), "rows": rows, "note": " ".join(note)}


def _row(
    name: str, annotations: Sequence[Annotation], difficulties: Mapping[int, float], gamed: Path | None
) -> list[str]:
    try:
        raw = win_rate(annotations)
    except ConfigError:
        return [name, *[NONE] * (len(COLUMNS) - 2), "100 %"]
    controlled, how = _controlled(annotations, difficulties, gamed)
    longer = raw.length_bias.longer_wins.value
    return [
        name,
        f"{raw.win_rate:.2f}",
        f"{raw.standard_error:.2f}",
        controlled,
        how,
        f"{raw.discrete_win_rate:.2f}",
        f"{raw.average_length:.0f}",
        NONE if longer is None else f"{100 * longer:.0f} %",
        _unscored(raw),
    ]


def _controlled(
    annotations: Sequence[Annotation], difficulties: Mapping[int, float], gamed: Path | None
) -> tuple[str, str]:
    if not difficulties and gamed is None:
        return NONE, "not computed"
    try:
        found = fit(annotations, difficulties or None, gamed=gamed)
    except ConfigError as error:
        return NONE, f"not computed: {error}"
    return f"{found.win_rate:.2f}", found.method


def _unscored(raw: WinRate) -> str:
    return f"{100 * raw.coverage.share:.1f} %{'' if raw.coverage.usable else ' !'}"
