"""Tools that answer the user themselves: what they return is on disk when the agent's call returns, and once."""

import asyncio
import logging
from datetime import UTC, datetime
from typing import Annotated

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import AgentMiddleware, HumanInTheLoopMiddleware
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.tools import InjectedToolCallId, tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command, interrupt
from pydantic import Field

from rlhi_plugin import RLHIMiddleware, RLHIToolMiddleware
from rlhi_plugin.direct_answers import AwaitedResults, CallsOfMessage, results_of
from rlhi_plugin.identity import pseudonym
from rlhi_plugin.privacy.policy import ConsentPolicy
from rlhi_plugin.records import Purpose


class Model(BaseChatModel):
    """Says what it is told to, one message a call."""

    replies: list = Field(default_factory=list)

    def _generate(self, messages, stop=None, run_manager=None, **kwargs):
        return ChatResult(generations=[ChatGeneration(message=self.replies.pop(0))])

    def bind_tools(self, tools, **kwargs):
        return self

    @property
    def _llm_type(self):
        return "scripted"


@tool(return_direct=True)
async def later(about: str) -> str:
    """Answer the user, after a while."""
    await asyncio.sleep(0.05 if about == "one" else 0)
    return f"all about {about}"


@tool(return_direct=True)
def answer(about: str) -> str:
    """Answer the user."""
    if about == "nothing":
        raise RuntimeError("no such thing")
    if about == "secrets":
        interrupt("may I?")
    return f"all about {about}"


@tool
def look(at: str) -> str:
    """Look at something, for the model."""
    return f"seen {at}"


def asks(*about, name="answer", key="about"):
    calls = [{"name": name, "args": {key: one}, "id": f"{name}-{one}"} for one in about]
    return AIMessage("", tool_calls=calls)


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("RLHI_KEY", "0123456789abcdef")


@pytest.fixture
def rlhi(tmp_path):
    made = RLHIToolMiddleware(store=f"sqlite:///{tmp_path}/rlhi.db")
    yield made
    made.store.close()


AT = {"configurable": {"thread_id": "t1", "user_id": "u42"}}


def say(text):
    return {"messages": [("user", text)]}


def agent_of(rlhi, *replies, tools=(answer, look), others=(), checkpointer=None):
    model = Model(replies=list(replies))
    return create_agent(model, tools=list(tools), middleware=[rlhi, *others], checkpointer=checkpointer)


def thread(rlhi):
    """The one conversation that is stored."""
    (conversation,) = rlhi.store.conversations()
    return conversation


def said(rlhi):
    """Roles and texts of it, without what the model asked of tools."""
    return [(m.role, m.content) for m in thread(rlhi).messages if not m.content.startswith('{"calls"')]


def is_a_line(rlhi):
    """Whether every message follows the one before it."""
    return all(message.parent_id is None for message in thread(rlhi).messages)


@pytest.mark.parametrize("checkpointer", [None, InMemorySaver])
def test_it_is_stored_when_invoke_returns_and_once(rlhi, checkpointer):
    saver = checkpointer() if checkpointer else None
    agent = agent_of(rlhi, asks("tea"), AIMessage("welcome"), asks("tea"), checkpointer=saver)
    before = datetime.now(UTC)
    expected, history = [], []
    for text, answered in (("tell me", "tool"), ("thanks", "assistant"), ("tell me", "tool")):
        sent = say(text)["messages"] if saver else [*history, ("user", text)]
        history = agent.invoke({"messages": sent}, config=AT)["messages"]
        expected += [("user", text), (answered, "all about tea" if answered == "tool" else "welcome")]
        assert said(rlhi) == expected
    assert is_a_line(rlhi)
    assert thread(rlhi).user_id == pseudonym("u42")
    last = thread(rlhi).messages[-1]
    assert before <= last.created_at <= datetime.now(UTC)
    assert (last.latency_s, last.model, last.persona_digest) == (None, None, None)
    assert (last.id == history[-1].id) == bool(saver)
    assert rlhi.dropped == 0


def test_ids_made_of_texts_know_it_where_an_app_resends_without_ids(rlhi):
    agent = agent_of(rlhi, asks("tea"), AIMessage("welcome"))
    history = agent.invoke(say("tell me"), config=AT)["messages"]
    for message in history:
        message.id = None
    agent.invoke({"messages": [*history, ("user", "thanks")]}, config=AT)
    assert said(rlhi) == [
        ("user", "tell me"), ("tool", "all about tea"), ("user", "thanks"), ("assistant", "welcome"),
    ]  # fmt: skip


@pytest.mark.parametrize("saver", [None, InMemorySaver()])
async def test_ainvoke_keeps_the_order_of_calls_that_run_side_by_side(rlhi, saver):
    agent = agent_of(rlhi, asks("one", "two", name="later"), AIMessage("ok"), tools=[later], checkpointer=saver)
    history = (await agent.ainvoke(say("both"), config=AT))["messages"]
    both = [("user", "both"), ("tool", "all about one"), ("tool", "all about two")]
    assert said(rlhi) == both
    await agent.ainvoke({"messages": [*([] if saver else history), ("user", "fine")]}, config=AT)
    assert said(rlhi) == [*both, ("user", "fine"), ("assistant", "ok")]
    assert is_a_line(rlhi)


def test_beside_a_tool_that_answers_the_model(rlhi):
    calls = [*asks("tea").tool_calls, *asks("tea", name="look", key="at").tool_calls]
    agent = agent_of(rlhi, AIMessage("", tool_calls=calls), AIMessage("ok"), checkpointer=InMemorySaver())
    agent.invoke(say("both"), config=AT)
    assert said(rlhi) == [("user", "both"), ("tool", "all about tea"), ("tool", "seen tea"), ("assistant", "ok")]
    assert is_a_line(rlhi)


def test_stream(rlhi):
    list(agent_of(rlhi, asks("tea")).stream(say("tell me"), config=AT, stream_mode="messages"))
    assert said(rlhi)[-1] == ("tool", "all about tea")


async def test_astream(rlhi):
    async for _ in agent_of(rlhi, asks("tea")).astream(say("tell me"), config=AT):
        pass
    assert said(rlhi)[-1] == ("tool", "all about tea")


def test_a_call_that_a_person_approved(rlhi):
    asked = HumanInTheLoopMiddleware(interrupt_on={"answer": True})
    agent = agent_of(rlhi, asks("tea"), AIMessage("ok"), others=[asked], checkpointer=InMemorySaver())
    agent.invoke(say("tell me"), config=AT)
    assert said(rlhi) == [("user", "tell me")]
    agent.invoke(Command(resume={"decisions": [{"type": "approve"}]}), config=AT)
    assert said(rlhi) == [("user", "tell me"), ("tool", "all about tea")]
    agent.invoke(say("thanks"), config=AT)
    assert [text for _, text in said(rlhi)] == ["tell me", "all about tea", "thanks", "ok"]
    assert is_a_line(rlhi)


def test_a_tool_that_is_interrupted_beside_another(rlhi):
    agent = agent_of(rlhi, asks("tea", "secrets"), AIMessage("ok"), checkpointer=InMemorySaver())
    agent.invoke(say("both"), config=AT)
    assert said(rlhi) == [("user", "both")]
    agent.invoke(Command(resume=True), config=AT)
    both = [("user", "both"), ("tool", "all about tea"), ("tool", "all about secrets")]
    assert said(rlhi) == both
    agent.invoke(say("thanks"), config=AT)
    assert said(rlhi) == [*both, ("user", "thanks"), ("assistant", "ok")]
    assert is_a_line(rlhi)


class Sees(AgentMiddleware):
    """Notes the ids of what calls return."""

    def __init__(self):
        super().__init__()
        self.ids = []

    def wrap_tool_call(self, request, handler):
        returned = handler(request)
        self.ids.append(returned.id)
        return returned


def test_each_of_several_results_leaves_with_the_id_under_which_it_is_stored(rlhi):
    sees = Sees()
    model = Model(replies=[asks("tea", "milk")])
    agent = create_agent(model, tools=[answer], middleware=[sees, rlhi], checkpointer=InMemorySaver())
    agent.invoke(say("both"), config=AT)
    assert sorted(sees.ids) == sorted(message.id for message in thread(rlhi).messages[-2:])


def test_a_call_that_a_person_approved_in_another_process(rlhi, tmp_path):
    asked, saver = HumanInTheLoopMiddleware(interrupt_on={"answer": True}), InMemorySaver()
    agent_of(rlhi, asks("tea"), others=[asked], checkpointer=saver).invoke(say("tell me"), config=AT)
    other = RLHIToolMiddleware(store=f"sqlite:///{tmp_path}/rlhi.db")
    agent = agent_of(other, AIMessage("ok"), others=[asked], checkpointer=saver)
    agent.invoke(Command(resume={"decisions": [{"type": "approve"}]}), config=AT)
    assert said(rlhi) == [("user", "tell me"), ("tool", "all about tea")]
    agent.invoke(say("thanks"), config=AT)
    assert [text for _, text in said(rlhi)] == ["tell me", "all about tea", "thanks", "ok"]
    assert is_a_line(rlhi)
    other.store.close()


def test_a_tool_that_raises_ends_the_run_as_without_us(rlhi):
    with pytest.raises(RuntimeError, match="no such thing"):
        agent_of(rlhi, asks("nothing")).invoke(say("tell me"), config=AT)
    assert said(rlhi) == [("user", "tell me")]
    assert rlhi.dropped == 0


@tool(return_direct=True)
def command(form: str, tool_call_id: Annotated[str, InjectedToolCallId]):
    """Answer in the form of a command."""
    message = ToolMessage(f"a {form}", tool_call_id=tool_call_id)
    if form == "list":
        return [Command(update={"messages": [AIMessage("By the way.")]}), message]
    if form == "dict":
        return Command(update={"messages": [{"role": "tool", "content": "a dict", "tool_call_id": tool_call_id}]})
    return Command(update={"messages": [message, AIMessage("Done.")]})


@pytest.mark.parametrize(
    ("form", "at_once"),
    [
        ("command", [("tool", "a command"), ("assistant", "Done.")]),
        ("list", [("assistant", "By the way."), ("tool", "a list")]),
        ("dict", []),
    ],
)
def test_commands_and_several_messages(rlhi, form, at_once):
    asked = asks(form, name="command", key="form")
    agent = agent_of(rlhi, asked, AIMessage("ok"), AIMessage("ok 2"), tools=[command], checkpointer=InMemorySaver())
    agent.invoke(say("tell me"), config=AT)
    assert [one for one in said(rlhi) if one[1] != "ok"] == [("user", "tell me"), *at_once]
    agent.invoke(say("thanks"), config=AT)
    stored = [text for _, text in said(rlhi)]
    assert len(stored) == len(set(stored))
    assert f"a {form}" in stored
    assert is_a_line(rlhi)


def test_what_is_private_is_taken_out(rlhi):
    agent_of(rlhi, asks("jo@example.org")).invoke(say("tell me"), config=AT)
    assert "jo@example.org" not in str(said(rlhi))
    assert said(rlhi)[-1][1].startswith("all about [")


@pytest.mark.parametrize("consent", [ConsentPolicy(default={}), None])
def test_only_with_the_users_consent(tmp_path, consent):
    rlhi = RLHIToolMiddleware(store=f"sqlite:///{tmp_path}/rlhi.db", consent=consent)
    if consent is None:
        rlhi.consent.withdraw(pseudonym("u42"), Purpose.LOG)
    result = agent_of(rlhi, asks("tea")).invoke(say("tell me"), config=AT)
    assert result["messages"][-1].text == "all about tea"
    assert list(rlhi.store.conversations()) == []
    rlhi.store.close()


def test_the_past_of_a_user_who_withdrew_stays_out(rlhi):
    user = pseudonym("u42")
    rlhi.consent.withdraw(user, Purpose.LOG)
    agent = agent_of(rlhi, asks("tea"), asks("milk"), checkpointer=InMemorySaver())
    agent.invoke(say("of before"), config=AT)
    rlhi.consent.grant(user, Purpose.LOG)
    agent.invoke(say("of now"), config=AT)
    assert said(rlhi) == [("user", "of now"), ("tool", "all about milk")]


def test_an_agent_in_a_tool_is_not_logged(rlhi):
    inner = agent_of(rlhi, asks("tea"))

    @tool(return_direct=True)
    def delegate(task: str) -> str:
        """Ask another agent."""
        return inner.invoke(say(task))["messages"][-1].text

    asked = asks("find out", name="delegate", key="task")
    agent_of(rlhi, asked, tools=[delegate]).invoke(say("tell me"), config=AT)
    assert said(rlhi) == [("user", "tell me"), ("tool", "all about tea")]


def test_other_tools_are_stored_with_the_next_model_call(rlhi, monkeypatch):
    seen = []
    record = rlhi._live.record
    monkeypatch.setattr(rlhi._live, "record", lambda *given: (seen.append(1), record(*given)))
    agent_of(rlhi, asks("tea", name="look", key="at"), AIMessage("ok")).invoke(say("tell me"), config=AT)
    assert said(rlhi) == [("user", "tell me"), ("tool", "seen tea"), ("assistant", "ok")]
    assert len(seen) == 2  # of the two model calls, and none of the tool


@pytest.mark.parametrize("broken", ["_heard", "_awaited"])
async def test_what_goes_wrong_here_reaches_nobody(rlhi, monkeypatch, caplog, broken):
    agent = agent_of(rlhi, asks("tea"), asks("tea"))
    heard = rlhi._heard

    def fail(request):
        if type(request).__name__ == "ModelRequest":
            return heard(request)
        raise ValueError("broken")

    monkeypatch.setattr(rlhi, broken, fail if broken == "_heard" else None)
    assert agent.invoke(say("tell me"), config=AT)["messages"][-1].text == "all about tea"
    assert (await agent.ainvoke(say("tell me"), config=AT))["messages"][-1].text == "all about tea"
    errors = [one for one in caplog.records if "could not be stored at once" in one.getMessage()]
    assert len(errors) == 2


def test_without_it_a_warning_names_the_tools_once(tmp_path, caplog):
    rlhi = RLHIMiddleware(store=f"sqlite:///{tmp_path}/rlhi.db")
    agent = agent_of(rlhi, asks("tea"), asks("tea"))
    with caplog.at_level(logging.WARNING, "rlhi.middleware"):
        for _ in range(2):
            agent.invoke(say("tell me"), config=AT)
    (warning,) = [one.getMessage() for one in caplog.records if "return_direct" in one.getMessage()]
    assert "tools answer (" in warning
    assert "RLHIToolMiddleware" in warning
    assert said(rlhi) == [("user", "tell me")]
    rlhi.store.close()


def test_the_plain_middleware_leaves_tools_of_the_client_alone(tmp_path):
    """Why there are two classes: with `wrap_tool_call`, LangChain would run such a call, and fail."""
    rlhi = RLHIMiddleware(store=f"sqlite:///{tmp_path}/rlhi.db")
    assert type(rlhi).wrap_tool_call is AgentMiddleware.wrap_tool_call
    client = {"type": "function", "function": {"name": "open_page", "parameters": {"type": "object"}}}
    agent = agent_of(rlhi, asks("home", name="open_page"), tools=[client])
    assert [one.type for one in agent.invoke(say("go"), config=AT)["messages"]] == ["human", "ai"]
    assert "tools" not in agent.get_graph().nodes
    rlhi.store.close()


def test_results_that_never_come_are_forgotten():
    awaited = AwaitedResults()
    for number in range(300):
        assert awaited.add("c", CallsOfMessage(f"m{number}", ("a", "b")), "a", [AIMessage("1")]) is None
    assert awaited.add("c", CallsOfMessage("m0", ("a", "b")), "b", [AIMessage("2")]) is None
    both = awaited.add("c", CallsOfMessage("m299", ("a", "b")), "b", [AIMessage("2")])
    assert [message.text for message in both] == ["1", "2"]
    awaited.add("c", CallsOfMessage("m1", ("a", "b")), "a", None)
    assert awaited.add("c", CallsOfMessage("m1", ("a", "b")), "b", [AIMessage("2")]) is None


@pytest.mark.parametrize(
    "unclear",
    [
        Command(graph=Command.PARENT, update={"messages": [AIMessage("1")]}),
        Command(update=[("messages", [AIMessage("1")])]),
        Command(update={"messages": ["text"]}),
        "text",
    ],
)
def test_results_that_are_not_clear_wait_for_the_next_turn(unclear):
    assert results_of(unclear) is None
