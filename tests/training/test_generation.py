"""Generation: seeds, failures, and what the journal knows already."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhi_plugin.calls.journal import CallJournal
from rlhi_plugin.calls.stack import equip
from rlhi_plugin.chat import Capabilities, ChatReply, ChatRequest, ScriptedClient
from rlhi_plugin.errors import ConfigError, ModelCallError
from rlhi_plugin.records import ChatMessage
from rlhi_training import generation
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


class _Misconfigured:
    model = "missing"
    capabilities = Capabilities()

    async def complete(self, request: ChatRequest) -> tuple[ChatReply, ...]:
        raise ConfigError("no base model 'missing'. Use another.")


async def test_an_error_that_is_no_failed_call_comes_out_as_itself():
    with pytest.raises(ConfigError, match="Use another"):
        await generate([_draft(1), _draft(2)], _Misconfigured(), SAMPLING, description="x")


async def test_another_model_prompt_or_temperature_is_asked_anew(tmp_path: Path):
    with CallJournal(tmp_path / "calls.db") as journal:
        await generate([_draft(1)], equip(ScriptedClient(_echo), journal=journal), SAMPLING, description="x")
        for client, sampling, draft in (
            (ScriptedClient(_echo, model="other"), SAMPLING, _draft(1)),
            (ScriptedClient(_echo), Sampling(0.9, 16, 3), _draft(1)),
            (ScriptedClient(_echo), SAMPLING, _draft(2)),
            (ScriptedClient(_echo), SAMPLING, _draft(1, n=2)),
        ):
            await generate([draft], equip(client, journal=journal), sampling, description="x")
            assert len(client.requests) == 1
        same = ScriptedClient(_echo)
        await generate([_draft(1)], equip(same, journal=journal), SAMPLING, description="x")
        assert same.requests == []


async def test_seeds_depend_on_the_draft_and_not_on_the_order():
    seeds = []
    for order in ([1, 2, 3], [3, 1, 2]):
        client = ScriptedClient(_echo)
        await generate([_draft(i) for i in order], client, SAMPLING, description="x")
        seeds.append({r.messages[-1].content: r.seed for r in client.requests})
    assert seeds[0] == seeds[1]
    assert len(set(seeds[0].values())) == 3
    assert derive_seed(1, "a") != derive_seed(2, "a")


class _Flaky:
    model = "flaky"
    capabilities = Capabilities()

    async def complete(self, request: ChatRequest) -> tuple[ChatReply, ...]:
        if "2" not in request.messages[-1].content:
            raise ModelCallError("quota exceeded. Wait an hour.")
        return (ChatReply(text="   "), ChatReply(text=" good \n"))


async def test_failures_are_kept_apart_and_empty_answers_left_out():
    result = await generate([_draft(1), _draft(2, n=2)], _Flaky(), SAMPLING, description="x")
    assert result.failures == {("c1#0", "plain"): "quota exceeded. Wait an hour."}
    assert [c.text for c in result.candidates["c2#0", "plain"]] == ["good"]
    assert result.candidates["c1#0", "plain"] == []


async def test_a_client_that_always_fails_is_an_error():
    with pytest.raises(ModelCallError, match="every call to flaky failed"):
        await generate([_draft(1), _draft(3)], _Flaky(), SAMPLING, description="x")


@given(
    st.lists(st.tuples(st.sampled_from(["user", "assistant", "system"]), st.text(max_size=20)), min_size=1, max_size=4),
    st.text(max_size=9),
    st.floats(0, 2),
    st.integers(0, 2**40),
)
def test_a_seed_rests_on_all_that_an_answer_depends_on(said, model, temperature, seed):
    messages = tuple(ChatMessage(role=role, content=text) for role, text in said)
    draft = replace(_draft(1, n=3), spec="guided:short \n", messages=messages)
    body = ["c1#0", "guided:short \n", 3, model, temperature, 16, seed, *([m.role, m.content] for m in messages)]
    known = hashlib.sha256(json.dumps(body).encode()).hexdigest()
    assert generation._digest(draft, model, Sampling(temperature, 16, seed)) == known
