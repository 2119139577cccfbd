"""The labeller report: figures are what they are by hand, baselines are beaten, and every table is there."""

from __future__ import annotations

import numpy as np
import pytest

from rlhi_plugin.labelling import Exchange
from rlhi_plugin.records import FollowUp, FollowUpLabel, FollowUpSubtype
from rlhi_training.labelling.agreement import agreement
from rlhi_training.labelling.baselines import BASELINES
from rlhi_training.labelling.decision import GOES_WITH
from rlhi_training.labelling.fast import FastLabeller
from rlhi_training.labelling.fitting import invented_rows
from rlhi_training.labelling.label_set import Example, Label, part_of
from rlhi_training.labelling.label_set.reading import digest_of_text
from rlhi_training.labelling.measuring import Said, measure
from rlhi_training.labelling.measuring_hindsight import measure_hindsight
from rlhi_training.labelling.report import report
from rlhi_training.labelling.report_page import as_markdown, draw_cascade

WITH = FollowUpLabel.WITH_FEEDBACK


def said(truth, labels, probabilities=None, conversations=None) -> Said:
    table = np.eye(4)[labels] if probabilities is None else np.array(probabilities)
    names = conversations or [f"c{i}" for i in range(len(truth))]
    return Said(np.array(truth), np.array(labels), table, names)


def test_figures_are_what_they_are_by_hand():
    found = measure(said([1, 1, 1, 0, 0, 2], [1, 1, 0, 1, 0, 2]), intervals=False)
    assert found.f1[WITH].value == pytest.approx(2 * 2 / (3 + 3))
    assert found.precision.value == pytest.approx(2 / 3)
    assert found.recall.value == pytest.approx(2 / 3)
    assert found.accuracy.value == pytest.approx(4 / 6)
    assert found.f1[FollowUpLabel.POSITIVE_FEEDBACK].value is None
    assert (found.follow_ups, found.with_feedback) == (6, 3)


def test_auroc_is_the_share_of_pairs_in_order():
    probabilities = [[0, p, 0, 0] for p in (0.9, 0.4, 0.6, 0.1)]
    assert measure(said([1, 1, 0, 0], [0] * 4, probabilities), intervals=False).auroc.value == pytest.approx(3 / 4)
    assert measure(said([1, 1], [1, 1]), intervals=False).auroc.value is None


def test_intervals_are_wider_where_a_conversation_repeats_itself():
    draw = np.random.default_rng(0)
    truth, labels = draw.integers(0, 2, 40), draw.integers(0, 2, 40)
    apart = measure(said(truth, labels)).f1[WITH]
    again = said(np.repeat(truth, 5), np.repeat(labels, 5), conversations=[f"c{i // 5}" for i in range(200)])
    together = measure(again).f1[WITH]
    assert together.value == pytest.approx(apart.value)
    assert together.high - together.low == pytest.approx(apart.high - apart.low, abs=0.03)
    assert apart.low < apart.value < apart.high


def exchange(follow_up, request="How do I bake bread?", reply="With flour."):
    return Exchange(conversation_id="c", turn=1, message_id="m", request=request, reply=reply, follow_up=follow_up)


def test_baselines_do_what_their_names_say():
    asked = [exchange("that is wrong"), exchange("thanks"), exchange("again"), exchange("Why is the sky blue?")]
    assert BASELINES["majority"](asked).argmax(axis=1).tolist() == [0, 0, 0, 0]
    assert BASELINES["keywords"](asked).argmax(axis=1).tolist() == [1, 3, 2, 0]
    near = [exchange("how do I bake bread"), exchange("How do I bake rye bread?"), exchange("Tell me a joke")]
    assert BASELINES["similarity"](near).argmax(axis=1).tolist() == [2, 1, 0]


@pytest.fixture(scope="module")
def examples() -> list[Example]:
    """Invented exchanges as if they were labelled conversations of two sources."""
    found = []
    for number, row in enumerate(invented_rows()[:300]):
        name = f"conversation-{number}"
        label = Label(
            source="wildchat" if number % 3 else "arena",
            conversation_id=name,
            turn=2,
            digest=digest_of_text(row.exchange.follow_up),
            label=row.label,
            subtype=min(GOES_WITH[row.label]),
            confidence="high",
            reader=number % 2,
        )
        found.append(Example(row.exchange.model_copy(update={"conversation_id": name}), label, None))
    return found


def test_hindsight_is_counted_by_hand():
    """The labeller misses one inheritance, finds one, and invents one past a new topic."""

    def read(conversation: str, turn: int, label: FollowUpLabel, subtype: FollowUpSubtype) -> Example:
        exchange_ = exchange("x").model_copy(update={"conversation_id": conversation, "turn": turn - 1})
        digest = digest_of_text("x")
        own = Label(
            source="arena",
            conversation_id=conversation,
            turn=turn,
            digest=digest,
            label=label,
            subtype=subtype,
            confidence="high",
            reader=0,
        )
        return Example(exchange_, own, None)

    def found(one: Example, label: FollowUpLabel, subtype: FollowUpSubtype) -> FollowUp:
        return FollowUp(
            conversation_id=one.exchange.conversation_id,
            turn=one.exchange.turn,
            message_id="m",
            label=label,
            subtype=subtype,
            probabilities={label: 0.9},
            labeller="tried",
        )

    new, feedback = FollowUpLabel.NEW_REQUEST, FollowUpLabel.WITH_FEEDBACK
    next_step, topic, fix = FollowUpSubtype.NEXT_STEP, FollowUpSubtype.NEW_TOPIC, FollowUpSubtype.POINTS_OUT_ERROR
    examples = [
        # In no order: the turns say it.
        read("found", 3, feedback, fix),
        read("found", 2, new, next_step),
        read("missed", 2, new, next_step),
        read("missed", 3, feedback, fix),
        read("invented", 2, new, topic),
        read("invented", 3, feedback, fix),
        read("alone", 2, new, next_step),
    ]
    told = [(feedback, fix), (new, next_step), (new, next_step), (new, topic), (new, next_step), (feedback, fix)]
    told.append((new, next_step))
    quality = measure_hindsight(examples, [found(one, *what) for one, what in zip(examples, told, strict=True)])
    assert (quality.follow_ups, quality.by_readers, quality.by_labeller, quality.same) == (6, 2, 2, 1)
    assert (quality.precision, quality.recall) == (0.5, 0.5)


@pytest.mark.slow
async def test_the_report_has_every_table_and_beats_the_baselines(examples, tmp_path):
    labels = [one.label for one in examples]
    seen = {"fast": FastLabeller(), "again": FastLabeller()}
    found = await report(examples, "held_out", seen, agreement(labels, labels[:50]), intervals=False, unmatched=2)
    expected = sum(part_of(one.conversation_id) == "held_out" for one in labels)
    assert found.labellers["fast"].follow_ups == expected
    best = max(found.labellers[name].f1[WITH].value or 0 for name in BASELINES)
    assert found.labellers["fast"].f1[WITH].value > best
    assert set(found.by_source) == {"arena", "wildchat"}
    assert set(found.across) == {"arena > arena", "arena > wildchat", "wildchat > arena", "wildchat > wildchat"}
    assert found.readers.kappa == 1.0
    # From all with the first tier to all with the second.
    assert (found.cascade[0].passed_on, found.cascade[-1].passed_on) == (0.0, 1.0)
    assert set(found.hindsight) == {"fast", "again"}
    text = as_markdown(found)
    assert "2 labels of the part had no text" in text
    assert text.count("| fast |") >= 3
    draw_cascade(found, tmp_path / "cascade.svg")
    assert (tmp_path / "cascade.svg").read_text().startswith("<?xml")
