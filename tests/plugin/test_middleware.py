"""The middleware in real agents with scripted models: sync, async, streams, tools, failures, resent threads."""

import asyncio
import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import AgentMiddleware, SummarizationMiddleware
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from pydantic import Field, PrivateAttr

from rlhi_plugin import RLHIMiddleware
from rlhi_plugin.errors import ConfigError, StoreError
from rlhi_plugin.identity import pseudonym
from rlhi_plugin.persona import render_persona
from rlhi_plugin.records import Evidence, Persona, PersonaStatement
from rlhi_plugin.stores import open_store


class Model(BaseChatModel):
    """Answers by number, remembers the prompts it got, and fails where told to."""

    prompts: list = Field(default_factory=list)
    replies: list = Field(default_factory=list)
    error: Exception | None = None
    model_name: str = "echo-1"
    adapter_id: str | None = None

    def _generate(self, messages, stop=None, run_manager=None, **kwargs):
        self.prompts.append(messages)
        if self.error:
            raise self.error
        reply = self.replies.pop(0) if self.replies else f"reply {len(self.prompts)}"
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
    made.store.close()


def at(thread="t1", user="u42"):
    return {"configurable": {"thread_id": thread} | ({"user_id": user} if user else {})}


def say(*texts):
    return {"messages": [("user", text) for text in texts]}


def logged(middleware):
    return {c.conversation_id: [(m.role, m.content) for m in c.messages] for c in middleware.store.conversations()}


def put_persona(middleware, user="u42", text="Shorter, please."):
    evidence = (Evidence(conversation_id="c", message_id="m", quote=text),)
    persona = Persona(
        user_id=pseudonym(user), statements=(PersonaStatement(text=text, evidence=evidence),), builder="test"
    )
    middleware.store.put_persona(persona)
    return persona


def test_a_turn_is_on_disk_when_invoke_returns(middleware):
    model = Model(adapter_id="a-1")
    agent = create_agent(model, tools=[], middleware=[middleware], system_prompt="Be kind.")
    agent.invoke(say("hi"), config=at())
    (found,) = middleware.store.conversations()
    assert (found.conversation_id, found.user_id) == ("t1", pseudonym("u42"))
    assert [(m.role, m.content) for m in found.messages] == [
        ("system", "Be kind."),
        ("user", "hi"),
        ("assistant", "reply 1"),
    ]
    reply = found.messages[-1]
    assert (reply.model, reply.adapter, reply.persona_digest) == ("echo-1", "a-1", None)
    assert found.messages[1].created_at < reply.created_at
    assert middleware.dropped == 0


async def test_ainvoke(middleware):
    agent = create_agent(Model(), middleware=[middleware])
    await asyncio.gather(*(agent.ainvoke(say("hi"), config=at(f"t{i}")) for i in range(4)))
    assert {name: len(said) for name, said in logged(middleware).items()} == {f"t{i}": 2 for i in range(4)}


def test_batch(middleware):
    agent = create_agent(Model(), middleware=[middleware])
    agent.batch([say("hi")] * 4, config=[at(f"t{i}", f"u{i}") for i in range(4)])
    users = {c.conversation_id: c.user_id for c in middleware.store.conversations()}
    assert users == {f"t{i}": pseudonym(f"u{i}") for i in range(4)}


def streaming_agent(middleware):
    return create_agent(GenericFakeChatModel(messages=iter([AIMessage("one two three")])), middleware=[middleware])


def test_stream_logs_the_whole_reply(middleware):
    chunks = list(streaming_agent(middleware).stream(say("hi"), config=at(), stream_mode="messages"))
    assert len(chunks) > 1
    assert logged(middleware) == {"t1": [("user", "hi"), ("assistant", "one two three")]}


async def test_astream_logs_the_whole_reply(middleware):
    agent = streaming_agent(middleware)
    chunks = [chunk async for chunk in agent.astream(say("hi"), config=at(), stream_mode="messages")]
    assert len(chunks) > 1
    assert logged(middleware) == {"t1": [("user", "hi"), ("assistant", "one two three")]}


def test_a_stream_closed_early_is_logged(middleware):
    stream = streaming_agent(middleware).stream(say("hi"), config=at(), stream_mode="messages")
    next(stream)
    stream.close()
    assert logged(middleware)["t1"][0] == ("user", "hi")


async def test_an_astream_closed_early_is_logged(middleware):
    stream = streaming_agent(middleware).astream(say("hi"), config=at(), stream_mode="messages")
    await anext(stream)
    await stream.aclose()
    assert logged(middleware)["t1"][0] == ("user", "hi")


async def test_a_cancelled_run_is_logged(middleware):
    class Slow(Model):
        _called: asyncio.Event = PrivateAttr(default_factory=asyncio.Event)

        async def _agenerate(self, messages, stop=None, run_manager=None, **kwargs):
            self._called.set()
            await asyncio.sleep(60)

    model = Slow()
    run = asyncio.create_task(create_agent(model, middleware=[middleware]).ainvoke(say("hi"), config=at()))
    await model._called.wait()
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    assert logged(middleware) == {"t1": [("user", "hi")]}


async def test_a_second_cancellation_does_not_stop_the_writing(middleware):
    class Slow(Model):
        _called: asyncio.Event = PrivateAttr(default_factory=asyncio.Event)

        async def _agenerate(self, messages, stop=None, run_manager=None, **kwargs):
            self._called.set()
            await asyncio.sleep(60)

    model, busy, pool = Slow(), threading.Event(), ThreadPoolExecutor(1)
    asyncio.get_running_loop().set_default_executor(pool)
    run = asyncio.create_task(create_agent(model, middleware=[middleware]).ainvoke(say("hi"), config=at(user=None)))
    await model._called.wait()
    pool.submit(busy.wait)
    for _ in range(20):
        run.cancel()
        await asyncio.sleep(0)
    busy.set()
    with pytest.raises(asyncio.CancelledError):
        await run
    await asyncio.to_thread(lambda: None)  # behind the writing in the queue
    assert logged(middleware) == {"t1": [("user", "hi")]}


def test_a_model_error_reaches_the_user_and_the_request_is_logged(middleware):
    agent = create_agent(Model(error=RuntimeError("no quota")), middleware=[middleware])
    with pytest.raises(RuntimeError, match="no quota"):
        agent.invoke(say("hi"), config=at())
    assert logged(middleware) == {"t1": [("user", "hi")]}
    assert middleware.dropped == 0


@tool
def weather(place: str) -> str:
    """Tell the weather."""
    return f"sunny in {place}"


def test_tool_traffic_is_logged_as_tool_messages(middleware):
    call = AIMessage("", tool_calls=[{"name": "weather", "args": {"place": "Rome"}, "id": "1"}])
    agent = create_agent(Model(replies=[call, "It is sunny."]), tools=[weather], middleware=[middleware])
    agent.invoke(say("weather in Rome?"), config=at())
    assert logged(middleware)["t1"] == [
        ("user", "weather in Rome?"),
        ("tool", '{"calls": [{"args": {"place": "Rome"}, "name": "weather"}], "text": ""}'),
        ("tool", "sunny in Rome"),
        ("assistant", "It is sunny."),
    ]


def test_a_checkpointed_thread_is_stored_once_and_in_order(middleware):
    agent = create_agent(Model(), middleware=[middleware], checkpointer=InMemorySaver())
    for text in ("hi", "again", "again"):
        agent.invoke(say(text), config=at())
    assert [content for _, content in logged(middleware)["t1"]] == [
        "hi", "reply 1", "again", "reply 2", "again", "reply 3",
    ]  # fmt: skip


def test_a_history_resent_without_checkpointer_is_stored_once(middleware):
    agent = create_agent(Model(replies=["r1", "r2", "r2"]), middleware=[middleware])
    history = []
    for text in ("hi", "again", "again"):
        history.append(("user", text))
        reply = agent.invoke({"messages": history}, config=at())["messages"][-1]
        history.append(("assistant", reply.content))
    assert logged(middleware)["t1"] == history


def test_only_the_last_messages_of_a_long_thread_are_resent(middleware):
    agent = create_agent(Model(), middleware=[middleware])
    agent.invoke({"messages": [("user", "a"), ("assistant", "b"), ("user", "c")]}, config=at())
    agent.invoke({"messages": [("user", "c"), ("assistant", "reply 1"), ("user", "d")]}, config=at())
    assert [content for _, content in logged(middleware)["t1"]] == ["a", "b", "c", "reply 1", "d", "reply 2"]


def test_a_regenerated_reply_is_added(middleware):
    agent = create_agent(Model(), middleware=[middleware])
    for _ in range(2):
        agent.invoke(say("hi"), config=at())
    assert logged(middleware)["t1"] == [("user", "hi"), ("assistant", "reply 1"), ("assistant", "reply 2")]


def test_a_second_process_adds_nothing_twice(tmp_path):
    url, history = f"sqlite:///{tmp_path}/rlhi.db", [("user", "hi"), ("assistant", "hello"), ("user", "more")]
    for _ in range(2):
        middleware = RLHIMiddleware(store=url)
        agent = create_agent(Model(replies=["sure"]), middleware=[middleware])
        agent.invoke({"messages": history}, config=at())
        assert logged(middleware)["t1"] == [*history, ("assistant", "sure")]
        middleware.store.close()


def test_summaries_are_not_taken_for_the_users_words(middleware):
    model = Model()
    summary = SummarizationMiddleware(model=Model(), trigger=("messages", 4), keep=("messages", 2))
    agent = create_agent(model, middleware=[summary, middleware], checkpointer=InMemorySaver())
    for text in ("a", "b", "c", "d"):
        agent.invoke(say(text), config=at())
    said = logged(middleware)["t1"]
    assert [content for role, content in said if role == "user"] == ["a", "b", "c", "d"]
    assert not any("summary" in content.lower() for _, content in said)


def test_a_trimmed_checkpointed_thread_keeps_repeated_messages_apart(middleware):
    summary = SummarizationMiddleware(model=Model(), trigger=("messages", 4), keep=("messages", 2))
    agent = create_agent(Model(), middleware=[summary, middleware], checkpointer=InMemorySaver())
    for _ in range(6):
        agent.invoke(say("again"), config=at())
    assert [content for role, content in logged(middleware)["t1"] if role == "user"] == ["again"] * 6


def test_what_other_middleware_adds_to_the_prompt_is_not_logged(middleware):
    class Retrieval(AgentMiddleware):
        def wrap_model_call(self, request, handler):
            return handler(request.override(messages=[HumanMessage("DOCUMENTS"), *request.messages]))

    agent = create_agent(Model(), middleware=[Retrieval(), middleware])
    agent.invoke(say("hi"), config=at())
    assert logged(middleware) == {"t1": [("user", "hi"), ("assistant", "reply 1")]}


# Who is speaking


def test_anonymous_turns_are_logged_without_user_or_persona(middleware):
    model = Model()
    create_agent(model, middleware=[middleware]).invoke(say("hi"), config=at(user=None))
    (found,) = middleware.store.conversations()
    assert found.user_id is None
    assert len(found.messages) == 2


@pytest.mark.parametrize(("given", "user"), [({}, "authenticated"), ({"user_id": "u1"}, "u1")])
def test_user_whom_langgraphs_server_authenticated(middleware, given, user):
    agent = create_agent(Model(), middleware=[middleware])
    config = {"configurable": {"thread_id": "t", "langgraph_auth_user_id": "authenticated", **given}}
    agent.invoke({"messages": [("user", "hi")]}, config=config)
    (conversation,) = middleware.store.conversations()
    assert conversation.user_id == pseudonym(user)


def test_user_from_the_runtime_context(middleware):
    @dataclass
    class Context:
        user_id: str

    agent = create_agent(Model(), middleware=[middleware], context_schema=Context)
    agent.invoke(say("hi"), config=at(user=None), context=Context(user_id="u42"))
    assert [c.user_id for c in middleware.store.conversations()] == [pseudonym("u42")]


def test_user_from_a_function(tmp_path):
    made = RLHIMiddleware(
        store=f"sqlite:///{tmp_path}/a.db", user_id=lambda runtime, configurable: configurable["account"] + 1
    )
    agent = create_agent(Model(), middleware=[made])
    agent.invoke(say("hi"), config={"configurable": {"thread_id": "t1", "account": 6, "user_id": "ignored"}})
    assert [c.user_id for c in made.store.conversations()] == [pseudonym("7")]
    made.store.close()


@pytest.mark.parametrize("user", ["", True, 1.5, ["u42"], object()])
def test_a_user_that_cannot_be_one_is_anonymous(middleware, user):
    config = {"configurable": {"thread_id": "t1", "user_id": user}}
    create_agent(Model(), middleware=[middleware]).invoke(say("hi"), config=config)
    assert [(c.user_id, len(c.messages)) for c in middleware.store.conversations()] == [(None, 2)]


def test_a_failing_lookup_ends_no_turn(tmp_path, caplog):
    made = RLHIMiddleware(store=f"sqlite:///{tmp_path}/a.db", user_id=lambda runtime, configurable: 1 / 0)
    with caplog.at_level(logging.ERROR, "rlhi.middleware"):
        create_agent(Model(), middleware=[made]).invoke(say("hi"), config=at())
    assert "could not be identified" in caplog.text
    assert [c.user_id for c in made.store.conversations()] == [None]
    made.store.close()


def test_two_users_of_one_thread_name_are_two_conversations(middleware):
    agent = create_agent(Model(), middleware=[middleware])
    for user in ("u1", "u2", None, "u2"):
        agent.invoke(say(f"I am {user}"), config=at(user=user))
    said = {c.user_id: {m.content for m in c.messages if m.role == "user"} for c in middleware.store.conversations()}
    assert said == {pseudonym("u1"): {"I am u1"}, pseudonym("u2"): {"I am u2"}, None: {"I am None"}}
    assert middleware.dropped == 0


def test_runs_without_a_thread_are_conversations_of_their_own(middleware):
    call = AIMessage("", tool_calls=[{"name": "weather", "args": {"place": "Rome"}, "id": "1"}])
    agent = create_agent(Model(replies=[call, "a", "b"]), tools=[weather], middleware=[middleware])
    for _ in range(2):
        agent.invoke(say("hi"), config={"configurable": {"user_id": "u42"}})
    assert sorted(len(said) for said in logged(middleware).values()) == [2, 4]


# The persona


def test_the_persona_is_in_the_prompt_and_not_in_the_log(middleware):
    persona = put_persona(middleware)
    model = Model()
    create_agent(model, middleware=[middleware], system_prompt="Be kind.").invoke(say("hi"), config=at())
    assert model.prompts[0][0] == SystemMessage(f"Be kind.\n\n{render_persona(persona)}")
    (found,) = middleware.store.conversations()
    assert found.messages[0].content == "Be kind."
    assert found.messages[-1].persona_digest == persona.digest
    assert not any("Shorter" in m.content for m in found.messages)


async def test_the_persona_is_in_the_prompt_of_async_runs(middleware):
    persona = put_persona(middleware)
    model = Model()
    result = await create_agent(model, middleware=[middleware]).ainvoke(say("hi"), config=at())
    assert model.prompts[0][0] == SystemMessage(render_persona(persona))
    assert not any(isinstance(message, SystemMessage) for message in result["messages"])


def test_blocks_of_the_apps_prompt_keep_their_cache_marks(middleware):
    put_persona(middleware)
    block = {"type": "text", "text": "Be kind.", "cache_control": {"type": "ephemeral"}}
    model = Model()
    agent = create_agent(model, middleware=[middleware], system_prompt=SystemMessage([block]))
    agent.invoke(say("hi"), config=at())
    first, last = model.prompts[0][0].content
    assert first == block
    assert "Shorter, please." in last["text"]


def test_a_thread_keeps_the_persona_it_began_with(tmp_path):
    made = RLHIMiddleware(store=f"sqlite:///{tmp_path}/a.db", persona_max_age_s=0)
    model = Model()
    agent = create_agent(model, middleware=[made])
    agent.invoke(say("one"), config=at("without"))
    put_persona(made, text="First.")
    agent.invoke(say("two"), config=at("first"))
    put_persona(made, text="Second.")
    for thread in ("without", "first", "second"):
        agent.invoke(say("three"), config=at(thread))
    seen = [prompt[0].content for prompt in model.prompts[2:]]
    assert seen[0] == "three"
    assert "First." in seen[1]
    assert "Second." in seen[2]
    made.store.close()


def test_the_store_is_read_once_for_many_turns(tmp_path):
    store, reads = open_store(f"sqlite:///{tmp_path}/rlhi.db"), []
    read = store.get_persona
    store.get_persona = lambda user_id: reads.append(user_id) or read(user_id)
    middleware = RLHIMiddleware(store=store)
    put_persona(middleware)
    model = Model()
    agent = create_agent(model, middleware=[middleware])
    for thread in ("t1", "t1", "t2"):
        agent.invoke(say("hi"), config=at(thread))
    assert reads == [pseudonym("u42")]
    assert all("Shorter" in prompt[0].content for prompt in model.prompts)
    store.close()


@pytest.mark.parametrize("mode", ["shadow", "off"])
def test_modes_that_leave_the_prompt_alone(tmp_path, mode):
    made = RLHIMiddleware(store=f"sqlite:///{tmp_path}/a.db", persona=mode)
    put_persona(made)
    model = Model()
    create_agent(model, middleware=[made]).invoke(say("hi"), config=at())
    assert [message.content for message in model.prompts[0]] == ["hi"]
    (found,) = made.store.conversations()
    assert found.messages[-1].persona_digest is None
    made.store.close()


def test_nobody_gets_another_users_persona(middleware):
    put_persona(middleware, user="u42")
    model = Model()
    agent = create_agent(model, middleware=[middleware])
    for user in ("u43", None):
        agent.invoke(say("hi"), config=at(f"t-{user}", user))
    assert all(len(prompt) == 1 for prompt in model.prompts)


# When the store fails


class BrokenStore:
    def append(self, conversation_id, *, user_id, messages):
        raise StoreError("the disk is full")

    def conversations(self, *, user_id=None):
        raise StoreError("the disk is full")

    def close(self):
        pass

    def get_persona(self, user_id):
        raise StoreError("the disk is full")

    def put_persona(self, persona):
        raise StoreError("the disk is full")


async def test_a_failing_store_never_breaks_the_assistant(caplog):
    made = RLHIMiddleware(store=BrokenStore(), journal=None)
    agent = create_agent(Model(), middleware=[made])
    with caplog.at_level(logging.ERROR, "rlhi.middleware"):
        assert agent.invoke(say("hi"), config=at())["messages"][-1].content == "reply 1"
        assert (await agent.ainvoke(say("hi"), config=at()))["messages"][-1].content == "reply 2"
    assert made.dropped == 4
    assert "the disk is full" in caplog.text


def test_text_that_no_database_takes_is_mended(middleware):
    create_agent(Model(), middleware=[middleware]).invoke(say("a\ud800b"), config=at())
    assert logged(middleware)["t1"][0] == ("user", "a?b")


def test_blocks_that_are_not_text_are_named(middleware):
    content = [{"type": "text", "text": "what is this?"}, {"type": "image_url", "image_url": {"url": "data:..."}}]
    agent = create_agent(Model(), middleware=[middleware])
    agent.invoke({"messages": [HumanMessage(content)]}, config=at())
    assert logged(middleware)["t1"][0] == ("user", "what is this?\n[image_url]")


def test_a_very_long_thread_name_is_shortened(middleware):
    create_agent(Model(), middleware=[middleware]).invoke(say("hi"), config=at("x" * 10_000))
    (name,) = logged(middleware)
    assert name.startswith("thread-")


# The constructor


def test_positional_arguments_are_refused():
    with pytest.raises(TypeError):
        RLHIMiddleware("sqlite:///a.db")


class OnlyConversations:
    append = BrokenStore.append
    conversations = BrokenStore.conversations
    close = BrokenStore.close


@pytest.mark.parametrize(
    ("arguments", "remedy"),
    [
        ({"store": "rlhi.db"}, "sqlite:///"),
        ({"store": 7}, "Pass a URL"),
        ({"store": BrokenStore(), "persona": "on"}, "'inject', 'shadow' or 'off'"),
        ({"store": BrokenStore(), "user_id": "u42"}, "Pass a function"),
        ({"store": BrokenStore(), "persona_max_age_s": -1}, "0 or more"),
        ({"store": OnlyConversations()}, "persona_store="),
    ],
)
def test_wrong_arguments_name_a_remedy_at_once(arguments, remedy):
    with pytest.raises(ConfigError, match=remedy):
        RLHIMiddleware(**arguments)


def test_a_store_without_personas_can_log():
    assert RLHIMiddleware(store=OnlyConversations(), persona="off").dropped == 0
