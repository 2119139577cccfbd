"""What every client of a served model promises, against a real server: one set of checks, one client after another."""

from __future__ import annotations

import json
import socket

import pytest

from rlhi_plugin.calls.budget import Budget
from rlhi_plugin.calls.journal import CallJournal
from rlhi_plugin.calls.opening import open_hosted, parse_spec
from rlhi_plugin.calls.options import CallOptions
from rlhi_plugin.calls.stack import equip
from rlhi_plugin.chat import ChatClient, ChatReply, ChatRequest
from rlhi_plugin.errors import (
    ConfigError,
    InvalidReplyError,
    MissingExtraError,
    ModelCallError,
    ProviderSetupError,
    TransientCallError,
)
from rlhi_plugin.fake_provider import (
    Answer,
    CutStream,
    Disconnect,
    FakeProvider,
    Hang,
    HTTPFault,
    InvalidBody,
    rate_limited,
)
from rlhi_plugin.records import ChatMessage

pytest.importorskip("openai")
SCHEMA = {"type": "object", "properties": {"score": {"type": "integer"}}, "required": ["score"]}
CLIENTS = ["openai:", pytest.param("openai/", marks=pytest.mark.slow)]
"""The openai library, and LiteLLM, which takes seconds to import."""


def request(**more) -> ChatRequest:
    return ChatRequest(messages=(ChatMessage(role="user", content="hi"),), **{"max_tokens": 9} | more)


@pytest.fixture(autouse=True)
def _key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "right")


@pytest.fixture
def ask(prefix):
    """Asks a provider that behaves as given; the replies, and what the provider was sent."""
    if prefix == "openai/":
        pytest.importorskip("litellm")

    async def one(behaviours, asked: ChatRequest, **options) -> tuple[tuple[ChatReply, ...], list[dict]]:
        price = {"prompt_usd_per_million": 1.0, "completion_usd_per_million": 2.0}
        with FakeProvider(behaviours, **options) as provider:
            client = open_hosted(f"{prefix}fake-1@{provider.base_url}", CallOptions(timeout_s=1.0, **price))
            try:
                assert isinstance(client, ChatClient)
                return await client.complete(asked), [r.body for r in provider.requests]
            finally:
                if hasattr(client, "aclose"):
                    await client.aclose()

    return one


@pytest.mark.parametrize("prefix", CLIENTS)
async def test_replies_usage_cost_and_log_probabilities(ask) -> None:
    answer = Answer("yes it is", alternatives=("no",), prompt_tokens=7, completion_tokens=5)
    replies, (body,) = await ask([answer], request(n=2, seed=3, temperature=0.5, logprobs=2))
    assert [reply.text for reply in replies] == ["yes it is", "no"]
    assert [(reply.prompt_tokens, reply.completion_tokens) for reply in replies] == [(7, 5), (0, 0)]
    assert [reply.cost_usd for reply in replies] == [pytest.approx(17e-6), None]
    assert [token.token for token in replies[0].logprobs] == ["yes", " it", " is"]
    assert replies[0].logprobs[0].top == (("yes", -0.01), ("yes1", -1.01))
    assert (body["n"], body["seed"], body["temperature"], body["max_tokens"]) == (2, 3, 0.5, 9)
    assert (body["logprobs"], body["top_logprobs"]) == (True, 2)


@pytest.mark.parametrize("prefix", CLIENTS)
async def test_finish_reasons_and_empty_text(ask) -> None:
    (cut,), _ = await ask([Answer("and then", finish_reason="length")], request())
    assert cut.finish_reason == "length"
    (refused,), _ = await ask([Answer("", refusal="I will not.")], request())
    assert refused.finish_reason == "refused"
    (filtered,), _ = await ask([Answer("", finish_reason="content_filter")], request())
    assert (filtered.text, filtered.finish_reason) == ("", "refused")
    (empty,), _ = await ask([Answer("")], request())
    assert (empty.text, empty.finish_reason) == ("", "stop")


@pytest.mark.parametrize("prefix", CLIENTS)
async def test_json_is_checked_and_a_wrong_answer_is_kept(ask) -> None:
    (reply,), (body,) = await ask(['```json\n{"score": 3}\n```'], request(json_schema=SCHEMA))
    assert "score" in reply.text
    assert body["response_format"]["json_schema"]["schema"] == SCHEMA
    for wrong in ("Three.", '{"score": "three"}', "", '{"score": 3'):
        with pytest.raises(InvalidReplyError, match="JSON") as error:
            await ask([wrong], request(json_schema=SCHEMA))
        assert error.value.text == wrong
        assert error.value.replies[0].prompt_tokens > 0, "it was paid for"
    with pytest.raises(ConfigError, match=r"json-schema\.org"):
        await ask(["{}"], request(json_schema={"type": "nonsense"}))


@pytest.mark.parametrize("prefix", CLIENTS)
@pytest.mark.parametrize(
    ("behaviour", "kind", "remedy", "maybe_paid"),
    [
        (rate_limited(0.3), TransientCallError, "requests_per_minute", False),
        (HTTPFault(500), TransientCallError, "Try again later", False),
        (HTTPFault(429, "You exceeded your current quota", "insufficient_quota"), ProviderSetupError, "credit", None),
        (HTTPFault(404, "no model fake-1"), ProviderSetupError, "model's name", None),
        (HTTPFault(400, "context too long"), ModelCallError, "trimmed", None),
        (Hang(3.0), TransientCallError, "timeout_s", True),
        (CutStream(), TransientCallError, "Try again later", True),
        (Disconnect(), TransientCallError, "Try again later", True),
        (InvalidBody(), TransientCallError, "no chat completion", True),
        (InvalidBody("<html>Welcome</html>"), ProviderSetupError, "/v1", None),
        (InvalidBody("<html>Welcome</html>", "text/html"), ProviderSetupError, "/v1", None),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, (str, bool, type)) and value else None,
)
async def test_each_failure_is_what_it_is(ask, behaviour, kind, remedy, maybe_paid) -> None:
    with pytest.raises(ModelCallError, match=remedy) as error:
        await ask([behaviour], request())
    assert type(error.value) is kind
    if maybe_paid is not None:
        assert error.value.maybe_paid is maybe_paid
    if behaviour == rate_limited(0.3):
        assert error.value.retry_after_s == pytest.approx(0.3)


@pytest.mark.parametrize("prefix", CLIENTS)
async def test_a_wrong_key_and_an_address_where_nobody_is(ask, prefix) -> None:
    with pytest.raises(ProviderSetupError, match="API key") as wrong:
        await ask([], request(), api_key="another")
    assert wrong.value.exit_code == 2
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        client = open_hosted(f"{prefix}m@http://127.0.0.1:{held.getsockname()[1]}/v1")
        with pytest.raises(TransientCallError, match="Check the network") as nobody:
            await client.complete(request())
    assert nobody.value.unreachable


async def test_without_a_key_openai_is_not_asked(monkeypatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(ProviderSetupError, match="Set OPENAI_API_KEY"):
        await open_hosted("openai:gpt-4o").complete(request())


async def test_the_name_of_the_token_cap_can_be_the_newer_one() -> None:
    from rlhi_plugin.calls.openai_client import OpenAIChatClient

    with FakeProvider(["yes"]) as provider:
        client = OpenAIChatClient("o1", base_url=provider.base_url, token_field="max_completion_tokens")  # noqa: S106 - the name of a field
        await client.complete(request())
        await client.aclose()
    assert provider.requests[0].body["max_completion_tokens"] == 9
    assert "max_tokens" not in provider.requests[0].body


@pytest.mark.slow
async def test_litellm_knows_prices_and_what_a_model_offers() -> None:
    pytest.importorskip("litellm")
    from rlhi_plugin.litellm_client import LiteLLMClient, litellm_price

    assert litellm_price("openai/gpt-4o").prompt_token == pytest.approx(2.5e-6)
    assert litellm_price("no/such-model") is None
    assert LiteLLMClient("openai/gpt-4o").capabilities.price == litellm_price("openai/gpt-4o")
    claude = LiteLLMClient("anthropic/claude-sonnet-4-5")
    assert not claude.capabilities.logprobs
    with pytest.raises(ConfigError, match="log-probabilities"):
        await claude.complete(request(logprobs=1))


def test_a_line_names_client_model_and_address() -> None:
    found = [
        parse_spec(text)
        for text in (
            "openai/gpt-4o",
            "ollama/llama3.1:8b",
            "bedrock/anthropic.claude-3-5-sonnet-20241022-v2:0",
            "openai:m@https://host/v1",
            "vertex_ai/claude-3-5-sonnet@20240620",
            "vllm:meta-llama/Llama-3.1-8B-Instruct",
        )
    ]
    assert [(spec.client, spec.model, spec.address) for spec in found] == [
        ("litellm", "openai/gpt-4o", None),
        ("litellm", "ollama/llama3.1:8b", None),
        ("litellm", "bedrock/anthropic.claude-3-5-sonnet-20241022-v2:0", None),
        ("openai", "m", "https://host/v1"),
        ("litellm", "vertex_ai/claude-3-5-sonnet@20240620", None),
        ("vllm", "meta-llama/Llama-3.1-8B-Instruct", None),
    ]
    with pytest.raises(ConfigError, match="names no model"):
        parse_spec("openai:@http://host/v1")
    with pytest.raises(ConfigError, match="Use a served one"):
        open_hosted("vllm:m")


def test_wrong_arguments_and_a_missing_library(monkeypatch) -> None:
    from rlhi_plugin.calls.openai_client import OpenAIChatClient

    with pytest.raises(ConfigError, match="timeout above 0"):
        OpenAIChatClient("m", timeout_s=0)
    with pytest.raises(ConfigError, match="no address"):
        OpenAIChatClient("m", base_url="127.0.0.1:80")
    monkeypatch.setitem(__import__("sys").modules, "openai", None)
    with pytest.raises(MissingExtraError, match=r"rlhi\[llm\]"):
        OpenAIChatClient("m")


async def test_the_scripted_client_keeps_the_same_promises() -> None:
    from rlhi_plugin.chat import ScriptedClient

    client = ScriptedClient([json.dumps({"score": 1}), "prose"])
    assert (await client.complete(request(json_schema=SCHEMA)))[0].text
    with pytest.raises(InvalidReplyError):
        await client.complete(request(json_schema=SCHEMA))
    with pytest.raises(ConfigError, match="log-probabilities"):
        await client.complete(request(logprobs=1))


@pytest.mark.parametrize("prefix", CLIENTS)
@pytest.mark.parametrize("most", [1, 3])
async def test_a_server_that_passes_over_n_is_asked_for_the_rest(ask, most) -> None:
    replies, bodies = await ask(None, request(n=4, seed=3), then=_seed, most_choices=most)
    assert len(replies) == 4
    assert [body.get("n", 1) for body in bodies] == ([4, 3, 2, 1] if most == 1 else [4, 1])
    assert len({body["seed"] for body in bodies}) == len(bodies)


def _seed(asked) -> Answer:
    return Answer(f"seed {asked.body['seed']}", prompt_tokens=100, completion_tokens=10)


@pytest.mark.parametrize("prefix", CLIENTS)
async def test_what_a_server_gives_too_little_of_is_paid_for_once(prefix, tmp_path) -> None:
    """The third call fails for good: the next start has what the others gave, and pays for that one alone."""
    broken = [True]

    def answer(asked):
        return HTTPFault(400, "no") if broken[0] and asked.body["seed"] == 5 else _seed(asked)

    options = CallOptions(prompt_usd_per_million=1.0, completion_usd_per_million=2.0, max_cost_usd=1.0)
    with FakeProvider(answer, most_choices=1) as provider, CallJournal(tmp_path / "calls.db") as journal:
        budget = Budget(options.max_cost_usd)
        bare = open_hosted(f"{prefix}fake-1@{provider.base_url}", options)
        client = equip(bare, options, journal=journal, budget=budget)
        with pytest.raises(ModelCallError):
            await client.complete(request(n=4, seed=3))
        await journal.land()
        assert len(provider.requests) == 4
        broken[0] = False
        replies = await client.complete(request(n=4, seed=3))
        assert [reply.text for reply in replies] == [f"seed {seed}" for seed in (3, 4, 5, 6)]
        assert [r.body["seed"] for r in provider.requests[4:]] == [5]
        assert await client.complete(request(n=4, seed=3)) == replies
        assert len(provider.requests) == 5
        (usage,) = journal.usage()
        assert (usage.answered, usage.prompt_tokens, usage.completion_tokens) == (4, 400, 40)
        assert usage.cost_usd == pytest.approx(4 * 120e-6)
        assert budget.spent_usd == pytest.approx(4 * 120e-6)
        assert sum(reply.cost_usd for reply in replies) == pytest.approx(4 * 120e-6)
        if hasattr(bare, "aclose"):
            await bare.aclose()
