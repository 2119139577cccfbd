"""Wrapped nodes in real graphs with scripted models: sync, async, streams, checkpointers, tools, failures."""

import asyncio
import logging
from dataclasses import dataclass
from operator import add
from typing import Annotated

import pytest
from asking_others import CALL, LOGGED, research_by
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, HumanMessage, RemoveMessage, SystemMessage
from langchain_core.runnables import RunnableConfig, RunnableLambda
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition
from langgraph.runtime import Runtime
from langgraph.types import Command, interrupt
from pydantic import BaseModel

from rlhi_plugin.errors import ConfigError
from rlhi_plugin.identity import pseudonym
from rlhi_plugin.integrations import Observer, turn
from rlhi_plugin.integrations.langgraph_nodes import with_rlhi
from rlhi_plugin.persona import render_persona


class Node:
    """A node function that answers by number and remembers what it saw."""

    def __init__(self, *replies):
        self.seen = []
        self.replies = list(replies)

    def answer(self, state):
        self.seen.append(state["messages"])
        reply = self.replies.pop(0) if self.replies else f"reply {len(self.seen)}"
        return reply if isinstance(reply, AIMessage) else AIMessage(reply)

    def sync(self, state: MessagesState):
        return {"messages": [self.answer(state)]}

    async def asynchronous(self, state: MessagesState):
        await asyncio.sleep(0)
        return {"messages": [self.answer(state)]}


def graph(node, schema=MessagesState, checkpointer=None, **more):
    made = StateGraph(schema, **more)
    made.add_node("model", node)
    made.add_edge(START, "model")
    made.add_edge("model", END)
    return made.compile(checkpointer=checkpointer)


def at(thread="t1", user="u42"):
    return {"configurable": {"thread_id": thread} | ({"user_id": user} if user else {})}


def say(*texts):
    return {"messages": [("user", text) for text in texts]}


def test_a_turn_is_on_disk_when_invoke_returns(store):
    model = AIMessage("reply", response_metadata={"model_name": "m-1"})
    graph(with_rlhi(Node(model).sync, store=store, system="Be kind.")).invoke(say("hi"), config=at())
    (found,) = store.conversations()
    assert (found.conversation_id, found.user_id) == ("t1", pseudonym("u42"))
    assert [(m.role, m.content, m.model) for m in found.messages] == [
        ("system", "Be kind.", None),
        ("user", "hi", None),
        ("assistant", "reply", "m-1"),
    ]


async def test_coroutine_nodes(store, logged):
    made = graph(with_rlhi(Node().asynchronous, store=store))
    await asyncio.gather(*(made.ainvoke(say("hi"), config=at(f"t{i}")) for i in range(4)))
    assert {name: len(said) for name, said in logged().items()} == {f"t{i}": 2 for i in range(4)}


@pytest.mark.parametrize(
    ("given", "context", "user"),
    [
        ({}, None, "authenticated"),
        ({}, {"user_id": "of the context"}, "of the context"),
        ({"user_id": "u1"}, {"user_id": "of the context"}, "u1"),
    ],
)
def test_who_speaks_is_found_where_the_middleware_finds_it(store, given, context, user):
    config = {"configurable": {"thread_id": "t", "langgraph_auth_user_id": "authenticated", **given}}
    made = graph(with_rlhi(Node().sync, store=store), context_schema=dict)
    made.invoke(say("hi"), config=config, context=context)
    assert [c.user_id for c in store.conversations()] == [pseudonym(user)]


@pytest.mark.parametrize("kind", ["sync", "asynchronous"])
async def test_with_a_checkpointer_nothing_is_stored_twice(store, logged, kind):
    made = graph(with_rlhi(getattr(Node("same", "same"), kind), store=store), checkpointer=InMemorySaver())
    for _ in range(2):
        await made.ainvoke(say("shorter"), config=at())
    assert logged()["t1"] == [("user", "shorter"), ("assistant", "same")] * 2


def test_a_resent_history_is_stored_once(store, logged):
    made = graph(with_rlhi(Node().sync, store=store))
    history = made.invoke(say("hi"), config=at())["messages"]
    made.invoke({"messages": [*history, HumanMessage("shorter")]}, config=at())
    assert [content for _, content in logged()["t1"]] == ["hi", "reply 1", "shorter", "reply 2"]


def chain():
    """A runnable node: a chat model that streams, between two functions."""
    model = GenericFakeChatModel(messages=iter([AIMessage("one two three")]))
    return RunnableLambda(lambda state: state["messages"]) | model | (lambda message: {"messages": [message]})


def test_runnable_nodes_stream(store, logged):
    made = graph(with_rlhi(chain(), store=store))
    chunks = list(made.stream(say("hi"), config=at(), stream_mode="messages"))
    assert len(chunks) > 1
    assert logged() == {"t1": [("user", "hi"), ("assistant", "one two three")]}


async def test_runnable_nodes_stream_async(store, logged):
    made = graph(with_rlhi(chain(), store=store))
    chunks = [chunk async for chunk in made.astream(say("hi"), config=at(), stream_mode="messages")]
    assert len(chunks) > 1
    assert logged() == {"t1": [("user", "hi"), ("assistant", "one two three")]}


def test_what_langgraph_injects_is_injected(store):
    seen = []

    def node(state: MessagesState, config: RunnableConfig, *, runtime: Runtime, writer=None):
        seen.append((config["configurable"]["thread_id"], runtime.context, writer is not None))
        return {"messages": "ok"}

    class Context(BaseModel):
        user_id: str

    made = graph(with_rlhi(node, store=store), context_schema=Context)
    made.invoke(say("hi"), config=at(user=None), context=Context(user_id="u7"))
    assert seen == [("t1", Context(user_id="u7"), True)]
    assert [c.user_id for c in store.conversations()] == [pseudonym("u7")]


@pytest.mark.parametrize("kind", ["sync", "async"])
async def test_a_failing_node_still_logs_what_the_user_said(store, logged, kind):
    def fails(state: MessagesState):
        raise RuntimeError("no quota")

    async def fails_later(state: MessagesState):
        raise RuntimeError("no quota")

    made = graph(with_rlhi(fails if kind == "sync" else fails_later, store=store))
    with pytest.raises(RuntimeError, match="no quota"):
        await made.ainvoke(say("hi"), config=at())
    assert logged() == {"t1": [("user", "hi")]}


async def test_a_cancelled_run_is_logged(store, logged):
    called = asyncio.Event()

    async def slow(state: MessagesState):
        called.set()
        await asyncio.sleep(60)

    run = asyncio.create_task(graph(with_rlhi(slow, store=store)).ainvoke(say("hi"), config=at()))
    await called.wait()
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    assert logged() == {"t1": [("user", "hi")]}


def test_an_interrupted_node_is_logged_once(store, logged):
    def asks(state: MessagesState):
        return {"messages": AIMessage(f"You chose {interrupt('which?')}")}

    made = graph(with_rlhi(asks, store=store), checkpointer=InMemorySaver())
    made.invoke(say("hi"), config=at())
    assert logged() == {"t1": [("user", "hi")]}
    made.invoke(Command(resume="this"), config=at())
    assert logged() == {"t1": [("user", "hi"), ("assistant", "You chose this")]}


def test_tool_traffic(store, logged):
    @tool
    def weather(place: str) -> str:
        """Tell the weather."""
        return f"sunny in {place}"

    call = AIMessage("", tool_calls=[{"name": "weather", "args": {"place": "Rome"}, "id": "1"}])
    made = StateGraph(MessagesState)
    made.add_node("model", with_rlhi(Node(call, "It is sunny.").sync, store=store))
    made.add_node("tools", ToolNode([weather]))
    made.add_edge(START, "model")
    made.add_conditional_edges("model", tools_condition)
    made.add_edge("tools", "model")
    made.compile(checkpointer=InMemorySaver()).invoke(say("weather?"), config=at())
    assert logged()["t1"] == [
        ("user", "weather?"),
        ("tool", '{"calls": [{"args": {"place": "Rome"}, "name": "weather"}], "text": ""}'),
        ("tool", "sunny in Rome"),
        ("assistant", "It is sunny."),
    ]


@pytest.mark.parametrize(
    "output",
    [
        {"messages": ("assistant", "ok")},
        {"messages": [{"role": "assistant", "content": "ok"}]},
        {"messages": AIMessage("ok")},
        Command(update={"messages": [AIMessage("ok")]}),
    ],
    ids=["tuple", "dict", "message", "command"],
)
def test_whatever_form_an_answer_has(store, logged, output):
    made = graph(with_rlhi(lambda state: output, store=store), checkpointer=InMemorySaver())
    for text in ("1", "2"):
        made.invoke(say(text), config=at())
    said = [("user", "1"), ("assistant", "ok"), ("user", "2")]
    # The same message object, with the same id, is one message to the graph as well.
    assert logged()["t1"][:3] == said
    assert len(logged()["t1"]) == len(made.get_state(at()).values["messages"])


def test_nodes_that_answer_nothing(store, logged):
    def trims(state: MessagesState):
        return {"messages": [RemoveMessage(id=state["messages"][0].id)]}

    for node in (trims, lambda state: None):
        graph(with_rlhi(node, store=store)).invoke(say("hi"), config=at())
    assert logged() == {"t1": [("user", "hi")]}


class Record(BaseModel):
    messages: Annotated[list, add] = []


@dataclass
class Data:
    messages: Annotated[list, add]


@pytest.mark.parametrize("schema", [Record, Data])
def test_states_of_other_types(store, logged, put_persona, schema):
    persona = put_persona()
    seen = []

    def node(state: schema):
        seen.append(state)
        return {"messages": [AIMessage("ok")]}

    graph(with_rlhi(node, store=store), schema=schema).invoke({"messages": [HumanMessage("hi")]}, config=at())
    assert isinstance(seen[0], schema)
    assert seen[0].messages[0].content == render_persona(persona)
    assert logged()["t1"] == [("user", "hi"), ("assistant", "ok")]


# The persona


@pytest.mark.parametrize(
    "case",
    [
        (None, [], "{}"),
        ("Be kind.", [], "Be kind.\n\n{}"),
        ("Be kind.", [SystemMessage("Be brief.")], "Be kind.\n\nBe brief.\n\n{}"),
    ],
)
@pytest.mark.parametrize("kind", ["sync", "asynchronous"])
async def test_the_persona_is_in_the_prompt_and_not_in_the_state_or_the_log(store, put_persona, logged, kind, case):
    system, said, prompt = case
    persona = put_persona()
    node = Node()
    made = graph(with_rlhi(getattr(node, kind), store=store, system=system))
    result = await made.ainvoke({"messages": [*said, HumanMessage("hi")]}, config=at())
    assert [m.content for m in node.seen[0]] == [prompt.format(render_persona(persona)), "hi"]
    assert [m.content for m in result["messages"]] == [*(m.content for m in said), "hi", "reply 1"]
    assert not any("Shorter" in content for _, content in logged()["t1"])
    (found,) = store.conversations()
    assert found.messages[-1].persona_digest == persona.digest


def test_blocks_of_the_apps_prompt_keep_their_cache_marks(store, put_persona):
    put_persona()
    block = {"type": "text", "text": "Be kind.", "cache_control": {"type": "ephemeral"}}
    node = Node()
    made = graph(with_rlhi(node.sync, store=store))
    made.invoke({"messages": [SystemMessage([block]), HumanMessage("hi")]}, config=at())
    first, last = node.seen[0][0].content
    assert first == block
    assert "Shorter, please." in last["text"]


def test_several_nodes_share_an_observer_and_a_thread_keeps_its_persona(store, put_persona):
    observer = Observer(store=store, persona_max_age_s=0)
    first, second = Node(), Node()
    put_persona(text="First.")
    graph(with_rlhi(first.sync, observer=observer)).invoke(say("hi"), config=at())
    put_persona(text="Second.")
    graph(with_rlhi(second.sync, observer=observer)).invoke(say("hi"), config=at())
    assert "First." in second.seen[0][0].content


@pytest.mark.parametrize("mode", ["shadow", "off"])
def test_modes_that_leave_the_prompt_alone(store, put_persona, mode):
    put_persona()
    node = Node()
    graph(with_rlhi(node.sync, store=store, persona=mode)).invoke(say("hi"), config=at())
    assert [m.content for m in node.seen[0]] == ["hi"]


# Beyond the ordinary


def test_outside_of_a_graph_a_turn_says_who_speaks(store):
    with turn(user_id="u1", thread_id="t1"):
        with_rlhi(Node().sync, store=store)({"messages": [HumanMessage("hi")]})
    with_rlhi(Node().sync, store=store)({"messages": [HumanMessage("hi")]})
    found = [(c.user_id, len(c.messages)) for c in store.conversations()]
    assert found == [(pseudonym("u1"), 2), (None, 2)]


def test_a_failing_store_never_breaks_the_graph(broken_store, caplog):
    observer = Observer(store=broken_store, journal=None)
    made = graph(with_rlhi(Node().sync, observer=observer))
    with caplog.at_level(logging.ERROR, "rlhi.middleware"):
        assert made.invoke(say("hi"), config=at())["messages"][-1].content == "reply 1"
    assert observer.dropped == 2
    assert "the disk is gone" in caplog.text


def test_what_cannot_be_a_node_is_refused(store):
    with pytest.raises(ConfigError, match="function of the state"):
        with_rlhi("model", store=store)


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_what_a_model_asks_of_a_graph_in_a_tool_is_not_the_users_word(store, is_async):
    observer = Observer(store=store, commands=True)
    model = Node("They turn light into sugar.")
    inner = graph(with_rlhi(model.asynchronous if is_async else model.sync, observer=observer))
    outside = Node(CALL, "Sugar.")
    made = StateGraph(MessagesState)
    made.add_node("model", with_rlhi(outside.asynchronous if is_async else outside.sync, observer=observer))
    made.add_node("tools", ToolNode([research_by(inner, is_async=is_async)]))
    made.add_edge(START, "model")
    made.add_conditional_edges("model", tools_condition)
    made.add_edge("tools", "model")
    outer = made.compile()
    asyncio.run(outer.ainvoke(say("hi"), config=at())) if is_async else outer.invoke(say("hi"), config=at())
    (found,) = store.conversations()
    assert [(m.role, m.content) for m in found.messages] == [
        ("user", "hi"),
        ("tool", LOGGED),
        ("tool", "They turn light into sugar."),
        ("assistant", "Sugar."),
    ]
    assert list(store.feedback()) == []
    observer.close()
