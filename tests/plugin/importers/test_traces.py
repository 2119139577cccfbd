"""LangSmith and Langfuse: calls become conversations, scores become thumbs; and logs that repeat the history."""

import importlib.util
import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from rlhi_plugin.identity import pseudonym
from rlhi_plugin.importers.calls import Thread
from rlhi_plugin.importers.chat_message import Said
from rlhi_plugin.records import FeedbackKind

_spec = importlib.util.spec_from_file_location("writers", Path(__file__).with_name("writers.py"))
writers = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(writers)
USER, ASSISTANT = {"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}
HELLO = [("user", "hi"), ("assistant", "hello"), ("user", "bye"), ("assistant", "so long")]


def said(conversation):
    return [(m.role, m.content) for m in conversation.messages]


def thread(*calls):
    """Calls as (asked, answered), each a text of letters: capitals are the user's, small ones the assistant's."""
    found = Thread()
    for asked, answered in calls:
        found.add(*([Said("user" if c.isupper() else "assistant", c) for c in part] for part in (asked, answered)))
    return [(m.content, m.parent_id) for m in found.messages]


@pytest.mark.parametrize(
    ("calls", "expected"),
    [
        ([("A", "a"), ("AaB", "b"), ("AaBbC", "c")], "AaBbCc"),
        ([("A", "a"), ("B", "b"), ("C", "c")], "AaBbCc"),
        ([("A", "a"), ("B", "b"), ("A", "a")], "AaBbAa"),
        ([("A", "a"), ("AaB", "b"), ("aBbC", "c"), ("bCcD", "d")], "AaBbCcDd"),
        ([("A", "Aa"), ("AaB", "AaBb")], "AaBb"),
        ([("A", "Aa"), ("B", "AaBb"), ("C", "AaBbCc")], "AaBbCc"),
        ([("A", "a"), ("A", "a"), ("AaB", "b")], "AaBb"),
        ([("A", ""), ("A", "a")], "Aa"),
    ],
)
def test_calls_become_one_line(calls, expected):
    assert thread(*calls) == [(text, None) for text in expected]


@pytest.mark.parametrize(
    ("calls", "expected"),
    [
        ([("A", "a"), ("A", "x")], [("A", None), ("a", None), ("x", "0")]),
        (
            [("A", "a"), ("AaB", "b"), ("AaC", "c")],
            [("A", None), ("a", None), ("B", None), ("b", None), ("C", "1"), ("c", None)],
        ),
    ],
)  # fmt: skip
def test_another_answer_and_another_request_are_branches(calls, expected):
    assert thread(*calls) == expected


def test_langsmith_records_what_the_run_measured(read):
    found = read(*writers.langsmith(HELLO))
    answer = found.one.messages[1]
    assert (answer.model, answer.latency_s) == ("gpt-4o", 2.0)
    assert answer.created_at == datetime(2024, 5, 1, 10, 1, 2, tzinfo=UTC)
    user = pseudonym("langsmith\0u1")
    assert (found.one.conversation_id, found.one.user_id) == (f"langsmith:t@{user}", user)
    assert [(e.kind, e.value, e.message_id) for e in found.feedback] == [
        (FeedbackKind.THUMBS_UP, "good", "1"),
        (FeedbackKind.THUMBS_UP, "good", "3"),
    ]


def test_what_a_failed_call_had_streamed_is_a_part_of_an_answer(read):
    run = writers.langsmith(HELLO[:2])[0] | {"error": "ConnectionError"}
    assert read(run).one.messages[1].finish == "failed"
    assert read(*writers.langsmith(HELLO[:2])).one.messages[1].finish is None
    trace, _ = writers.langfuse(HELLO[:2])
    for level, finish in (("ERROR", "failed"), ("DEFAULT", None)):
        generation = {"id": "g", "type": "GENERATION", "startTime": "2024-05-01T10:00:00Z", "level": level}
        assert read(trace | {"observations": [generation]}).one.messages[1].finish == finish


def test_langsmith_tools_in_a_state(read):
    calls = {"calls": [{"args": {"a": 1}, "name": "add"}], "text": ""}
    expected = [("user", "hi"), ("tool", json.dumps(calls)), ("assistant", "hello")]
    assert said(read(*writers.rich()["langsmith"]).one) == expected


def test_langsmith_reads_models_where_the_root_holds_no_messages(read):
    root, model = writers.langsmith(HELLO[:2])[0], writers.langsmith(HELLO[:2])[0]
    root |= {"inputs": {"state": 1}, "outputs": {}, "feedback_stats": None}
    model |= {"id": "m", "parent_run_id": root["id"], "run_type": "llm", "prompt_tokens": 7, "completion_tokens": 8}
    found = read(root, model)
    assert said(found.one) == HELLO[:2]
    assert (found.one.messages[1].input_tokens, found.one.messages[1].output_tokens) == (7, 8)


@pytest.mark.parametrize(
    ("inputs", "outputs"),
    [
        ({"messages": [["human", "hi"]]}, {"output": {"type": "ai", "content": "hello"}}),
        ({"messages": [{"type": "human", "data": {"content": "hi"}}]}, {"answer": "hello"}),
        ({"question": "hi", "chat_history": []}, {"result": "hello"}),
        ({"input": {"messages": [USER]}}, {"output": ASSISTANT}),
        ({"prompts": ["hi"]}, {"generations": [{"text": "hello"}]}),
        ({"messages": [USER]}, {"choices": [{"message": ASSISTANT}]}),
        ("hi", "hello"),
        (json.dumps({"input": "hi"}), json.dumps({"output": "hello"})),
    ],
)  # fmt: skip
def test_langsmith_shapes(read, inputs, outputs):
    (run,) = writers.langsmith(HELLO[:2])
    assert said(read(run | {"inputs": inputs, "outputs": outputs}).one) == HELLO[:2]


def test_langsmith_csv(tmp_path, read_file):
    import csv

    rows = writers.langsmith_state(HELLO)
    with (tmp_path / "runs.csv").open("w", newline="", encoding="utf-8") as stream:
        table = csv.DictWriter(stream, rows[0])
        table.writeheader()
        for row in rows:
            table.writerow({k: json.dumps(v) if isinstance(v, dict) else v for k, v in row.items()})
    found = read_file(tmp_path / "runs.csv")
    assert said(found.one) == HELLO
    assert found.one.user_id == pseudonym("langsmith\0u1")
    assert len(found.feedback) == 2


def test_two_users_of_one_thread_are_two_conversations(read):
    rows = writers.langsmith(HELLO[:2]) + writers.langsmith(HELLO[:2])
    rows[1] |= {"id": "z", "trace_id": "z", "extra": {"metadata": {"thread_id": "t", "user_id": "u2"}}}
    found = read(*rows)
    assert len({c.user_id for c in found.conversations}) == 2
    assert len({c.conversation_id for c in found.conversations}) == 2


def test_scores_of_judges_and_unknown_scales_are_no_thumbs(read):
    (run,) = writers.langsmith(HELLO[:2])
    run["feedback_stats"] = {"correctness": {"avg": 1}, "user_rating": {"avg": 4.5}, "user_score": {"avg": 0.5}}
    found = read(run)
    assert found.feedback == []
    assert "feedback 'user_rating': the score 4.5 is on an unknown scale" in found.why[0]


def test_a_run_without_messages_is_named(read):
    (run,) = writers.langsmith(HELLO[:2])
    found = read(run | {"inputs": {"n": 1}})
    assert "no run of this trace holds messages" in found.why[0]


def test_langfuse_scores_are_thumbs_on_the_answer(read):
    found = read(*writers.langfuse(HELLO))
    user = pseudonym("langfuse\0u1")
    assert (found.one.conversation_id, found.one.user_id) == (f"langfuse:s@{user}", user)
    (event,) = found.feedback
    assert (event.event_id, event.kind, event.message_id, event.value) == ("x", FeedbackKind.THUMBS_DOWN, "1", "wrong")


def test_langfuse_generations_say_what_they_used(read):
    answer = read(*writers.langfuse_generations(HELLO)).one.messages[1]
    found = (answer.model, answer.latency_s, answer.input_tokens, answer.output_tokens)
    assert found == ("gpt-4o", 3.0, 3, 4)


def test_langfuse_traces_with_their_parts_inside(read):
    (trace, score) = writers.langfuse(HELLO[:2])
    generation = {"id": "g", "type": "GENERATION", "model": "m", "startTime": "2024-05-01T10:00:00Z"}
    found = read(trace | {"observations": [generation], "scores": [score]})
    assert said(found.one) == HELLO[:2]
    assert found.one.messages[1].model == "m"
    assert len(found.feedback) == 1


def test_langfuse_files_of_a_folder_belong_together(tmp_path, read_file):
    *traces, score = writers.langfuse(HELLO)
    (tmp_path / "scores.jsonl").write_text(json.dumps(score))
    (tmp_path / "traces.json").write_text(json.dumps({"data": traces, "meta": {"page": 1}}))
    found = read_file(tmp_path)
    assert said(found.one) == HELLO
    assert len(found.feedback) == 1


def test_traces_without_a_session_are_conversations_of_their_own(read):
    rows = [row | {"sessionId": None, "userId": None} for row in writers.langfuse(HELLO)[:-1]]
    assert [c.conversation_id for c in read(*rows).conversations] == ["langfuse:t1", "langfuse:t3"]


def test_half_a_character_spoils_its_own_row_alone(read):
    # The escapes of a text within a text are no escapes of the line.
    first, second = writers.langsmith(HELLO)
    first["inputs"] = '{"input": "\\ud800"}'
    found = read(first, second)
    assert said(found.conversations[0]) == HELLO
    assert "surrogates not allowed" in found.why[0]
    good, bad = writers.realhumaneval(HELLO)
    bad["response"] = "fine"
    bad["request"] = repr([{"role": "user", "content": "\ud800"}])
    found = read(good, bad)
    assert said(found.conversations[0]) == HELLO[:2]
    assert "surrogates not allowed" in found.why[0]
