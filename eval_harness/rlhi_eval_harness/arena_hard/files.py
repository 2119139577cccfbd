"""Arena-Hard's files: questions, answers and judgments, in the layouts of v0.1 and v2.0."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlhi_eval_harness.arena_hard.style import Style
from rlhi_eval_harness.arena_hard.verdicts import Game, games_of, known_label
from rlhi_plugin.errors import ConfigError, RecordError

WHERE = (
    "Questions, answers of baselines, and prompts are in https://github.com/lmarena/arena-hard-auto (Apache-2.0), and "
    "all but the prompts in the hub's data set lmarena-ai/arena-hard-auto."
)
BASELINES = {
    "arena-hard-v0.1": "gpt-4-0314",
    "hard_prompt": "o3-mini-2025-01-31",
    "creative_writing": "gemini-2.0-flash-001",
}
"""Whom the answers are compared with, by the question's category."""

GAMES = 2
"""Games per question: one in each order."""


@dataclass(frozen=True)
class Question:
    """One question.

    Attributes:
        uid: Its id.
        category: ``arena-hard-v0.1``, ``hard_prompt`` or ``creative_writing``; decides baseline and prompt.
        prompt: What is asked.
    """

    uid: str
    category: str
    prompt: str


@dataclass(frozen=True)
class ModelAnswer:
    """One model's answer to one question.

    Attributes:
        uid: Of the question.
        model: Who answered.
        text: The answer.
        style: As published with the answer; None where it is not.
    """

    uid: str
    model: str
    text: str
    style: Style | None = None


@dataclass(frozen=True)
class Judgment:
    """The two games of one question, seen from the model's side.

    Attributes:
        uid: Of the question.
        games: Two, unscored ones included.
        category: Of the question; empty where the file does not say.
    """

    uid: str
    games: tuple[Game, ...]
    category: str = ""


def read_questions(path: Path) -> tuple[Question, ...]:
    """Read ``question.jsonl``.

    Raises:
        ConfigError: there is no such file, or a question occurs twice.
        RecordError: a row is no question.
    """
    questions: dict[str, Question] = {}
    for line, row in _rows(path, "the file of questions"):
        prompt = row.get("prompt") or (row.get("turns") or [{}])[0].get("content")
        uid = _uid(row, path, line)
        if not isinstance(prompt, str):
            raise RecordError("the question has no prompt. Give question.jsonl unchanged.", path=path, line=line)
        if uid in questions:
            raise RecordError(f"question {uid} occurs twice. Keep one.", path=path, line=line)
        questions[uid] = Question(uid, str(row.get("category", "arena-hard-v0.1")), prompt)
    return tuple(questions.values())


def read_answers(path: Path, questions: Sequence[Question]) -> dict[str, ModelAnswer]:
    """Read a model's answers, by the question's id.

    Raises:
        ConfigError: there is no such file, or questions have no answer.
        RecordError: an answer is doubled, belongs to no question, or has no text.
    """
    wanted = {question.uid for question in questions}
    answers: dict[str, ModelAnswer] = {}
    for line, row in _rows(path, "the file of answers"):
        uid, text = _uid(row, path, line), answer_text(row)
        if text is None:
            raise RecordError(f"the answer to {uid} has no text. Give messages or choices.", path=path, line=line)
        if uid in answers or uid not in wanted:
            problem = "is answered twice" if uid in answers else "is no question of the set"
            raise RecordError(f"{uid} {problem}. Give one answer to each question.", path=path, line=line)
        model = str(row.get("model", row.get("model_id", path.stem)))
        metadata = row.get("metadata") or row.get("conv_metadata")
        answers[uid] = ModelAnswer(uid, model, text, None if metadata is None else Style.from_metadata(metadata))
    missing = sorted(wanted - answers.keys())
    if missing:
        raise ConfigError(
            f"{path}: {len(missing)} of {len(wanted)} questions have no answer (such as {missing[0]}). Answer them all."
        )
    return answers


def read_judgments(path: Path, questions: Sequence[Question] | None = None) -> tuple[Judgment, ...]:
    """Read a file of judgments: upstream's, or one that `rlhi_eval_harness.arena_hard.judging` wrote.

    Args:
        path: JSON lines with ``uid`` or ``question_id``, and ``games`` with a ``score`` each.
        questions: All that should be judged; those that are not come as unscored.

    Raises:
        ConfigError: there is no such file.
        RecordError: a question is judged twice, or is not in the set.
    """
    categories = None if questions is None else {question.uid: question.category for question in questions}
    judgments: dict[str, Judgment] = {}
    for line, row in _rows(path, "the file of judgments"):
        uid = _uid(row, path, line)
        if uid in judgments or (categories is not None and uid not in categories):
            problem = "is judged twice" if uid in judgments else "is no question of the set"
            raise RecordError(f"{uid} {problem}. Give one judgment of each question.", path=path, line=line)
        stored = [*(row.get("games") or []), *[None] * GAMES][:GAMES]
        category = str(row.get("category") or (categories or {}).get(uid, ""))
        judgments[uid] = Judgment(uid, games_of(uid, [_label(game) for game in stored]), category)
    for uid, category in (categories or {}).items():
        if uid not in judgments:
            judgments[uid] = Judgment(uid, games_of(uid, [(None, "not judged")] * GAMES), category)
    return tuple(judgments.values())


def _label(game: Any) -> tuple[str | None, str | None]:
    if not isinstance(game, Mapping):
        return None, "no verdict was stored"
    if game.get("score") is None and game.get("unscored"):
        return None, str(game["unscored"])
    return known_label(game.get("score"))


def answer_text(row: Mapping[str, Any]) -> str | None:
    """v2.0: the last message's content, a text or an object with ``answer``; v0.1: the first choice's first turn."""
    if row.get("messages"):
        content = row["messages"][-1].get("content")
        text = content.get("answer") if isinstance(content, Mapping) else content
    else:
        turns = (row.get("choices") or [{}])[0].get("turns") or [{}]
        text = turns[0].get("content")
    return text if isinstance(text, str) else None


def _uid(row: Mapping[str, Any], path: Path, line: int) -> str:
    uid = row.get("uid", row.get("question_id"))
    if not isinstance(uid, str) or not uid:
        raise RecordError("the row has no uid. Give the file as it is published.", path=path, line=line)
    return uid


def _rows(path: Path, what: str) -> list[tuple[int, dict[str, Any]]]:
    try:
        lines = path.read_text("utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {what} cannot be read ({error}). {WHERE}") from error
    rows = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise RecordError(f"no JSON ({error}). Give one object a line.", path=path, line=number) from error
        if not isinstance(row, dict):
            raise RecordError("no object. Give one object a line.", path=path, line=number)
        rows.append((number, row))
    return rows
