"""Working files of a run in shards: what is written is what is read."""

from __future__ import annotations

import json
from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from rlhi_plugin.persona.builder import empty_persona
from rlhi_plugin.records import ChatMessage, FollowUpLabel
from rlhi_training.records import LabelledTurn
from rlhi_training.scale.learned import Learned
from rlhi_training.scale.lines import OrderedLines, Passages, keyed, packed, unpacked

TEXTS = st.sampled_from(["a", "ü", "你好", "a\n", '"', "\x7f", "🌱"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


@given(VALUES)
def test_what_is_packed_is_unpacked(value):
    line = packed(value)
    assert b"\n" not in line
    assert unpacked(line) == value == json.loads(line)


def test_half_a_character_is_kept():
    assert unpacked(packed(["a\udc80.jsonl:3", "no"])) == ["a\udc80.jsonl:3", "no"]


@st.composite
def conversations(draw):
    said = draw(st.lists(TEXTS, min_size=2, max_size=8))
    messages = [ChatMessage(role="assistant" if i % 2 else "user", content=text) for i, text in enumerate(said)]
    head = [ChatMessage(role="system", content=draw(TEXTS))] if draw(st.booleans()) else []
    turns = []
    for i in range(0, len(messages) - 1, 2):
        first = draw(st.integers(0, i // 2)) * 2
        label = draw(st.sampled_from([None, *FollowUpLabel]))
        turns.append(
            LabelledTurn(
                conversation_id="c",
                user_id=draw(st.sampled_from(["u", None])),
                turn=i // 2,
                context=(*head, *messages[first : i + 1]),
                response=messages[i + 1].content,
                follow_up=draw(TEXTS) if label else None,
                label=label,
                request_id=f"c:{i}",
                response_id=f"c:{i + 1}",
                follow_up_id=f"c:{i + 2}" if label else None,
            )
        )
    user = draw(st.sampled_from(["u", None]))
    turns = [turn.model_copy(update={"user_id": user}) for turn in turns]
    return Learned(
        seq=draw(st.integers(0, 10**9)),
        conversation_id="c",
        user_id=user,
        started_at=draw(st.sampled_from([None, datetime(2023, 4, 9, 1, 2, 3, 456, tzinfo=UTC)])),
        language=draw(st.sampled_from([None, "French"])),
        source="wildchat",
        persona=draw(st.sampled_from([None, empty_persona("u", "b")])),
        turns=tuple(turns),
    )


@given(conversations())
def test_a_learned_conversation_comes_back_whole(one):
    assert Learned.from_line(one.to_line()) == one


def test_a_text_stands_once_however_many_turns_hold_it():
    said = "x" * 1000
    context = (ChatMessage(role="user", content=said),)
    turns = tuple(
        LabelledTurn(
            conversation_id="c", turn=n, context=context * (2 * n + 1), response=said, request_id="a", response_id="b"
        )
        for n in range(20)
    )
    one = Learned(
        seq=1, conversation_id="c", user_id=None, started_at=None, language=None, source="s", persona=None, turns=turns
    )
    assert len(one.to_line()) < 4000


def test_ordered_lines_are_sorted_and_found_again(tmp_path):
    path = tmp_path / "lines"
    with OrderedLines(path) as lines:
        for key in ((3, 1), (1, 2), (2, 0)):
            lines.add(key, str(key).encode())
    found = [(b"%016x%016x\t" % k, str(k).encode()) for k in ((1, 2), (2, 0), (3, 1))]
    assert list(keyed(path)) == found
    with OrderedLines(tmp_path / "none"):
        pass
    assert list(keyed(tmp_path / "none")) == []


def test_passages_are_read_with_few_files_open(tmp_path):
    paths = [tmp_path / str(number) for number in range(5)]
    for path in paths:
        path.write_bytes(b"0123" + path.name.encode())
    passages = Passages(most=2)
    assert [passages.read(path, 4, 1) for path in [*paths, *paths]] == [p.name.encode() for p in [*paths, *paths]]
    passages.close()
    passages.close()
