"""Wrapped openai clients against a real HTTP server on this machine that speaks OpenAI's protocol."""

import asyncio
import gc
import inspect
import logging
import threading
import time
from contextlib import ExitStack
from itertools import product

import httpx
import openai
import pytest
from openai import AsyncOpenAI, AzureOpenAI, OpenAI
from pydantic import BaseModel

from rlhi_plugin.errors import ConfigError
from rlhi_plugin.fake_provider import Answer, CutStream, FakeProvider, HTTPFault, ToolCall
from rlhi_plugin.identity import pseudonym
from rlhi_plugin.integrations import Observer, turn
from rlhi_plugin.integrations.openai_client import wrap_openai
from rlhi_plugin.persona import render_persona

HI = [{"role": "user", "content": "hi"}]
# The client itself wraps it from version 3 on.
CUT = (httpx.RemoteProtocolError, openai.APIConnectionError)


@pytest.fixture
def provider():
    with FakeProvider() as opened:
        yield opened


@pytest.fixture
def client(provider, store):
    with OpenAI(base_url=provider.base_url, api_key="k", max_retries=0) as plain:
        yield wrap_openai(plain, store=store)


@pytest.fixture
async def aclient(provider, store):
    async with AsyncOpenAI(base_url=provider.base_url, api_key="k", max_retries=0) as plain:
        yield wrap_openai(plain, store=store)


@pytest.fixture(autouse=True)
def in_a_thread():
    with turn(user_id="u42", thread_id="t1"):
        yield


@pytest.fixture
def served(store):
    """Makes a wrapped client of a provider with a script."""
    with ExitStack() as opened:

        def serve(*script, **options):
            provider = opened.enter_context(FakeProvider(script))
            plain = opened.enter_context(OpenAI(base_url=provider.base_url, api_key="k", max_retries=0))
            client = wrap_openai(plain, store=store, **options)
            client.provider = provider
            return client

        yield serve


def chat(client, text="hi", **more):
    return client.chat.completions.create(model="m", messages=[{"role": "user", "content": text}], **more)


# Chat completions


def test_a_call_is_on_disk_when_it_returns(client, store):
    chat(client)
    (found,) = store.conversations()
    assert (found.conversation_id, found.user_id) == ("t1", pseudonym("u42"))
    assert [(m.role, m.content, m.model) for m in found.messages] == [
        ("user", "hi", None),
        ("assistant", "You said: hi", "m"),
    ]
    assert client.rlhi_observer.dropped == 0


async def test_an_async_call_is_on_disk_when_it_returns(aclient, logged):
    await asyncio.gather(*(chat(aclient, f"{i}", metadata={}) for i in range(4)))
    assert len(logged()["t1"]) == 8


def test_the_same_history_again_is_stored_once(client, logged):
    history = [{"role": "system", "content": "Be kind."}, *HI]
    for text in ("shorter", "shorter"):
        reply = client.chat.completions.create(model="m", messages=history).choices[0].message
        # The client's own objects are messages too.
        history = [*history, reply, {"role": "user", "content": text}]
    client.chat.completions.create(model="m", messages=iter(history))
    assert logged()["t1"] == [
        ("system", "Be kind."),
        ("user", "hi"),
        ("assistant", "You said: hi"),
        ("user", "shorter"),
        ("assistant", "You said: shorter"),
        ("user", "shorter"),
        ("assistant", "You said: shorter"),
    ]


def test_a_stream_passes_unchanged_and_is_logged(client, store, logged):
    plain = OpenAI(base_url=client.base_url, api_key="k")
    with plain:
        expected = [chunk.choices for chunk in chat(plain, stream=True)]
    stream = chat(client, stream=True)
    assert isinstance(stream, openai.Stream)
    assert logged() == {"t1": [("user", "hi")]}
    assert [chunk.choices for chunk in stream] == expected
    assert logged() == {"t1": [("user", "hi"), ("assistant", "You said: hi")]}


async def test_an_async_stream_passes_unchanged_and_is_logged(aclient, logged):
    stream = await chat(aclient, stream=True)
    assert isinstance(stream, openai.AsyncStream)
    assert "".join([chunk.choices[0].delta.content or "" async for chunk in stream]) == "You said: hi"
    assert logged() == {"t1": [("user", "hi"), ("assistant", "You said: hi")]}


@pytest.mark.parametrize("close", [lambda s: s.close(), lambda s: s.__exit__(None, None, None)], ids=["close", "with"])
def test_a_stream_closed_early_is_logged_as_far_as_it_came(client, logged, close):
    stream = chat(client, stream=True)
    next(stream)
    next(stream)
    close(stream)
    assert logged() == {"t1": [("user", "hi"), ("assistant", "You")]}


async def test_an_async_stream_closed_early_is_logged_as_far_as_it_came(aclient, logged):
    async with await chat(aclient, stream=True) as stream:
        await anext(stream)
        await anext(stream)
    assert logged() == {"t1": [("user", "hi"), ("assistant", "You")]}


def test_a_stream_that_is_thrown_away_is_logged_as_far_as_it_came(client, logged):
    stream = chat(client, stream=True)
    next(stream)
    next(stream)
    del stream
    gc.collect()
    for _ in range(100):
        if len(logged()["t1"]) == 2:
            break
        time.sleep(0.05)
    assert logged() == {"t1": [("user", "hi"), ("assistant", "You")]}


def test_a_stream_cut_by_the_provider_is_logged_as_far_as_it_came(served, logged):
    client = served(CutStream(Answer("one two three"), chunks=3))
    with pytest.raises(CUT):
        list(chat(client, stream=True))
    assert logged() == {"t1": [("user", "hi"), ("assistant", "one two")]}


def test_the_stream_helper(client, logged):
    with client.chat.completions.stream(model="m", messages=HI) as stream:
        assert [event.type for event in stream][-1] == "content.done"
        assert stream.get_final_completion().choices[0].message.content == "You said: hi"
    with client.chat.completions.stream(model="m", messages=[{"role": "user", "content": "again"}]) as stream:
        for event in stream:
            if event.type == "content.delta" and event.delta:
                break
    assert logged()["t1"] == [("user", "hi"), ("assistant", "You said: hi"), ("user", "again"), ("assistant", "You")]


async def test_the_async_stream_helper(aclient, logged):
    async with aclient.chat.completions.stream(model="m", messages=HI) as stream:
        await stream.until_done()
    assert logged() == {"t1": [("user", "hi"), ("assistant", "You said: hi")]}


class City(BaseModel):
    name: str


def test_parse(served, logged):
    client = served('{"name": "Rome"}', '{"name": "Oslo"}', Answer('{"na', finish_reason="length"))
    parsed = client.chat.completions.parse(model="m", messages=HI, response_format=City).choices[0].message.parsed
    assert parsed == City(name="Rome")
    assert client.beta.chat.completions.parse(model="m", messages=HI, response_format=City).choices
    with pytest.raises(openai.LengthFinishReasonError):
        client.chat.completions.parse(model="m", messages=HI, response_format=City)
    replies = ['{"name": "Rome"}', '{"name": "Oslo"}', '{"na']
    assert logged() == {"t1": [("user", "hi"), *(("assistant", reply) for reply in replies)]}


@pytest.mark.parametrize("stream", [False, True])
def test_tool_traffic(served, logged, stream):
    client = served(Answer(tool_calls=(ToolCall("weather", '{"place": "Rome"}', id="c1"),)), "It is sunny.")
    tools = [{"type": "function", "function": {"name": "weather", "parameters": {}}}]
    result = client.chat.completions.create(model="m", messages=HI, tools=tools, stream=stream)
    calls = [{"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"place": "Rome"}'}}]
    if stream:
        list(result)
    answered = [{"role": "assistant", "tool_calls": calls}, {"role": "tool", "tool_call_id": "c1", "content": "sunny"}]
    client.chat.completions.create(model="m", messages=[*HI, *answered], tools=tools)
    assert logged()["t1"] == [
        ("user", "hi"),
        ("tool", '{"calls": [{"args": {"place": "Rome"}, "name": "weather"}], "text": ""}'),
        ("tool", "sunny"),
        ("assistant", "It is sunny."),
    ]


def test_unreadable_arguments_refusals_and_choices(served, logged):
    client = served(
        Answer(tool_calls=(ToolCall("f", "{broken"),)), Answer(refusal="No."), Answer("a", alternatives=("b",))
    )
    for text in ("1", "2"):
        chat(client, text)
    chat(client, "3", n=2)
    assert logged()["t1"] == [
        ("user", "1"),
        ("tool", '{"calls": [{"args": {"__raw__": "{broken"}, "name": "f"}], "text": ""}'),
        ("user", "2"),
        ("assistant", "No."),
        ("user", "3"),
        ("assistant", "a"),
        ("assistant", "b"),
    ]


def test_pictures_and_unknown_roles(client, logged):
    parts = [{"type": "text", "text": "what is this?"}, {"type": "image_url", "image_url": {"url": "data:..."}}]
    client.chat.completions.create(
        model="m",
        messages=[
            {"role": "developer", "content": "D"},
            {"role": "critic", "content": "C"},
            {"role": "user", "content": parts},
        ],
    )
    assert logged()["t1"][:3] == [("system", "D"), ("tool", "C"), ("user", "what is this?\n[image_url]")]


def test_an_error_reaches_the_caller_and_what_the_user_said_is_logged(served, logged):
    client = served(HTTPFault(400, "no such model"))
    with pytest.raises(openai.BadRequestError, match="no such model"):
        chat(client)
    assert logged() == {"t1": [("user", "hi")]}


async def test_a_cancelled_call_is_logged(store, logged):
    arrived = threading.Event()

    def script(request):
        arrived.set()
        return Answer("late", delay_s=30)

    with FakeProvider(script) as provider:
        async with AsyncOpenAI(base_url=provider.base_url, api_key="k") as plain:
            call = asyncio.create_task(chat(wrap_openai(plain, store=store)))
            await asyncio.to_thread(arrived.wait, 10)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
    assert logged() == {"t1": [("user", "hi")]}


# Responses


def test_responses_continue_a_thread(served, store):
    client = served("one", "two", "two again", Answer(tool_calls=(ToolCall("f", id="c"),)), "done")
    with turn(user_id="u42"):
        first = client.responses.create(model="m", instructions="Be kind.", input="shorter")
        second = client.responses.create(model="m", input="shorter", previous_response_id=first.id)
        # The same request again, and an edited one: a retry and a branch.
        client.responses.create(model="m", input="shorter", previous_response_id=first.id)
        called = client.responses.create(
            model="m",
            input=[{"role": "user", "content": [{"type": "input_text", "text": "call"}]}],
            previous_response_id=second.id,
        )
        client.responses.create(
            model="m",
            input=[{"type": "function_call_output", "call_id": "c", "output": "42"}],
            previous_response_id=called.id,
        )
    (found,) = store.conversations()
    assert [(m.role, m.content) for m in found.messages] == [
        ("system", "Be kind."),
        ("user", "shorter"),
        ("assistant", "one"),
        ("user", "shorter"),
        ("assistant", "two"),
        ("assistant", "two again"),
        ("user", "call"),
        ("tool", '{"calls": [{"args": {}, "name": "f"}], "text": ""}'),
        ("tool", "42"),
        ("assistant", "done"),
    ]


def test_a_thread_of_responses_needs_no_name(served, store):
    client = served("one", "two", "three", "four")
    call = {"model": "m", "user": "u7"}

    # Outside of any `turn`: in a thread of its own, whose context is empty.
    def talk():
        first = client.responses.create(input="a", **call)
        client.responses.create(input="b", previous_response_id=first.id, **call)
        client.responses.create(input="c", conversation="conv_9", **call)
        client.responses.create(input="c", conversation={"id": "conv_9"}, **call)

    thread = threading.Thread(target=talk)
    thread.start()
    thread.join()
    chain, conversation = store.conversations()
    assert [m.content for m in chain.messages] == ["a", "one", "b", "two"]
    assert conversation.conversation_id == "conv_9"
    assert [m.content for m in conversation.messages] == ["c", "three", "c", "four"]
    assert {c.user_id for c in (chain, conversation)} == {pseudonym("u7")}


def test_streamed_responses(served, logged):
    client = served("one two", CutStream(Answer("three four five"), chunks=5), "six", Answer("seven eight"))
    assert [event.type for event in client.responses.create(model="m", input="1", stream=True)][
        -1
    ] == "response.completed"
    with pytest.raises(CUT):
        list(client.responses.create(model="m", input="2", stream=True))
    with client.responses.stream(model="m", input="3") as stream:
        assert stream.get_final_response().output_text == "six"
    with client.responses.stream(model="m", input="4") as stream:
        for event in stream:
            if event.type == "response.output_text.delta":
                break
    assert logged()["t1"] == [
        ("user", "1"),
        ("assistant", "one two"),
        ("user", "2"),
        ("assistant", "three four"),
        ("user", "3"),
        ("assistant", "six"),
        ("user", "4"),
        ("assistant", "seven"),
    ]


async def test_async_responses(aclient, logged):
    await aclient.responses.create(model="m", input="1")
    events = [event async for event in await aclient.responses.create(model="m", input="2", stream=True)]
    assert events[-1].type == "response.completed"
    assert logged()["t1"] == [("user", "1"), ("assistant", "You said: 1"), ("user", "2"), ("assistant", "You said: 2")]


def test_responses_parse_and_failures(served, logged):
    client = served('{"name": "Rome"}', HTTPFault(400))
    assert client.responses.parse(model="m", input="1", text_format=City).output_parsed == City(name="Rome")
    with pytest.raises(openai.BadRequestError):
        client.responses.create(model="m", input="2")
    assert logged()["t1"] == [("user", "1"), ("assistant", '{"name": "Rome"}'), ("user", "2")]


# Who is speaking


@pytest.mark.parametrize(
    "carried",
    [
        {"metadata": {"user_id": "u1", "thread_id": "x"}},
        {"metadata": {"user_id": "u1", "session_id": "x"}, "user": "another"},
        {"user": "u1", "metadata": {"conversation_id": "x"}},
        {"safety_identifier": "u1", "metadata": {"thread_id": "x"}},
        {"extra_headers": {"X-RLHI-User-Id": "u1", "X-RLHI-Thread-Id": "x", "X-Other": "kept"}, "user": "another"},
    ],
)
def test_the_speaker_that_a_call_carries_along(client, provider, store, carried):
    thread = threading.Thread(target=lambda: chat(client, **carried))
    thread.start()
    thread.join()
    assert [(c.conversation_id, c.user_id) for c in store.conversations()] == [("x", pseudonym("u1"))]
    assert not any("rlhi" in name for name in provider.requests[0].headers)
    assert ("x-other" in provider.requests[0].headers) == ("extra_headers" in carried)


def test_a_turn_wins_and_turns_nest(client, store):
    with turn(thread_id="t2"):
        chat(client, user="another", metadata={"thread_id": "other"})
    assert [(c.conversation_id, c.user_id) for c in store.conversations()] == [("t2", pseudonym("u42"))]


def test_calls_without_a_thread_are_conversations_of_their_own(client, store):
    def talk():
        chat(client)
        chat(client)

    thread = threading.Thread(target=talk)
    thread.start()
    thread.join()
    assert [(len(c.messages), c.user_id) for c in store.conversations()] == [(2, None), (2, None)]


def test_an_id_that_is_none_leaves_the_call_anonymous(client, store, caplog):
    with caplog.at_level(logging.ERROR, "rlhi.middleware"), turn(user_id=True, thread_id="t9"):
        assert chat(client).choices
    assert "could not be identified" in caplog.text
    assert [(c.conversation_id, c.user_id) for c in store.conversations()] == [("t9", None)]


# The persona


PROMPTS = [
    (HI, ["{persona}", "hi"]),
    ([{"role": "developer", "content": "Be kind."}, *HI], ["Be kind.\n\n{persona}", "hi"]),
    ([{"role": "system", "content": "A"}, {"role": "system", "content": "B"}, *HI], ["A", "B\n\n{persona}", "hi"]),
]


@pytest.mark.parametrize("case", list(product(PROMPTS, [False, True])))
def test_the_persona_is_in_the_system_message_and_not_in_the_log(client, provider, store, put_persona, case):
    (messages, prompt), stream = case
    persona = put_persona()
    reply = client.chat.completions.create(model="m", messages=messages, stream=stream)
    if stream:
        list(reply)
    expected = [text.replace("{persona}", render_persona(persona)) for text in prompt]
    assert [m["content"] for m in provider.requests[0].messages] == expected
    (found,) = store.conversations()
    said = [(m["role"].replace("developer", "system"), m["content"]) for m in messages]
    assert [(m.role, m.content) for m in found.messages][:-1] == said
    assert found.messages[-1].persona_digest == persona.digest


def test_parts_of_the_apps_prompt_keep_their_cache_marks(client, provider, logged, put_persona):
    persona = put_persona()
    part = {"type": "text", "text": "Be kind.", "cache_control": {"type": "ephemeral"}}
    client.chat.completions.create(model="m", messages=[{"role": "system", "content": [part]}, *HI])
    first, second = provider.requests[0].messages[0]["content"]
    assert (first, second["text"]) == (part, f"\n\n{render_persona(persona)}")
    assert logged()["t1"][0] == ("system", "Be kind.")


def test_the_persona_is_in_the_instructions(client, provider, logged, put_persona):
    text = render_persona(put_persona())
    client.responses.create(model="m", input="hi", instructions="Be kind.")
    client.responses.create(model="m", input="hi", previous_response_id="resp_0")
    assert [r.body["instructions"] for r in provider.requests] == [f"Be kind.\n\n{text}", text]
    assert ("system", "Be kind.") in logged()["t1"]


async def test_the_persona_is_in_async_calls(aclient, provider, put_persona):
    text = render_persona(put_persona())
    await chat(aclient)
    assert provider.requests[0].system_text == text


def test_a_thread_keeps_the_persona_it_began_with(served, put_persona):
    client = served(persona_max_age_s=0)
    put_persona(text="First.")
    chat(client)
    put_persona(text="Second.")
    chat(client)
    with turn(thread_id="new"):
        chat(client)
    assert [("First." in r.system_text, "Second." in r.system_text) for r in client.provider.requests] == [
        (True, False),
        (True, False),
        (False, True),
    ]


@pytest.mark.parametrize("mode", ["shadow", "off"])
def test_modes_that_leave_the_prompt_alone(provider, store, put_persona, mode):
    put_persona()
    with OpenAI(base_url=provider.base_url, api_key="k") as plain:
        chat(wrap_openai(plain, store=store, persona=mode))
    assert provider.requests[0].messages == HI
    (found,) = store.conversations()
    assert found.messages[-1].persona_digest is None


def test_nobody_gets_another_users_persona(client, provider, put_persona):
    put_persona(user="u42")
    with turn(user_id="u43", thread_id="t2"):
        chat(client)
    assert provider.requests[0].messages == HI


# What is left alone


def test_the_original_client_is_untouched_and_the_wrapped_one_is_of_its_type(provider, store, logged):
    with OpenAI(base_url=provider.base_url, api_key="k") as plain:
        before = plain.chat.completions
        wrapped = wrap_openai(plain, store=store)
        assert plain.chat.completions is before
        chat(plain)
        assert logged() == {}
        assert isinstance(wrapped, OpenAI)
        assert (wrapped.api_key, wrapped.base_url) == (plain.api_key, plain.base_url)
        assert wrapped.models.list().data[0].id == "fake-1"
        create, original = wrapped.chat.completions.create, plain.chat.completions.create
        assert inspect.signature(create) == inspect.signature(original)


def test_copies_of_a_wrapped_client_are_wrapped(client, logged):
    chat(client.with_options(timeout=5))
    assert len(logged()["t1"]) == 2


def test_raw_responses_are_let_through(client, logged, put_persona, provider):
    put_persona()
    raw = client.chat.completions.with_raw_response.create(model="m", messages=HI)
    assert raw.parse().choices[0].message.content == "You said: hi"
    with client.responses.with_streaming_response.create(model="m", input="hi") as response:
        assert response.parse().output_text == "You said: hi"
    assert logged() == {}
    assert provider.requests[0].messages == HI


def test_clients_of_other_clouds(provider, store, logged):
    with AzureOpenAI(
        azure_endpoint=provider.base_url.removesuffix("/v1"), api_key="k", api_version="v", max_retries=0
    ) as plain:
        wrapped = wrap_openai(plain, store=store)
        assert isinstance(wrapped, AzureOpenAI)
        # Azure's address is another one; that the failed call is logged shows that it was observed.
        with pytest.raises(openai.NotFoundError):
            chat(wrapped)
    assert logged() == {"t1": [("user", "hi")]}


def test_what_the_client_refuses_it_refuses_as_before(client):
    with pytest.raises(TypeError, match="messages"):
        client.chat.completions.create(model="m")


def test_a_failing_store_never_breaks_the_call(provider, broken_store, caplog):
    with OpenAI(base_url=provider.base_url, api_key="k") as plain:
        wrapped = wrap_openai(plain, store=broken_store, journal=None)
        with caplog.at_level(logging.ERROR, "rlhi.middleware"):
            assert chat(wrapped).choices[0].message.content == "You said: hi"
            assert len(list(chat(wrapped, stream=True))) > 1
    assert wrapped.rlhi_observer.dropped >= 4
    assert "the disk is gone" in caplog.text


def test_wrong_arguments_name_a_remedy(client, store, broken_store):
    for arguments, remedy in [
        ({"client": "sk-"}, "OpenAI"),
        ({"client": client, "store": store}, "wrapped already"),
    ]:
        with pytest.raises(ConfigError, match=remedy):
            wrap_openai(**{"store": store} | arguments)
    with OpenAI(api_key="k") as plain:
        for arguments, remedy in [
            ({}, "store='sqlite"),
            ({"store": "rlhi.db"}, "sqlite:///"),
            ({"store": 7}, "Pass a URL"),
            ({"store": store, "persona": "on"}, "'inject', 'shadow' or 'off'"),
            ({"store": store, "persona_max_age_s": -1}, "0 or more"),
            ({"store": store, "observer": Observer(store=store)}, "Leave out store"),
        ]:
            with pytest.raises(ConfigError, match=remedy):
                wrap_openai(plain, **arguments)
