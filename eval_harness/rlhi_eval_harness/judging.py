"""Asks a judge about stored answers: any `ChatClient`, one call a question, every judgment on record once.

A question's prompt is a file, whose version (name and digest) stands in each judgment; the judge's reply is one JSON
object. What cannot be read as one is "unscored, because": prose, a refusal, a cut reply, an answer that is none of the
allowed ones, a call that failed. Only failed calls are tried again.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field

from rlhi_eval_harness.answering import Attempts
from rlhi_eval_harness.judge_identity import watch
from rlhi_eval_harness.run_folder import drop_torn_line, read_records
from rlhi_eval_harness.side_by_side import close_connections, run_all
from rlhi_plugin import terminal
from rlhi_plugin.chat import ChatClient, ChatReply, ChatRequest
from rlhi_plugin.errors import ArtefactError, ModelCallError
from rlhi_plugin.prompt_files import Prompt
from rlhi_plugin.records import ChatMessage, Record

MAX_IN_FLIGHT = 32
MAX_TOKENS = 400
"""Of a judgment: an object of a few words and one sentence of reason (ours)."""
CALL_FAILED = "judge_call_failed"
NOT_JUDGED = "not_judged"

_OBJECT = re.compile(r"\{.*\}", re.DOTALL)


@dataclass(frozen=True)
class Question:
    """One thing to ask a judge.

    Attributes:
        question_id: Unique in an evaluation; the same for every judge.
        prompt: What the judge is to do.
        shown: What it is shown, as one JSON object.
        answers: The fields that its reply must have, each with the values that are allowed.
    """

    question_id: str
    prompt: Prompt
    shown: Mapping[str, Any]
    answers: Mapping[str, tuple[str, ...]]
    request: ChatRequest | None = None
    """What is sent instead of prompt and `shown`, where a benchmark has a form of its own."""
    read: Callable[[ChatReply], dict[str, str] | str] | None = None
    """The answers in a reply of that form, or the reason why there are none."""

    @property
    def version(self) -> str:
        """The prompt's version and a digest of what is shown: a judgment counts for exactly this question."""
        shown = json.dumps(self.shown, sort_keys=True).encode()
        return f"{self.prompt.version}/{hashlib.sha256(shown).hexdigest()[:12]}"


class Judgment(Record):
    """What one judge said to one question."""

    question_id: str
    judge: str
    """The model as its client names it."""
    version: str
    """Name and digest of the prompt file, and a digest of what was shown."""
    answers: dict[str, str] = Field(default_factory=dict)
    unscored: str | None = None
    """Why there are no answers."""
    reply: str = ""
    """The judge's reply, verbatim."""
    prompt_tokens: int = Field(default=0, ge=0)
    completion_tokens: int = Field(default=0, ge=0)
    latency_s: float | None = Field(default=None, ge=0.0)
    cost_usd: float | None = Field(default=None, ge=0.0)
    """US dollars that the call cost; None where the price is not known."""
    answered_by: str | None = None
    """The model that the reply named: behind an alias it may change. None where it named none."""


def judge(questions: Sequence[Question], client: ChatClient, path: Path) -> None:
    """Ask what has no judgment of this judge yet.

    Args:
        questions: All of the evaluation.
        client: The judge.
        path: JSONL file that grows by one `Judgment` a call.

    Raises:
        ModelCallError: no call succeeds; the judgments so far are kept.
        ArtefactError: `path` is damaged.
    """
    drop_torn_line(path)
    held = read_judgments(path, client.model, questions)
    known = {judgment.question_id for judgment in held if not _failed(judgment)}
    todo = [question for question in questions if question.question_id not in known]
    if todo:
        names = {judgment.answered_by for judgment in held if judgment.answered_by}
        asyncio.run(_ask_all(todo, client, path, names))


def read_judgments(path: Path, judge_name: str, questions: Sequence[Question]) -> list[Judgment]:
    """The current judgments of one judge under the current prompts, one a question.

    Raises:
        ArtefactError: the file is damaged, or a question was judged twice.
    """
    versions = {question.question_id: question.version for question in questions}
    found: dict[str, Judgment] = {}
    for each in read_records(path, Judgment) if path.exists() else ():
        if each.judge != judge_name or versions.get(each.question_id) != each.version:
            continue
        if each.question_id in found and not _failed(found[each.question_id]):
            raise ArtefactError(f"{path} holds {each.question_id} of {judge_name} twice. Remove the second line.")
        found[each.question_id] = each
    return list(found.values())


def judges_of(path: Path) -> tuple[str, ...]:
    """Who has judged, in the order in which they began."""
    return tuple(dict.fromkeys(each.judge for each in read_records(path, Judgment))) if path.exists() else ()


def _failed(judgment: Judgment) -> bool:
    return (judgment.unscored or "").startswith(CALL_FAILED)


async def _ask_all(questions: Sequence[Question], client: ChatClient, path: Path, names: set[str]) -> None:
    """Ask; `names` are the models that have answered so far, and grows."""
    attempts = Attempts()
    with (
        path.open("a", encoding="utf-8") as file,
        terminal.progress(f"{client.model} judges", len(questions)) as advance,
    ):

        async def one(question: Question) -> None:
            judgment = await _ask(question, client, attempts)
            file.write(judgment.to_json() + "\n")
            file.flush()
            watch(judgment.judge, judgment.answered_by, names)
            advance(1)

        try:
            await run_all(questions, one, at_once=MAX_IN_FLIGHT)
        finally:
            await close_connections(client)


async def _ask(question: Question, client: ChatClient, attempts: Attempts) -> Judgment:
    request = question.request or ChatRequest(
        messages=(
            ChatMessage(role="system", content=question.prompt.text),
            ChatMessage(role="user", content=json.dumps(question.shown, ensure_ascii=False, indent=1)),
        ),
        max_tokens=MAX_TOKENS,
        seed=0,
    )
    named = {"question_id": question.question_id, "judge": client.model, "version": question.version}
    started = time.perf_counter()
    try:
        (reply,) = await client.complete(request)
    except ModelCallError as error:
        reason = attempts.failure(error).removeprefix("call_failed: ")
        return Judgment.model_validate({**named, "unscored": f"{CALL_FAILED}: {reason}"})
    attempts.success()
    said = {
        "reply": reply.text,
        "prompt_tokens": reply.prompt_tokens,
        "completion_tokens": reply.completion_tokens,
        "latency_s": round(time.perf_counter() - started, 3),
        "cost_usd": reply.cost_usd,
        "answered_by": reply.served_by,
    }
    answers = question.read(reply) if question.read else read_reply(reply, question.answers)
    key = "unscored" if isinstance(answers, str) else "answers"
    return Judgment.model_validate({**named, **said, key: answers})


def read_reply(reply: ChatReply, allowed: Mapping[str, tuple[str, ...]]) -> dict[str, str] | str:
    """The answers in a judge's reply, or the reason why there are none."""
    if reply.finish_reason == "refused":
        return "judge_refused"
    if reply.finish_reason == "length":
        return "judge_cut"
    if not reply.text.strip():
        return "judge_empty"
    found = _OBJECT.search(reply.text)
    try:
        value = json.loads(found.group()) if found else None
    except ValueError:
        value = None
    if not isinstance(value, dict):
        return "judge_prose"
    answers = {name: str(value.get(name, "")).strip().casefold() for name in allowed}
    legal = {name: {option.casefold(): option for option in options} for name, options in allowed.items()}
    if wrong := sorted(name for name, said in answers.items() if said not in legal[name]):
        return f"judge_unclear_{wrong[0]}"
    return {name: legal[name][said] for name, said in answers.items()}
