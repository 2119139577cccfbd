"""Reasoning benchmarks against what was published: outputs scored again, and the benchmarks' own answers accepted."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from rlhi_eval_harness.reasoning import lm_eval_tasks
from rlhi_eval_harness.reasoning.benchmark import Benchmark
from rlhi_eval_harness.reasoning.checking import Checker
from rlhi_eval_harness.reasoning.options import ReasoningOptions
from rlhi_eval_harness.reasoning.rows import read_rows
from rlhi_eval_harness.suites import load_suite
from rlhi_plugin.errors import ConfigError

HOW_TO_GET = (
    "Outputs with predictions are published in eval_results of https://github.com/TIGER-AI-Lab/MMLU-Pro: one line an "
    "item with question_id, answer, pred and output."
)


@dataclass(frozen=True)
class OutputsProof:
    """One model's published outputs of MMLU-Pro.

    Attributes:
        model: The file's name.
        answers: How many outputs there are.
        differing: Items whose prediction we read otherwise than was published.
        accuracy: Ours, what cannot be read counting as wrong, in per cent.
        own_accuracy: The same of the published predictions.
        unread: Outputs in which neither finds an answer.
        guessed: Ours, with the expected share of right guesses for these, in per cent.
        spread: Standard deviation of such guessing, in points.
        published: On the leaderboard, in per cent; None where no score of the model is known.
        corrected: Items whose reference answer was corrected after the outputs were published.
        today: Our accuracy by today's reference answers, in per cent.
    """

    model: str
    answers: int
    differing: tuple[str, ...]
    accuracy: float
    own_accuracy: float
    unread: int
    guessed: float
    spread: float
    published: float | None
    corrected: tuple[str, ...]
    today: float


@dataclass(frozen=True)
class ReferenceProof:
    """A benchmark's own answers given as answers, and each item given the next item's.

    Attributes:
        suite: Which.
        items: How many.
        refused: Own answers that are not accepted.
        accepted: Other items' answers that are accepted though they are written otherwise.
    """

    suite: str
    items: int
    refused: tuple[str, ...]
    accepted: tuple[str, ...]


REFERENCES: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    "olympiadbench": lambda item: ",".join(item["final_answer"]).replace("$", ""),
    "amc23": lambda item: f"{float(item['answer']):g}",
    "aime24": lambda item: str(item["Answer"]),
    "gsm8k": lambda item: str(item["answer"]).rsplit("####", 1)[-1].strip(),
    "minerva_math": lambda item: str(item["answer"]),
    "math500": lambda item: str(item["answer"]),
}
"""The answer of an item, by suite."""
QUICK = ("olympiadbench", "amc23", "aime24", "gsm8k")
"""Those whose checks take a minute together; the others take several."""


def prove_outputs(data: Path) -> tuple[OutputsProof, ...]:
    """Score every file of `data`/published_outputs again.

    Raises:
        ConfigError: files are missing, or outputs and items do not fit one another.
    """
    found = sorted((data / "published_outputs").glob("*.jsonl*"))
    if not found:
        raise ConfigError(f"{data / 'published_outputs'} holds no outputs. {HOW_TO_GET}")
    benchmark = Benchmark(_options("mmlu_pro", data))
    return tuple(_prove(path, benchmark) for path in found)


def _options(suite: str, data: Path) -> ReasoningOptions:
    loaded = load_suite(suite, overrides=["few_shot=0"], environ={})
    if not isinstance(loaded, ReasoningOptions):
        raise ConfigError(f"{suite} is no reasoning suite. This is a mistake in the package.")
    return loaded.model_copy(update={"data": str(data)})


def _prove(path: Path, benchmark: Benchmark) -> OutputsProof:
    outputs = {int(row["question_id"]): row for row in read_rows(path, {}, how_to_get=HOW_TO_GET)}
    right, today, unread, guesses, variance = 0, 0, 0, 0.0, 0.0
    differing, corrected = [], []
    seen = 0
    for name, task in benchmark.tasks.items():
        items = benchmark.items[name]
        missing = [item["question_id"] for item in items if item["question_id"] not in outputs]
        if missing:
            raise ConfigError(f"{path} has no output for question {missing[0]}. {HOW_TO_GET}")
        mine = [outputs[item["question_id"]] for item in items]
        texts = [str(row["output"]) for row in mine]
        verdicts = Checker(task, benchmark.metric).check(items, texts, [False] * len(items))
        read = lm_eval_tasks.filtered(task, items, texts)
        for item, row, verdict, each in zip(items, mine, verdicts, read, strict=True):
            letter = None if verdict.correct is None else str(next(iter(each.values())))
            seen += 1
            # Scored by the reference answers that the outputs were published with.
            right += letter == row["answer"]
            today += verdict.correct == 1.0
            if letter != row["pred"]:
                differing.append(str(item["question_id"]))
            if item["answer"] != row["answer"]:
                corrected.append(str(item["question_id"]))
            if letter is None:
                chance = 1 / len(item["options"])
                unread, guesses, variance = unread + 1, guesses + chance, variance + chance * (1 - chance)
    own = sum(row["pred"] == row["answer"] for row in outputs.values())
    model = path.name.removesuffix(".gz").removesuffix(".jsonl")
    published = tomllib.loads((files(__package__) / "published_scores.toml").read_text("utf-8"))["mmlu_pro"].get(model)
    return OutputsProof(
        model=model,
        answers=seen,
        differing=tuple(differing),
        accuracy=100 * right / seen,
        own_accuracy=100 * own / len(outputs),
        unread=unread,
        guessed=100 * (right + guesses) / seen,
        spread=100 * math.sqrt(variance) / seen,
        published=None if published is None else 100 * published,
        corrected=tuple(corrected),
        today=100 * today / seen,
    )


def prove_references(data: Path, suites: Sequence[str] = QUICK) -> tuple[ReferenceProof, ...]:
    """Whether each suite's check accepts the benchmark's own answers, and no others.

    Raises:
        ConfigError: a file is missing.
    """
    return tuple(_references(suite, data) for suite in suites)


def _references(suite: str, data: Path) -> ReferenceProof:
    benchmark, answer = Benchmark(_options(suite, data)), REFERENCES[suite]
    ((name, task),) = benchmark.tasks.items()
    items = benchmark.items[name]
    own = [answer(item) for item in items]
    others = [*own[1:], own[0]]
    checker = Checker(task, benchmark.metric)
    refused: list[str] = []
    accepted: list[str] = []
    for texts, keep in ((own, refused), (others, accepted)):
        said = [f"So the final answer is \\boxed{{{text}}}" for text in texts]
        verdicts = checker.check(items, said, [False] * len(items))
        for place, verdict in enumerate(verdicts):
            wrong = verdict.correct != 1.0 if texts is own else verdict.correct == 1.0 and own[place] != others[place]
            if wrong:
                keep.append(f"{place}: {own[place]} / {texts[place]}")
    return ReferenceProof(suite, len(items), tuple(refused), tuple(accepted))
