"""What is particular to each format that writes whole conversations."""

import importlib.util
import json
import zipfile
from datetime import UTC, datetime
from pathlib import Path

import pytest

from rlhi_plugin.identity import pseudonym
from rlhi_plugin.records import FeedbackKind

_spec = importlib.util.spec_from_file_location("writers", Path(__file__).with_name("writers.py"))
writers = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(writers)
RICH = writers.rich()


def said(conversation):
    return [(m.role, m.content) for m in conversation.messages]


def test_sharegpt_names_everybody(read):
    names = [
        "system",
        "human",
        "gpt",
        "user",
        "chatgpt",
        "human",
        "bard",
        "human",
        "bing",
        "tool",
        "human",
        "assistant",
    ]
    turns = [{"from": name, "value": f"{name} speaks"} for name in names]
    roles = [role for role, _ in said(read({"id": "1", "items": turns}).one)]
    u, a = "user", "assistant"
    assert roles == ["system", u, a, u, a, u, a, u, a, "tool", u, a]


def test_sharegpt_ids_that_repeat_are_not_one_conversation(read):
    def row(text):
        return {"id": 0, "conversations": [{"from": "human", "value": text}]}

    found = read(row("one"), row("two"), row("one"))
    one, two, again = (c.conversation_id for c in found.conversations)
    assert one == again != two


def test_order_and_empty_answers_stay_as_they_are(read):
    turns = [("gpt", "Welcome"), ("human", "a"), ("human", "b"), ("gpt", "")]
    rows = {"conversations": [{"from": name, "value": text} for name, text in turns]}
    expected = [("assistant", "Welcome"), ("user", "a"), ("user", "b"), ("assistant", "")]
    assert said(read(rows).one) == expected


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ({"conversations": []}, "no user message"),
        ({"conversations": [{"from": "human", "value": " "}]}, "no user message"),
        ({"conversations": [{"from": "gpt", "value": "hi"}]}, "no user message"),
        ({"conversations": [{"from": "narrator", "value": "hi"}]}, "the role 'narrator' is not known"),
        ({"conversations": [{"from": "human"}]}, "message 0 has no value"),
        ({"messages": [{"role": "user", "content": 3}]}, "message 0: content is neither"),
        ({"messages": [{"content": "hi"}]}, "message 0: the role None"),
        ({"messages": ["hi"]}, "message 0: not a message"),
        ({"conversation_id": "c", "conversation": [{"role": "robot", "content": "x"}]}, "'robot' is not known"),
        ({"conversation_a": [], "conversation_b": [], "question_id": "q", "winner": "me"}, "the winner 'me'"),
    ],
)
def test_what_has_no_meaning_is_refused_with_a_reason(read, row, why):
    found = read(row)
    assert found.conversations == []
    assert len(found.errors) == 1
    assert why in found.why[0]


def test_openai_tool_traffic_and_parts(read):
    call = {"calls": [{"args": {"a": 1}, "name": "add"}], "text": ""}
    broken = {"calls": [{"args": "not json", "name": "f"}], "text": ""}
    assert said(read(*RICH["openai"]).one) == [
        ("system", "be kind"),
        ("user", "look\n[image_url]"),
        ("tool", json.dumps(call)),
        ("tool", "1"),
        ("tool", json.dumps(broken)),
        ("tool", "2"),
        ("assistant", "three"),
    ]


def test_openai_log_keeps_what_the_provider_said(read):
    found = read(*writers.openai_log([("user", "hi"), ("assistant", "hello")])).one
    answer = found.messages[1]
    assert (answer.model, answer.input_tokens, answer.output_tokens) == ("gpt-4o", 3, 4)
    assert answer.created_at == datetime.fromtimestamp(1700000001, UTC)
    user = pseudonym("openai\0u1")
    assert (found.conversation_id, found.user_id) == (f"openai:t@{user}", user)


def test_several_choices_are_branches_and_the_first_goes_on(read):
    choices = [{"message": {"role": "assistant", "content": text}} for text in ("shown", "other")]
    found = read({"messages": [{"role": "user", "content": "q"}], "choices": choices}).one
    assert [(m.content, m.parent_id) for m in found.messages] == [("q", None), ("other", None), ("shown", "0")]


def chatgpt_tree(*nodes):
    mapping = {"r": {"id": "r", "message": None, "parent": None, "children": []}}
    for time, (name, parent, role, text) in enumerate(nodes):
        mapping[name] = writers.chatgpt_node(name, parent, role, text, create_time=1700000000 + time)
    return {"conversation_id": "c", "create_time": 1700000000, "mapping": mapping, "current_node": nodes[-1][0]}


def test_chatgpt_branches_keep_their_parents(read):
    found = read(
        chatgpt_tree(
            ("u1", "r", "user", "cats?"),
            ("a1", "u1", "assistant", "first"),
            ("a1b", "u1", "assistant", "again"),
            ("u2", "a1b", "user", "more"),
            ("a2", "u2", "assistant", "there"),
            ("u2b", "a1b", "user", "edited"),
        )
    )
    assert [(m.id, m.parent_id) for m in found.one.messages] == [
        ("u1", None), ("a1", None), ("a1b", "u1"), ("u2", None), ("a2", None), ("u2b", "a1b"),
    ]  # fmt: skip
    (event,) = found.feedback
    assert (event.kind, event.message_id) == (FeedbackKind.REGENERATE, "a1")
    assert event.created_at == found.one.messages[2].created_at


@pytest.mark.parametrize(
    ("more", "finish"),
    [
        ({"status": "finished_successfully"}, None),
        ({"status": "finished_partial_completion"}, "incomplete"),
        ({"metadata": {"finish_details": {"type": "interrupted"}}}, "incomplete"),
        ({"metadata": {"finish_details": {"type": "stop"}}}, None),
    ],
)
def test_a_chatgpt_answer_that_was_stopped_is_a_part_of_one(read, more, finish):
    row = chatgpt_tree(("u1", "r", "user", "cats?"), ("a1", "u1", "assistant", "They"))
    row["mapping"]["a1"]["message"] |= more
    assert [message.finish for message in read(row).one.messages] == [None, finish]


def test_an_edited_first_prompt_has_a_common_root(read):
    found = read(chatgpt_tree(("u1", "r", "user", "a"), ("a1", "u1", "assistant", "b"), ("u1b", "r", "user", "A"))).one
    assert [(m.id, m.role, m.parent_id) for m in found.messages] == [
        ("root", "system", None), ("u1", "user", None), ("a1", "assistant", None), ("u1b", "user", "root"),
    ]  # fmt: skip


def test_chatgpt_hidden_messages_are_passed_through(read):
    row = chatgpt_tree(
        ("s", "r", "system", ""), ("w", "s", "user", ""), ("h", "w", "user", "hidden"), ("u", "h", "user", "hi")
    )
    wishes = {"content_type": "user_editable_context", "user_profile": "a baker", "user_instructions": "be brief"}
    row["mapping"]["w"]["message"] |= {"content": wishes}
    row["mapping"]["h"]["message"]["metadata"] = {"is_visually_hidden_from_conversation": True}
    thoughts = writers.chatgpt_node("t", "u", "assistant", "", content={"content_type": "thoughts", "thoughts": []})
    row["mapping"] |= {"t": thoughts, "a": writers.chatgpt_node("a", "t", "assistant", "hello")}
    found = read(row).one
    assert said(found) == [("system", "a baker\nbe brief"), ("user", "hi"), ("assistant", "hello")]
    assert [m.parent_id for m in found.messages] == [None] * 3


def test_chatgpt_images_and_tools(read):
    found = read(*RICH["chatgpt"][:1]).one
    assert said(found)[2:] == [("user", "[image]\nwhat?"), ("tool", "")]


def test_a_circle_and_an_orphan_are_named_and_the_rest_is_kept(read):
    row = chatgpt_tree(
        ("u", "r", "user", "hi"), ("x", "y", "user", "1"), ("y", "x", "assistant", "2"), ("o", "gone", "assistant", "3")
    )
    found = read(row)
    assert said(found.conversations[0]) == [("user", "hi")]
    assert "3 message(s) of conversation 'c' lead to no beginning, from 'x' on" in found.why[0]


def test_a_chatgpt_archive_is_one_persons_log(tmp_path, read_file):
    archive = tmp_path / "export.zip"
    feedback = {"id": "f", "message_id": "1", "conversation_id": "c", "rating": "thumbs_up", "create_time": 1700000000}
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as out:
        out.writestr("user.json", json.dumps({"id": "user-1", "email": "a@example.org"}))
        out.writestr("chat.html", "<html>")
        out.writestr("shared_conversations.json", json.dumps([{"id": "s", "conversation_id": "c", "title": "T"}]))
        out.writestr("conversations.json", json.dumps(writers.chatgpt([("user", "hi"), ("assistant", "hello")])))
        out.writestr("message_feedback.json", json.dumps([feedback]))
    found = read_file(archive)
    assert found.one.user_id == pseudonym("chatgpt\0user-1")
    (event,) = found.feedback
    assert (event.kind, event.message_id, event.user_id) == (FeedbackKind.THUMBS_UP, "1", found.one.user_id)
    with zipfile.ZipFile(archive) as packed:
        packed.extractall(tmp_path / "folder")
    assert read_file(tmp_path / "folder").all == found.all


def test_arena_votes_are_thumbs_on_the_last_answers(read):
    found = read(*RICH["lmsys"])
    assert [c.conversation_id for c in found.conversations] == ["q:a", "q:b"]
    assert {(c.language, c.toxic, c.user_id) for c in found.conversations} == {
        ("German", True, pseudonym("lmsys\0arena_user_1"))
    }
    assert [m.model for c in found.conversations for m in c.messages] == [None, "m1", None, "m2"]
    up, down = found.feedback
    assert (up.conversation_id, up.message_id, up.kind) == ("q:a", "1", FeedbackKind.THUMBS_UP)
    assert (down.conversation_id, down.message_id, down.kind) == ("q:b", "1", FeedbackKind.THUMBS_DOWN)
    assert up.value == "model_a against m2"
    assert up.created_at == datetime.fromtimestamp(1700000000.5, UTC)


@pytest.mark.parametrize(("winner", "thumbs"), [("tie", 0), ("tie (bothbad)", 2), (None, 0)])
def test_a_tie_says_nothing_unless_both_are_bad(read, winner, thumbs):
    found = read(RICH["lmsys"][0] | {"winner": winner})
    assert [event.kind for event in found.feedback] == [FeedbackKind.THUMBS_DOWN] * thumbs


def tree(**more):
    first = writers.openassistant_message(0, "user", "q") | more
    answers = [
        writers.openassistant_message(i, "assistant", f"a{i}") | {"rank": i - 1, "parent_id": "0"} for i in (1, 2, 3)
    ]
    return {"message_tree_id": "0", "prompt": first | {"replies": [answer | {"replies": []} for answer in answers]}}


def test_open_assistant_ranks_and_emoji_are_thumbs(read):
    found = read(tree())
    ranks = [(e.message_id, e.kind.value, e.value) for e in found.feedback if e.event_id.endswith("rank")]
    assert ranks == [("1", "thumbs_up", "rank 1 of 3"), ("3", "thumbs_down", "rank 3 of 3")]
    assert [e.value for e in found.feedback if e.event_id.endswith("+1")] == ["from 2 volunteer(s)"] * 3
    assert [m.parent_id for m in found.one.messages] == [None, None, "0", "0"]
    assert (found.one.language, found.one.toxic, found.one.user_id) == (
        "English",
        False,
        pseudonym("openassistant\0u1"),
    )


def test_a_tree_of_several_people_belongs_to_nobody(read):
    rows = writers.openassistant_flat([("user", "a"), ("assistant", "b"), ("user", "c")])
    rows[0]["user_id"] = "another"
    assert read(*rows).one.user_id is None


def test_open_assistant_flat_labels(read):
    (row,) = writers.openassistant_flat([("user", "a")])
    row |= {"labels": {"name": ["spam", "toxicity"], "value": [0.0, 0.75], "count": [3, 3]}, "emojis": None}
    assert read(row).one.toxic is True


def test_deleted_messages_orphans_and_doubles_are_set_aside(read):
    rows = writers.openassistant_flat([("user", "a"), ("assistant", "b"), ("user", "c")])[::-1]
    rows[1]["deleted"] = True
    found = read(*rows, rows[0])
    assert said(found.conversations[0]) == [("user", "a")]
    assert [error.line for error in found.errors] == [2, 4, 3]
    assert "deleted by the moderators" in found.why[0]
    assert "a second message has the id '0'" in found.why[1]
    assert "message '2' leads to no beginning" in found.why[2]


def test_a_circle_of_messages_is_refused(read):
    rows = [writers.openassistant_message(i, "user", "x") | {"message_tree_id": "t"} for i in (1, 2)]
    rows[0]["parent_id"], rows[1]["parent_id"] = "2", "1"
    found = read(*rows)
    assert (len(found.conversations), len(found.errors)) == (0, 2)


def test_a_deep_thread(read):
    message = None
    for i in range(300):
        role = ("user", "assistant")[i % 2 == 0]
        message = writers.openassistant_message(0, role, "x") | {"message_id": str(i), "parent_id": str(i + 1),
            "created_date": None, "replies": [message] if message else []}  # fmt: skip
    found = read({"message_tree_id": "t", "prompt": message | {"parent_id": None}})
    assert len(found.one.messages) == 300
