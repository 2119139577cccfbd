"""The callback handler in real chains with scripted models: sync, async, streams, batches, nesting, failures."""

import asyncio
import logging

import pytest
from langchain.agents import create_agent
from langchain_core.callbacks import CallbackManager
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.tools import tool
from pydantic import Field, PrivateAttr

from rlhi_plugin import RLHIMiddleware
from rlhi_plugin.errors import ConfigError
from rlhi_plugin.identity import pseudonym
from rlhi_plugin.integrations import turn
from rlhi_plugin.integrations.langchain_callback import AsyncRLHICallbackHandler, RLHICallbackHandler

PROMPT = ChatPromptTemplate([("system", "Be kind."), ("user", "{question}")])


class Model(BaseChatModel):
    """Answers by number, through an inner model where it has one, and fails where told to."""

    replies: list = Field(default_factory=list)
    inner: BaseChatModel | None = None
    passes_itself_on: bool = False
    error: Exception | None = None
    _calls: int = PrivateAttr(default=0)

    def _generate(self, messages, stop=None, run_manager=None, **kwargs):
        self._calls += 1
        if self.error:
            raise self.error
        if self.inner:
            inside = CallbackManager(run_manager.handlers, parent_run_id=run_manager.run_id)
            reply = self.inner.invoke(messages, config={"callbacks": inside} if self.passes_itself_on else None)
        else:
            reply = self.replies.pop(0) if self.replies else f"reply {self._calls}"
        message = reply if isinstance(reply, AIMessage) else AIMessage(reply, response_metadata={"model_name": "m-1"})
        return ChatResult(generations=[ChatGeneration(message=message)])

    def bind_tools(self, tools, **kwargs):
        return self

    @property
    def _llm_type(self):
        return "scripted"


@pytest.fixture
def handler(store):
    return RLHICallbackHandler(store=store)


@pytest.fixture(params=[RLHICallbackHandler, AsyncRLHICallbackHandler], ids=["handler", "async-handler"])
def any_handler(request, store):
    return request.param(store=store)


def config(handler, thread="t1", user="u42", **more):
    return {"callbacks": [handler], "metadata": {"thread_id": thread, "user_id": user}, **more}


def test_a_call_is_on_disk_when_the_chain_returns(handler, store):
    (PROMPT | Model()).invoke({"question": "hi"}, config=config(handler))
    (found,) = store.conversations()
    assert (found.conversation_id, found.user_id) == ("t1", pseudonym("u42"))
    assert [(m.role, m.content, m.model) for m in found.messages] == [
        ("system", "Be kind.", None),
        ("user", "hi", None),
        ("assistant", "reply 1", "m-1"),
    ]


async def test_async_chains(any_handler, logged):
    chain = PROMPT | Model()
    await asyncio.gather(*(chain.ainvoke({"question": "hi"}, config=config(any_handler, f"t{i}")) for i in range(4)))
    assert {name: len(said) for name, said in logged().items()} == {f"t{i}": 3 for i in range(4)}


def test_a_batch_is_a_call_for_each_input(handler, store):
    configs = [config(handler, f"t{i}", f"u{i}") for i in range(4)]
    (PROMPT | Model()).batch([{"question": "hi"}] * 4, config=configs)
    Model().generate([[HumanMessage("a")], [HumanMessage("b")]], callbacks=[handler], metadata={"thread_id": "g"})
    found = {c.conversation_id: (c.user_id, len(c.messages)) for c in store.conversations()}
    assert found == {f"t{i}": (pseudonym(f"u{i}"), 3) for i in range(4)} | {"g": (None, 4)}


def streaming():
    return PROMPT | GenericFakeChatModel(messages=iter([AIMessage("one two three")]))


STREAMED = [("system", "Be kind."), ("user", "hi"), ("assistant", "one two three")]


def test_streams(handler, logged):
    assert len(list(streaming().stream({"question": "hi"}, config=config(handler)))) > 1
    assert logged() == {"t1": STREAMED}


async def test_async_streams(any_handler, logged):
    assert len([c async for c in streaming().astream({"question": "hi"}, config=config(any_handler))]) > 1
    assert logged() == {"t1": STREAMED}


def test_a_stream_closed_early_is_logged(handler, logged):
    stream = streaming().stream({"question": "hi"}, config=config(handler))
    next(stream)
    stream.close()
    assert logged()["t1"][:2] == STREAMED[:2]


async def test_an_async_stream_closed_early_is_logged(any_handler, logged):
    stream = streaming().astream({"question": "hi"}, config=config(any_handler))
    await anext(stream)
    await stream.aclose()
    assert logged()["t1"][:2] == STREAMED[:2]


@pytest.mark.parametrize("kind", ["invoke", "ainvoke"])
async def test_a_failing_model_still_logs_what_the_user_said(any_handler, logged, kind):
    chain = PROMPT | Model(error=RuntimeError("no quota"))
    ask = {"invoke": lambda *call: asyncio.to_thread(chain.invoke, *call), "ainvoke": chain.ainvoke}[kind]
    with pytest.raises(RuntimeError, match="no quota"):
        await ask({"question": "hi"}, config(any_handler))
    assert logged() == {"t1": STREAMED[:2]}


@pytest.mark.parametrize("passes_itself_on", [True, False])
def test_a_model_inside_a_model_is_logged_once(handler, logged, passes_itself_on):
    model = Model()
    for _ in range(2):
        model = Model(inner=model, passes_itself_on=passes_itself_on)
    (PROMPT | model).invoke({"question": "hi"}, config=config(handler))
    assert logged() == {"t1": [*STREAMED[:2], ("assistant", "reply 1")]}


def test_a_handler_that_is_given_twice_logs_once(handler, store, logged):
    model = Model(callbacks=[handler, RLHICallbackHandler(store=store)])
    (PROMPT | model).invoke({"question": "hi"}, config=config(handler))
    assert logged() == {"t1": [*STREAMED[:2], ("assistant", "reply 1")]}


def test_the_same_history_again_is_stored_once(handler, logged):
    model, history = Model(), [SystemMessage("Be kind.")]
    for text in ("hi", "shorter", "shorter"):
        history.append(HumanMessage(text))
        history.append(model.invoke(history, config=config(handler)))
    assert [content for _, content in logged()["t1"]] == [
        "Be kind.",
        "hi",
        "reply 1",
        "shorter",
        "reply 2",
        "shorter",
        "reply 3",
    ]


def test_only_tagged_calls_where_a_chain_has_several(store, logged):
    handler = RLHICallbackHandler(store=store, only_tags=["answer"])
    router = Model(replies=["weather"])
    chain = PROMPT | router | (lambda message: [HumanMessage(message.text)]) | Model().with_config(tags=["answer"])
    chain.invoke({"question": "hi"}, config=config(handler))
    assert logged() == {"t1": [("user", "weather"), ("assistant", "reply 1")]}


@tool
def weather(place: str) -> str:
    """Tell the weather."""
    return f"sunny in {place}"


def test_in_an_agent_the_graph_says_who_speaks(handler, store):
    call = AIMessage("", tool_calls=[{"name": "weather", "args": {"place": "Rome"}, "id": "1"}])
    agent = create_agent(Model(replies=[call, "sunny"]), tools=[weather])
    ask = {"callbacks": [handler], "configurable": {"thread_id": "t1", "user_id": "u42"}}
    agent.invoke({"messages": [("user", "weather?")]}, config=ask)
    (found,) = store.conversations()
    assert (found.conversation_id, found.user_id) == ("t1", pseudonym("u42"))
    assert [m.role for m in found.messages] == ["user", "tool", "tool", "assistant"]


def test_without_a_thread_a_whole_run_is_one_conversation(handler, store):
    call = AIMessage("", tool_calls=[{"name": "weather", "args": {"place": "Rome"}, "id": "1"}])
    agent = create_agent(Model(replies=[call, "sunny", "x"]), tools=[weather])
    for _ in range(2):
        agent.invoke({"messages": [("user", "weather?")]}, config={"callbacks": [handler]})
    assert [(c.user_id, len(c.messages)) for c in store.conversations()] == [(None, 4), (None, 2)]


def test_a_persona_in_the_prompt_is_not_logged(handler, store, logged, put_persona, tmp_path):
    put_persona()
    middleware = RLHIMiddleware(store=f"sqlite:///{tmp_path}/other.db", persona_store=store)
    agent = create_agent(Model(), middleware=[middleware], system_prompt="Be kind.")
    ask = {"callbacks": [handler], "configurable": {"thread_id": "t1", "user_id": "u42"}}
    agent.invoke({"messages": [("user", "hi")]}, config=ask)
    middleware.store.close()
    assert logged() == {"t1": [*STREAMED[:2], ("assistant", "reply 1")]}


def test_a_turn_wins(handler, store):
    with turn(user_id="u1", thread_id="t9"):
        Model().invoke("hi", config=config(handler))
    assert [(c.conversation_id, c.user_id) for c in store.conversations()] == [("t9", pseudonym("u1"))]


def test_nothing_stays_in_memory(handler):
    chain = PROMPT | Model(inner=Model())
    for _ in range(3):
        chain.invoke({"question": "hi"}, config=config(handler))
    assert not handler._roots._entries
    assert not handler._started._entries


def test_a_failing_store_never_breaks_the_chain(broken_store, caplog):
    handler = RLHICallbackHandler(store=broken_store, journal=None)
    with caplog.at_level(logging.ERROR):
        assert (PROMPT | Model()).invoke({"question": "hi"}, config=config(handler)).text == "reply 1"
    assert handler.observer.dropped == 3
    assert {record.name for record in caplog.records} == {"rlhi.middleware"}


def test_wrong_arguments_name_a_remedy():
    with pytest.raises(ConfigError, match="store='sqlite"):
        RLHICallbackHandler()
