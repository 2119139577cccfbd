"""AlpacaEval 2.0 against its published leaderboard, from the published annotations."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path

from rlhi_eval_harness.alpaca.files import (
    BASELINE,
    open_text,
    read_annotation_tables,
    read_difficulties,
    read_instructions,
)
from rlhi_eval_harness.alpaca.length_control import LengthControlled, fit, from_coefficients, read_coefficients
from rlhi_eval_harness.alpaca.win_rates import win_rate
from rlhi_eval_harness.inference.coverage import Coverage


@dataclass(frozen=True)
class AlpacaProof:
    """One model: what we compute, and what the leaderboard says. Win rates are 0 to 100.

    Attributes:
        model: On the leaderboard.
        win_rate: Ours.
        published_win_rate: The leaderboard's; None where it does not list the model.
        from_coefficients: Our length-controlled one, given the published coefficients; None without a table of them.
        fitted: Our length-controlled one, fitted to the annotations; None for the baseline.
        published_length_controlled: The leaderboard's.
        coverage: What of the 805 instructions is annotated.
    """

    model: str
    win_rate: float
    published_win_rate: float | None
    from_coefficients: LengthControlled | None
    fitted: LengthControlled | None
    published_length_controlled: float | None
    coverage: Coverage


def prove_alpaca_eval(
    data: Path, *, coefficients: Path | None = None, gamed: Path | None = None
) -> tuple[AlpacaProof, ...]:
    """Compute every annotated model's win rates and set them beside the leaderboard's.

    Args:
        data: Folder with ``eval_set_805.jsonl``, ``annotations_20_models.csv.gz``,
            ``instruction_difficulty_recovered.csv`` and ``leaderboard_weighted_alpaca_eval_gpt4_turbo.csv``.
        coefficients: Table of published GLM coefficients.
        gamed: ``df_gamed.csv``, for the exact fit.

    Raises:
        ConfigError: a file is missing; the message says where it is published.
    """
    instructions = read_instructions(data / "eval_set_805.jsonl")
    difficulties = read_difficulties(data / "instruction_difficulty_recovered.csv")
    tables = read_annotation_tables(data / "annotations_20_models.csv.gz", instructions)
    leaderboard = _leaderboard(data / "leaderboard_weighted_alpaca_eval_gpt4_turbo.csv")
    published = {} if coefficients is None else read_coefficients(coefficients)
    proofs = []
    for model, rows in sorted(tables.items()):
        raw = win_rate(rows)
        listed = leaderboard.get(model)
        given = published.get(model)
        proofs.append(
            AlpacaProof(
                model=model,
                win_rate=raw.win_rate,
                published_win_rate=None if listed is None else listed[0],
                from_coefficients=None if given is None else from_coefficients(given, difficulties, rows, by_row=True),
                fitted=None if model == BASELINE else fit(rows, difficulties, by_row=True, gamed=gamed),
                published_length_controlled=None if listed is None else listed[1],
                coverage=raw.coverage,
            )
        )
    return tuple(proofs)


def _leaderboard(path: Path) -> dict[str, tuple[float, float]]:
    """Win rate and length-controlled win rate by model."""
    rows = csv.DictReader(io.StringIO(open_text(path, "the leaderboard")))
    return {row[""]: (float(row["win_rate"]), float(row["length_controlled_winrate"])) for row in rows}
