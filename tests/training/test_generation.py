"""Generation: every answer is on disk at once, so that a killed run asks for nothing twice."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from rlhi_plugin.chat import ChatReply, ChatRequest, ScriptedClient
from rlhi_plugin.errors import ConfigError, ModelCallError
from rlhi_plugin.records import ChatMessage
from rlhi_training.generation import Draft, Sampling, derive_seed, generate
from rlhi_training.records import LabelledTurn

SAMPLING = Sampling(temperature=0.7, max_tokens=16, seed=3)


def _draft(number: int, n: int = 1) -> Draft:
    message = ChatMessage(role="user", content=f"question {number}")
    turn = LabelledTurn(
        conversation_id=f"c{number}", turn=0, context=(message,), response="old", request_id="q", response_id="a"
    )
    return Draft(turn, "plain", (message,), n, "sample")


def _echo(request: ChatRequest) -> str:
    return f"answer to {request.messages[-1].content}"


class _Slow:
    """Answers a few requests; the others are still waiting when the run is interrupted."""

    model = "scripted"

    def __init__(self, lives: int) -> None:
        self.lives = lives
        self.exhausted = asyncio.Event()

    async def complete(self, request: ChatRequest) -> tuple[ChatReply, ...]:
        if self.lives == 0:
            self.exhausted.set()
            await asyncio.Event().wait()
        self.lives -= 1
        return (ChatReply(text=_echo(request)),)


async def test_a_killed_run_continues_without_asking_again(tmp_path: Path):
    drafts = [_draft(i) for i in range(6)]
    path = tmp_path / "generated" / "x.jsonl"
    slow = _Slow(4)
    # Ctrl-C cancels the running stage.
    running = asyncio.create_task(generate(drafts, slow, SAMPLING, path, description="x"))
    await slow.exhausted.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert len(path.read_text().splitlines()) == 4
    with path.open("a") as handle:
        handle.write('{"key": ["c4#0", "pl')  # what a power cut leaves behind
    client = ScriptedClient(_echo)
    result = await generate(drafts, client, SAMPLING, path, description="x")
    assert len(client.requests) == 2
    assert [c.text for c in result.candidates["c5#0", "plain"]] == ["answer to question 5"]
    assert len(result.candidates) == 6
    assert all(json.loads(line) for line in path.read_text().splitlines())


class _Misconfigured:
    model = "missing"

    async def complete(self, request: ChatRequest) -> tuple[ChatReply, ...]:
        raise ConfigError("no base model 'missing'. Use another.")


async def test_an_error_that_is_no_failed_call_comes_out_as_itself(tmp_path: Path):
    with pytest.raises(ConfigError, match="Use another"):
        await generate([_draft(1), _draft(2)], _Misconfigured(), SAMPLING, tmp_path / "x", description="x")


async def test_another_model_prompt_or_temperature_is_asked_anew(tmp_path: Path):
    path = tmp_path / "x.jsonl"
    await generate([_draft(1)], ScriptedClient(_echo), SAMPLING, path, description="x")
    for client, sampling, draft in (
        (ScriptedClient(_echo, model="other"), SAMPLING, _draft(1)),
        (ScriptedClient(_echo), Sampling(0.9, 16, 3), _draft(1)),
        (ScriptedClient(_echo), SAMPLING, _draft(2)),
        (ScriptedClient(_echo), SAMPLING, _draft(1, n=2)),
    ):
        await generate([draft], client, sampling, path, description="x")
        assert len(client.requests) == 1
    same = ScriptedClient(_echo)
    await generate([_draft(1)], same, SAMPLING, path, description="x")
    assert same.requests == []


async def test_seeds_depend_on_the_draft_and_not_on_the_order(tmp_path: Path):
    seeds = []
    for number, order in enumerate(([1, 2, 3], [3, 1, 2])):
        client = ScriptedClient(_echo)
        await generate([_draft(i) for i in order], client, SAMPLING, tmp_path / str(number), description="x")
        seeds.append({r.messages[-1].content: r.seed for r in client.requests})
    assert seeds[0] == seeds[1]
    assert len(set(seeds[0].values())) == 3
    assert derive_seed(1, "a") != derive_seed(2, "a")


class _Flaky:
    model = "flaky"

    async def complete(self, request: ChatRequest) -> tuple[ChatReply, ...]:
        if "2" not in request.messages[-1].content:
            raise ModelCallError("quota exceeded. Wait an hour.")
        return (ChatReply(text="   "), ChatReply(text=" good \n"))


async def test_failures_are_kept_apart_and_empty_answers_left_out(tmp_path: Path):
    result = await generate([_draft(1), _draft(2, n=2)], _Flaky(), SAMPLING, tmp_path / "x", description="x")
    assert result.failures == {("c1#0", "plain"): "quota exceeded. Wait an hour."}
    assert [c.text for c in result.candidates["c2#0", "plain"]] == ["good"]
    assert result.candidates["c1#0", "plain"] == []


async def test_a_client_that_always_fails_is_an_error(tmp_path: Path):
    with pytest.raises(ModelCallError, match="every call to flaky failed"):
        await generate([_draft(1), _draft(3)], _Flaky(), SAMPLING, tmp_path / "x", description="x")
