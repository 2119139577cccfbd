"""Every row of the real logs, counted a second time without the importers."""

import ast
import csv
import gzip
import json
from collections import Counter

from rlhi_plugin.records import FeedbackKind


def table(file):
    csv.field_size_limit(1 << 28)
    with file.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def said(conversation):
    return [(m.role, m.content) for m in conversation.messages]


def test_chatbot_arena(real_data, read_file):
    file = real_data / "chatbot-arena" / "conversations.jsonl.gz"
    with gzip.open(file, "rt", encoding="utf-8") as stream:
        rows = [json.loads(line) for line in stream]
    found = read_file(file)
    assert found.errors == []
    assert [c.conversation_id for c in found.conversations] == [row["id"] for row in rows]
    expected = [[(turn["role"], turn["content"]) for turn in row["conversation"]] for row in rows]
    assert [said(c) for c in found.conversations] == expected


def test_open_assistant(real_data, read_file):
    file = real_data / "oasst2" / "oasst2_filtered_trees.jsonl"
    trees = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
    live, deleted = [], 0

    def walk(message, live_parent):
        nonlocal deleted
        if message["deleted"] or not live_parent:
            deleted += 1
        else:
            live.append(message)
        for reply in message["replies"]:
            walk(reply, live_parent and not message["deleted"])

    for tree in trees:
        walk(tree["prompt"], live_parent=True)
    found = read_file(file)
    assert len(found.errors) == deleted > 0
    messages = [m for c in found.conversations for m in c.messages]
    assert sorted((m.id, m.content) for m in messages) == sorted((m["message_id"], m["text"]) for m in live)
    roots = {tree["prompt"]["message_id"] for tree in trees if not tree["prompt"]["deleted"]}
    assert {c.messages[0].id for c in found.conversations} == roots
    parents = {m["message_id"]: m["parent_id"] for m in live}
    for conversation in found.conversations:
        before = None
        for message in conversation.messages:
            assert (message.parent_id or before) == parents[message.id]
            before = message.id
    thumbs = sum(emoji in (m["emojis"] or {}) for m in live if m["role"] == "assistant" for emoji in ("+1", "-1"))
    by_emoji = [event for event in found.feedback if not event.event_id.endswith(":rank")]
    assert len(by_emoji) == thumbs
    assert any(event.event_id.endswith(":rank") for event in found.feedback)
    assert {"English", "Spanish", "Chinese"} <= {c.language for c in found.conversations}


def test_real_human_eval(real_data, read_file):
    file = real_data / "realhumaneval" / "chat_data.csv"
    rows = table(file)
    found = read_file(file)
    assert found.why == [f"{file}:{error.line}: request is empty" for error in found.errors]
    assert len(found.errors) == sum(ast.literal_eval(row["request"]) == [] for row in rows)
    answers = Counter(m.content for c in found.conversations for m in c.messages if m.role == "assistant")
    assert set(answers) >= {row["response"] for row in rows if ast.literal_eval(row["request"])}
    assert len({c.user_id for c in found.conversations}) == len({row["programmer_id"] for row in rows})
    copied = Counter(event["copied"] for row in rows for event in ast.literal_eval(row["copy_events"]))
    assert Counter(event.value for event in found.feedback) == copied
    by_id = {c.conversation_id: {m.id: m for m in c.messages} for c in found.conversations}
    for event in found.feedback:
        assert event.kind is FeedbackKind.COPY
        assert by_id[event.conversation_id][event.message_id].role == "assistant"


def test_halie(real_data, read_file):
    dialogue = table(real_data / "halie" / "dialogue_event_blocks.csv")
    found = read_file(real_data / "halie" / "dialogue_event_blocks.csv")
    assert found.errors == []
    sessions = Counter(row["session_id"] for row in dialogue)
    assert {c.conversation_id: len(c.messages) for c in found.conversations} == {n: 2 * k for n, k in sessions.items()}
    questions = table(real_data / "halie" / "question_event_blocks.csv")
    asked = Counter()
    for row in questions:
        asked[row["session_id"]] += len(ast.literal_eval(row["user_queries"]))
    found = read_file(real_data / "halie" / "question_event_blocks.csv")
    assert {c.conversation_id: len(c.messages) for c in found.conversations} == {
        n: 2 * k for n, k in asked.items() if k
    }
    assert len(found.errors) == sum(not k for k in asked.values())
    whole = read_file(real_data / "halie")
    assert len(whole.conversations) == len(sessions) + sum(bool(k) for k in asked.values())
    ratings = [row["quality"] for row in table(real_data / "halie" / "dialogue_survey_responses.csv")]
    ratings += [row["helpfulness"] for row in table(real_data / "halie" / "question_survey_responses.csv")]
    kinds = Counter(event.kind for event in whole.feedback)
    assert kinds[FeedbackKind.THUMBS_UP] == sum(rating in {"4", "4.0", "5", "5.0"} for rating in ratings)
    assert kinds[FeedbackKind.THUMBS_DOWN] == sum(rating in {"1", "1.0", "2", "2.0"} for rating in ratings)
    assert {event.conversation_id for event in whole.feedback} <= {c.conversation_id for c in whole.conversations}
