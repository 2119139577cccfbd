"""Working files of a run in shards: what is written is what is read."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhi_plugin.persona.builder import empty_persona
from rlhi_plugin.records import ChatMessage, FollowUpLabel
from rlhi_training.records import Candidate, LabelledTurn, ProposedPair
from rlhi_training.scale import lines
from rlhi_training.scale.learned import Learned
from rlhi_training.scale.lines import OrderedLines, Passages, keyed, merged, packed, unpacked
from rlhi_training.scale.proposal import Head, Proposal

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
    with OrderedLines(path) as out:
        for key in ((3, 1), (1, 2), (2, 0)):
            out.add(key, str(key).encode())
    found = [(b"%016x%016x\t" % k, str(k).encode()) for k in ((1, 2), (2, 0), (3, 1))]
    assert list(keyed(path)) == found
    with OrderedLines(tmp_path / "none"):
        pass
    assert list(keyed(tmp_path / "none")) == []


@pytest.mark.parametrize("in_memory", [1 << 20, 0, 8])
def test_lines_of_many_files_are_merged_in_the_order_of_their_keys(tmp_path, monkeypatch, in_memory):
    monkeypatch.setattr(lines, "_IN_MEMORY", in_memory)
    keys = [(place * 7919 % 50, 2**62 - place) for place in range(60)]
    for number in range(3):
        with OrderedLines(tmp_path / str(number)) as out:
            for key in keys[number::3]:
                out.add(key, f"{key}\t{number}".encode())
    with OrderedLines(tmp_path / "twice") as out:
        for word in (b"b", b"a", b"c"):
            out.add((7, 7), word)
    known = [f"{key}\t{keys.index(key) % 3}".encode() for key in sorted(keys)]
    assert list(merged(tmp_path / str(number) for number in range(3))) == known
    assert list(merged([tmp_path / "twice"])) == [b"b", b"a", b"c"]


@given(conversations(), st.sampled_from([None, "neutral"]), st.sampled_from([None, "a\tb"]))
def test_a_proposal_is_read_as_it_was_written(one, extra, language):
    for turn in one.turns:
        chosen, rejected = (
            Candidate(conversation_id="c", turn=turn.turn, text=text, origin="sample", model="m") for text in "ab"
        )
        pair = ProposedPair(
            source="rewrite",
            conversation_id="c",
            turn=turn.turn,
            persona=one.persona,
            chosen=chosen,
            rejected=rejected,
        )
        head = Head(pair.key, "rewrite", "c", turn.turn, 2**62, extra, 5, None, language, "wildchat")
        line = Proposal(head, pair.to_line(), turn.to_line()).to_line()
        assert b"\n" not in line
        read = Proposal.from_line(line)
        assert (read.head, read.pair, read.turn) == (head, pair, turn)
        assert read.turn.to_line() == turn.to_line()


def test_passages_are_read_with_few_files_open(tmp_path):
    paths = [tmp_path / str(number) for number in range(5)]
    for path in paths:
        path.write_bytes(b"0123" + path.name.encode())
    passages = Passages(most=2)
    assert [passages.read(path, 4, 1) for path in [*paths, *paths]] == [p.name.encode() for p in [*paths, *paths]]
    passages.close()
    passages.close()
