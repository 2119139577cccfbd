"""Who was forgotten, and whose app still holds the old thread and sends it again and again."""

import itertools

import pytest
from langchain.agents import create_agent
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage
from langgraph.checkpoint.memory import InMemorySaver

from rlhi_plugin import RLHIMiddleware, open_store
from rlhi_plugin.identity import pseudonym
from rlhi_plugin.records import Purpose


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("RLHI_KEY", "0123456789abcdef")


class App:
    """An app that keeps its threads itself, or lets a checkpointer do it, and may be restarted."""

    def __init__(self, url, saver):
        self.url, self.saver = url, saver
        self.histories = {}
        self.numbers = itertools.count(1)
        self.middleware = RLHIMiddleware(store=url)

    def restart(self):
        self.close()
        self.middleware = RLHIMiddleware(store=self.url)

    def close(self):
        self.middleware.close()
        self.middleware.store.close()

    def say(self, text, thread="t"):
        model = GenericFakeChatModel(messages=iter([AIMessage(f"answer {next(self.numbers)}")]))
        agent = create_agent(model, middleware=[self.middleware], checkpointer=self.saver)
        config = {"configurable": {"thread_id": thread, "user_id": "u"}}
        history = [] if self.saver else self.histories.setdefault(thread, [])
        history.append(("user", text))
        answer = agent.invoke({"messages": list(history)}, config=config)["messages"][-1].content
        history.append(("ai", answer))

    def stored(self, thread="t"):
        return [m for c in self.middleware.store.conversations() if c.conversation_id == thread for m in c.messages]

    def texts(self, thread="t"):
        return [message.content for message in self.stored(thread)]


@pytest.fixture(params=["own history", "checkpointer"])
def app(request, tmp_path):
    made = App(f"sqlite:///{tmp_path}/rlhi.db", InMemorySaver() if request.param == "checkpointer" else None)
    yield made
    made.close()


def forget(app):
    """As `rlhi forget` does: in another process, which tells nobody."""
    with open_store(app.url) as store:
        store.forget(pseudonym("u"))


@pytest.mark.parametrize("restarts", [True, False])
def test_an_old_thread_that_is_sent_again_brings_nothing_back(app, restarts):
    for text in ("old one", "yes"):
        app.say(text)
    forget(app)
    if restarts:
        app.restart()
    for text in ("new one", "yes", "new two", "yes"):
        app.say(text)
    assert app.texts() == ["new one", "answer 3", "yes", "answer 4", "new two", "answer 5", "yes", "answer 6"]
    assert [message.parent_id for message in app.stored()] == [None] * 8


def test_a_process_that_knows_the_user_but_not_the_thread_asks_again(app):
    """Consent is remembered for half a minute: long enough to bring a whole thread back."""
    app.say("old one")
    app.say("old two")
    app.restart()
    app.say("elsewhere", "t2")
    forget(app)
    app.say("new one")
    app.say("new two")
    assert app.texts() == ["new one", "answer 4", "new two", "answer 5"]


def test_the_past_of_a_thread_that_was_never_logged_is_stored_for_anybody_else(app):
    app.middleware.close()
    app.middleware = RLHIMiddleware(store=app.url, redact="off")
    app.histories["t"] = [("user", "before"), ("ai", "then")]
    app.say("now")
    assert app.texts()[-2:] == ["now", "answer 1"]
    assert ("before" in app.texts()) == (app.saver is None)


def test_what_was_said_without_consent_stays_out_and_the_rest_is_one_line(app):
    app.say("allowed")
    app.middleware.consent.withdraw(pseudonym("u"), Purpose.LOG)
    app.say("not allowed")
    app.middleware.consent.grant(pseudonym("u"), Purpose.LOG)
    for text in ("again", "allowed", "and again"):
        app.say(text)
    assert app.texts()[::2] == ["allowed", "again", "allowed", "and again"]
    assert [message.parent_id for message in app.stored()] == [None] * 8
