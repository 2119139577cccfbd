"""The paper's table: shares sum to one, places are counted from one, the paper's numbers stand beside."""

from __future__ import annotations

import asyncio
import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from rlhi_plugin.labelling import exchanges
from rlhi_training.follow_up_table import KINDS, PAPER, follow_up_table, render_follow_ups

_SAID = st.sampled_from(["shorter please", "again", "thank you", "another topic"])


def test_counts_by_place(conversation, cue_labeller):
    talk = conversation(
        "a", ["Q", "A", "shorter please", "B", "shorter please", "C", "thanks", "D", "x", "E", "y", "F"]
    )
    other = conversation("b", ["Q", "A", "again", "B"])
    found = [e for c in (talk, other) for e in exchanges(c)]
    table = follow_up_table([talk, other], asyncio.run(cue_labeller.label(found)), "cues")
    assert table.messages == 8
    assert table.overall["initial"] == pytest.approx(2 / 8)
    assert table.by_turn["2"]["reattempt_with_feedback"] == pytest.approx(0.5)
    assert table.by_turn[">5"]["new_request"] == 1.0
    assert table.counts_by_turn == {"2": 2, "3": 1, "4": 1, "5": 1, ">5": 1}
    console = Console(file=io.StringIO(), width=100)
    console.print(render_follow_ups(table))
    text = console.file.getvalue()
    assert "26.51" in text
    assert "83.15" in text
    assert "25.00" in text


@settings(max_examples=30, deadline=None)
@given(talks=st.lists(st.lists(_SAID, max_size=8), max_size=5))
def test_shares_sum_to_one(conversation, cue_labeller, talks):
    made = [conversation(str(i), ["Q", *(t for said in texts for t in ("A", said))]) for i, texts in enumerate(talks)]
    labels = asyncio.run(cue_labeller.label([e for c in made for e in exchanges(c)]))
    table = follow_up_table(made, labels, "cues")
    rows = [table.overall, *table.by_turn.values()]
    assert all(sum(row.values()) == pytest.approx(1.0) for row in rows if row)
    assert table.unlabelled == 0
    assert table.messages == sum(1 + len(texts) for texts in talks)


def test_the_papers_shares_are_whole():
    assert set(PAPER) == set(KINDS)
    assert sum(PAPER.values()) == pytest.approx(1.0)
