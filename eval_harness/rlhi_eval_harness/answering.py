"""Has every subject answer every planned prompt, and appends the answers as they arrive.

What is already in outputs.jsonl is not asked again, so a killed run goes on where it stopped. Prompts that are equal in
text, source and seed, such as one request asked without persona by several users, are answered once. A call that fails
for good is on record as a sample without an answer, and is tried again when the run goes on; where no call succeeds at
all, the run stops with the first failure.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from rlhi_eval_harness.made_elsewhere import read_outputs
from rlhi_eval_harness.models import Assistants
from rlhi_eval_harness.records import EvalSample, PlannedSample
from rlhi_eval_harness.run_folder import drop_torn_line, read_records
from rlhi_eval_harness.side_by_side import close_connections, run_all
from rlhi_plugin.chat import ChatClient, ChatReply, ChatRequest
from rlhi_plugin.errors import ModelCallError, ProviderUnavailableError
from rlhi_plugin.records import ChatMessage
from rlhi_plugin.terminal import Advance, progress

MAX_IN_FLIGHT = 128
"""Enough for a batching client to sort prompts by length, little enough to lose when killed."""
HOPELESS_AFTER = 8
"""So many failures with no success before them end the run: nothing would come of the rest (ours)."""
LETTERS = "ABCDEFGHIJ"

Call = tuple[str, tuple[ChatMessage, ...], int, tuple[str, ...]]


class Attempts:
    """Counts calls, and ends a run in which none succeeds."""

    def __init__(self) -> None:
        self._succeeded = False
        self._failed = 0

    def success(self) -> None:
        """A call succeeded: later failures are single ones."""
        self._succeeded = True

    def failure(self, error: ModelCallError) -> str:
        """The reason to record, unless nothing has succeeded so far.

        Raises:
            ModelCallError: `error`, once too many calls have failed with no success before, and at once where no call
                can succeed as things are.
        """
        if isinstance(error, ProviderUnavailableError):
            raise error
        self._failed += 1
        if not self._succeeded and self._failed >= HOPELESS_AFTER:
            raise error
        return f"call_failed: {error}"


def call_of(sample: PlannedSample) -> Call:
    """Samples with equal calls have the same answer."""
    return sample.source, sample.prompt, sample.seed, sample.options


def current(outputs: Sequence[EvalSample]) -> list[EvalSample]:
    """One output a sample: a failed one gives way to what came of trying again. Doubled answers stay doubled."""
    answered = {output.sample_id for output in outputs if output.failed is None}
    failed = {output.sample_id: output for output in outputs if output.failed is not None}
    return [
        output
        for output in outputs
        if output.failed is None or (output.sample_id not in answered and failed[output.sample_id] is output)
    ]


def answer(plan: Sequence[PlannedSample], assistants: Assistants, outputs: Path) -> int:
    """Answer what is not yet answered.

    Args:
        plan: All samples, in the order in which they are asked.
        assistants: The models.
        outputs: JSONL file that grows by one `EvalSample` per answer.

    Returns:
        How many samples were answered before this call.

    Raises:
        ConfigError: a file of outputs does not fit the plan.
        ModelCallError: no call succeeds; the answers so far are kept.
        ArtefactError: `outputs` is damaged.
    """
    drop_torn_line(outputs)
    earlier = read_records(outputs, EvalSample) if outputs.exists() else []
    known = {sample.sample_id for sample in earlier if sample.failed is None}
    by_source: dict[str, dict[Call, list[PlannedSample]]] = {}
    for sample in plan:
        if sample.sample_id not in known:
            by_source.setdefault(sample.source, {}).setdefault(call_of(sample), []).append(sample)
    elsewhere = {source: _outside(source, plan) for source in by_source if source.partition("=")[0] == "outputs"}
    todo = sum(len(samples) for calls in by_source.values() for samples in calls.values())
    # One source at a time: a batch then never mixes base and adapter.
    with outputs.open("a", encoding="utf-8") as file, progress("answers", todo) as advance:
        for source, calls in by_source.items():
            recorder = _Recorder(file, advance)
            if source in elsewhere:
                recorder.copy(calls.values(), elsewhere[source])
            elif source == "logged":
                recorder.copy_logged(calls.values())
            else:
                _ask(source, list(calls.values()), assistants, recorder)
    return len(known & {sample.sample_id for sample in plan})


def _outside(source: str, plan: Sequence[PlannedSample]) -> Mapping[str, Any]:
    # One file may stand for several subjects, as when the same outputs are judged with and without the persona.
    mine = {sample.item_id: sample for sample in plan if sample.source == source}
    return read_outputs(Path(source.partition("=")[2]), list(mine.values()))


def _ask(source: str, calls: list[list[PlannedSample]], assistants: Assistants, recorder: _Recorder) -> None:
    attempts = Attempts()
    weighed = []
    for samples in [samples for samples in calls if samples[0].options]:
        started = time.perf_counter()
        try:
            found = assistants.weigh(source, [(samples[0].prompt, samples[0].options)])
        except ModelCallError as error:
            recorder.write(samples, failed=attempts.failure(error))
            weighed.append(samples)
            continue
        if found is None:
            break
        attempts.success()
        best = max(range(len(found[0])), key=lambda i, values=found[0]: values[i])  # type: ignore[misc]
        recorder.write(
            samples, output=samples[0].options[best], likelihoods=found[0], latency_s=time.perf_counter() - started
        )
        weighed.append(samples)
    rest = [samples for samples in calls if not any(samples is each for each in weighed)]
    if rest:
        asyncio.run(_answer_all(rest, assistants.client(source), recorder, attempts))


async def _answer_all(
    calls: Sequence[Sequence[PlannedSample]], client: ChatClient, recorder: _Recorder, attempts: Attempts
) -> None:
    async def one(samples: Sequence[PlannedSample]) -> None:
        first, started = samples[0], time.perf_counter()
        try:
            (reply,) = await client.complete(
                ChatRequest(
                    messages=_with_letters(first),
                    temperature=first.temperature,
                    max_tokens=first.max_tokens,
                    seed=first.seed,
                )
            )
        except ModelCallError as error:
            recorder.write(samples, failed=attempts.failure(error))
            return
        attempts.success()
        recorder.write_reply(samples, reply, time.perf_counter() - started)

    try:
        await run_all(calls, one, at_once=MAX_IN_FLIGHT)
    finally:
        await close_connections(client)


def _with_letters(sample: PlannedSample) -> tuple[ChatMessage, ...]:
    """The prompt; where there are options, they are lettered and a letter is asked for."""
    if not sample.options:
        return sample.prompt
    lines = [f"{letter}. {option}" for letter, option in zip(LETTERS, sample.options, strict=False)]
    *before, last = sample.prompt
    asked = "\n".join([last.content, "", *lines, "", "Which of these suits me best? Answer with its letter only."])
    return (*before, ChatMessage(role=last.role, content=asked))


class _Recorder:
    """Appends to outputs.jsonl."""

    def __init__(self, file: TextIO, advance: Advance) -> None:
        self._file = file
        self._advance = advance

    def write_reply(self, samples: Sequence[PlannedSample], reply: ChatReply, latency_s: float) -> None:
        """One reply for all samples with this call."""
        self.write(
            samples,
            output=reply.text,
            finish_reason=reply.finish_reason,
            latency_s=round(latency_s, 3),
            prompt_tokens=reply.prompt_tokens,
            completion_tokens=reply.completion_tokens,
            cost_usd=reply.cost_usd,
        )

    def write(self, samples: Sequence[PlannedSample], **answer: Any) -> None:
        """One record a sample; what the call cost stands on the first one only, so that sums are right."""
        for place, sample in enumerate(samples):
            same = {
                name: getattr(sample, name) for name in ("sample_id", "suite", "subject", "user", "group", "prompt")
            }
            paid = {"cost_usd": None} if place else {}
            record = EvalSample.model_validate({"output": "", "finish_reason": "stop", **same, **answer, **paid})
            self._file.write(record.to_json() + "\n")
        self._file.flush()
        self._advance(len(samples))

    def copy(self, calls: Any, outputs: Mapping[str, Any]) -> None:
        """What was made elsewhere."""
        for sample in (sample for samples in calls for sample in samples):
            outside = outputs[sample.item_id]
            self.write([sample], output=outside.output, finish_reason=outside.finish_reason)

    def copy_logged(self, calls: Any) -> None:
        """What the log's own assistant answered."""
        for sample in (sample for samples in calls for sample in samples):
            if sample.logged is None:
                self.write([sample], failed="not_in_the_log: nobody answered here, or the suite is not made from a log")
            else:
                self.write([sample], output=sample.logged)
