"""What real agents do to a thread: branches, edits, interrupts, retries, odd content; each thing is stored once."""

import asyncio
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from asking_others import CALL, LOGGED, research_by
from langchain.agents import create_agent
from langchain.agents.middleware import HumanInTheLoopMiddleware, ModelRetryMiddleware, SummarizationMiddleware
from langchain.agents.structured_output import ToolStrategy
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, HumanMessage, RemoveMessage, ToolMessage
from langchain_core.messages.content import (
    create_audio_block,
    create_file_block,
    create_image_block,
    create_plaintext_block,
    create_text_block,
    create_video_block,
)
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command
from pydantic import BaseModel, Field

from rlhi_plugin import RLHIMiddleware
from rlhi_plugin.message_text import clean, role_and_text
from rlhi_plugin.recorder import Recorder, Reply, Turn
from rlhi_plugin.stores import open_store
from rlhi_plugin.thread_path import COUNTED


class Model(BaseChatModel):
    """Answers from a list, then by number; an exception in the list is raised."""

    replies: list = Field(default_factory=list)
    calls: list = Field(default_factory=list)
    pause_s: float = 0.0

    def _generate(self, messages, stop=None, run_manager=None, **kwargs):
        self.calls.append(messages)
        time.sleep(self.pause_s)
        reply = self.replies.pop(0) if self.replies else f"reply {len(self.calls)}"
        if isinstance(reply, Exception):
            raise reply
        message = reply if isinstance(reply, AIMessage) else AIMessage(reply)
        return ChatResult(generations=[ChatGeneration(message=message)])

    def bind_tools(self, tools, **kwargs):
        return self

    @property
    def _llm_type(self):
        return "scripted"


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("RLHI_KEY", "0123456789abcdef")


@pytest.fixture
def middleware(tmp_path):
    made = RLHIMiddleware(store=f"sqlite:///{tmp_path}/rlhi.db")
    yield made
    made.close()
    made.store.close()


AT = {"configurable": {"thread_id": "t1", "user_id": "u42"}}


def back_to(snapshot):
    """The configuration of a run that goes on from an earlier state, for the same user."""
    return {"configurable": AT["configurable"] | snapshot.config["configurable"]}


def say(*texts):
    return {"messages": [("user", text) for text in texts]}


def stored(middleware):
    (found,) = middleware.store.conversations()
    return found.messages


def shape(middleware):
    """Role, content, and the content of an explicit parent."""
    by_id = {m.id: m.content for m in stored(middleware)}
    return [
        (m.role, m.content, None if m.parent_id is None else by_id.get(m.parent_id, m.parent_id))
        for m in stored(middleware)
    ]


# branches


def test_a_regenerated_answer_is_a_branch(middleware):
    agent = create_agent(Model(), middleware=[middleware], checkpointer=InMemorySaver())
    agent.invoke(say("hi"), config=AT)
    before = next(s for s in agent.get_state_history(AT) if s.next == ("model",))
    agent.invoke(None, config=back_to(before))
    agent.invoke(say("go on"), config=AT)
    assert shape(middleware) == [
        ("user", "hi", None),
        ("assistant", "reply 1", None),
        ("assistant", "reply 2", "hi"),
        ("user", "go on", None),
        ("assistant", "reply 3", None),
    ]


def test_an_edited_request_is_a_branch(middleware):
    agent = create_agent(Model(), middleware=[middleware], checkpointer=InMemorySaver())
    agent.invoke(say("hi"), config=AT)
    after_first = agent.get_state(AT)
    agent.invoke(say("tell me more"), config=AT)
    agent.invoke(say("tell me less"), config=back_to(after_first))
    assert shape(middleware)[2:] == [
        ("user", "tell me more", None),
        ("assistant", "reply 2", None),
        ("user", "tell me less", "reply 1"),
        ("assistant", "reply 3", None),
    ]


def test_an_edited_first_request_begins_anew(middleware):
    agent = create_agent(Model(), middleware=[middleware], checkpointer=InMemorySaver())
    agent.invoke(say("hi"), config=AT)
    start = list(agent.get_state_history(AT))[-1]
    agent.invoke(say("hello"), config=back_to(start))
    assert shape(middleware)[2:] == [("user", "hello", ""), ("assistant", "reply 2", None)]


def test_an_edited_first_request_follows_the_system_prompt(middleware):
    agent = create_agent(Model(), middleware=[middleware], checkpointer=InMemorySaver(), system_prompt="Be kind.")
    agent.invoke(say("hi"), config=AT)
    start = list(agent.get_state_history(AT))[-1]
    agent.invoke(say("hello"), config=back_to(start))
    assert shape(middleware)[3:] == [("user", "hello", "Be kind."), ("assistant", "reply 2", None)]


def test_other_content_under_a_known_id_is_a_branch(middleware):
    agent = create_agent(Model(), middleware=[middleware], checkpointer=InMemorySaver())
    agent.invoke(say("hi"), config=AT)
    agent.invoke(say("how old are you"), config=AT)
    asked = agent.get_state(AT).values["messages"][2]
    agent.update_state(AT, {"messages": [HumanMessage("how tall are you", id=asked.id)]})
    agent.invoke(say("and wide?"), config=AT)
    agent.invoke(say("thanks"), config=AT)
    assert shape(middleware) == [
        ("user", "hi", None),
        ("assistant", "reply 1", None),
        ("user", "how old are you", None),
        ("assistant", "reply 2", None),
        ("user", "how tall are you", "reply 1"),
        ("user", "and wide?", "reply 2"),
        ("assistant", "reply 3", None),
        ("user", "thanks", None),
        ("assistant", "reply 4", None),
    ]


def test_a_regenerated_answer_after_a_restart_is_a_branch(tmp_path):
    saver, model = InMemorySaver(), Model()
    for number in range(2):
        made = RLHIMiddleware(store=f"sqlite:///{tmp_path}/rlhi.db")
        agent = create_agent(model, middleware=[made], checkpointer=saver)
        if number:
            before = next(s for s in agent.get_state_history(AT) if s.next == ("model",))
            agent.invoke(None, config=back_to(before))
            assert shape(made)[2] == ("assistant", "reply 2", "hi")
        else:
            agent.invoke(say("hi"), config=AT)
        made.close()
        made.store.close()


def test_a_regenerated_answer_without_checkpointer_is_a_branch(middleware):
    agent = create_agent(Model(), middleware=[middleware])
    for _ in range(2):
        agent.invoke(say("hi"), config=AT)
    assert shape(middleware)[2] == ("assistant", "reply 2", "hi")


def test_the_same_answer_to_another_request_is_not_lost(middleware):
    agent = create_agent(Model(replies=["ok", "ok", "ok"]), middleware=[middleware])
    agent.invoke(say("one"), config=AT)
    agent.invoke(say("two"), config=AT)
    # The app sends the end of its thread, in which it was said once.
    agent.invoke({"messages": [("user", "two"), ("ai", "ok"), ("user", "three")]}, config=AT)
    agent.invoke({"messages": [("user", "three"), ("ai", "ok"), ("user", "four")]}, config=AT)
    assert shape(middleware) == [
        ("user", "one", None),
        ("assistant", "ok", None),
        ("user", "two", None),
        ("assistant", "ok", None),
        ("user", "three", None),
        ("assistant", "ok", None),
        ("user", "four", None),
        ("assistant", "reply 4", None),
    ]


def test_single_messages_without_checkpointer_are_no_branches(middleware):
    agent = create_agent(Model(), middleware=[middleware], system_prompt="Be kind.")
    for text in ("hi", "more", "less"):
        agent.invoke(say(text), config=AT)
    assert all(message.parent_id is None for message in stored(middleware))
    assert len(stored(middleware)) == 7


# interrupts, retries, trimmed and summarised histories


@tool
def weather(place: str) -> str:
    """Tell the weather."""
    return f"sunny in {place}"


def _call(place="Rome"):
    return AIMessage("", tool_calls=[{"name": "weather", "args": {"place": place}, "id": "1"}])


@pytest.mark.parametrize("decision", ["approve", "edit", "reject"])
def test_human_in_the_loop(middleware, decision):
    gate = HumanInTheLoopMiddleware(interrupt_on={"weather": True})
    agent = create_agent(
        Model(replies=[_call(), "done"]), tools=[weather], middleware=[gate, middleware], checkpointer=InMemorySaver()
    )
    assert "__interrupt__" in agent.invoke(say("weather?"), config=AT)
    assert [role for role, _, _ in shape(middleware)] == ["user", "tool"]
    answers = {
        "approve": {"type": "approve"},
        "edit": {"type": "edit", "edited_action": {"name": "weather", "args": {"place": "Oslo"}}},
        "reject": {"type": "reject", "message": "no, thanks"},
    }
    agent.invoke(Command(resume={"decisions": [answers[decision]]}), config=AT)
    agent.invoke(say("good"), config=AT)
    said = shape(middleware)
    assert [content for role, content, _ in said if role != "tool"] == ["weather?", "done", "good", "reply 3"]
    tools = [(content, parent) for role, content, parent in said if role == "tool"]
    results = {"approve": "sunny in Rome", "edit": "sunny in Oslo", "reject": "no, thanks"}
    assert len(tools) == 2
    assert results[decision] in tools[1][0]
    assert all(parent is None for _, parent in tools)


def test_a_retried_model_call_is_stored_once(middleware):
    retry = ModelRetryMiddleware(max_retries=3, initial_delay=0.0, jitter=False)
    for order in ([retry, middleware], [middleware, retry]):
        model = Model(replies=[ConnectionError("flaky"), ConnectionError("flaky"), "there"])
        agent = create_agent(model, middleware=order, checkpointer=InMemorySaver())
        agent.invoke(say("hi"), config={"configurable": {"thread_id": f"t{order.index(retry)}"}})
        assert len(model.calls) == 3
    for found in middleware.store.conversations():
        assert [m.content for m in found.messages] == ["hi", "there"]
        assert all(m.parent_id is None for m in found.messages)


def test_an_answer_that_middleware_made_up_is_stored_once(middleware):
    retry = ModelRetryMiddleware(max_retries=0, on_failure="continue")
    agent = create_agent(
        Model(replies=[ConnectionError("flaky")]), middleware=[middleware, retry], checkpointer=InMemorySaver()
    )
    for text in ("hi", "again"):
        agent.invoke(say(text), config=AT)
    assert [role for role, _, _ in shape(middleware)] == ["user", "assistant"] * 2


def test_a_failed_run_that_is_repeated_is_stored_once(middleware):
    agent = create_agent(
        Model(replies=[RuntimeError("no quota")]), middleware=[middleware], checkpointer=InMemorySaver()
    )
    with pytest.raises(RuntimeError):
        agent.invoke(say("hi"), config=AT)
    agent.invoke(None, config=AT)
    assert shape(middleware) == [("user", "hi", None), ("assistant", "reply 2", None)]


def test_summarised_and_trimmed_histories_are_no_branches(middleware):
    summary = SummarizationMiddleware(model=Model(), trigger=("messages", 4), keep=("messages", 2))
    agent = create_agent(Model(), middleware=[summary, middleware], checkpointer=InMemorySaver())
    for number in range(8):
        agent.invoke(say(f"text {number}"), config=AT)
        if number == 5:
            first = agent.get_state(AT).values["messages"][0]
            agent.update_state(AT, {"messages": [RemoveMessage(id=first.id)]})
    said = stored(middleware)
    assert [m.content for m in said if m.role == "user"] == [f"text {n}" for n in range(8)]
    assert all(m.parent_id is None for m in said)
    assert len({m.id for m in said}) == len(said) == 16


class Answer(BaseModel):
    """An answer."""

    text: str
    score: int


@pytest.mark.parametrize("saver", [None, InMemorySaver()])
def test_a_structured_answer_is_an_answer(middleware, saver):
    call = AIMessage("", tool_calls=[{"name": "Answer", "args": {"text": "yes", "score": 3}, "id": "1"}])
    model = Model(replies=[call, call.model_copy()])
    agent = create_agent(model, middleware=[middleware], response_format=ToolStrategy(Answer), checkpointer=saver)
    history = agent.invoke(say("is it?"), config=AT)["messages"]
    again = say("sure?") if saver else {"messages": [*history, HumanMessage("sure?")]}
    assert agent.invoke(again, config=AT)["structured_response"] == Answer(text="yes", score=3)
    answers = [(m.role, m.content) for m in stored(middleware) if m.role != "tool"]
    answer = ("assistant", '{"score": 3, "text": "yes"}')
    assert answers == [("user", "is it?"), answer, ("user", "sure?"), answer]
    assert all(m.parent_id is None for m in stored(middleware))


@pytest.mark.parametrize("way", ["invoke", "ainvoke", "stream", "astream", "batch", "abatch"])
def test_every_way_to_run_an_agent_stores_once(middleware, way):
    agent = create_agent(
        Model(replies=[_call(), "sunny"]), tools=[weather], middleware=[middleware], checkpointer=InMemorySaver()
    )

    async def astream(given):
        return [chunk async for chunk in agent.astream(given, config=AT)]

    ways = {
        "invoke": lambda given: agent.invoke(given, config=AT),
        "ainvoke": lambda given: asyncio.run(agent.ainvoke(given, config=AT)),
        "stream": lambda given: list(agent.stream(given, config=AT)),
        "astream": lambda given: asyncio.run(astream(given)),
        "batch": lambda given: agent.batch([given], config=[AT]),
        "abatch": lambda given: asyncio.run(agent.abatch([given], config=[AT])),
    }
    for text in ("weather?", "thanks"):
        ways[way](say(text))
    assert [role for role, _, _ in shape(middleware)] == ["user", "tool", "tool", "assistant", "user", "assistant"]
    assert all(m.parent_id is None for m in stored(middleware))


@pytest.mark.parametrize("saver", [None, InMemorySaver], ids=["without-checkpointer", "with-checkpointer"])
@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_what_a_model_asks_of_another_agent_is_not_the_users_word(tmp_path, saver, is_async):
    middleware = RLHIMiddleware(store=f"sqlite:///{tmp_path}/rlhi.db", commands=True)
    inner = create_agent(Model(replies=["They turn light into sugar."]), middleware=[middleware])
    outer = create_agent(
        Model(replies=[CALL, "Sugar."]),
        tools=[research_by(inner, is_async=is_async)],
        middleware=[middleware],
        checkpointer=saver() if saver else None,
    )
    asyncio.run(outer.ainvoke(say("hi"), config=AT)) if is_async else outer.invoke(say("hi"), config=AT)
    assert [(m.role, m.content, m.parent_id) for m in stored(middleware)] == [
        ("user", "hi", None),
        ("tool", LOGGED, None),
        ("tool", "They turn light into sugar.", None),
        ("assistant", "Sugar.", None),
    ]
    assert list(middleware.store.feedback()) == []
    middleware.close()
    middleware.store.close()


# what is recorded


def test_latency_and_tokens(middleware):
    reply = AIMessage("yes", usage_metadata={"input_tokens": 11, "output_tokens": 7, "total_tokens": 18})
    agent = create_agent(Model(replies=[reply], pause_s=0.05), middleware=[middleware])
    agent.invoke(say("hi"), config=AT)
    asked, answered = stored(middleware)
    assert (answered.input_tokens, answered.output_tokens) == (11, 7)
    assert 0.05 <= answered.latency_s < 5
    assert (asked.latency_s, asked.input_tokens) == (None, None)
    assert answered.created_at - asked.created_at >= timedelta(seconds=0.05)


@pytest.mark.parametrize("saver", [None, InMemorySaver], ids=["without-checkpointer", "with-checkpointer"])
def test_feedback_finds_the_answer_by_the_id_that_the_app_has(middleware, saver):
    agent = create_agent(Model(), middleware=[middleware], checkpointer=saver() if saver else None)
    for text in ("hi", "hi"):
        known_as = agent.invoke(say(text), config=AT)["messages"][-1].id
        middleware.record_feedback("thumbs_down", thread_id="t1", user_id="u42", message_id=known_as)
    middleware.record_feedback("copy", thread_id="t1", user_id="u42", message_id="from elsewhere")
    answers = [m.id for m in stored(middleware) if m.role == "assistant"]
    assert [e.message_id for e in middleware.store.feedback()] == [*answers, "from elsewhere"]
    assert len(answers) == 2


def test_blocks_are_named_not_copied(middleware):
    content = [
        create_text_block("look"),
        create_image_block(base64="QUJD", mime_type="image/png"),
        create_image_block(url="https://example.org/a.png"),
        create_audio_block(base64="QUJD", mime_type="audio/wav"),
        create_video_block(base64="QUJD", mime_type="video/mp4"),
        create_file_block(base64="QUJD", mime_type="application/pdf"),
        create_plaintext_block(text="a whole document"),
        {"type": "image_url", "image_url": {"url": "data:image/jpeg;base64,QUJD"}},
        {"type": "image", "source": {"type": "base64", "media_type": "image/gif", "data": "QUJD"}},
        {"type": "non_standard", "value": {"type": "hologram", "data": "QUJD"}},
    ]
    create_agent(Model(), middleware=[middleware]).invoke({"messages": [HumanMessage(content)]}, config=AT)
    assert stored(middleware)[0].content.splitlines() == [
        "look",
        "[image image/png]",
        "[image]",
        "[audio audio/wav]",
        "[video video/mp4]",
        "[file application/pdf]",
        "[text-plain text/plain]",
        "[image_url image/jpeg]",
        "[image image/gif]",
        "[non_standard hologram]",
    ]


def test_blocks_of_answers_and_tools():
    blocks = [{"type": "reasoning", "reasoning": "hm"}, {"type": "text", "text": "yes"}, {"type": "server_tool_call"}]
    assert role_and_text(AIMessage(blocks)) == ("assistant", "yes\n[server_tool_call]")
    result = ToolMessage([{"type": "image", "base64": "QUJD", "mime_type": "image/png"}], tool_call_id="1")
    assert role_and_text(result) == ("tool", "[image image/png]")


# bad input


def test_ten_megabytes_lone_surrogates_and_nul_bytes(middleware):
    agent = create_agent(Model(replies=["a\0b"]), middleware=[middleware])
    agent.invoke(say("x" * 10_000_000, "\ud800\0"), config=AT)
    sizes = [len(m.content) for m in stored(middleware)]
    assert sizes == [10_000_000, 2, 3]
    assert [m.content for m in stored(middleware)[1:]] == ["?\ufffd", "a\ufffdb"]
    assert middleware.dropped == 0
    assert clean("plain") == "plain"


class Opaque:
    def __str__(self):
        raise RuntimeError("no")

    __repr__ = __str__


def _cycle():
    inner = {}
    inner["self"] = inner
    return inner


@pytest.mark.parametrize("value", [Opaque(), _cycle(), {1: "a", "b": 2}, object(), b"\xff", float("nan")])
def test_arguments_that_json_cannot_hold(value):
    call = AIMessage.model_construct(
        content="", tool_calls=[{"name": "f", "args": {"x": value}, "id": "1"}], additional_kwargs={}, id="1"
    )
    role, text = role_and_text(call)
    assert role == "tool"
    assert text.startswith("{")


def _turn(history, reply, *, stable=True):
    return Turn("t", None, None, history, Reply(messages=(reply,)), stable, datetime.now(UTC))


def _thread(n):
    kinds = (HumanMessage, AIMessage)
    return [kinds[i % 2](f"text {i}", id=f"m{i}") for i in range(n)]


@pytest.mark.parametrize("stable", [True, False])
def test_a_turn_costs_the_same_in_a_long_thread(tmp_path, monkeypatch, stable):
    looked_at = []
    monkeypatch.setattr(
        "rlhi_plugin.thread_path.role_and_text", lambda message: looked_at.append(1) or role_and_text(message)
    )
    with open_store(f"sqlite:///{tmp_path}/a.db") as store:
        recorder = Recorder(store)
        history = _thread(3 * COUNTED)
        for number in range(3):
            reply = AIMessage(f"new {number}", id=f"r{number}")
            looked_at.clear()
            recorder.record(lambda reply=reply, past=list(history): _turn(past, reply, stable=stable))
            history += [reply, HumanMessage(f"more {number}", id=f"h{number}")]
            if number:
                assert len(looked_at) < 100
        recorder.close()
        (found,) = store.conversations()
        expected = [f"text {i}" for i in range(3 * COUNTED)] + ["new 0", "more 0", "new 1", "more 1", "new 2"]
        assert [m.content for m in found.messages] == expected


@pytest.mark.slow
def test_a_thread_of_a_hundred_thousand_turns(tmp_path):
    with open_store(f"sqlite:///{tmp_path}/a.db") as store:
        recorder = Recorder(store)
        history = _thread(200_000)
        recorder.record(lambda: _turn(history, AIMessage("first", id="r")))
        started = time.perf_counter()
        for number in range(20):
            history.append(AIMessage(f"new {number}", id=f"n{number}"))
            recorder.record(lambda: _turn(history[:-1], history[-1]))
        assert (time.perf_counter() - started) / 20 < 0.1
        recorder.close()
        assert store.counts().messages == 200_021
        assert recorder.dropped == 0


def test_a_clock_that_goes_back_keeps_the_order(tmp_path):
    with open_store(f"sqlite:///{tmp_path}/a.db") as store:
        recorder = Recorder(store)
        for number in range(3):
            turn = _turn([HumanMessage(f"u{number}", id=f"u{number}")], AIMessage(f"a{number}", id=f"a{number}"))
            earlier = replace(turn, started_at=turn.started_at - timedelta(hours=number))
            recorder.record(lambda earlier=earlier: earlier)
        recorder.close()
        times = [m.created_at for c in store.conversations() for m in c.messages]
        assert times == sorted(times)


def test_memory_of_many_threads_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr("rlhi_plugin.places.IDS_REMEMBERED", 5 * COUNTED)
    with open_store(f"sqlite:///{tmp_path}/a.db") as store:
        recorder = Recorder(store)
        for number in range(10):
            history = _thread(COUNTED)
            recorder.record(
                lambda history=history, number=number: replace(
                    _turn(history, AIMessage("x")), conversation_id=f"t{number}"
                )
            )
        known = [number for number in range(10) if recorder.knows(f"t{number}", None)]
        assert known == list(range(10 - len(known), 10))
        assert COUNTED < recorder._places.ids == len(known) * (COUNTED + 1) <= 5 * COUNTED
        recorder.close()
