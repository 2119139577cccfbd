"""The fake provider, seen by a plain HTTP client and by the openai client that most apps use."""

import threading
import time

import httpx
import openai
import pytest
from openai import OpenAI

from rlhi_plugin.errors import ConfigError
from rlhi_plugin.fake_provider import (
    Answer,
    CutStream,
    Disconnect,
    FakeProvider,
    Hang,
    HTTPFault,
    InvalidBody,
    RateLimit,
    ToolCall,
    rate_limited,
)

HI = [{"role": "user", "content": "hi"}]
# The client itself wraps it from version 3 on.
CUT = (httpx.RemoteProtocolError, openai.APIConnectionError)


def client(provider, **options):
    return OpenAI(base_url=provider.base_url, **{"api_key": "any", "max_retries": 0, **options})


def ask(provider, messages=HI, **more):
    with client(provider) as api:
        return api.chat.completions.create(model="m", messages=messages, **more)


def test_a_list_is_a_script_and_then_it_echoes():
    with FakeProvider(["one", Answer("two", model="other", prompt_tokens=70, completion_tokens=7)]) as provider:
        first, second, third = (ask(provider) for _ in range(3))
    assert [r.choices[0].message.content for r in (first, second, third)] == ["one", "two", "You said: hi"]
    assert (first.model, second.model) == ("m", "other")
    assert (first.usage.prompt_tokens, first.usage.completion_tokens) == (1, 1)
    assert (second.usage.prompt_tokens, second.usage.total_tokens) == (70, 77)


def test_a_function_is_a_script_and_sees_the_request():
    def script(request):
        return f"{request.number} {request.system_text} {request.last_user_text} {request.body['seed']}"

    with FakeProvider(script) as provider:
        reply = ask(provider, [{"role": "system", "content": "Be kind."}, *HI], seed=3)
        assert reply.choices[0].message.content == "0 Be kind. hi 3"
        (request,) = provider.requests
    assert (request.path, request.headers["authorization"]) == ("/v1/chat/completions", "Bearer any")


def test_a_failing_script_is_an_error_that_tells():
    with (
        FakeProvider(lambda request: 1 / 0) as provider,
        pytest.raises(openai.InternalServerError, match="ZeroDivision"),
    ):
        ask(provider)


@pytest.mark.parametrize("text", ["", "a", " a  b\n\nc ", "naïve 你好 done"])
def test_chunks_join_to_the_text(text):
    with FakeProvider([text], then=lambda request: text) as provider, client(provider) as api:
        chunks = list(api.chat.completions.create(model="m", messages=HI, stream=True))
        assert "".join(c.choices[0].delta.content or "" for c in chunks) == text
        assert api.responses.create(model="m", input="hi").output_text == text
        with api.responses.stream(model="m", input="hi") as stream:
            assert stream.get_final_response().output_text == text


def test_usage_ends_a_stream_that_asks_for_it():
    with FakeProvider(["a b c"]) as provider, client(provider) as api:
        stream = api.chat.completions.create(
            model="m", messages=HI, stream=True, stream_options={"include_usage": True}
        )
        assert [chunk.usage.completion_tokens for chunk in stream if chunk.usage] == [3]


def test_tool_calls_whole_and_streamed():
    answer = Answer(tool_calls=(ToolCall("weather", '{"place": "Rome"}'), ToolCall("time")))
    with FakeProvider(lambda request: answer) as provider, client(provider) as api:
        message = api.chat.completions.create(model="m", messages=HI).choices[0]
        with api.chat.completions.stream(model="m", messages=HI) as stream:
            streamed = stream.get_final_completion().choices[0]
        output = api.responses.create(model="m", input="hi").output
    for choice in (message, streamed):
        assert choice.finish_reason == "tool_calls"
        assert [(c.function.name, c.function.arguments) for c in choice.message.tool_calls] == [
            ("weather", '{"place": "Rome"}'),
            ("time", "{}"),
        ]
    assert [(item.type, item.name) for item in output] == [("function_call", "weather"), ("function_call", "time")]


def test_several_choices_and_a_refusal():
    with FakeProvider([Answer("a", alternatives=("b",)), Answer(refusal="No.")]) as provider:
        assert [c.message.content for c in ask(provider, n=3).choices] == ["a", "b", "a"]
        assert ask(provider).choices[0].message.refusal == "No."


def test_faults_are_what_the_client_knows_them_as():
    script = [
        HTTPFault(400, "too long", code="context_length_exceeded"),
        HTTPFault(),
        InvalidBody(),
        Disconnect(),
        CutStream(),
    ]
    expected = [
        openai.BadRequestError,
        openai.InternalServerError,
        ValueError,
        openai.APIConnectionError,
        openai.APIConnectionError,
    ]
    with FakeProvider(script) as provider:
        for error in expected:
            with pytest.raises(error):
                ask(provider)
        assert len(provider.requests) == len(script)


def test_a_hanging_provider_meets_the_timeout_and_closes_at_once():
    started = time.monotonic()
    with FakeProvider([Hang(60)]) as provider, pytest.raises(openai.APITimeoutError):
        client(provider, timeout=0.2).chat.completions.create(model="m", messages=HI)
    assert time.monotonic() - started < 10


def test_a_cut_stream_gives_what_came_before():
    with FakeProvider([CutStream(Answer("one two three"), chunks=3)]) as provider, client(provider) as api:
        stream = api.chat.completions.create(model="m", messages=HI, stream=True)
        seen = [next(stream).choices[0].delta.content for _ in range(3)]
        with pytest.raises(CUT):
            next(stream)
    assert seen == ["", "one", " two"]


def test_a_client_that_retries_gets_through_and_waits_as_told():
    with FakeProvider([rate_limited(0.3), HTTPFault(503), "done"]) as provider, client(provider, max_retries=3) as api:
        assert api.chat.completions.create(model="m", messages=HI).choices[0].message.content == "done"
        first, second, _ = provider.requests
    assert second.received_at - first.received_at >= 0.3


def test_the_rate_limit_is_kept_and_says_when_to_come_back():
    limit = RateLimit(requests=3, per_s=0.5)
    with FakeProvider(rate_limit=limit) as provider, client(provider) as api:
        refusals = []
        for _ in range(5):
            try:
                api.chat.completions.create(model="m", messages=HI)
            except openai.RateLimitError as error:
                refusals.append(float(error.response.headers["retry-after"]))
        assert (len(provider.requests), provider.refused) == (3, 2)
        assert all(0 < wait <= 0.5 for wait in refusals)
        time.sleep(max(refusals) + 0.05)
        api.chat.completions.create(model="m", messages=HI)


def test_requests_run_side_by_side_and_are_counted():
    together = threading.Barrier(4, timeout=10)

    def script(request):
        together.wait()
        return "ok"

    with FakeProvider(script) as provider:
        threads = [threading.Thread(target=ask, args=(provider,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert provider.peak_in_flight == 4


def test_only_the_right_key_is_let_in():
    with FakeProvider(api_key="right") as provider:
        with pytest.raises(openai.AuthenticationError):
            ask(provider)
        assert provider.requests == ()
        with client(provider, api_key="right") as api:
            assert api.models.list().data[0].id == "fake-1"
            assert api.chat.completions.create(model="m", messages=HI).id == "chatcmpl-0"


def test_other_addresses_and_bodies_are_refused():
    with FakeProvider() as provider:
        assert httpx.post(f"{provider.base_url}/embeddings", json={}).status_code == 404
        assert httpx.get(f"{provider.base_url}/files").status_code == 404
        assert httpx.post(f"{provider.base_url}/responses", content=b"[").status_code == 400


def test_mistakes_are_named():
    with pytest.raises(ConfigError, match="letter by letter"):
        FakeProvider("hello")
    with pytest.raises(ConfigError, match="at least 1 request"):
        RateLimit(requests=0, per_s=1)
    with pytest.raises(ConfigError, match="not listening"):
        _ = FakeProvider().base_url


def test_first_token_log_probabilities_for_who_asks():
    answer = Answer("m", top_logprobs=(("m", -0.1), ("M", -2.5), ("The", -9.0)))
    with FakeProvider([answer, answer, "plain"]) as provider:
        asked = ask(provider, logprobs=True, top_logprobs=2)
        not_asked = ask(provider)
        not_scripted = ask(provider, logprobs=True)
    (token,) = asked.choices[0].logprobs.content
    assert (token.token, token.logprob, token.bytes) == ("m", -0.1, [109])
    assert [(each.token, each.logprob) for each in token.top_logprobs] == [("m", -0.1), ("M", -2.5)]
    assert not_asked.choices[0].logprobs is None
    assert [(each.token, each.logprob) for each in not_scripted.choices[0].logprobs.content] == [("plain", -0.01)]
