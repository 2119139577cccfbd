"""Conversations that nothing may be learned from: out of exports, imports kept so, personas and training."""

import gzip
import json
from datetime import UTC, datetime, timedelta

import pytest
from typer.testing import CliRunner

from rlhi_plugin import cli, open_store
from rlhi_plugin.errors import ConfigError
from rlhi_plugin.logs import read_conversations
from rlhi_plugin.parquet_logs import read_parquet
from rlhi_plugin.privacy import ConsentCache
from rlhi_plugin.privacy.exclusions import exclusion, exclusions_in, read_exclusions
from rlhi_plugin.records import Conversation, FeedbackEvent, FeedbackKind, FollowUp, FollowUpLabel, Message, Purpose

NOW = datetime(2026, 5, 1, tzinfo=UTC)


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path}/a.db"


@pytest.fixture
def store(url):
    with open_store(url) as opened:
        for user, thread in (("u_1", "t1"), ("u_1", "t2"), ("u_2", "t3"), (None, "t4"), (None, "t5")):
            said = [("user", "Cats?"), ("assistant", "Cats are small."), ("user", "Shorter, please.")]
            opened.append(
                thread,
                user_id=user,
                messages=[
                    Message(id=f"m{i}", role=role, content=text, created_at=NOW) for i, (role, text) in enumerate(said)
                ],
            )
        opened.record_feedback(exclusion("t1", "u_1", NOW))
        opened.record_feedback(exclusion("t4", None, NOW))
        yield opened


def rlhi(*arguments):
    done = CliRunner().invoke(cli.app, [str(argument) for argument in arguments])
    assert done.exit_code == 0, (done.output, done.exception)
    return done.output


def names(file):
    return [c.conversation_id for c in read_conversations(file)]


def test_saying_it_twice_is_once(store):
    assert not store.record_feedback(exclusion("t1", "u_1", NOW + timedelta(days=1)))
    assert store.record_feedback(exclusion("t1", "u_2", NOW)), "another's is another"


def test_nobody_excludes_what_is_anothers(store):
    store.record_feedback(exclusion("t3", "u_1", NOW))
    store.record_feedback(exclusion("t3", None, NOW))
    exclusions = exclusions_in(store)
    assert [c.conversation_id for c in store.conversations() if exclusions.of(c)] == ["t1", "t4"]


@pytest.mark.parametrize("name", ["logs.jsonl", "logs.jsonl.gz", "logs.parquet"])
@pytest.mark.parametrize("purpose", [(), ("--purpose", "train")])
def test_exports_leave_them_out_and_count_them(store, url, tmp_path, name, purpose):
    said = rlhi("export", "--store", url, "--out", tmp_path / name, *purpose)
    assert "3 conversation(s) written" in said
    assert "2 left out: their users want nothing to be learned from them" in said
    assert names(tmp_path / name) == ["t2", "t3", "t5"]
    if name.endswith(".parquet"):
        assert [c.conversation_id for c in read_parquet(tmp_path / name)] == ["t2", "t3", "t5"]
    else:
        exclusions = read_exclusions(tmp_path / name)
        assert [c.conversation_id for c in store.conversations() if exclusions.of(c)] == ["t1", "t4"]


def test_who_refuses_a_purpose_is_not_named_in_the_file(store, url, tmp_path):
    ConsentCache(store, quiet=True).withdraw("u_1", Purpose.TRAIN)
    said = rlhi("export", "--store", url, "--out", tmp_path / "logs.jsonl", "--purpose", "train")
    assert "2 left out: their users do not allow train" in said
    assert "1 left out: their users want nothing" in said
    assert "u_1" not in (tmp_path / "logs.jsonl").read_text("utf-8")


def test_an_import_takes_the_refusal_along(store, url, tmp_path):
    rlhi("export", "--store", url, "--out", tmp_path / "logs.jsonl")
    copy = f"sqlite:///{tmp_path}/copy.db"
    rlhi("import", tmp_path / "logs.jsonl", "--store", copy)
    with open_store(copy) as opened:
        exclusions = exclusions_in(opened)
        assert [c.conversation_id for c in store.conversations() if exclusions.of(c)] == ["t1", "t4"]


def test_a_parquet_export_without_exclusions_stays_the_fast_one(url, tmp_path):
    with open_store(url) as opened:
        opened.append("t", user_id=None, messages=[Message(id="m", role="user", content="Hi", created_at=NOW)])
    assert "1 conversation(s) written" in rlhi("export", "--store", url, "--out", tmp_path / "logs.parquet")


def test_age_does_not_end_a_refusal(store):
    store.record_feedback(
        FeedbackEvent(event_id="e", conversation_id="t1", user_id="u_1", kind=FeedbackKind.COPY, created_at=NOW)
    )
    store.purge(before=NOW + timedelta(days=1))
    assert [event.kind for event in store.feedback()] == [FeedbackKind.DO_NOT_LEARN] * 2


def test_forgetting_ends_it(store):
    store.forget("u_1")
    assert [event.user_id for event in store.feedback()] == [None]


class Labeller:
    name = "all-feedback"

    async def label(self, exchanges):
        return [
            FollowUp(conversation_id=e.conversation_id, turn=e.turn, message_id=e.message_id,
                     label=FollowUpLabel.WITH_FEEDBACK, labeller=self.name)
            for e in exchanges
        ]  # fmt: skip


@pytest.fixture
def labeller(monkeypatch):
    monkeypatch.setattr("rlhi_plugin.labelling.load_labeller", lambda name, llm=None: Labeller())


@pytest.mark.usefixtures("labeller")
def test_personas_are_not_built_from_them(store, url):
    said = rlhi("persona", "build", "--store", url)
    assert "2 persona(s) built, 2 of them with statements" in said
    assert "1 conversation(s) not read: their users want nothing to be learned from them" in said
    assert store.get_persona("u_1").turns_read == 2
    assert {e.conversation_id for s in store.get_persona("u_1").statements for e in s.evidence} == {"t2"}


@pytest.mark.usefixtures("labeller")
def test_what_was_learned_before_is_unlearned(store, url):
    store.record_feedback(exclusion("t2", "u_1", NOW))
    rlhi("persona", "build", "--store", url)
    assert store.get_persona("u_1").statements == ()
    rlhi("persona", "build", "--store", url)
    store.record_feedback(exclusion("t3", "u_2", NOW))
    assert store.get_persona("u_2").statements
    rlhi("persona", "build", "--store", url)
    assert store.get_persona("u_2").statements == ()


@pytest.mark.usefixtures("labeller")
def test_who_refuses_to_be_personalised_is_passed_over(store, url):
    ConsentCache(store, quiet=True).withdraw("u_2", Purpose.PERSONALISE)
    said = rlhi("persona", "build", "--store", url)
    assert "1 persona(s) built" in said
    assert "1 user(s) passed over: they do not allow personalise" in said
    assert store.get_persona("u_2") is None
    assert "0 persona(s) built" in rlhi("persona", "build", "--store", url, "--user", "u_2")


# The file


def line(record):
    return json.dumps({"schema": 1, **json.loads(record.to_json())}, separators=(",", ":")) + "\n"


def test_a_conversation_about_it_is_no_exclusion(tmp_path):
    talk = Conversation(
        conversation_id="c",
        messages=(Message(id="m", role="user", content='What does "do_not_learn" mean?'),),
    )
    event = FeedbackEvent(event_id="e", conversation_id="c", kind=FeedbackKind.COPY, value='"do_not_learn"')
    file = tmp_path / "logs.jsonl"
    file.write_text(line(talk) + line(event) + 'no json "do_not_learn"\n', "utf-8")
    assert not read_exclusions(file)


def test_a_damaged_exclusion_is_not_passed_over(tmp_path):
    file = tmp_path / "logs.jsonl"
    good = line(exclusion("c", None, NOW))
    for bad in (good[:-5] + "\n", good.replace('"conversation_id":"c"', '"conversation_id":""')):
        file.write_text("{}\n" + bad, "utf-8")
        with pytest.raises(ConfigError, match=r"logs\.jsonl:2: the exclusion is damaged"):
            read_exclusions(file)


def test_what_cannot_be_read_is_said(tmp_path):
    with pytest.raises(ConfigError, match="cannot read"):
        read_exclusions(tmp_path / "none.jsonl")
    torn = tmp_path / "torn.jsonl.gz"
    torn.write_bytes(gzip.compress(line(exclusion("c", None, NOW)).encode())[:-9])
    read_exclusions(torn)
    assert not read_exclusions(tmp_path / "logs.csv")
