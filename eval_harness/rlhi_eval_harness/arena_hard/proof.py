"""Arena-Hard against published numbers: scores and intervals from judgments, bootstrap samples, markdown counts."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from rlhi_eval_harness.arena_hard.files import WHERE, read_answers, read_judgments, read_questions
from rlhi_eval_harness.arena_hard.scores import ArenaScore, arena_score
from rlhi_eval_harness.arena_hard.style import Style
from rlhi_plugin.errors import ConfigError


@dataclass(frozen=True)
class ArenaProof:
    """One model of the Korean translation: our score from its judgments, and the published one.

    Attributes:
        model: On the leaderboard.
        ours: From its file of judgments.
        published: Score, lower and upper end of its 95 % interval. The published ends compare a model's lower (upper)
            rating with the baseline's own lower (upper) one, so they lie closer together than an interval over battles.
        published_elo: The same score on the Elo scale, the baseline at 1000.
        is_baseline: Its published score is 50 by definition; its own judgments compare it with itself.
    """

    model: str
    ours: ArenaScore
    published: tuple[float, float, float]
    published_elo: float
    is_baseline: bool

    @property
    def elo(self) -> float:
        """Our score on the Elo scale: 400 points are odds of ten to one."""
        odds = self.ours.score / (100 - self.ours.score)
        return 1000 + 400 * math.log10(odds)


@dataclass(frozen=True)
class BootstrapProof:
    """The interval of one model from its published bootstrap samples, and as published."""

    model: str
    ours: tuple[float, float]
    published: tuple[float, float]


@dataclass(frozen=True)
class StyleProof:
    """Markdown counts of published answers, ours against those published with them."""

    model: str
    answers: int
    equal: int


def prove_scores(data: Path) -> tuple[ArenaProof, ...]:
    """Every file in ``judgments_ko`` against ``judgments_ko/leaderboard_no_control.csv``.

    Raises:
        ConfigError: a file is missing.
    """
    folder = data / "judgments_ko"
    proofs = []
    for row in _table(folder / "leaderboard_no_control.csv"):
        published = float(row["score"]), float(row["rating_q025"]), float(row["rating_q975"])
        score = arena_score(read_judgments(folder / f"{row['model']}.jsonl"), "v0.1", resamples=1000)
        is_baseline = published == (50.0, 50.0, 50.0)
        proofs.append(ArenaProof(row["model"], score, published, float(row["elo_score"]), is_baseline))
    return tuple(proofs)


def prove_bootstrap(data: Path) -> tuple[BootstrapProof, ...]:
    """The ends of v0.1's published intervals from the 1,000 scores that each was taken from.

    Raises:
        ConfigError: the file is missing.
    """
    path = data / "bootstrap" / "bootstrap_stats_arena_hard.jsonl"
    proofs = []
    for line in _text(path).splitlines():
        row = json.loads(line)
        low, high = np.quantile(row["results"], [0.025, 0.975])
        proofs.append(BootstrapProof(row["model"], (float(low), float(high)), (row["lower"], row["upper"])))
    return tuple(proofs)


def prove_style(data: Path) -> tuple[StyleProof, ...]:
    """Our markdown counts against those published with v2.0's answers; and that every question has an answer.

    Raises:
        ConfigError: a file is missing, or an answer is.
    """
    proofs = []
    for version in ("arena-hard-v0.1", "arena-hard-v2.0"):
        questions = read_questions(data / version / "question.jsonl")
        for path in sorted((data / version / "model_answer").glob("*.jsonl")):
            answers = read_answers(path, questions).values()
            styled = [(each.text, each.style) for each in answers if each.style is not None]
            equal = sum(_counted(text, style) == style for text, style in styled)
            if styled:
                proofs.append(StyleProof(path.stem, len(styled), equal))
    return tuple(proofs)


def _counted(text: str, published: Style) -> Style:
    """Our markdown counts, beside the published length: its tokenizer is not part of the data."""
    return Style.of(text, lambda _: published.tokens)


def _table(path: Path) -> Sequence[dict[str, str]]:
    return list(csv.DictReader(_text(path).splitlines()))


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error}). {WHERE}") from error
