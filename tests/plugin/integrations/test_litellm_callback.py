"""The LiteLLM callback in the SDK, against a real HTTP server on this machine that speaks OpenAI's protocol."""

import asyncio
import gc
import logging
import sys
import time
import warnings
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta

import pytest

from rlhi_plugin.errors import MissingExtraError
from rlhi_plugin.fake_provider import Answer, CutStream, FakeProvider, HTTPFault, ToolCall
from rlhi_plugin.identity import pseudonym
from rlhi_plugin.integrations.speaker import turn
from rlhi_plugin.persona import render_persona

pytestmark = [
    pytest.mark.slow,
    # LiteLLM 1.106 serialises its own usage object in place of OpenAI's.
    pytest.mark.filterwarnings("ignore:Pydantic serializer warnings"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:litellm"),
    # Event loops that LiteLLM made and nobody closed, where the collector comes by during a test.
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),
]

HI = [{"role": "user", "content": "hi"}]


@pytest.fixture(scope="module")
def litellm():
    import litellm

    yield litellm
    # Event loops that LiteLLM made and nobody closed must not fail whichever test comes next.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@pytest.fixture
def logger(store, litellm, monkeypatch):
    from rlhi_plugin.integrations.litellm_callback import RLHILogger

    made = RLHILogger(store=store)
    # LiteLLM copies callbacks into lists of its own, one for each kind of event.
    for name in (n for n in dir(litellm) if n.endswith(("callback", "callbacks"))):
        if isinstance(getattr(litellm, name), list):
            monkeypatch.setattr(litellm, name, [])
    monkeypatch.setattr(litellm, "callbacks", [made])
    return made


@pytest.fixture
def served(logger):
    """Makes a provider with a script, and the arguments of a call to it."""
    with ExitStack() as opened:

        def serve(*script):
            provider = opened.enter_context(FakeProvider(script))
            options = {"model": "openai/m", "api_base": provider.base_url, "api_key": "k-secret", "num_retries": 0}
            return provider, {"metadata": {"user_id": "u42", "thread_id": "t1"}, "max_retries": 0, **options}

        yield serve


def until(read, holds):
    """What `read` gives once it `holds`: LiteLLM logs in the background."""
    deadline = time.monotonic() + 60
    while not holds(found := read()) and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.1)  # and what is logged twice shows too
    assert read() == found
    assert holds(found), f"waited in vain, found {found}"
    return found


def has(number):
    return lambda found: len(found.get("t1", ())) >= number


def test_sync_calls_streams_and_failures(served, logged, litellm, store):
    _, call = served("one", "two three", HTTPFault(400, "no such model"))
    litellm.completion(messages=HI, **call)
    chunks = list(litellm.completion(messages=[{"role": "user", "content": "again"}], stream=True, **call))
    assert len(chunks) > 1
    with pytest.raises(litellm.BadRequestError):
        litellm.completion(messages=[{"role": "user", "content": "third"}], **call)
    found = until(logged, has(5))["t1"]
    assert sorted(found) == sorted(
        [("user", "hi"), ("assistant", "one"), ("user", "again"), ("assistant", "two three"), ("user", "third")]
    )
    (conversation,) = store.conversations()
    assert conversation.user_id == pseudonym("u42")
    assert {m.model for m in conversation.messages if m.role == "assistant"} == {"m"}
    assert all(m.persona_digest is None for m in conversation.messages)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_times_tokens_and_feedback(served, store, litellm, logger, stream):
    _, call = served(Answer("yes", delay_s=0.2, prompt_tokens=3, completion_tokens=2))
    more = {"stream": True, "stream_options": {"include_usage": True}} if stream else {}
    began = datetime.now(UTC)
    reply = litellm.completion(messages=HI, **more, **call)
    known_as = [chunk.id for chunk in reply][-1] if stream else reply.id
    until(lambda: {c.conversation_id: c.messages for c in store.conversations()}, has(2))
    (found,) = store.conversations()
    asked, answered = found.messages
    assert 0.2 <= answered.latency_s < 10
    assert (asked.latency_s, answered.input_tokens, answered.output_tokens) == (None, 3, 2)
    # When it was asked, not when LiteLLM came to say so.
    assert timedelta(0) <= asked.created_at - began < answered.created_at - began
    assert answered.created_at - asked.created_at >= timedelta(seconds=0.2)
    logger.observer.record_feedback("thumbs_up", thread_id="t1", user_id="u42", message_id=known_as)
    assert [event.message_id for event in store.feedback()] == [answered.id]


async def test_async_calls_use_the_async_events_only(served, logged, litellm, logger, monkeypatch):
    sync = []
    monkeypatch.setattr(logger, "log_success_event", lambda **event: sync.append(event))
    monkeypatch.setattr(logger, "log_failure_event", lambda **event: sync.append(event))
    _, call = served("one", "two three", HTTPFault(400))
    await litellm.acompletion(messages=HI, **call)
    stream = await litellm.acompletion(messages=[{"role": "user", "content": "again"}], stream=True, **call)
    assert len([chunk async for chunk in stream]) > 1
    with pytest.raises(litellm.BadRequestError):
        await litellm.acompletion(messages=[{"role": "user", "content": "third"}], **call)
    found = await asyncio.gather(asyncio.sleep(0.3), asyncio.to_thread(until, logged, has(5)))
    assert sorted(found[1]["t1"]) == sorted(
        [("user", "hi"), ("assistant", "one"), ("user", "again"), ("assistant", "two three"), ("user", "third")]
    )
    assert sync == []


def test_tool_traffic_and_the_same_history_again(served, logged, litellm):
    _, call = served(Answer(tool_calls=(ToolCall("weather", '{"place": "Rome"}', id="c1"),)), "It is sunny.", "Yes.")
    messages = [{"role": "system", "content": "Be kind."}, *HI]
    first = litellm.completion(messages=messages, **call).choices[0].message
    messages = [*messages, first, {"role": "tool", "tool_call_id": "c1", "content": "sunny"}]
    until(logged, has(3))
    second = litellm.completion(messages=messages, **call).choices[0].message
    until(logged, has(5))
    litellm.completion(messages=[*messages, second, {"role": "user", "content": "sure?"}], **call)
    assert until(logged, has(7))["t1"] == [
        ("system", "Be kind."),
        ("user", "hi"),
        ("tool", '{"calls": [{"args": {"place": "Rome"}, "name": "weather"}], "text": ""}'),
        ("tool", "sunny"),
        ("assistant", "It is sunny."),
        ("user", "sure?"),
        ("assistant", "Yes."),
    ]


def test_responses(served, logged, litellm):
    _, call = served("one", "two")
    first = litellm.responses(input="hi", instructions="Be kind.", **call)
    until(logged, has(3))
    litellm.responses(input="hi", previous_response_id=first.id, **call)
    assert until(logged, has(5))["t1"] == [
        ("system", "Be kind."),
        ("user", "hi"),
        ("assistant", "one"),
        ("user", "hi"),
        ("assistant", "two"),
    ]


def test_a_stream_that_breaks_off_is_logged(served, logged, litellm):
    _, call = served(CutStream(Answer("one two three"), chunks=3))
    with pytest.raises(Exception, match=r"(?i)incomplete|peer closed|connection"):
        list(litellm.completion(messages=HI, stream=True, **call))
    assert until(logged, has(1))["t1"][0] == ("user", "hi")


@pytest.mark.parametrize(
    ("carried", "expected"),
    [
        ({"metadata": {"user_id": "u1", "session_id": "s"}, "user": "another"}, ("s", "u1")),
        ({"user": "u1", "litellm_session_id": "s"}, ("s", "u1")),
        ({"user": "u1", "metadata": {"thread_id": "t"}, "litellm_session_id": "s"}, ("t", "u1")),
        ({}, (None, None)),
    ],
)
def test_the_speaker(served, store, litellm, carried, expected):
    _, call = served("one")
    call.pop("metadata")
    litellm.completion(messages=HI, **call, **carried)
    (found,) = until(lambda: list(store.conversations()), len)
    thread, user = expected
    assert found.user_id == (user and pseudonym(user))
    assert found.conversation_id == thread or (thread is None and found.conversation_id.startswith("run-"))


def test_a_persona_in_the_prompt_is_not_logged_but_named(served, logged, store, litellm, put_persona):
    persona = put_persona()
    provider, call = served("one")
    system = {"role": "system", "content": f"Be kind.\n\n{render_persona(persona)}"}
    litellm.completion(messages=[system, *HI], **call)
    assert until(logged, has(3))["t1"][0] == ("system", "Be kind.")
    (found,) = store.conversations()
    assert found.messages[-1].persona_digest == persona.digest
    assert provider.requests[0].system_text == system["content"]


def test_other_kinds_of_call_are_none_of_ours(logged, logger):
    logger.log_success_event({"call_type": "embedding", "messages": HI}, None, None, None)
    logger.log_success_event({}, None, None, None)
    assert logged() == {}


def test_a_failing_callback_never_reaches_the_caller(litellm, served, logger, caplog, broken_store):
    from rlhi_plugin.integrations.litellm_callback import RLHILogger

    litellm.callbacks = [RLHILogger(store=broken_store)]
    _, call = served("one")
    with caplog.at_level(logging.ERROR, "rlhi.middleware"):
        assert litellm.completion(messages=HI, **call).choices[0].message.content == "one"
        status = until(litellm.callbacks[0].observer.status, lambda status: status.waiting)
    assert (status.waiting, status.dropped) == (1, 0)  # in the journal
    assert "the disk is gone" in caplog.text
    assert "k-secret" not in caplog.text


async def test_events_that_are_not_what_they_seem_are_logged_not_raised(logger, caplog):
    with caplog.at_level(logging.ERROR, "rlhi.middleware"):
        for event in (
            {"call_type": "completion", "messages": 7},
            {"call_type": "completion", "litellm_params": 7},
            None,
        ):
            logger.log_success_event(event, None, None, None)
            await logger.async_log_failure_event(event, None, None, None)
        data = {"messages": 7}
        assert await logger.async_pre_call_hook(None, None, data, "completion") is data
    assert len(caplog.records) >= 7


async def test_the_hook_of_the_proxy(logger, put_persona):
    from litellm.proxy._types import UserAPIKeyAuth

    text = render_persona(put_persona(user="u42"))
    cases = [
        ({"user": "u42", "messages": HI}, UserAPIKeyAuth(), True),
        ({"messages": HI}, UserAPIKeyAuth(end_user_id="u42"), True),
        ({"messages": HI}, UserAPIKeyAuth(user_id="u42"), True),
        ({"user": "u43", "messages": HI}, UserAPIKeyAuth(user_id="u42"), False),
        ({"messages": HI}, UserAPIKeyAuth(user_id="default_user_id"), False),
    ]
    for data, key, given in cases:
        sent = await logger.async_pre_call_hook(key, None, data, "completion")
        assert sent["messages"] == ([{"role": "system", "content": text}, *HI] if given else HI)
    sent = await logger.async_pre_call_hook(UserAPIKeyAuth(), None, {"user": "u42", "input": "hi"}, "aresponses")
    assert sent["instructions"] == text
    sent = await logger.async_pre_call_hook(UserAPIKeyAuth(), None, {"user": "u42", "input": "hi"}, "embeddings")
    assert sent == {"user": "u42", "input": "hi"}


async def test_a_shared_key_is_nobody_where_the_app_says_so(store, put_persona):
    from litellm.proxy._types import UserAPIKeyAuth

    from rlhi_plugin.integrations.litellm_callback import RLHILogger

    put_persona(user="u42")
    logger = RLHILogger(store=store, user_of_key=False)
    data = {"messages": HI}
    assert await logger.async_pre_call_hook(UserAPIKeyAuth(user_id="u42"), None, data, "completion") == data


def test_a_missing_litellm_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "litellm.integrations.custom_logger", None)
    monkeypatch.delitem(sys.modules, "rlhi_plugin.integrations.litellm_callback", raising=False)
    with pytest.raises(MissingExtraError, match=r"rlhi\[llm\]"):
        import rlhi_plugin.integrations.litellm_callback  # noqa: F401 - importing it is the test


def says(chunk):
    return bool(chunk.choices and chunk.choices[0].delta.content)


async def left(stream, end):
    """The reader goes: it closes the stream, or is cancelled."""
    if end == "closed":
        await stream.aclose()
        return
    with pytest.raises(asyncio.CancelledError):
        await stream.athrow(asyncio.CancelledError())


def finishes(store):
    return lambda: {c.conversation_id: [(m.content, m.finish) for m in c.messages] for c in store.conversations()}


@pytest.mark.parametrize("end", ["closed", "broken", "read"])
def test_a_watched_stream_keeps_the_part_that_came(served, litellm, logger, store, end):
    _, call = served(CutStream(Answer("one two three"), chunks=3) if end == "broken" else "one two three")
    stream = logger.watch(litellm.completion(messages=HI, stream=True, **call))
    if end == "broken":
        with pytest.raises(litellm.exceptions.MidStreamFallbackError):
            list(stream)
    elif end == "read":
        list(stream)
    else:
        next(filter(says, stream))
        stream.close()
    found = until(finishes(store), has(2))["t1"]
    expected = {"closed": ("one", "incomplete"), "broken": ("one two", "failed"), "read": ("one two three", None)}
    assert [(text.strip(), finish) for text, finish in found] == [("hi", None), expected[end]]


@pytest.mark.parametrize("end", ["closed", "cancelled", "read"])
async def test_a_watched_async_stream_too(served, litellm, logger, store, end):
    _, call = served("one two three")
    stream = logger.awatch(await litellm.acompletion(messages=HI, stream=True, **call))
    if end == "read":
        assert len([chunk async for chunk in stream]) > 1
    else:
        while not says(await anext(stream)):
            pass
        await left(stream, end)
    found = (await asyncio.to_thread(until, finishes(store), has(2)))["t1"]
    expected = ("one two three", None) if end == "read" else ("one", "incomplete")
    assert [(text.strip(), finish) for text, finish in found] == [("hi", None), expected]


# Of a model that it does not know LiteLLM asks a whole response, and cuts it into events itself.
STREAMS = {"model": "openai/gpt-4o"}


def deltas(events):
    return [event for event in events if event.type == "response.output_text.delta"]


@pytest.mark.parametrize("end", ["closed", "closed after all", "broken", "read"])
def test_a_watched_stream_of_a_response_keeps_the_part_that_came(served, litellm, logger, store, end):
    answer = Answer("one two three")
    # Created, item, part, and two words.
    _, call = served(CutStream(answer, chunks=5) if end == "broken" else answer)
    stream = logger.watch(litellm.responses(input="hi", instructions="Be kind.", stream=True, **{**call, **STREAMS}))
    if end == "broken":
        with pytest.raises(Exception, match=r"(?i)incomplete|peer closed|connection|terminal event"):
            list(stream)
    elif end == "read":
        assert len(deltas(stream)) == 3
    else:
        last = "response.completed" if end == "closed after all" else "response.output_text.delta"
        while next(stream).type != last:
            pass
        stream.close()
    found = until(finishes(store), has(3))["t1"]
    whole = ("one two three", None)
    expected = {"closed": ("one", "incomplete"), "broken": ("one two", "failed")}.get(end, whole)
    assert [(text.strip(), finish) for text, finish in found] == [("Be kind.", None), ("hi", None), expected]


@pytest.mark.parametrize("end", ["closed", "cancelled", "broken", "read"])
async def test_a_watched_async_stream_of_a_response_too(served, litellm, logger, store, end):
    answer = Answer("one two three")
    _, call = served(CutStream(answer, chunks=5) if end == "broken" else answer)
    stream = logger.awatch(
        await litellm.aresponses(input="hi", previous_response_id="r0", stream=True, **{**call, **STREAMS})
    )
    if end == "broken":
        with pytest.raises(Exception, match=r"(?i)not completed|incomplete|peer closed|connection|terminal"):
            [event async for event in stream]
    elif end == "read":
        assert len(deltas([event async for event in stream])) == 3
    else:
        while (await anext(stream)).type != "response.output_text.delta":
            pass
        await left(stream, end)
    found = (await asyncio.to_thread(until, finishes(store), has(2)))["t1"]
    expected = {"read": ("one two three", None), "broken": ("one two", "failed")}.get(end, ("one", "incomplete"))
    assert [(text.strip(), finish) for text, finish in found] == [("hi", None), expected]


def test_a_response_that_says_that_it_failed_keeps_its_part(served, litellm, logger, store):
    _, call = served("one two three")
    stream = litellm.responses(input="hi", stream=True, **{**call, **STREAMS})

    class Failing:
        """The same stream, whose provider gives up after a word."""

        logging_obj = stream.logging_obj

        def __iter__(self):
            for event in stream:
                yield event
                if event.type == "response.output_text.delta":
                    yield event.model_copy(update={"type": "response.failed", "response": None})
                    return

    list(logger.watch(Failing()))
    found = until(finishes(store), has(2))["t1"]
    assert [(text.strip(), finish) for text, finish in found] == [("hi", None), ("one", "failed")]


def test_a_response_that_is_made_from_a_chat_completion_is_watched_too(served, litellm, logger, store):
    _, call = served("one two three")
    stream = logger.watch(litellm.responses(input="hi", stream=True, **{**call, "model": "deepseek/m"}))
    # Of such a call LiteLLM keeps no metadata: whose it is has to be said with `turn`.
    with turn(user_id="u42", thread_id="t1"):
        while next(stream).type != "response.output_text.delta":
            pass
        stream.close()
    found = until(finishes(store), has(2))["t1"]
    assert [(text.strip(), finish) for text, finish in found] == [("hi", None), ("one", "incomplete")]
