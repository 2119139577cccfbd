"""What apps and disks get wrong: a clear error or a correct record, and nothing lost."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
import uuid
from contextlib import ExitStack, closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
from langchain.agents import create_agent
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from moody_store import contents, until
from typer.testing import CliRunner

from rlhi_plugin import RLHIMiddleware, cli, open_store, recorder
from rlhi_plugin.errors import ConfigError, StoreError
from rlhi_plugin.identity import pseudonym

ROOT = Path(__file__).parents[2]
AT = {"configurable": {"thread_id": "t", "user_id": "u"}}


class Mute:
    """An object that cannot even say its name."""

    def __str__(self):
        raise RuntimeError("no name")

    __repr__ = __str__


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("RLHI_KEY", "0123456789abcdef")


@pytest.fixture
def made(tmp_path):
    """Makes agents and their middleware, on one store."""
    with ExitStack() as closed:

        def make(answer=None, **options):
            middleware = RLHIMiddleware(store=f"sqlite:///{tmp_path}/rlhi.db", **options)
            closed.callback(middleware.store.close)
            closed.callback(middleware.close)
            model = GenericFakeChatModel(messages=iter(lambda: answer or AIMessage("ok"), None))
            return create_agent(model, middleware=[middleware]), middleware

        yield make


def stored(middleware):
    return [m for c in middleware.store.conversations() for m in c.messages]


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ([{"type": "text", "text": "hi"}, {"type": "odd", "x": Mute()}], "hi\n[odd]"),
        ([{"type": "text", "text": "hi"}, {"type": "text", "text": Mute()}], "hi\n[Mute]"),
        ("a\0b \ud800", "a\ufffdb ?"),
    ],
)
@pytest.mark.parametrize("redact", ["default", "off"])
def test_content_that_cannot_be_written_down(made, content, text, redact):
    agent, middleware = made(redact=redact)
    agent.invoke({"messages": [HumanMessage(content)]}, config=AT)
    assert [m.content for m in stored(middleware)] == [text, "ok"]
    assert middleware.dropped == 0


@pytest.mark.parametrize("redact", ["default", "off"])
def test_tool_arguments_that_cannot_be_written_down(made, redact):
    agent, middleware = made(redact=redact)
    call = AIMessage("", tool_calls=[{"name": "f", "args": {"x": Mute()}, "id": "1"}])
    agent.invoke({"messages": [HumanMessage("hi"), call, ToolMessage("r", tool_call_id="1")]}, config=AT)
    asked, called, result, answer = stored(middleware)
    assert (asked.content, result.content, answer.content) == ("hi", "r", "ok")
    assert "calls" in called.content or "unserialisable" in called.content
    assert middleware.dropped == 0


@pytest.mark.parametrize(
    "said",
    [
        {"response_metadata": {"model_name": "m\ud800\0"}},
        {"usage_metadata": {"input_tokens": -1, "output_tokens": 2, "total_tokens": 1}},
        {"usage_metadata": {"input_tokens": 2**70, "output_tokens": 2, "total_tokens": 1}},
    ],
    ids=["model", "negative", "huge"],
)
def test_what_a_provider_says_about_itself_does_not_cost_the_turn(made, said):
    agent, middleware = made(AIMessage("ok", **said))
    agent.invoke({"messages": [("user", "hi")]}, config=AT)
    _, answer = stored(middleware)
    assert (answer.content, answer.input_tokens) == ("ok", None)
    assert middleware.status().store_ok


def test_a_run_without_a_thread_whose_message_has_an_odd_id(made):
    agent, middleware = made()
    agent.invoke({"messages": [HumanMessage("hi", id="i\ud800" * 300)]})
    assert [m.content for m in stored(middleware)] == ["hi", "ok"]


@pytest.mark.parametrize("user", [7, uuid.UUID(int=7), "a\0b", "\ud800"])
def test_a_user_of_an_unusual_name_is_one(made, user):
    agent, middleware = made()
    agent.invoke({"messages": [("user", "hi")]}, config={"configurable": {"thread_id": "t", "user_id": user}})
    assert middleware.record_feedback("copy", thread_id="t", user_id=user) is True
    middleware.forget(user)
    owners = {c.user_id for c in middleware.store.conversations()} | {e.user_id for e in middleware.store.feedback()}
    assert owners == {pseudonym(str(user))}


@pytest.mark.parametrize("user", [True, 1.5, b"x", ["x"], Mute()], ids=["bool", "float", "bytes", "list", "object"])
def test_what_is_no_user_is_anonymous_in_a_turn_and_an_error_in_a_call_of_ours(made, user):
    agent, middleware = made()
    agent.invoke({"messages": [("user", "hi")]}, config={"configurable": {"thread_id": "t", "user_id": user}})
    assert [c.user_id for c in middleware.store.conversations()] == [None]
    with pytest.raises(ConfigError, match="Pass a str, an int or a UUID"):
        middleware.record_feedback("copy", thread_id="t", user_id=user)
    with pytest.raises(ConfigError, match="Pass a str, an int or a UUID"):
        middleware.forget(user)


@pytest.mark.parametrize(
    ("given", "remedy"),
    [
        ({"thread_id": None}, "Pass thread_id="),
        ({"thread_id": 1.5}, "Pass a str"),
        ({"message_id": "m" * 257}, "256 at most"),
        ({"message_id": ["m"]}, "Pass a str"),
        ({"event_id": b"e"}, "Pass a str"),
        ({"value": 5}, "as a str"),
        ({"value": b"x"}, "as a str"),
        ({"user_id": ""}, "Pass None"),
        ({"kind": None}, "Choose one of"),
    ],
)
def test_feedback_that_cannot_be(made, given, remedy):
    _, middleware = made()
    with pytest.raises(ConfigError, match=remedy):
        middleware.record_feedback(**{"kind": "edit", "thread_id": "t", **given})


def test_feedback_of_odd_text_is_stored_once(made):
    _, middleware = made()
    odd = {"event_id": "e\ud800" * 300, "message_id": "m\0", "value": "\ud800 and \0", "user_id": "u"}
    assert middleware.record_feedback("edit", thread_id="\ud800" * 300, **odd) is True
    assert middleware.record_feedback("edit", thread_id="\ud800" * 300, **odd) is False
    (event,) = middleware.store.feedback()
    assert (event.value, event.message_id) == ("? and \ufffd", "m\ufffd")


@pytest.mark.slow
def test_ten_megabytes_with_things_to_redact(made, tmp_path):
    agent, middleware = made()
    text = ("The quick brown fox jumps over the lazy dog at 10:30. " * 200_000)[:10_000_000] + " jane@example.com"
    agent.invoke({"messages": [HumanMessage(text)]}, config=AT)
    asked, _ = stored(middleware)
    assert len(asked.content) > 10_000_000
    assert "jane" not in asked.content
    assert middleware.dropped == 0


@pytest.mark.slow
def test_a_thread_of_a_hundred_thousand_turns(made):
    agent, middleware = made(redact="off")
    history = [HumanMessage(f"q{n // 2}") if n % 2 == 0 else AIMessage(f"a{n // 2}") for n in range(200_000)]
    agent.invoke({"messages": [*history, HumanMessage("now")]}, config=AT)
    began = time.process_time()
    agent.invoke({"messages": [*history, HumanMessage("now"), AIMessage("ok"), HumanMessage("and now")]}, config=AT)
    # What was stored is not gone through again.
    assert time.process_time() - began < 5
    until(lambda: not middleware.status().waiting, 60)
    assert middleware.store.counts().messages == 200_004
    assert middleware.dropped == 0


def test_a_clock_that_goes_back_an_hour_in_the_middle_of_a_thread(made, monkeypatch):
    class Clock(datetime):
        hour = 12

        @classmethod
        def now(cls, tz=None):
            return datetime(2026, 1, 1, cls.hour, tzinfo=UTC)

    agent, middleware = made()
    monkeypatch.setattr(recorder, "datetime", Clock)
    agent.invoke({"messages": [("user", "one")]}, config=AT)
    Clock.hour = 11
    agent.invoke({"messages": [("user", "one"), ("ai", "ok"), ("user", "two")]}, config=AT)
    said = stored(middleware)
    assert [m.content for m in said][:3] == ["one", "ok", "two"]
    assert [m.created_at for m in said] == sorted(m.created_at for m in said)


def test_two_apps_on_one_store_at_once_and_a_second_start(made, tmp_path):
    first, one = made()
    second, two = made()
    for number in range(3):
        first.invoke({"messages": [("user", f"first {number}")]}, config=AT)
        second.invoke({"messages": [("user", f"second {number}")]}, config=AT)
    one.close()
    third, three = made()
    third.invoke({"messages": [("user", "third")]}, config=AT)
    said = [m.content for m in stored(three) if m.content != "ok"]
    assert said == ["first 0", "second 0", "first 1", "second 1", "first 2", "second 2", "third"]
    assert one.dropped == two.dropped == three.dropped == 0
    assert not list((tmp_path / "rlhi.db.journal").glob("*"))


def test_an_app_of_a_newer_version_does_not_stop_one_that_runs(made, tmp_path):
    agent, middleware = made()
    agent.invoke({"messages": [("user", "before")]}, config=AT)
    with closing(sqlite3.connect(tmp_path / "rlhi.db")) as newer, newer:
        newer.execute("ALTER TABLE rlhi_messages ADD COLUMN mood TEXT")
        newer.execute("UPDATE rlhi_meta SET value = '99'")
    agent.invoke({"messages": [("user", "after")]}, config=AT)
    assert [m.content for m in stored(middleware) if m.content != "ok"] == ["before", "after"]
    with pytest.raises(StoreError, match="pip install --upgrade rlhi"):
        made()


def rlhi(*words):
    done = CliRunner().invoke(cli.app, list(words), env={"COLUMNS": "200"})
    return str(done.exception) if done.exception else done.output


def log_of(folder, rows):
    file = folder / "log.jsonl"
    turns = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]
    lines = (json.dumps({"conversation_id": f"c{number}", "conversation": turns}) for number in range(rows))
    file.write_text("\n".join(lines))
    return file


@pytest.mark.parametrize("damage", ["cut", "overwritten"])
def test_a_damaged_file_is_said_to_be_one(tmp_path, damage):
    url, file = f"sqlite:///{tmp_path}/a.db", tmp_path / "a.db"
    assert "300 conversation(s) read" in rlhi("import", str(log_of(tmp_path, 300)), "--store", url)
    size = file.stat().st_size
    with file.open("r+b") as stream:
        if damage == "cut":
            stream.truncate(size // 2)
        else:
            stream.seek(4096)
            stream.write(os.urandom(size - 8192))
    assert "restore it from a backup" in rlhi("status", "--store", url)
    out = tmp_path / "out.jsonl"
    assert "restore it from a backup" in rlhi("export", "--store", url, "--out", str(out))
    assert not out.exists()


@pytest.fixture
def read_only(tmp_path):
    """A file system that can be made read-only, and writable again."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounting = ["mount", "-t", "tmpfs", "-o", "size=20m", "none", folder]
    if subprocess.run(mounting, check=False, capture_output=True).returncode:
        pytest.skip("no right to mount")

    def remount(how):
        subprocess.run(["mount", "-o", f"remount,{how}", folder], check=True)

    yield folder, remount
    subprocess.run(["umount", "-l", folder], check=True)


def test_a_disk_that_is_read_only_at_the_start(tmp_path, read_only, monkeypatch):
    folder, remount = read_only
    url = f"sqlite:///{folder}/a.db"
    open_store(url).close()
    remount("ro")
    assert "Check that the path is a file that this user may read and write" in rlhi("status", "--store", url)
    middleware = RLHIMiddleware(store=url, journal=tmp_path / "journal")
    agent = create_agent(GenericFakeChatModel(messages=iter([AIMessage("ok")])), middleware=[middleware])
    assert agent.invoke({"messages": [("user", "hi")]}, config=AT)["messages"][-1].content == "ok"
    assert middleware.status().waiting == 1
    remount("rw")
    until(lambda: not middleware.status().waiting, 40)
    assert contents(middleware.store) == {"t": ["hi", "ok"]}
    middleware.close()
    middleware.store.close()


@pytest.mark.slow
def test_ctrl_c_during_an_import(tmp_path):
    file, url = log_of(tmp_path, 8_000), f"sqlite:///{tmp_path}/a.db"
    command = [sys.executable, "-c", "from rlhi_plugin.cli import main; main()", "import", str(file), "--store", url]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as running:
        assert "to do" in running.stderr.readline()
        until(lambda: _stored_so_far(tmp_path / "a.db") > 100, 60)
        running.send_signal(signal.SIGINT)
        _, said = running.communicate(timeout=60)
    assert running.returncode == 130, said
    assert "run the same command again to continue" in said
    assert "Traceback" not in said
    before = _stored_so_far(tmp_path / "a.db")
    assert 0 < before < 16_000
    # Each conversation is there whole, or not at all.
    assert before % 2 == 0
    assert f"{16_000 - before} new message(s) stored" in rlhi("import", str(file), "--store", url)
    assert _stored_so_far(tmp_path / "a.db") == 16_000


def _stored_so_far(file):
    try:
        with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as connection:
            return connection.execute("SELECT count(*) FROM rlhi_messages").fetchone()[0]
    except sqlite3.OperationalError:
        return 0
