"""The person in control, in real agents and graphs: commands in the chat, and personas built behind it."""

import asyncio
import threading
import time

import pytest
from langchain.agents import create_agent
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.outputs import ChatGeneration, ChatResult
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from openai import OpenAI
from pydantic import Field

from rlhi_plugin import RLHIMiddleware, open_store
from rlhi_plugin.errors import ConfigError, StoreError
from rlhi_plugin.fake_provider import FakeProvider
from rlhi_plugin.identity import pseudonym
from rlhi_plugin.integrations.langgraph_nodes import with_rlhi
from rlhi_plugin.integrations.observer import Observer
from rlhi_plugin.integrations.openai_client import wrap_openai
from rlhi_plugin.persona import ExtractivePersonaBuilder, PersonaBuilding, WorkerOptions, phrases
from rlhi_plugin.privacy import exclusions_in
from rlhi_plugin.records import Evidence, FollowUp, FollowUpLabel, Persona, PersonaStatement, Purpose

ME = pseudonym


class Model(BaseChatModel):
    """Answers by number, or as told, and remembers its prompts."""

    prompts: list = Field(default_factory=list)
    replies: list = Field(default_factory=list)

    def _generate(self, messages, stop=None, run_manager=None, **kwargs):
        self.prompts.append(messages)
        reply = self.replies.pop(0) if self.replies else f"reply {len(self.prompts)}"
        return ChatResult(generations=[ChatGeneration(message=AIMessage(reply))])

    @property
    def _llm_type(self):
        return "scripted"


class Labeller:
    """Takes every follow-up that asks for something for feedback."""

    name = "polite-1"

    async def label(self, exchanges):
        return [
            FollowUp(
                conversation_id=e.conversation_id,
                turn=e.turn,
                message_id=e.message_id,
                label=FollowUpLabel.WITH_FEEDBACK if "please" in e.follow_up.lower() else FollowUpLabel.NEW_REQUEST,
                labeller=self.name,
            )
            for e in exchanges
        ]


BUILDING = PersonaBuilding(builder="extractive", labeller=Labeller(), when=WorkerOptions(after_turns=1))


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("RLHI_KEY", "0123456789abcdef")


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path}/rlhi.db"


@pytest.fixture
def made(url):
    """Makes an agent with the middleware; its `say` sends one message and gives back the answer."""
    opened = []

    def make(*, checkpointer=True, **options):
        middleware = RLHIMiddleware(store=url, **{"commands": True, **options})
        opened.append(middleware)
        return Chat(middleware, checkpointer=checkpointer)

    yield make
    for middleware in opened:
        middleware.close()
        middleware.store.close()


class Chat:
    """An app around an agent. Without a checkpointer it sends the whole history, as texts, with each turn."""

    def __init__(self, middleware, *, checkpointer):
        self.middleware, self.model = middleware, Model()
        self.history, self.checkpointer = {}, checkpointer
        saver = InMemorySaver() if checkpointer else None
        self.agent = create_agent(self.model, tools=[], middleware=[middleware], checkpointer=saver)

    def sent(self, text, thread):
        if self.checkpointer:
            return {"messages": [("user", text)]}
        self.history.setdefault(thread, []).append(("user", text))
        return {"messages": list(self.history[thread])}

    def say(self, text, thread="t1", user="u42"):
        answer = self.agent.invoke(self.sent(text, thread), config=at(thread, user))["messages"][-1].text
        self.history.setdefault(thread, []).append(("assistant", answer))
        return answer

    async def asay(self, text, thread="t1", user="u42"):
        answer = (await self.agent.ainvoke(self.sent(text, thread), config=at(thread, user)))["messages"][-1].text
        self.history.setdefault(thread, []).append(("assistant", answer))
        return answer

    def seen(self):
        """What the model saw last, without the system prompt."""
        return [m.text for m in self.model.prompts[-1] if m.type != "system"]

    def system(self):
        return "".join(m.text for m in self.model.prompts[-1] if m.type == "system")

    def logged(self):
        return {c.conversation_id: [m.content for m in c.messages] for c in self.middleware.store.conversations()}


def at(thread="t1", user="u42"):
    return {"configurable": ({"thread_id": thread} if thread else {}) | ({"user_id": user} if user else {})}


def know(store, *texts, user="u42", conversation="old"):
    statements = tuple(
        PersonaStatement(text=text, evidence=(Evidence(conversation_id=conversation, message_id="m", quote=text),))
        for text in texts
    )
    store.put_persona(Persona(user_id=ME(user), statements=statements, builder="test"))


def until(condition, timeout_s=10.0):
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)


@pytest.mark.parametrize("checkpointer", [True, False])
def test_commands_cost_no_model_call_and_leave_no_trace(made, checkpointer):
    chat = made(checkpointer=checkpointer)
    know(chat.middleware.store, "Shorter, please.", "No emojis.")
    assert chat.say("How do plants grow?") == "reply 1"
    assert "No emojis." in chat.system()
    assert chat.say("/what-do-you-know").startswith(phrases.KNOWN_HEAD)
    assert chat.say("/why").startswith(phrases.WHY_HEAD)
    assert chat.say("/forget 2") == f"{phrases.FORGOTTEN}\nNo emojis."
    assert len(chat.model.prompts) == 1
    assert chat.say("And moss?") == "reply 2"
    assert chat.seen() == ["How do plants grow?", "reply 1", "And moss?"]
    assert "Shorter, please." in chat.system()
    assert "No emojis." not in chat.system(), "what was forgotten leaves the running thread"
    assert chat.logged() == {"t1": ["How do plants grow?", "reply 1", "And moss?", "reply 2"]}
    (talk,) = chat.middleware.store.conversations()
    assert [m.parent_id for m in talk.messages] == [None] * 4, "what stands between two turns begins no branch"


@pytest.mark.parametrize("checkpointer", [True, False])
async def test_commands_in_an_event_loop_use_the_store_elsewhere(made, checkpointer, monkeypatch):
    chat = made(checkpointer=checkpointer)
    store, threads = chat.middleware.store, set()
    know(store, "Shorter, please.")
    for name in ("get_persona", "put_persona", "record_feedback"):
        real = getattr(store, name)

        def noted(*arguments, _real=real, **named):
            threads.add(threading.current_thread())
            return _real(*arguments, **named)

        monkeypatch.setattr(store, name, noted)
    assert await chat.asay("How do plants grow?") == "reply 1"
    assert (await chat.asay("/what-do-you-know")).startswith(phrases.KNOWN_HEAD)
    assert (await chat.asay("/forget that")).startswith(phrases.FORGOTTEN)
    assert await chat.asay("/do-not-learn") == phrases.NOT_LEARNING
    assert await chat.asay("And moss?") == "reply 2"
    assert threads
    assert threading.current_thread() not in threads
    assert chat.seen() == ["How do plants grow?", "reply 1", "And moss?"]
    assert chat.logged() == {"t1": ["How do plants grow?", "reply 1", "And moss?", "reply 2"]}


def test_a_command_is_streamed(made):
    chat = made()
    chunks = list(chat.agent.stream(chat.sent("/why", "t1"), config=at(), stream_mode="messages"))
    assert "".join(chunk.text for chunk, _ in chunks if isinstance(chunk, AIMessage)) == phrases.NOTHING_USED
    values = list(chat.agent.stream(chat.sent("/why", "t1"), config=at(), stream_mode="values"))
    assert values[-1]["messages"][-1].text == phrases.NOTHING_USED
    assert chat.model.prompts == []
    assert chat.logged() == {}


async def test_a_command_is_streamed_in_an_event_loop(made):
    chat = made()
    stream = chat.agent.astream(chat.sent("/why", "t1"), config=at(), stream_mode="messages")
    chunks = [chunk async for chunk, _ in stream if isinstance(chunk, AIMessage | AIMessageChunk)]
    assert "".join(chunk.text for chunk in chunks) == phrases.NOTHING_USED
    assert chat.logged() == {}


def test_commands_are_off_unless_asked_for(made):
    chat = made(commands=False)
    assert chat.say("/what-do-you-know") == "reply 1"
    assert chat.seen() == ["/what-do-you-know"]


@pytest.mark.parametrize("user", ["u42", None])
def test_do_not_learn_outlives_the_process(made, url, user):
    chat = made()
    chat.say("Too secret to learn from.", user=user)
    assert chat.say("/do-not-learn", user=user) == phrases.NOT_LEARNING
    chat.say("Still secret.", user=user)
    chat.say("Anything else?", thread="t2", user=user)
    chat.middleware.close()
    with open_store(url) as again:
        exclusions = exclusions_in(again)
        out = {c.conversation_id: exclusions.of(c) is not None for c in again.conversations()}
    assert out == {"t1": True, "t2": False}


def test_do_not_learn_may_be_the_first_word_and_keeps_out_only_what_is_theirs(made):
    chat = made()
    chat.say("I am somebody else, in a thread of the same name.", user="other")
    chat.say("/do-not-learn")
    chat.say("Secret.")
    exclusions = exclusions_in(chat.middleware.store)
    out = {c.conversation_id: exclusions.of(c) is not None for c in chat.middleware.store.conversations()}
    assert out == {"t1": False, f"t1@{ME('u42')}": True}


def test_a_chat_without_a_thread_is_told_the_truth(made):
    chat = made(checkpointer=False)
    assert chat.say("/do-not-learn", thread=None) == phrases.NO_THREAD
    assert not exclusions_in(chat.middleware.store)


def failing(chat, monkeypatch):
    def fail(event):
        raise StoreError("the disk is full. Free some space.")

    monkeypatch.setattr(chat.middleware.store, "record_feedback", fail)


def test_a_refusal_that_nothing_takes_is_admitted(made, monkeypatch, caplog):
    chat = made(journal=None)
    failing(chat, monkeypatch)
    assert chat.say("/do-not-learn") == phrases.FAILED
    assert "could not be carried out" in caplog.text
    assert chat.say("How do plants grow?") == "reply 1"


def test_a_refusal_waits_in_the_journal_for_a_store_that_fails(made, monkeypatch):
    chat = made()
    with monkeypatch.context() as patch:
        failing(chat, patch)
        assert chat.say("/do-not-learn") != phrases.FAILED
        assert chat.middleware.status().waiting == 1
        assert not exclusions_in(chat.middleware.store)
    deadline = time.monotonic() + 30
    while chat.middleware.status().waiting and time.monotonic() < deadline:
        time.sleep(0.05)
    assert exclusions_in(chat.middleware.store)


def test_a_hanging_store_does_not_hold_the_user(made, monkeypatch):
    chat = made(store_timeout_s=0.02)
    gate = threading.Event()
    monkeypatch.setattr(chat.middleware.store, "get_persona", lambda user: gate.wait(10))
    began = time.monotonic()
    assert chat.say("/what-do-you-know") == phrases.FAILED
    gate.set()
    assert time.monotonic() - began < 5


def test_in_shadow_nothing_was_in_front_of_the_model(made):
    chat = made(persona="shadow")
    know(chat.middleware.store, "No emojis.")
    chat.say("How do plants grow?")
    assert chat.system() == ""
    assert chat.say("/why") == phrases.NOTHING_USED


def test_commands_without_personas_in_prompts(made):
    chat = made(persona="off")
    know(chat.middleware.store, "No emojis.")
    assert chat.say("/forget 1").startswith(phrases.FORGOTTEN)
    assert chat.middleware.store.get_persona(ME("u42")).statements == ()


class NoFeedback:
    """A store of somebody's that keeps neither feedback nor decisions."""

    def __init__(self, store):
        self.append, self.conversations, self.close = store.append, store.conversations, store.close
        self.get_persona, self.put_persona = store.get_persona, store.put_persona


def test_a_store_that_cannot_keep_a_refusal_is_refused(url):
    with open_store(url) as store:
        with pytest.raises(ConfigError, match="record_feedback"):
            RLHIMiddleware(store=NoFeedback(store), commands=True)
        RLHIMiddleware(store=NoFeedback(store)).close()


# Personas built behind the chat


def test_what_is_learned_in_one_thread_holds_in_the_next(made):
    chat = made(persona_builder=BUILDING)
    chat.say("How do plants grow?")
    chat.say("Shorter, please.")
    until(lambda: chat.middleware.get_persona("u42") is not None and chat.middleware.get_persona("u42").statements)
    chat.say("And moss?")
    assert chat.system() == "", "a thread keeps what it began with"
    until(lambda: chat.middleware.get_persona("u42").turns_read == 3)
    chat.say("How do stars shine?", thread="t2")
    assert "Shorter, please." in chat.system()
    assert chat.say("/why", thread="t2").startswith(phrases.WHY_HEAD)
    assert chat.say("/forget that", thread="t2").startswith(phrases.FORGOTTEN)
    chat.say("More!", thread="t2")
    assert "Shorter" not in chat.system()
    until(lambda: chat.middleware.get_persona("u42").turns_read == 5)
    assert chat.middleware.get_persona("u42").statements == (), "it does not come back"


async def test_personas_are_built_behind_an_event_loop(made):
    chat = made(persona_builder=BUILDING)
    await chat.asay("How do plants grow?")
    await chat.asay("Shorter, please.")
    await asyncio.to_thread(until, lambda: (p := chat.middleware.get_persona("u42")) is not None and p.statements)


def test_nothing_is_built_of_who_refuses_nor_of_the_unknown(made):
    chat = made(persona_builder=BUILDING)
    chat.middleware.consent.withdraw(ME("u42"), Purpose.PERSONALISE)
    for user, thread in (("u42", "t1"), (None, "t2"), ("u7", "t3")):
        chat.say("How do plants grow?", thread=thread, user=user)
        chat.say("Shorter, please.", thread=thread, user=user)
    until(lambda: (p := chat.middleware.get_persona("u7")) is not None and p.statements)
    assert chat.middleware.get_persona("u42") is None


def test_who_refuses_meanwhile_is_passed_over(made):
    slow = PersonaBuilding(builder="extractive", labeller=Labeller(), when=WorkerOptions(after_turns=99))
    chat = made(persona_builder=slow)
    chat.say("How do plants grow?")
    chat.say("Shorter, please.")
    chat.middleware.consent.withdraw(ME("u42"), Purpose.PERSONALISE)
    worker = chat.middleware._live._worker
    assert worker.drain(10)
    assert (worker.counts.refused, worker.counts.updated) == (1, 0)
    assert chat.middleware.get_persona("u42") is None


def test_who_refuses_while_it_is_being_built_gets_no_persona(made):
    began, may_end = threading.Event(), threading.Event()

    class Slow(Labeller):
        async def label(self, exchanges):
            began.set()
            await asyncio.to_thread(may_end.wait, 10)
            return await super().label(exchanges)

    once = PersonaBuilding(builder="extractive", labeller=Slow(), when=WorkerOptions(after_turns=2))
    chat = made(persona_builder=once)
    chat.say("How do plants grow?")
    chat.say("Shorter, please.")
    assert began.wait(10)
    chat.middleware.consent.withdraw(ME("u42"), Purpose.PERSONALISE)
    may_end.set()
    worker = chat.middleware._live._worker
    until(lambda: worker.counts.refused == 1)
    assert worker.counts.updated == 0
    assert chat.middleware.get_persona("u42") is None


def test_excluded_conversations_are_not_built_from(made):
    chat = made(persona_builder=BUILDING)
    chat.say("How do plants grow?")
    chat.say("Shorter, please.")
    until(lambda: (p := chat.middleware.get_persona("u42")) is not None and p.statements)
    chat.say("/do-not-learn")
    assert chat.middleware.get_persona("u42").statements == ()
    chat.say("No emojis, please.")
    chat.say("How do stars shine?", thread="t2")
    until(lambda: chat.middleware.get_persona("u42").turns_read == 1)
    assert chat.middleware.get_persona("u42").statements == ()


def test_an_app_may_exclude_without_a_command(made):
    chat = made(persona_builder=BUILDING, commands=False)
    assert chat.middleware.record_feedback("do_not_learn", thread_id="t1", user_id="u42")
    chat.say("How do plants grow?")
    chat.say("Shorter, please.")
    until(lambda: chat.middleware.get_persona("u42") is not None)
    assert chat.middleware.get_persona("u42").statements == ()


def test_a_refusal_is_kept_of_those_too_who_allow_no_log(made):
    chat = made()
    chat.middleware.consent.withdraw(ME("u42"), Purpose.LOG)
    assert chat.say("/do-not-learn") == phrases.NOT_LEARNING
    assert exclusions_in(chat.middleware.store)


def test_a_chat_model_builds_personas(made):
    label = '{"label": "reattempt_with_feedback", "confidence": "high", "evidence": "Shorter"}'
    written = (
        '{"statements": [{"text": "Prefers short answers.", "evidence": [{"id": "m2", "quote": "Shorter, please."}]}]}'
    )
    writer = Model(replies=[label, written])
    building = PersonaBuilding(builder=writer, when=WorkerOptions(after_turns=2))
    chat = made(persona_builder=building)
    chat.say("How do plants grow?")
    chat.say("Shorter, please.")
    until(lambda: (p := chat.middleware.get_persona("u42")) is not None and p.statements)
    (known,) = chat.middleware.get_persona("u42").statements
    assert (known.text, known.evidence[0].quote) == ("Prefers short answers.", "Shorter, please.")
    assert len(writer.prompts) == 2, "one call to label, one to write"


def test_a_model_may_be_named_as_litellm_names_it(made, monkeypatch):
    label = '{"label": "reattempt_with_feedback", "confidence": "high", "evidence": "Shorter"}'
    written = '{"statements": [{"text": "Likes it short.", "evidence": [{"id": "m2", "quote": "Shorter, please."}]}]}'
    with FakeProvider([label, written]) as provider:
        monkeypatch.setenv("OPENAI_API_BASE", provider.base_url)
        monkeypatch.setenv("OPENAI_API_KEY", "any")
        chat = made(persona_builder=PersonaBuilding(builder="openai/some-model", when=WorkerOptions(after_turns=2)))
        chat.say("How do plants grow?")
        chat.say("Shorter, please.")
        until(lambda: (p := chat.middleware.get_persona("u42")) is not None and p.statements, 30)
    (known,) = chat.middleware.get_persona("u42").statements
    assert known.text == "Likes it short."
    assert chat.middleware.get_persona("u42").builder.startswith("llm:openai/some-model")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"persona_builder": 7}, "builds no personas"),
        ({"persona_builder": ""}, "builds no personas"),
        ({"persona_builder": "extractive", "persona": "off"}, "shadow"),
        ({"persona_builder": PersonaBuilding(builder="extractive", labeller="nobody")}, "no labeller"),
    ],
)
def test_what_cannot_build_is_refused_at_once(url, options, message):
    with pytest.raises(ConfigError, match=message):
        RLHIMiddleware(store=url, **options)


def test_a_builder_of_ones_own(made):
    chat = made(persona_builder=PersonaBuilding(builder=ExtractivePersonaBuilder(1), labeller=Labeller()))
    assert chat.middleware._live._worker is not None


def test_closing_ends_the_thread(made):
    chat = made(persona_builder=BUILDING)
    chat.say("How do plants grow?")
    thread = chat.middleware._live._worker._thread
    assert thread.is_alive()
    chat.middleware.close()
    assert not thread.is_alive()
    chat.say("Still there?")
    chat.middleware.close()


def test_a_persona_is_edited_by_its_person(made):
    chat = made()
    know(chat.middleware.store, "Shorter, please.", "No emojis.")
    chat.say("How do plants grow?")
    chat.middleware.edit_persona("u42", "edit", 1, "At most two sentences.")
    chat.middleware.edit_persona("u42", "lock", 1)
    after = chat.middleware.edit_persona("u42", "remove", 2)
    assert [(s.text, s.locked) for s in after.statements] == [("At most two sentences.", True)]
    assert chat.middleware.get_persona("u42") == after
    chat.say("And moss?")
    assert "At most two sentences." in chat.system()
    assert "No emojis." not in chat.system()
    private = chat.middleware.edit_persona("u42", "edit", 1, "Sign as bob@example.com, please.")
    assert "bob@" not in private.to_json()
    with pytest.raises(ConfigError, match="no statement 5"):
        chat.middleware.edit_persona("u42", "remove", 5)
    with pytest.raises(ConfigError, match="persona='off'"):
        made(persona="off", commands=False).middleware.get_persona("u42")


# Other integrations


@pytest.fixture
def observer(url):
    observer = Observer(store=url, commands=True)
    know(observer.store, "No emojis.")
    yield observer
    observer.close()
    observer.store.close()


def graph_of(node, checkpointer=None):
    graph = StateGraph(MessagesState)
    graph.add_node("model", node)
    graph.add_edge(START, "model")
    return graph.compile(checkpointer=checkpointer)


def test_a_graph_answers_commands_without_its_node(observer):
    model = Model()
    node = with_rlhi(
        lambda state: {"messages": [model.invoke(state["messages"])]}, observer=observer, system="Be kind."
    )
    graph = graph_of(node, InMemorySaver())

    def say(text):
        return graph.invoke({"messages": [("user", text)]}, config=at())["messages"][-1].text

    assert say("How do plants grow?") == "reply 1"
    assert say("/forget that") == f"{phrases.FORGOTTEN}\nNo emojis."
    assert say("/do-not-learn") == phrases.NOT_LEARNING
    assert say("And moss?") == "reply 2"
    assert [m.text for m in model.prompts[-1]] == ["Be kind.", "How do plants grow?", "reply 1", "And moss?"]
    (talk,) = observer.store.conversations()
    assert [m.content for m in talk.messages if m.role != "system"] == [
        "How do plants grow?", "reply 1", "And moss?", "reply 2",
    ]  # fmt: skip
    assert exclusions_in(observer.store).of(talk) is not None


async def test_an_async_graph_answers_commands(observer):
    model = Model()

    async def node(state):
        return {"messages": [await model.ainvoke(state["messages"])]}

    graph = graph_of(with_rlhi(node, observer=observer))
    out = await graph.ainvoke({"messages": [("user", "/what-do-you-know")]}, config=at())
    assert out["messages"][-1].text.startswith(phrases.KNOWN_HEAD)
    history = [*out["messages"], ("user", "Hi")]
    out = await graph.ainvoke({"messages": history}, config=at())
    assert out["messages"][-1].text == "reply 1"
    assert [m.text for m in model.prompts[-1] if m.type == "human"] == ["Hi"]


def test_what_cannot_answer_says_so(url):
    client = OpenAI(api_key="none", base_url="http://127.0.0.1:9/v1")
    with pytest.raises(ConfigError, match="cannot answer in the model's place"):
        wrap_openai(client, store=url, commands=True)
