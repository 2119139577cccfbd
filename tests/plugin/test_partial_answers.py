"""Streams that are closed early, cancelled, or break: what had come of the answer is stored, and marked as a part."""

import asyncio
import gc
import time
from contextlib import ExitStack

import httpx
import openai
import pytest
from langchain.agents import create_agent
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from moody_store import until

from rlhi_plugin import RLHIMiddleware, open_store
from rlhi_plugin.fake_provider import Answer, CutStream, FakeProvider
from rlhi_plugin.integrations import turn
from rlhi_plugin.integrations.langchain_callback import AsyncRLHICallbackHandler, RLHICallbackHandler
from rlhi_plugin.integrations.langgraph_nodes import with_rlhi
from rlhi_plugin.integrations.openai_client import wrap_openai

WORDS = [f"w{number} " for number in range(10)]


class Talker(BaseChatModel):
    """Says ten words, one after the other, unless it breaks off before one of them."""

    breaks_at: int = 99

    def _generate(self, messages, stop=None, run_manager=None, **kwargs):
        return ChatResult(generations=[ChatGeneration(message=AIMessage("whole"))])

    def _stream(self, messages, stop=None, run_manager=None, **kwargs):
        for number, word in enumerate(WORDS):
            if number == self.breaks_at:
                raise ConnectionError("the line is cut")
            time.sleep(0.01)
            chunk = ChatGenerationChunk(message=AIMessageChunk(word))
            if run_manager:
                run_manager.on_llm_new_token(word, chunk=chunk)
            yield chunk

    async def _astream(self, messages, stop=None, run_manager=None, **kwargs):
        for number, word in enumerate(WORDS):
            if number == self.breaks_at:
                raise ConnectionError("the line is cut")
            await asyncio.sleep(0.01)
            chunk = ChatGenerationChunk(message=AIMessageChunk(word))
            if run_manager:
                await run_manager.on_llm_new_token(word, chunk=chunk)
            yield chunk

    @property
    def _llm_type(self):
        return "talker"


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("RLHI_KEY", "0123456789abcdef")


@pytest.fixture
def store(tmp_path):
    with open_store(f"sqlite:///{tmp_path}/rlhi.db") as opened:
        yield opened


def stored(store):
    return [(m.role, m.content, m.finish) for c in store.conversations() for m in c.messages]


AT = {"configurable": {"thread_id": "t", "user_id": "u"}}
HI = {"messages": [("user", "hi")]}
ASKED = ("user", "hi", None)


def agent_of(store, **options):
    middleware = RLHIMiddleware(store=store)
    return create_agent(Talker(**options), middleware=[middleware], checkpointer=InMemorySaver())


def graph_of(store, **options):
    model = Talker(**options)

    async def call(state):
        return {"messages": [await model.ainvoke(state["messages"])]}

    graph = StateGraph(MessagesState).add_node("model", with_rlhi(call, store=store)).add_edge(START, "model")
    return graph.compile(checkpointer=InMemorySaver())


async def read(app, pieces=None, begun=None):
    stream = app.astream(HI, config=AT, stream_mode="messages")
    async for _ in stream:
        if begun is not None:
            begun.set()
        if pieces is not None:
            pieces -= 1
            if not pieces:
                break
    await stream.aclose()


@pytest.mark.parametrize("made", [agent_of, graph_of])
class TestInAGraph:
    async def test_a_stream_closed_early(self, store, made):
        await read(made(store), 3)
        until(lambda: len(stored(store)) == 2)
        (asked, (role, text, finish)) = stored(store)
        assert asked == ASKED
        assert (role, finish) == ("assistant", "incomplete")
        # As far as it came: a few words, and not the last one.
        assert "w0 " in text
        assert "w9" not in text

    async def test_a_run_that_is_cancelled(self, store, made):
        begun = asyncio.Event()
        task = asyncio.create_task(read(made(store), begun=begun))
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        until(lambda: len(stored(store)) == 2)
        assert stored(store)[1][2] == "incomplete"

    async def test_a_model_that_fails_midway(self, store, made):
        with pytest.raises(ConnectionError):
            await read(made(store, breaks_at=4))
        assert stored(store) == [ASKED, ("assistant", "".join(WORDS[:4]), "failed")]

    async def test_a_model_that_fails_at_once(self, store, made):
        with pytest.raises(ConnectionError):
            await read(made(store, breaks_at=0))
        assert stored(store) == [ASKED]

    async def test_a_whole_answer(self, store, made):
        await read(made(store))
        await made(store).ainvoke(HI, config={"configurable": {"thread_id": "t2", "user_id": "u"}})
        assert stored(store) == [ASKED, ("assistant", "".join(WORDS), None), ASKED, ("assistant", "whole", None)]


def test_a_sync_model_that_fails_midway(store):
    with pytest.raises(ConnectionError):
        list(agent_of(store, breaks_at=2).stream(HI, config=AT, stream_mode="messages"))
    assert stored(store) == [ASKED, ("assistant", "w0 w1 ", "failed")]


def test_langgraph_lets_a_sync_model_finish_when_its_stream_is_closed(store):
    stream = agent_of(store).stream(HI, config=AT, stream_mode="messages")
    next(stream)
    stream.close()
    until(lambda: len(stored(store)) == 2)
    assert stored(store)[1] == ("assistant", "".join(WORDS), None)


async def test_the_thread_goes_on_beside_the_part(store):
    agent = agent_of(store)
    await read(agent, 3)
    await agent.ainvoke({"messages": [("user", "again")]}, config=AT)
    (conversation,) = store.conversations()
    asked, part, again, whole = conversation.messages
    # The app's own thread does not hold the part, so what follows does not follow it.
    assert (again.parent_id, whole.parent_id, whole.finish) == (asked.id, None, None)
    assert part.finish == "incomplete"


@pytest.mark.parametrize("breaks_at", [3, 99])
def test_a_callback_hears_of_it_too(store, breaks_at):
    handler = RLHICallbackHandler(store=store)
    model = Talker(breaks_at=breaks_at)
    stream = model.stream("hi", config={"callbacks": [handler], "metadata": {"user_id": "u", "thread_id": "t"}})
    if breaks_at == 3:
        with pytest.raises(ConnectionError):
            list(stream)
    else:
        next(stream)
        next(stream)
        stream.close()
    (_, answer) = stored(store)
    assert answer == (("assistant", "w0 w1 w2 ", "failed") if breaks_at == 3 else ("assistant", "w0 w1 ", "incomplete"))


async def test_an_async_callback_hears_of_it_too(store):
    handler = AsyncRLHICallbackHandler(store=store)
    with pytest.raises(ConnectionError):
        async for _ in Talker(breaks_at=3).astream("hi", config={"callbacks": [handler]}):
            pass
    assert stored(store)[1] == ("assistant", "w0 w1 w2 ", "failed")
    await Talker().ainvoke("hi", config={"callbacks": [handler], "metadata": {"thread_id": "t2"}})
    assert stored(store)[3] == ("assistant", "whole", None)


# The client itself wraps the first from version 3 on.
CUT = (httpx.RemoteProtocolError, openai.APIConnectionError)


@pytest.fixture
def served(store):
    """Makes a wrapped client of a provider with a script."""
    with ExitStack() as opened:

        def serve(*script):
            provider = opened.enter_context(FakeProvider(script))
            plain = openai.OpenAI(base_url=provider.base_url, api_key="any", max_retries=0)
            opened.enter_context(plain)
            return wrap_openai(plain, store=store)

        with turn(user_id="u", thread_id="t"):
            yield serve


def ask(client):
    return client.chat.completions.create(model="m", messages=[{"role": "user", "content": "hi"}], stream=True)


def test_an_openai_stream_that_breaks(served, store):
    with pytest.raises(CUT):
        list(ask(served(CutStream(Answer("one two three"), chunks=3))))
    assert stored(store)[1] == ("assistant", "one two", "failed")


@pytest.mark.parametrize("end", ["close", "thrown away", "read", "closed at its end"])
def test_the_ends_of_an_openai_stream(served, store, end):
    stream = ask(served("You said: hi"))
    if end == "read":
        list(stream)
    elif end == "closed at its end":
        for chunk in stream:
            if chunk.choices and chunk.choices[0].finish_reason:
                break
        stream.close()
    else:
        next(stream)
        next(stream)
        if end == "close":
            stream.close()
        del stream
        gc.collect()
    until(lambda: len(stored(store)) == 2)
    assert stored(store)[1][2] == (None if end in ("read", "closed at its end") else "incomplete")


@pytest.mark.parametrize("whole", [True, False])
def test_streamed_responses(served, store, whole):
    stream = served("one two").responses.create(model="m", input="hi", stream=True)
    for event in stream:
        if not whole and event.type == "response.output_text.delta":
            break
    stream.close()
    assert stored(store)[1] == ("assistant", "one two" if whole else "one", None if whole else "incomplete")


def test_a_response_that_breaks(served, store):
    with pytest.raises(CUT):
        list(served(CutStream(Answer("three four five"), chunks=5)).responses.create(model="m", input="2", stream=True))
    assert stored(store)[1] == ("assistant", "three four", "failed")
