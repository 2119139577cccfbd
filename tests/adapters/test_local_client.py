"""The in-process chat client and LangChain model: concurrent requests share a batch and get their own answers."""

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from langchain.agents import create_agent
from langchain_core.messages import HumanMessage, SystemMessage

from rlhi_adapters.langchain_model import LocalChatModel
from rlhi_adapters.local_client import LocalClient
from rlhi_adapters.local_model import GenerationJob, LocalModel
from rlhi_plugin.chat import ChatClient, ChatRequest
from rlhi_plugin.errors import ConfigError, InvalidReplyError, ModelCallError
from rlhi_plugin.records import ChatMessage


@pytest.fixture(scope="module")
def model(tiny_model_dir: Path) -> LocalModel:
    return LocalModel.load(str(tiny_model_dir), dtype="float32", device="cpu")


@pytest.fixture
def client(model: LocalModel):
    with LocalClient(model) as client:
        yield client


def ask(text: str, **options) -> ChatRequest:
    settings = {"max_tokens": 6, "temperature": 1.0, "seed": 1, **options}
    return ChatRequest(messages=(ChatMessage(role="user", content=text),), **settings)


def test_it_is_a_chat_client_that_names_its_model(client: LocalClient, model: LocalModel) -> None:
    assert isinstance(client, ChatClient)
    assert client.model == "tiny-llama"
    assert LocalClient(model, adapter="a1").model == "tiny-llama+a1"


def test_n_replies_differ_and_a_seed_repeats_them(client: LocalClient) -> None:
    first = client.complete_sync(ask("Tell me about tea", n=4))
    assert len({reply.text for reply in first}) == 4
    assert client.complete_sync(ask("Tell me about tea", n=4)) == first
    assert client.complete_sync(ask("Tell me about tea", n=4, seed=2)) != first
    assert client.complete_sync(ask("Tell me about tea", seed=None)) != client.complete_sync(
        ask("Tell me about tea", seed=None)
    )


async def test_concurrent_requests_share_a_batch_and_keep_their_answers(
    client: LocalClient, model: LocalModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = [ask(f"Tell me about {i}", max_tokens=4 + i % 3, temperature=float(i % 2)) for i in range(12)]
    alone = [client.complete_sync(request) for request in requests]
    sizes, run = [], LocalModel.run_jobs

    def counting(self, jobs, **options):
        sizes.append(len(jobs))
        return run(self, jobs, **options)

    monkeypatch.setattr(LocalModel, "run_jobs", counting)
    assert await asyncio.gather(*map(client.complete, requests)) == alone
    assert sum(sizes) == 12
    assert len(sizes) <= 4
    with ThreadPoolExecutor(12) as pool:
        assert list(pool.map(client.complete_sync, requests)) == alone


async def test_one_bad_request_fails_alone(client: LocalClient) -> None:
    results = await asyncio.gather(
        client.complete(ask("Hi")), client.complete(ask("word " * 2000)), return_exceptions=True
    )
    assert results[0][0].completion_tokens > 0
    assert isinstance(results[1], ModelCallError)


def test_what_the_model_raises_reaches_the_caller(client: LocalClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_, **__):
        raise MemoryError("no room")

    with monkeypatch.context() as patch:
        patch.setattr(LocalModel, "run_jobs", fail)
        with pytest.raises(ModelCallError, match="no room"):
            client.complete_sync(ask("Hi"))
    assert client.complete_sync(ask("Hi"))


SCHEMA = {
    "type": "object",
    "properties": {"label": {"enum": ["new request", "praise"]}, "sure": {"type": "boolean"}},
    "required": ["label", "sure"],
    "additionalProperties": False,
}


def test_an_answer_is_held_to_a_schema_beside_free_ones(client: LocalClient) -> None:
    # A random model has no idea of JSON: what it writes is the grammar's doing.
    with ThreadPoolExecutor(4) as pool:
        asked = [ask("Hi", max_tokens=40, n=3, json_schema=SCHEMA), ask("Hi", max_tokens=40, n=3)]
        held, free = pool.map(client.complete_sync, asked)
    assert {json.loads(reply.text)["label"] for reply in held} <= {"new request", "praise"}
    assert {reply.finish_reason for reply in held} == {"stop"}
    with pytest.raises(ValueError):
        [json.loads(reply.text) for reply in free]
    assert client.complete_sync(ask("Hi", max_tokens=40, n=3)) == free, "a neighbour's grammar changed an answer"


def test_json_that_is_cut_or_cannot_be_promised_is_an_error(client: LocalClient) -> None:
    with pytest.raises(InvalidReplyError, match="cut at max_tokens") as cut:
        client.complete_sync(ask("Hi", max_tokens=3, json_schema=SCHEMA))
    assert cut.value.text.startswith("{")
    with pytest.raises(ConfigError, match="plainer"):
        client.complete_sync(ask("Hi", json_schema={"type": "string", "pattern": "(?=a)b"}))


def test_log_probabilities_are_the_models(client: LocalClient, model: LocalModel) -> None:
    import torch

    asked = ask("Tell me about tea", logprobs=3, n=2)
    replies = client.complete_sync(asked)
    assert [reply.text for reply in replies] == [r.text for r in client.complete_sync(ask("Tell me about tea", n=2))]
    row = model.plan(GenerationJob(asked.messages, 6, 1.0, 0))
    with torch.inference_mode():
        table = torch.log_softmax(model._model(torch.tensor([row.prompt])).logits[0, -1].float(), dim=-1)
    best = table.topk(3)
    for reply in replies:
        first = reply.logprobs[0]
        assert len(reply.logprobs) == reply.completion_tokens
        assert [value for _, value in first.top] == pytest.approx(best.values.tolist(), abs=1e-4)
        assert [token for token, _ in first.top] == [model.tokenizer.decode([i]) for i in best.indices.tolist()]
        assert any(abs(first.logprob - float(value)) < 1e-4 for value in table)
    assert client.complete_sync(ask("Hi"))[0].logprobs is None


def test_a_closed_client_says_so(model: LocalModel) -> None:
    client = LocalClient(model)
    client.complete_sync(ask("Hi"))
    client.close()
    client.close()
    with pytest.raises(ModelCallError, match="closed"):
        client.complete_sync(ask("Hi"))


async def test_langchain_invoke_ainvoke_stream_and_batch_agree(client: LocalClient) -> None:
    chat = LocalChatModel(client=client, temperature=1.0, max_tokens=6, seed=3)
    messages = [SystemMessage("Be brief"), HumanMessage("Tell me about tea")]
    answer = chat.invoke(messages)
    assert answer.text
    assert answer.response_metadata == {"model_name": "tiny-llama", "finish_reason": "length"}
    assert answer.usage_metadata["output_tokens"] == 6
    assert (await chat.ainvoke(messages)).text == answer.text
    assert "".join(chunk.text for chunk in chat.stream(messages)) == answer.text
    assert {reply.text for reply in chat.batch([messages] * 3)} == {answer.text}
    assert LocalChatModel(client=client, temperature=1.0, max_tokens=6, seed=4).invoke(messages).text != answer.text
    assert chat.invoke(messages, stop=[answer.text[1]]).text == answer.text[: answer.text.index(answer.text[1])]


def test_it_serves_a_langchain_agent(client: LocalClient) -> None:
    agent = create_agent(LocalChatModel(client=client, max_tokens=5), tools=[], system_prompt="Be brief")
    state = agent.invoke({"messages": [("user", "Tell me about tea")]})
    assert [message.type for message in state["messages"]] == ["human", "ai"]
    assert state["messages"][-1].response_metadata["model_name"] == "tiny-llama"


def test_tools_are_refused(client: LocalClient) -> None:
    with pytest.raises(ConfigError, match="calls no tools"):
        LocalChatModel(client=client).invoke("Hi", tools=[{"type": "function"}])
