"""What waits in the journal while its user changes their mind, and feedback that goes the same way as turns."""

from datetime import UTC, datetime, timedelta

import pytest
from langchain.agents import create_agent
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage
from langgraph.checkpoint.memory import InMemorySaver
from moody_store import contents, until
from typer.testing import CliRunner

from rlhi_plugin import RLHIMiddleware, cli, open_store
from rlhi_plugin.durability.folders import read_folder, replay_folder
from rlhi_plugin.durability.journal import Journal
from rlhi_plugin.durability.replay import replay
from rlhi_plugin.durability.turn_file import JournalledTurn, blank, decode, encode
from rlhi_plugin.errors import ConfigError, OwnerMismatchError, StoreError
from rlhi_plugin.identity import pseudonym
from rlhi_plugin.records import ConsentDecision, FeedbackEvent, Message, Purpose
from rlhi_plugin.stores import SQLStore

ANN, BOB = "ann", "bob"


class Switched(SQLStore):
    """A real SQLite store that takes nothing while it is off; what it holds can be read all the same."""

    down = False

    def submit(self, conversation_id, *, user_id, messages):
        if self.down:
            raise StoreError("switched off")
        return super().submit(conversation_id, user_id=user_id, messages=messages)

    def record_feedback(self, event):
        if self.down:
            raise StoreError("switched off")
        return super().record_feedback(event)


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("RLHI_KEY", "0123456789abcdef")


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path}/rlhi.db"


@pytest.fixture
def store(url):
    with open_store(url) as opened:
        yield Switched(opened._engine)


@pytest.fixture
def made(store, tmp_path):
    middleware = RLHIMiddleware(store=store, journal=tmp_path / "rlhi.db.journal")
    model = GenericFakeChatModel(messages=iter(lambda: AIMessage("ok"), None))
    agent = create_agent(model, middleware=[middleware], checkpointer=InMemorySaver())

    def talk(text, user=ANN):
        agent.invoke({"messages": [("user", text)]}, config={"configurable": {"thread_id": user, "user_id": user}})

    yield talk, middleware
    middleware.close()


def journal_bytes(tmp_path):
    return b"".join(path.read_bytes() for path in (tmp_path / "rlhi.db.journal").rglob("*") if path.is_file())


def status_of(url):
    return CliRunner().invoke(cli.app, ["status", "--store", url], env={"COLUMNS": "200"}).output


def test_a_turn_that_waited_is_not_stored_after_its_user_withdrew(made, store, url, tmp_path):
    talk, middleware = made
    store.down = True
    talk("of ann")
    talk("of bob", BOB)
    assert middleware.status().waiting == 2
    middleware.consent.withdraw(pseudonym(ANN), Purpose.LOG)
    store.down = False
    until(lambda: not middleware.status().waiting, 30)
    assert contents(store) == {BOB: ["of bob", "ok"]}
    assert (middleware.status().withheld, middleware.status().replayed, middleware.dropped) == (1, 1, 0)
    assert b"of ann" not in journal_bytes(tmp_path)
    assert "1 turn(s) were erased from the journal and not stored: 1 withdrawn" in status_of(url)


def test_a_turn_that_waited_is_not_stored_after_its_user_was_forgotten(made, store, url, tmp_path):
    talk, middleware = made
    store.down = True
    talk("of ann")
    middleware.record_feedback("edit", thread_id=ANN, user_id=ANN, value="as ann wants it")
    talk("of bob", BOB)
    store.forget(pseudonym(ANN))
    store.down = False
    until(lambda: not middleware.status().waiting, 30)
    assert contents(store) == {BOB: ["of bob", "ok"]}
    assert list(store.feedback()) == []
    assert middleware.status().withheld == 2
    assert b"ann" not in journal_bytes(tmp_path)
    assert "2 forgotten" in status_of(url)
    # Who comes back is logged as anybody.
    middleware.forget(ANN)
    talk("ann is back")
    assert contents(store)[ANN] == ["ann is back", "ok"]


def line(text, user, at):
    return JournalledTurn(
        conversation_id=f"c-{user}", user_id=user,
        messages=(Message(id=text[:99], role="user", content=text, created_at=at),),
    )  # fmt: skip


def test_the_words_go_at_once_also_where_other_lines_wait_on(tmp_path, store):
    journal = Journal(tmp_path / "journal")
    now = datetime.now(UTC)
    for text, user in (("gone", "u_1"), ("waits", "u_2"), ("also gone", "u_1")):
        journal.append(line(text, user, now))

    def put(turn):
        if turn.user_id == "u_1":
            return "withdrawn"
        raise StoreError("not yet")

    done = replay(journal, put)
    assert (done.withheld, done.left) == (2, 1)
    files = b"".join(path.read_bytes() for path in (tmp_path / "journal").iterdir())
    assert b"gone" not in files
    assert b"u_1" not in files
    journal.close()
    report = read_folder(tmp_path / "journal")
    assert (report.files[0].damaged, report.withheld) == (0, {"withdrawn": 2})
    store.put_consent(ConsentDecision(user_id="u_2", purpose=Purpose.LOG, granted=True, decided_at=now))
    assert replay_folder(tmp_path / "journal", store).left == 0
    assert contents(store) == {"c-u_2": ["waits"]}


def test_a_decision_that_cannot_be_read_keeps_the_turn_waiting(tmp_path, store):
    class Unread(SQLStore):
        def consents(self, user_id):
            raise StoreError("cannot read")

    journal = Journal(tmp_path / "journal")
    journal.append(line("one", "u_1", datetime.now(UTC)))
    journal.close()
    unread = Unread(store._engine)
    done = replay_folder(tmp_path / "journal", unread)
    assert (done.replayed, done.left) == (0, 1)
    assert contents(store) == {}
    assert replay_folder(tmp_path / "journal", store).replayed == 1


def test_what_was_set_aside_is_asked_about_too(tmp_path, store):
    journal = Journal(tmp_path / "journal")
    for user in ("u_1", "u_2"):
        journal.append(line(f"of {user}", user, datetime.now(UTC) - timedelta(seconds=1)))

    def put(turn):
        raise OwnerMismatchError("somebody else's")

    replay(journal, put)
    journal.close()
    store.forget("u_1")
    done = replay_folder(tmp_path / "journal", store, refused=True)
    assert (done.replayed, done.withheld, done.refused) == (1, 1, 0)
    assert contents(store) == {"c-u_2": ["of u_2"]}
    assert read_folder(tmp_path / "journal").withheld == {"forgotten": 1}


def test_the_command_says_what_it_erased(tmp_path, store, url):
    journal = Journal(tmp_path / "rlhi.db.journal")
    journal.append(line("of u_1", "u_1", datetime.now(UTC)))
    journal.close()
    store.put_consent(ConsentDecision(user_id="u_1", purpose=Purpose.LOG, granted=False, decided_at=datetime.now(UTC)))
    done = CliRunner().invoke(cli.app, ["journal", "replay", "--store", url], env={"COLUMNS": "200"})
    assert "1 erased" in done.output
    assert "1 withdrawn" in CliRunner().invoke(cli.app, ["journal", "status", "--store", url]).output
    assert contents(store) == {}


@pytest.mark.parametrize("text", ["", "x" * 5000])
def test_a_blank_line_has_the_length_of_what_it_covers(text):
    raw = encode(line(text or "x", "u_1", datetime.now(UTC)))
    covered = decode(blank(len(raw)), 0)
    assert covered.length == len(raw)
    assert covered.turn == JournalledTurn(conversation_id="-")


def click(middleware, number, thread=ANN):
    return middleware.record_feedback(
        "edit", thread_id=thread, user_id=ANN, value=f"edit {number} of jane@example.com", event_id=f"click-{number}"
    )


def test_feedback_goes_to_the_journal_and_once_in_order_to_the_store(made, store, tmp_path):
    talk, middleware = made
    assert click(middleware, 0) is True
    assert click(middleware, 0) is False
    store.down = True
    talk("hi")
    for number in (1, 2, 1):
        assert click(middleware, number) is True
    talk("again")
    assert middleware.status().waiting == 5
    assert b"jane@example.com" not in journal_bytes(tmp_path)
    store.down = False
    until(lambda: not middleware.status().waiting, 30)
    assert [event.event_id for event in store.feedback()] == ["click-0", "click-1", "click-2"]
    assert contents(store)[ANN] == ["hi", "ok", "again", "ok"]
    assert middleware.dropped == 0


def test_feedback_survives_the_process_that_took_it(made, store, url, tmp_path):
    _, middleware = made
    store.down = True
    click(middleware, 1)
    middleware.close()
    done = CliRunner().invoke(cli.app, ["journal", "replay", "--store", url], env={"COLUMNS": "200"})
    assert "1 turn(s) replayed" in done.output
    (event,) = store.feedback()
    assert (event.event_id, event.user_id) == ("click-1", pseudonym(ANN))


def test_feedback_that_nothing_takes_is_counted_and_breaks_nothing(store):
    middleware = RLHIMiddleware(store=store, journal=None)
    store.down = True
    assert click(middleware, 1) is False
    assert middleware.dropped == 1
    middleware.close()


def test_feedback_waits_in_memory_where_the_app_asked_for_that(store, tmp_path):
    middleware = RLHIMiddleware(store=store, durability="async", journal=tmp_path / "journal")
    assert click(middleware, 1) is True
    assert middleware.flush(10)
    assert [event.event_id for event in store.feedback()] == ["click-1"]
    middleware.close()


def test_misuse_of_feedback_is_still_said(made, tmp_path):
    _, middleware = made
    with pytest.raises(ConfigError, match="thumbs_up"):
        middleware.record_feedback("like", thread_id="t")

    class Deaf:
        def append(self, conversation_id, *, user_id, messages):
            return 0

        def conversations(self, *, user_id=None):
            return iter(())

        def close(self):
            pass

    deaf = RLHIMiddleware(store=Deaf(), persona="off", journal=tmp_path / "deaf")
    with pytest.raises(ConfigError, match="keeps no feedback"):
        deaf.record_feedback("copy", thread_id="t")
    deaf.close()


def test_an_event_in_an_old_journal_line_is_none():
    old = encode(line("x", "u_1", datetime.now(UTC)))
    assert b"feedback" not in old
    assert decode(old, 0).turn.feedback is None
    event = FeedbackEvent(event_id="e", conversation_id="c", kind="copy")
    assert decode(encode(JournalledTurn(conversation_id="c", feedback=event)), 0).turn.feedback == event
