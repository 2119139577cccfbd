"""Consent, redaction, personas and feedback where they meet: in a real agent, and in the command line."""

import threading
import time

import pytest
from langchain.agents import create_agent
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from pydantic import Field
from typer.testing import CliRunner

from rlhi_plugin import RLHIMiddleware, cli, open_store
from rlhi_plugin.durability import journal_folder
from rlhi_plugin.errors import ConfigError, StoreError
from rlhi_plugin.identity import pseudonym
from rlhi_plugin.integrations.langgraph_nodes import with_rlhi
from rlhi_plugin.privacy import ConsentPolicy
from rlhi_plugin.records import Evidence, FeedbackKind, Persona, PersonaStatement, Purpose
from rlhi_plugin.stores import SQLStore

MAIL, KEY = "jane.roe@example.com", "sk-proj-" + "a1B2c3D4" * 6


class Model(BaseChatModel):
    """Repeats what it was asked, and remembers its prompts."""

    prompts: list = Field(default_factory=list)
    meanwhile: list = Field(default_factory=list)
    """What happens, one after another, while it answers."""

    def _generate(self, messages, stop=None, run_manager=None, **kwargs):
        self.prompts.append(messages)
        for happens in self.meanwhile:
            happens()
        return ChatResult(generations=[ChatGeneration(message=AIMessage(f"You said: {messages[-1].text}"))])

    @property
    def _llm_type(self):
        return "echo"


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("RLHI_KEY", "0123456789abcdef")


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path}/rlhi.db"


@pytest.fixture
def made(url):
    opened = []

    def make(**options):
        middleware = RLHIMiddleware(store=url, **options)
        opened.append(middleware)
        model = Model()
        return create_agent(model, tools=[], middleware=[middleware], checkpointer=InMemorySaver()), middleware, model

    yield make
    for middleware in opened:
        middleware.close()
        middleware.store.close()


def at(thread="t1", user="u42"):
    return {"configurable": {"thread_id": thread} | ({"user_id": user} if user else {})}


def say(text):
    return {"messages": [("user", text)]}


def stored(middleware):
    return [m.content for c in middleware.store.conversations() for m in c.messages]


def put_persona(middleware, text="Shorter, please."):
    evidence = (Evidence(conversation_id="c", message_id="m", quote=text),)
    statement = PersonaStatement(text=text, evidence=evidence)
    middleware.store.put_persona(Persona(user_id=pseudonym("u42"), statements=(statement,), builder="test"))


def test_what_is_private_is_not_in_the_files(made, tmp_path):
    agent, middleware, model = made()
    text = f"Write to {MAIL} with the key {KEY}."
    assert MAIL in agent.invoke(say(text), config=at())["messages"][-1].text
    agent.invoke(say("And again?"), config=at())
    assert model.prompts[0][-1].text == text
    said = stored(middleware)
    assert len(said) == 4
    assert "[email_" in said[0]
    assert said[1] == f"You said: {said[0]}"
    files = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert MAIL.encode() not in files
    assert KEY.encode() not in files


def test_a_redacted_history_that_is_sent_again_is_stored_once(url):
    middleware = RLHIMiddleware(store=url)
    agent = create_agent(Model(), tools=[], middleware=[middleware])
    history = [("user", f"I am {MAIL}.")]
    answer = agent.invoke({"messages": history}, config=at())["messages"][-1].text
    agent.invoke({"messages": [*history, ("ai", answer), ("user", "Go on.")]}, config=at())
    assert len(stored(middleware)) == 4
    middleware.close()
    middleware.store.close()


def test_redaction_can_be_off_or_narrowed(made):
    agent, middleware, _ = made(redact="off")
    agent.invoke(say(MAIL), config=at("off"))
    assert stored(middleware)[0] == MAIL
    narrow, middleware, _ = made(redact=["ip"])
    narrow.invoke(say(f"{MAIL} at 93.184.216.34"), config=at("narrow"))
    said = stored(middleware)[2]
    assert MAIL in said
    assert "93.184.216.34" not in said


def test_without_consent_to_log_nothing_is_stored_and_no_persona_read(made):
    agent, middleware, model = made()
    put_persona(middleware)
    agent.invoke(say("one"), config=at())
    middleware.consent.withdraw(pseudonym("u42"), Purpose.LOG)
    agent.invoke(say("two"), config=at())
    assert stored(middleware) == ["one", "You said: one"]
    assert "Shorter, please." in model.prompts[0][0].text
    assert model.prompts[1][0].text == "one"
    middleware.consent.grant(pseudonym("u42"), Purpose.LOG)
    agent.invoke(say("three"), config=at())
    assert stored(middleware)[2:] == ["three", "You said: three"]


def test_who_withdraws_while_the_model_answers_is_not_logged(made):
    agent, middleware, model = made()
    agent.invoke(say("one"), config=at())
    model.meanwhile = [lambda: middleware.consent.withdraw(pseudonym("u42"), Purpose.LOG)]
    agent.invoke(say("two"), config=at())
    assert stored(middleware) == ["one", "You said: one"]


async def test_without_consent_to_personalise_the_turn_is_logged_without_persona(made):
    agent, middleware, model = made()
    put_persona(middleware)
    middleware.consent.withdraw(pseudonym("u42"), Purpose.PERSONALISE)
    await agent.ainvoke(say("one"), config=at())
    assert [message.text for message in model.prompts[0]] == ["one"]
    assert stored(middleware) == ["one", "You said: one"]


def test_the_policy_counts_for_who_has_not_decided(made):
    refusing = ConsentPolicy(default={"log": False}, anonymous={"log": True})
    agent, middleware, _ = made(consent=refusing)
    agent.invoke(say("known"), config=at("t1"))
    agent.invoke(say("nobody"), config=at("t2", user=None))
    assert stored(middleware) == ["nobody", "You said: nobody"]


def test_a_store_that_hangs_on_consent_does_not_keep_the_user_waiting(url):
    class Hanging(SQLStore):
        def consents(self, user_id):
            time.sleep(30)
            raise AssertionError("nobody waits that long")

    with open_store(url) as store:
        hanging = Hanging(store._engine)
        middleware = RLHIMiddleware(store=hanging, store_timeout_s=0.2)
        agent = create_agent(Model(), tools=[], middleware=[middleware])
        assert agent.invoke(say("hi"), config=at())["messages"][-1].text == "You said: hi"
        middleware.close()


def test_the_gate_leaves_out_what_does_not_matter(made):
    agent, middleware, model = made(persona_gate="statements")
    put_persona(middleware, "Please use British spelling in emails.")
    agent.invoke(say("Write a Python function that sorts a list of numbers. Code only."), config=at("code"))
    agent.invoke(say("Write an email to my landlord about the heating."), config=at("mail"))
    assert "British" not in model.prompts[0][0].text
    assert "British" in model.prompts[1][0].text


def test_feedback_is_stored_once_and_redacted(made):
    _, middleware, _ = made()
    for _ in range(2):
        middleware.record_feedback(
            "edit", thread_id="t1", user_id="u42", message_id="m1", value=f"Dear {MAIL}", event_id="click-1"
        )
    middleware.record_feedback(FeedbackKind.ABANDON, thread_id="t1")
    first, second = middleware.store.feedback()
    assert (first.kind, first.user_id, first.message_id) == ("edit", pseudonym("u42"), "m1")
    assert MAIL not in first.value
    assert (second.kind, second.user_id, second.message_id) == ("abandon", None, None)
    with pytest.raises(ConfigError, match="thumbs_up"):
        middleware.record_feedback("like", thread_id="t1")


def test_feedback_needs_consent_too(made):
    _, middleware, _ = made()
    middleware.consent.withdraw(pseudonym("u42"), Purpose.LOG)
    assert middleware.record_feedback("copy", thread_id="t1", user_id="u42") is False
    assert list(middleware.store.feedback()) == []


@pytest.mark.parametrize(
    ("option", "remedy"),
    [
        ({"redact": "all"}, "'default', 'off'"),
        ({"consent": {"log": True}}, "ConsentPolicy"),
        ({"persona_gate": "sometimes"}, "'statements'"),
        ({"persona": "on"}, "'shadow'"),
        ({"persona_max_age_s": -1}, "0 or more"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_an_option_that_cannot_work_names_the_remedy(url, option, remedy):
    with pytest.raises(ConfigError, match=remedy):
        RLHIMiddleware(store=url, **option)


def test_integrations_take_the_same_options(url):
    with open_store(url) as store:
        node = with_rlhi(
            lambda state: {"messages": [AIMessage("ok")]}, store=store, consent=ConsentPolicy(default={"log": False})
        )
        graph = StateGraph(MessagesState).add_node("model", node).add_edge(START, "model").compile()
        graph.invoke(say("hi"), config=at())
        assert list(store.conversations()) == []
        graph.invoke(say(MAIL), config=at("t2", user=None))
        assert list(store.conversations()) == []


def run(*words):
    done = CliRunner().invoke(cli.app, list(words), env={"COLUMNS": "200"})
    assert done.exit_code == 0, done.output
    return done.output


def test_an_export_for_training_leaves_out_who_refused(made, url, tmp_path):
    agent, _, _ = made()
    for user in ("u1", "u2"):
        agent.invoke(say(f"hello from {user}"), config=at(user, user))
    run("consent", "withdraw", "u1", "--purpose", "train", "--store", url)
    shown = run("export", "--store", url, "--out", str(tmp_path / "logs.jsonl"), "--purpose", "train")
    assert "1 left out" in shown
    text = (tmp_path / "logs.jsonl").read_text("utf-8")
    assert "hello from u2" in text
    assert "hello from u1" not in text


@pytest.mark.parametrize("name", ["logs.jsonl", "logs.jsonl.gz", "logs.parquet"])
def test_who_was_forgotten_does_not_come_back_by_import(made, url, tmp_path, name):
    agent, middleware, _ = made()
    for user in ("u1", "u2"):
        agent.invoke(say(f"hello from {user}"), config=at(user, user))
    log = tmp_path / name
    run("export", "--store", url, "--out", str(log))
    run("forget", "u1", "--store", url, "--yes", "--registry", str(tmp_path / "registry"))
    run("import", str(log), "--store", url)
    assert [c.user_id for c in middleware.store.conversations()] == [pseudonym("u2")]
    copy = f"sqlite:///{tmp_path}/copy.db"
    run("import", str(log), "--store", copy)
    with open_store(copy) as store:
        assert len(list(store.conversations())) == 2


def test_who_is_forgotten_is_forgotten_by_the_journal_too(url, tmp_path):
    class Down(SQLStore):
        def submit(self, conversation_id, *, user_id, messages):
            raise StoreError("the store is down")

    with open_store(url) as store:
        down = Down(store._engine)
        middleware = RLHIMiddleware(store=down, journal=tmp_path / "rlhi.db.journal")
        agent = create_agent(Model(), tools=[], middleware=[middleware])
        for user in ("u1", "u2"):
            agent.invoke(say(f"hello from {user}"), config=at(user, user))
        assert middleware.dropped == 0
        middleware.close()
        assert journal_folder(url) == tmp_path / "rlhi.db.journal"
    assert "wait" in run("status", "--store", url)
    run("forget", "u1", "--store", url, "--yes", "--force", "--registry", str(tmp_path / "registry"))
    journals = b"".join(path.read_bytes() for path in journal_folder(url).rglob("*") if path.is_file())
    assert b"hello from u2" in journals
    assert b"hello from u1" not in journals
    run("journal", "replay", "--store", url)
    with open_store(url) as store:
        assert [c.user_id for c in store.conversations()] == [pseudonym("u2")]


def test_a_journal_that_an_app_is_writing_does_not_hold_up_forgetting(url, tmp_path):
    class Moody(SQLStore):
        down = True

        def submit(self, conversation_id, *, user_id, messages):
            if self.down:
                raise StoreError("the store is down")
            return super().submit(conversation_id, user_id=user_id, messages=messages)

    with open_store(url) as store:
        moody = Moody(store._engine)
        middleware = RLHIMiddleware(store=moody, journal=tmp_path / "rlhi.db.journal")
        agent = create_agent(Model(), tools=[], middleware=[middleware])
        for user in ("u1", "u2"):
            agent.invoke(say(f"hello from {user}"), config=at(user, user))
        words = ("forget", "u1", "--store", url, "--yes", "--force", "--registry", str(tmp_path / "none"))
        forgetting = threading.Thread(target=run, args=words, daemon=True)
        forgetting.start()
        forgetting.join(20)
        assert not forgetting.is_alive()
        moody.down = False
        # What it holds goes to the store, whose tombstone refuses what is from before.
        end = time.monotonic() + 20
        while middleware.status().waiting and time.monotonic() < end:
            time.sleep(0.05)
        middleware.close()
        assert [c.user_id for c in store.conversations()] == [pseudonym("u2")]
    journals = b"".join(path.read_bytes() for path in journal_folder(url).rglob("*") if path.is_file())
    assert b"hello from u1" not in journals


def test_a_closed_middleware_leaves_no_thread_behind(url):
    already = set(threading.enumerate())

    def left():
        # The commit thread ends by itself when nothing has come for a while.
        mine = set(threading.enumerate()) - already
        return [thread.name for thread in mine if thread.name.startswith("rlhi-") and thread.name != "rlhi-commit"]

    middleware = RLHIMiddleware(store=url, commands=True)
    agent = create_agent(Model(), tools=[], middleware=[middleware])
    agent.invoke(say("hello"), config=at("t", "u1"))
    agent.invoke(say("/what-do-you-know"), config=at("t", "u1"))
    assert left()
    middleware.close()
    deadline = time.monotonic() + 30
    while left() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not left()
    middleware.store.close()
