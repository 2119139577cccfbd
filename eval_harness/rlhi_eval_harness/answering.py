"""Has every subject answer every planned prompt, and appends the answers as they arrive.

What is already in outputs.jsonl is not asked again, so a killed run goes on where it stopped. Prompts that are equal in
text, model and seed, such as one request asked without persona by several users, are answered once.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from rlhi_eval_harness.records import EvalSample
from rlhi_eval_harness.run_folder import drop_torn_line, read_records
from rlhi_eval_harness.subjects import SUBJECTS, Assistants
from rlhi_eval_harness.suites.suite import SubjectName
from rlhi_plugin.chat import ChatClient, ChatRequest
from rlhi_plugin.records import ChatMessage, Record
from rlhi_plugin.terminal import Advance, progress

MAX_IN_FLIGHT = 128
"""Enough for a batching client to sort prompts by length, little enough to lose when killed."""


class PlannedSample(Record):
    """One prompt that one subject is to answer."""

    sample_id: str
    """``user/request/subject``; unique in a plan."""
    suite: str
    subject: SubjectName
    user: str
    group: str
    request: str
    """The user's request: answers to the same request of the same user are compared with one another."""
    prompt: tuple[ChatMessage, ...]
    max_tokens: int
    temperature: float
    seed: int

    @property
    def pair_key(self) -> str:
        """What two subjects' answers are compared on."""
        return f"{self.user}/{self.request}"

    @property
    def call(self) -> tuple[bool, tuple[ChatMessage, ...], int]:
        """Samples with equal calls have the same answer."""
        return SUBJECTS[self.subject].adapter, self.prompt, self.seed


def answer(plan: Sequence[PlannedSample], assistants: Assistants, outputs: Path) -> int:
    """Answer what is not yet answered.

    Args:
        plan: All samples, in the order in which they are asked.
        assistants: The models.
        outputs: JSONL file that grows by one `EvalSample` per answer.

    Returns:
        How many samples were answered before this call.

    Raises:
        ModelCallError: a call failed for good; the answers so far are kept.
        ArtefactError: `outputs` is damaged.
    """
    drop_torn_line(outputs)
    known = {sample.sample_id for sample in read_records(outputs, EvalSample)} if outputs.exists() else set()
    calls: dict[tuple[bool, tuple[ChatMessage, ...], int], list[PlannedSample]] = {}
    for sample in plan:
        if sample.sample_id not in known:
            calls.setdefault(sample.call, []).append(sample)
    # One model at a time: a batch then never mixes base and adapter.
    with outputs.open("a", encoding="utf-8") as file, progress("answers", sum(map(len, calls.values()))) as advance:
        for adapter in (False, True):
            mine = [samples for call, samples in calls.items() if call[0] is adapter]
            if mine:
                asyncio.run(_answer_all(mine, assistants.client(adapter=adapter), file, advance))
    return len(known & {sample.sample_id for sample in plan})


async def _answer_all(
    calls: Sequence[Sequence[PlannedSample]], client: ChatClient, file: TextIO, advance: Advance
) -> None:
    slots = asyncio.Semaphore(MAX_IN_FLIGHT)

    async def one(samples: Sequence[PlannedSample]) -> None:
        first = samples[0]
        async with slots:
            started = time.perf_counter()
            (reply,) = await client.complete(
                ChatRequest(
                    messages=first.prompt, temperature=first.temperature, max_tokens=first.max_tokens, seed=first.seed
                )
            )
            latency = time.perf_counter() - started
        for sample in samples:
            output = EvalSample(
                sample_id=sample.sample_id,
                suite=sample.suite,
                subject=sample.subject,
                user=sample.user,
                group=sample.group,
                prompt=sample.prompt,
                output=reply.text,
                finish_reason=reply.finish_reason,
                latency_s=round(latency, 3),
            )
            file.write(output.to_json() + "\n")
        file.flush()
        advance(len(samples))

    try:
        async with asyncio.TaskGroup() as group:
            for samples in calls:
                group.create_task(one(samples))
    except BaseExceptionGroup as failures:
        # The first failure cancels the rest; its own type carries the exit code and the remedy.
        raise failures.exceptions[0] from failures
