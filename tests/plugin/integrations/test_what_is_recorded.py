"""What every integration records of an answer beside its words, and that feedback finds the answer."""

import time

import pytest
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langgraph.graph import START, MessagesState, StateGraph
from openai import AsyncOpenAI, OpenAI

from rlhi_plugin.errors import ConfigError
from rlhi_plugin.fake_provider import Answer, FakeProvider
from rlhi_plugin.identity import pseudonym
from rlhi_plugin.integrations import Observer, turn
from rlhi_plugin.integrations.langchain_callback import AsyncRLHICallbackHandler, RLHICallbackHandler
from rlhi_plugin.integrations.langgraph_nodes import with_rlhi
from rlhi_plugin.integrations.openai_client import wrap_openai

PAUSE_S = 0.05
HI = [{"role": "user", "content": "hi"}]


class Model(BaseChatModel):
    """Takes its time, and says with which adapter it answered."""

    def _generate(self, messages, stop=None, run_manager=None, **kwargs):
        time.sleep(PAUSE_S)
        usage = {"input_tokens": 3, "output_tokens": 2, "total_tokens": 5}
        said = {"model_name": "m", "adapter_id": "a-1"}
        message = AIMessage("yes", usage_metadata=usage, response_metadata=said)
        return ChatResult(generations=[ChatGeneration(message=message)])

    @property
    def _llm_type(self):
        return "scripted"


@pytest.fixture
def observer(store):
    made = Observer(store=store)
    yield made
    made.close()


@pytest.fixture
def base_url():
    with FakeProvider([Answer("yes", delay_s=PAUSE_S, prompt_tokens=3, completion_tokens=2)]) as provider:
        yield provider.base_url


async def by_a_node(observer, base_url):
    graph = StateGraph(MessagesState)
    graph.add_node("model", with_rlhi(lambda state: {"messages": [Model().invoke("hi")]}, observer=observer))
    graph.add_edge(START, "model")
    return graph.compile().invoke({"messages": HI})["messages"][-1].id


async def by_a_callback(observer, base_url):
    return Model().invoke("hi", config={"callbacks": [RLHICallbackHandler(observer=observer)]}).id


async def by_an_async_callback(observer, base_url):
    config = {"callbacks": [AsyncRLHICallbackHandler(observer=observer)]}
    return (await Model().ainvoke("hi", config=config)).id


async def by_a_client(observer, base_url):
    with OpenAI(base_url=base_url, api_key="k") as plain:
        return wrap_openai(plain, observer=observer).chat.completions.create(model="m", messages=HI).id


async def by_an_async_client(observer, base_url):
    async with AsyncOpenAI(base_url=base_url, api_key="k") as plain:
        wrapped = wrap_openai(plain, observer=observer)
        return (await wrapped.chat.completions.create(model="m", messages=HI)).id


async def by_a_stream(observer, base_url):
    with OpenAI(base_url=base_url, api_key="k") as plain:
        more = {"stream": True, "stream_options": {"include_usage": True}}
        stream = wrap_openai(plain, observer=observer).chat.completions.create(model="m", messages=HI, **more)
        return [chunk.id for chunk in stream][-1]


async def by_a_response(observer, base_url):
    with OpenAI(base_url=base_url, api_key="k") as plain:
        return wrap_openai(plain, observer=observer).responses.create(model="m", input="hi").id


WAYS = [
    by_a_node,
    by_a_callback,
    by_an_async_callback,
    by_a_client,
    by_an_async_client,
    by_a_stream,
    by_a_response,
]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
async def test_an_answer_has_its_latency_and_tokens_and_feedback_finds_it(store, observer, base_url, way):
    with turn(user_id="u42", thread_id="t1"):
        known_as = await way(observer, base_url)
    (found,) = store.conversations()
    asked, answered = found.messages
    assert (asked.content, answered.content, answered.model) == ("hi", "yes", "m")
    assert (asked.latency_s, asked.input_tokens, asked.adapter) == (None, None, None)
    assert PAUSE_S <= answered.latency_s < 10
    assert (answered.input_tokens, answered.output_tokens) == (3, 2)
    by_langchain = way in {by_a_node, by_a_callback, by_an_async_callback}
    assert answered.adapter == ("a-1" if by_langchain else None)
    for _ in range(2):
        observer.record_feedback(
            "thumbs_up", thread_id="t1", user_id="u42", message_id=known_as, value="to jane@example.com", event_id="e"
        )
    (event,) = store.feedback()
    assert (event.kind, event.user_id) == ("thumbs_up", pseudonym("u42"))
    assert event.message_id == answered.id
    assert "jane" not in event.value
    assert observer.dropped == 0


def test_feedback_about_an_answer_that_calls_a_tool_first_means_what_answers(store, observer):
    reply = [
        AIMessage("", tool_calls=[{"name": "f", "args": {}, "id": "1"}], response_metadata={"id": "r"}),
        AIMessage("yes", response_metadata={"id": "r"}),
    ]
    node = with_rlhi(lambda state: {"messages": reply}, observer=observer)
    with turn(thread_id="t1"):
        node({"messages": HI})
    observer.record_feedback("copy", thread_id="t1", message_id="r")
    (event,) = store.feedback()
    (found,) = store.conversations()
    assert {m.id: m.content for m in found.messages}[event.message_id] == "yes"


def test_an_observer_says_how_its_log_stands(store):
    observer = Observer(store=store, durability="async", persona="off")
    with turn(thread_id="t1"):
        with_rlhi(lambda state: {"messages": [AIMessage("yes")]}, observer=observer)({"messages": HI})
    assert observer.flush(10)
    assert (observer.status().mode, observer.status().queued, observer.status().store_ok) == ("async", 0, True)
    assert store.counts().messages == 2
    with pytest.raises(ConfigError, match="thumbs_up"):
        observer.record_feedback("like", thread_id="t1")
    observer.close()
