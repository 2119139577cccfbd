"""Let a judge compare a model's answers with the baseline's, in both orders; stopped and started again at will."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from rlhi_eval_harness.arena_hard.files import ModelAnswer, Question
from rlhi_eval_harness.arena_hard.prompts import JudgePrompts
from rlhi_eval_harness.arena_hard.verdicts import Version, read_verdict
from rlhi_eval_harness.judge_identity import JudgeIdentity, identity_of, watch
from rlhi_plugin.chat import ChatClient, ChatRequest
from rlhi_plugin.errors import ConfigError, ModelCallError
from rlhi_plugin.records import ChatMessage


@dataclass(frozen=True)
class JudgeOptions:
    """How to judge.

    Attributes:
        version: Whose verdicts are read how.
        temperature: v0.1 judges at 0; v2.0 at 0 with GPT-4.1 and at 1 with Gemini 2.5.
        max_tokens: v0.1 gives 4,096, v2.0 16,000 and 32,000.
        concurrency: Questions at once, at least 1.
    """

    version: Version = "v2.0"
    temperature: float = 0.0
    max_tokens: int = 16_000
    concurrency: int = 8

    def __post_init__(self) -> None:
        """Validate.

        Raises:
            ConfigError: `concurrency` or `max_tokens` is below 1.
        """
        if self.concurrency < 1 or self.max_tokens < 1:
            raise ConfigError(f"concurrency={self.concurrency}, max_tokens={self.max_tokens}: give at least 1 of each.")


@dataclass(frozen=True)
class Contest:
    """Whose answers to which questions are compared.

    Attributes:
        questions: All of them.
        answers: The model's, by question.
        baseline: The baseline's, by question.
    """

    questions: Sequence[Question]
    answers: Mapping[str, ModelAnswer]
    baseline: Mapping[str, ModelAnswer]


async def judge(
    contest: Contest,
    client: ChatClient,
    prompts: JudgePrompts,
    out: Path,
    *,
    options: JudgeOptions | None = None,
    advance: Callable[[int], None] = lambda _: None,
) -> int:
    """Judge every question twice and append each to `out`, as upstream writes it, when both games are done.

    Questions that `out` holds are not judged again. A judge that says no verdict leaves the game unscored, with the
    reason; a call that fails leaves the question for the next run.

    Args:
        contest: Questions and answers.
        client: The judge.
        prompts: What it is told.
        out: File of judgments, JSON lines.
        options: How.
        advance: Called with 1 for each question that is done.

    Returns:
        How many questions were judged now.

    Raises:
        ConfigError: an answer is missing, or `out` was written with another judge or prompt.
        ModelCallError: calls failed; all else is done and stored.
    """
    options = options or JudgeOptions()
    lacking = [q.uid for q in contest.questions if q.uid not in contest.answers or q.uid not in contest.baseline]
    if lacking:
        raise ConfigError(
            f"{len(lacking)} questions lack an answer of one side (such as {lacking[0]}). Answer them all."
        )
    done, names = _done(out, {q.uid: prompts.digest(q.category) for q in contest.questions}, client.model)
    slots = asyncio.Semaphore(options.concurrency)
    failures: list[ModelCallError] = []
    out.parent.mkdir(parents=True, exist_ok=True)
    with out.open("a", encoding="utf-8") as file:

        async def one(question: Question) -> int:
            async with slots:
                try:
                    row = await _row(question, contest, client, prompts, options)
                except ModelCallError as error:
                    failures.append(error)
                    return 0
                _append(file, row)
                for game in row["games"]:
                    watch(client.model, game["answered_by"], names)
                advance(1)
                return 1

        judged = sum(await asyncio.gather(*(one(q) for q in contest.questions if q.uid not in done)))
    if failures:
        raise ModelCallError(
            f"{len(failures)} of {len(contest.questions)} questions could not be judged: {failures[0]} What was "
            f"judged is in {out}; run the same command again for the rest."
        )
    return judged


async def _row(
    question: Question, contest: Contest, client: ChatClient, prompts: JudgePrompts, options: JudgeOptions
) -> dict[str, Any]:
    answer, baseline = contest.answers[question.uid], contest.baseline[question.uid]
    games = []
    for first, second in ((baseline, answer), (answer, baseline)):
        messages = (
            ChatMessage(role="system", content=prompts.system_for(question.category)),
            ChatMessage(role="user", content=prompts.render(question.prompt, first.text, second.text)),
        )
        (reply,) = await client.complete(
            ChatRequest(messages=messages, temperature=options.temperature, max_tokens=options.max_tokens)
        )
        label, reason = read_verdict(reply.text, options.version)
        if label is None and reply.finish_reason != "stop":
            reason = "the judge refused" if reply.finish_reason == "refused" else f"{reason}: it was cut off"
        said = {"judgment": {"answer": reply.text}, "answered_by": reply.served_by}
        games.append({"score": label, "unscored": reason, **said})
    return {
        "uid": question.uid,
        "category": question.category,
        "judge": client.model,
        "model": answer.model,
        "baseline": baseline.model,
        "prompt_digest": prompts.digest(question.category),
        "published_prompt": prompts.published(question.category),
        "games": games,
    }


def _append(file: TextIO, row: Mapping[str, Any]) -> None:
    file.write(json.dumps(row, ensure_ascii=False) + "\n")
    file.flush()


def _done(out: Path, digests: Mapping[str, str], judge_model: str) -> tuple[set[str], set[str]]:
    """The questions that are judged already, and the models that answered.

    A line that a killed run left half-written is cut off.
    """
    if not out.exists():
        return set(), set()
    whole, _, rest = out.read_text("utf-8").rpartition("\n")
    if rest:
        out.write_text(f"{whole}\n" if whole else "", "utf-8")
    done: set[str] = set()
    names: set[str] = set()
    # Not `splitlines`: a verdict may hold other ends of lines than ours.
    for number, line in enumerate(whole.split("\n") if whole else (), start=1):
        try:
            row = json.loads(line)
            uid, earlier = row["uid"], (row["judge"], row["prompt_digest"])
            answered = _answered_by(row)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ConfigError(f"{out}:{number} is no judgment of ours. Choose another file.") from error
        if earlier != (judge_model, digests.get(uid, earlier[1])):
            raise ConfigError(f"{out} was judged by {earlier[0]} or with another prompt. Choose another file.")
        done.add(uid)
        names |= {name for name in answered if name is not None}
    return done, names


def identity_in(out: Path) -> JudgeIdentity:
    """Who judged a file of ours: what the judge's name stands for, and how many verdicts which model gave.

    Args:
        out: What `judge` wrote, whole.
    """
    rows = [json.loads(line) for line in out.read_text("utf-8").split("\n") if line]
    return identity_of(rows[0]["judge"] if rows else "", [name for row in rows for name in _answered_by(row)])


def _answered_by(row: Mapping[str, Any]) -> list[str | None]:
    return [game.get("answered_by") for game in row["games"]]
