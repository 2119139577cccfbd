"""`rlhi-train label`: any log in, one line per follow-up out; bad rows are named, nothing is half written."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from typer.testing import CliRunner

from rlhi_plugin.chat import ScriptedClient
from rlhi_plugin.errors import ConfigError, ModelCallError, UserError
from rlhi_plugin.fake_provider import ByContent, FakeProvider, HTTPFault, ProviderRequest
from rlhi_plugin.labelling.llm import LLMLabeller
from rlhi_plugin.logs import write_conversations
from rlhi_plugin.privacy.exclusions import exclusion
from rlhi_plugin.privacy.tombstones import append_tombstones
from rlhi_plugin.records import Conversation, FeedbackEvent, FeedbackKind, FollowUpLabel, Tombstone
from rlhi_training.cli import app
from rlhi_training.labelling.label_log import LabelOptions, label_log

FIELDS = ["conversation_id", "turn", "message_id", "label", "subtype", "probabilities", "evidence", "labeller"]


def row(name: str, *turns: tuple[str, str]) -> str:
    conversation = [{"role": {"u": "user", "a": "assistant"}[who], "content": text} for who, text in turns]
    return json.dumps({"conversation_hash": name, "conversation": conversation})


def run(*arguments: object):
    return CliRunner().invoke(app, ["label", *map(str, arguments)])


@pytest.fixture
def wildchat_log(tmp_path):
    lines = [
        row("one", ("u", "Basil?"), ("a", "Water it."), ("u", "Shorter, please."), ("a", "Water."), ("u", "Thanks!")),
        row("two", ("u", "Hello"), ("u", "Are you there?"), ("a", "Yes."), ("u", "Tell me a joke"), ("u", "")),
        row("three", ("a", "Welcome!"), ("u", "Hello")),
        "{ not json",
        json.dumps({"conversation_hash": "four", "conversation": "gone"}),
    ]
    path = tmp_path / "log.jsonl"
    path.write_text("\n".join(lines) + "\n")
    return path


def test_every_follow_up_has_a_line_also_those_without_an_answer_before_them(wildchat_log, tmp_path):
    done = run(wildchat_log, "--labeller", "fast", "--out", tmp_path / "out.jsonl", "--refused", tmp_path / "bad.jsonl")
    assert done.exit_code == 0, done.output
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    # `turn` counts user messages from 1, the initial request included.
    assert [(one["conversation_id"], one["turn"], one["message_id"]) for one in rows] == [
        ("one", 2, "one:2"),
        ("one", 3, "one:4"),
        ("two", 2, "two:1"),
        ("two", 3, "two:3"),
        ("two", 4, "two:4"),
    ]
    assert all(list(one) == FIELDS for one in rows)
    assert all(sum(one["probabilities"].values()) == pytest.approx(1.0, abs=1e-4) for one in rows)
    assert all(set(one["probabilities"]) == {name.value for name in FollowUpLabel} for one in rows)
    assert rows[0]["label"] == "reattempt_with_feedback"
    assert rows[0]["evidence"] == "Shorter, please."
    assert rows[1]["label"] == "positive_feedback"
    refused = [json.loads(line) for line in (tmp_path / "bad.jsonl").read_text().splitlines()]
    assert [one["line"] for one in refused] == [4, 5]
    assert "log.jsonl:4" in done.output
    assert "5 follow-up(s) of 3 conversation(s)" in done.output.replace("\n", " ")


def test_a_log_without_one_good_row_is_refused_and_leaves_no_file(tmp_path):
    (tmp_path / "log.jsonl").write_text("{ no\n")
    done = run(tmp_path / "log.jsonl", "--labeller", "fast", "--out", tmp_path / "out.jsonl")
    assert isinstance(done.exception, ConfigError)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log.jsonl"]


def test_an_earlier_output_survives_a_failure(wildchat_log, tmp_path):
    (tmp_path / "out.jsonl").write_text("before\n")
    (tmp_path / "bad").mkdir()
    done = run(wildchat_log, "--labeller", "fast", "--out", tmp_path / "out.jsonl", "--refused", tmp_path / "bad")
    assert done.exit_code != 0
    assert (tmp_path / "out.jsonl").read_text() == "before\n"


@pytest.mark.parametrize("option", ["--out", "--refused", "--signals"])
def test_the_log_is_never_written_over(wildchat_log, tmp_path, option):
    before = wildchat_log.read_bytes()
    files = {"--out": tmp_path / "out.jsonl", option: wildchat_log.parent / "." / "log.jsonl"}
    done = run(wildchat_log, "--labeller", "fast", *(word for pair in files.items() for word in pair))
    assert isinstance(done.exception, ConfigError)
    assert "Name another file" in str(done.exception)
    assert wildchat_log.read_bytes() == before
    twice = run(wildchat_log, "--labeller", "fast", "--out", tmp_path / "x", "--signals", tmp_path / "x")
    assert "Give each its own" in str(twice.exception)


def test_a_folder_of_logs_gets_no_labels_into_it(wildchat_log):
    done = run(wildchat_log.parent, "--labeller", "fast", "--out", wildchat_log.parent / "out.jsonl")
    assert "Name another file" in str(done.exception)


def test_a_log_needs_an_output_and_has_to_be_there(wildchat_log, tmp_path):
    assert isinstance(run(wildchat_log).exception, UserError)
    assert isinstance(run(tmp_path / "absent.jsonl", "--out", tmp_path / "x").exception, UserError)


async def test_our_own_export_signals_and_hindsight(conversation, tmp_path, cue_labeller):
    log = [
        conversation("c", ["Basil?", "Water.", "And light?", "Some.", "Be brief please", "Ok. More?"]),
        FeedbackEvent(event_id="e", conversation_id="c", message_id="c-1", kind=FeedbackKind.THUMBS_UP),
    ]
    write_conversations(tmp_path / "logs.jsonl", log)
    options = LabelOptions(hindsight=True, signals=tmp_path / "signals.jsonl")
    counts = await label_log(tmp_path / "logs.jsonl", tmp_path / "out.jsonl", cue_labeller, options)
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    # The labeller of this test gives no sub-types, so nothing is known to be neutral.
    assert [(one["label"], one["hindsight"]) for one in rows] == [
        ("new_request", None),
        ("reattempt_with_feedback", None),
    ]
    signals = [json.loads(line) for line in (tmp_path / "signals.jsonl").read_text().splitlines()]
    assert [(one["kind"], one["origin"], one["message_id"]) for one in signals] == [
        ("abandon", "thread", "c-5"),
        ("thumbs_up", "event", "c-1"),
    ]
    assert counts.signals == {"abandon": 1, "thumbs_up": 1}


async def test_a_follow_up_that_a_model_cannot_label_is_named_and_the_rest_is_labelled(conversation, tmp_path):
    def say(request):
        return "no" if "vile" in request.messages[1].content else '{"label": "new_request"}'

    logs, out, bad = (tmp_path / name for name in ("logs.jsonl", "out.jsonl", "bad.jsonl"))
    write_conversations(logs, [conversation("c", ["Q", "A", "vile", "B"]), conversation("d", ["Q", "A", "more", "B"])])
    counts = await label_log(logs, out, LLMLabeller(ScriptedClient(say)), LabelOptions(refused=bad))
    assert [json.loads(line)["conversation_id"] for line in out.read_text().splitlines()] == ["d"]
    (row,) = map(json.loads, bad.read_text().splitlines())
    assert (row["conversation_id"], row["turn"]) == ("c", 2)
    assert "JSON" in row["reason"]
    assert (counts.refused, counts.named[0][:9]) == (1, "c, turn 2")
    out.unlink()
    with pytest.raises(ModelCallError):
        await label_log(logs, out, LLMLabeller(ScriptedClient(["no"])), LabelOptions())
    assert not out.exists()


async def test_what_users_keep_out_is_not_labelled_and_counted(conversation, tmp_path, cue_labeller):
    def said(name: str) -> Conversation:
        return conversation(name, ["Basil?", "Water.", "Shorter please", "Ok."], user="u1")

    log = [
        said("kept"),
        said("private"),
        exclusion("private", "u1", datetime(2026, 1, 3, tzinfo=UTC)),
        conversation("gone", ["Mint?", "Water.", "Shorter please", "Ok."], user="u2"),
        FeedbackEvent(event_id="c", conversation_id="kept", user_id="u1", kind=FeedbackKind.COPY),
        FeedbackEvent(event_id="a", conversation_id="private", user_id="u1", kind=FeedbackKind.THUMBS_UP),
        FeedbackEvent(event_id="b", conversation_id="gone", user_id="u2", kind=FeedbackKind.THUMBS_UP),
    ]
    logs, out, signals = (tmp_path / name for name in ("logs.jsonl", "out.jsonl", "signals.jsonl"))
    write_conversations(logs, log)
    append_tombstones(logs, [Tombstone(user_id="u2", forgotten_at=datetime(2030, 1, 1, tzinfo=UTC))])
    counts = await label_log(logs, out, cue_labeller, LabelOptions(signals=signals))
    assert {json.loads(line)["conversation_id"] for line in out.read_text().splitlines()} == {"kept"}
    assert {json.loads(line)["conversation_id"] for line in signals.read_text().splitlines()} == {"kept"}
    assert (counts.conversations, counts.kept_out) == (1, 2)


def test_a_data_set_of_a_hub_is_labelled_too(wildchat_log, tmp_path):
    folder = tmp_path / "hub"
    folder.mkdir()
    good = wildchat_log.read_text().splitlines()[:1]
    wildchat_log.write_text(good[0] + "\n" + row("five", ("u", "Hi"), ("a", "Hello."), ("u", "Bye")) + "\n")
    (folder / "train.jsonl").write_bytes(wildchat_log.read_bytes())
    address = f"hf://datasets/{folder}"
    done = run(address, "--labeller", "fast", "--out", tmp_path / "hub.jsonl")
    assert done.exit_code == 0, done.output
    plain = run(wildchat_log, "--labeller", "fast", "--out", tmp_path / "plain.jsonl")
    assert plain.exit_code == 0, plain.output
    labels = [
        [(one["message_id"], one["label"], one["evidence"]) for one in map(json.loads, file.read_text().splitlines())]
        for file in (tmp_path / "hub.jsonl", tmp_path / "plain.jsonl")
    ]
    assert labels[0] == labels[1]
    assert len(labels[0]) == 3
    assert "2 done" in done.output
    refused = run(address, "--labeller", "fast", "--format", "wildchat", "--out", tmp_path / "hub.jsonl")
    assert isinstance(refused.exception, ConfigError)
    assert "--format" in str(refused.exception)


async def test_many_conversations_come_out_in_order_whatever_the_batches(
    conversation, tmp_path, cue_labeller, monkeypatch
):
    from rlhi_training.labelling import label_log as module

    monkeypatch.setattr(module, "BATCH", 3)
    log = [conversation(f"c{i}", ["Q", "A", "again", "B", "please"][: 1 + 2 * (i % 3)]) for i in range(20)]
    write_conversations(tmp_path / "logs.jsonl", log)
    await label_log(tmp_path / "logs.jsonl", tmp_path / "out.jsonl", cue_labeller, LabelOptions())
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [(one["conversation_id"], one["turn"]) for one in rows] == [
        (f"c{i}", turn) for i in range(20) for turn in range(2, 2 + i % 3)
    ]


def test_a_run_directory_is_still_labelled_as_its_stage(four_users, tmp_path):
    write_conversations(tmp_path / "logs.jsonl", four_users)
    arguments = [
        "ingest",
        str(tmp_path / "logs.jsonl"),
        "--out",
        str(tmp_path / "run"),
        "--set",
        'label.labeller="fast"',
    ]
    started = CliRunner().invoke(app, arguments)
    assert started.exit_code == 0, started.output
    done = run(tmp_path / "run")
    assert done.exit_code == 0, done.output
    assert (tmp_path / "run" / "follow_ups.jsonl").is_file()


@pytest.mark.slow
def test_workers_say_what_one_process_says(wildchat_path, tmp_path):
    for workers in (1, 2):
        out = tmp_path / f"{workers}.jsonl"
        done = run(wildchat_path, "--labeller", "fast", "--workers", workers, "--out", out)
        assert done.exit_code == 0, done.output
    assert (tmp_path / "1.jsonl").read_bytes() == (tmp_path / "2.jsonl").read_bytes()
    assert len((tmp_path / "1.jsonl").read_text().splitlines()) >= 1200


def _labels_by_cue(request: ProviderRequest) -> str | HTTPFault:
    said = json.loads(request.last_user_text)["follow_up"]
    if "poison" in said:
        return HTTPFault(400, "content policy")
    return json.dumps({"label": "positive_feedback" if "Thanks" in said else "new_request", "evidence": said})


def test_what_a_model_has_labelled_is_not_asked_again_and_what_it_refuses_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    talks = [row(f"c{i}", ("u", "Basil?"), ("a", "Water it."), ("u", f"Thanks {i}")) for i in range(4)]
    bad = row("bad", ("u", "Tea?"), ("a", "Hot."), ("u", "poison"), ("a", "No."), ("u", "Thanks anyway"))
    (tmp_path / "log.jsonl").write_text("\n".join([*talks, bad]) + "\n")
    out, refused = tmp_path / "out.jsonl", tmp_path / "refused.jsonl"
    script = ByContent(_labels_by_cue)
    with FakeProvider(script) as provider:
        words = (tmp_path / "log.jsonl", "--labeller", "llm", "--llm", f"openai:fake-1@{provider.base_url}")
        done = run(*words, "--out", out, "--refused", refused)
        assert done.exit_code == 0, done.output
        first = out.read_bytes()
        rows = [json.loads(line) for line in first.splitlines()]
        labelled = [(one["conversation_id"], one["turn"]) for one in rows]
        assert labelled == [*((f"c{i}", 2) for i in range(4)), ("bad", 3)]
        assert "5 follow-up(s) of 5 conversation(s)" in done.output.replace("\n", " ")
        assert "1 row(s) set aside" in done.output.replace("\n", " ")
        (left,) = map(json.loads, refused.read_text().splitlines())
        assert (left["conversation_id"], left["turn"]) == ("bad", 2)
        assert "content policy" in left["reason"]
        out.unlink()
        again = run(*words, "--out", out)
        assert again.exit_code == 0, again.output
    # Only what was refused, and not paid for, is asked again.
    assert sorted(script.answered.values()) == [1, 1, 1, 1, 1, 2]
    assert out.read_bytes() == first


@pytest.mark.parametrize(
    "given",
    [
        ["--out", "x.jsonl"],
        ["--labeller", "fast"],
        ["--llm", "openai/gpt-4o"],
        ["--votes", "3"],
        ["--workers", "2"],
        ["--format", "wildchat"],
        ["--hindsight"],
        ["--signals", "s.jsonl"],
        ["--refused", "r.jsonl"],
    ],
    ids=lambda given: given[0],
)
def test_an_option_for_logs_is_refused_for_a_run(tmp_path, given):
    (tmp_path / "manifest.json").write_text("{}")
    said = str(run(tmp_path, *given).exception)
    assert given[0] in said
    assert "--set label.labeller=fast" in said


@pytest.mark.parametrize("given", [["--set", "label.labeller=fast"], ["--registry", "adapters"]], ids=lambda g: g[0])
def test_an_option_for_runs_is_refused_for_a_log(wildchat_log, tmp_path, given):
    said = str(run(wildchat_log, "--out", tmp_path / "out.jsonl", *given).exception)
    assert given[0] in said
    assert "Give --labeller" in said
    assert not (tmp_path / "out.jsonl").exists()
