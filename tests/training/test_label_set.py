"""The label set: what it holds, which part each conversation belongs to, and the way back to the texts."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rlhi_plugin.errors import ConfigError
from rlhi_plugin.importers import read_log
from rlhi_plugin.records import Conversation, FollowUpLabel
from rlhi_training.cli import app
from rlhi_training.labelling.agreement import agreement
from rlhi_training.labelling.decision import GOES_WITH
from rlhi_training.labelling.label_set import join, part_of, read_labels, read_second_readings
from rlhi_training.labelling.label_set.annotations import find_span, read_annotations
from rlhi_training.labelling.label_set.reading import COLUMNS, Label, digest_of_text, write_labels


def label(conversation="c", turn=2, text="Shorter, please.", **more) -> Label:
    fields = {"label": "reattempt_with_feedback", "subtype": "shorter", "confidence": "high", "reader": 0} | more
    return Label(source="wildchat", conversation_id=conversation, turn=turn, digest=digest_of_text(text), **fields)


def test_the_label_set_is_large_and_holds_every_class():
    labels = read_labels()
    assert len(labels) >= 5000
    assert {one.label for one in labels} == set(FollowUpLabel)
    # The copy of Chatbot Arena gives both sides of a comparison one id; users said the same to both.
    assert len({one.key for one in labels}) >= len(labels) - 60
    told = [one for one in labels if one.label in {FollowUpLabel.WITH_FEEDBACK, FollowUpLabel.POSITIVE_FEEDBACK}]
    assert all(one.start is not None and one.end is not None and one.start < one.end for one in told)


def test_sub_types_go_with_their_labels_but_for_a_few():
    labels = read_labels()
    odd = [one for one in labels if one.subtype not in GOES_WITH[one.label]]
    assert len(odd) <= 0.02 * len(labels)


def test_two_readers_agree():
    found = agreement(read_labels(), read_second_readings())
    assert found.follow_ups >= 300
    assert found.kappa >= 0.9
    assert min(found.kappa_of_class.values()) >= 0.85
    assert found.kappa_of_subtype < found.kappa


def test_parts_are_cut_by_conversation_and_stay_as_they_are():
    # Frozen: a conversation that moved would be trained on and tested on.
    names = ["chatbot_arena_0001", "chatbot_arena_0003", "00183ce586b46292f6b4282fd808c426", "a", "b", "c"]
    assert [part_of(name) for name in names] == FROZEN
    shares = Counter(part_of(one.conversation_id) for one in read_labels())
    total = sum(shares.values())
    assert 0.30 < shares["held_out"] / total < 0.37
    assert 0.12 < shares["development"] / total < 0.21


FROZEN = ["development", "development", "held_out", "development", "development", "train"]


def test_labels_find_their_texts_by_conversation_turn_and_digest(conversation):
    log = [conversation("c", ["Basil?", "Water it.", "Shorter, please.", "Water.", "Thanks!"])]
    labels = [
        label(),
        label(turn=3, text="Thanks!", label="positive_feedback", subtype="thanks"),
        label(turn=3, text="Thank you!"),
        label(turn=7),
        label("elsewhere"),
    ]
    found = join(labels, log)
    assert [(one.exchange.follow_up, one.label.turn) for one in found.examples] == [
        ("Shorter, please.", 2),
        ("Thanks!", 3),
    ]
    assert Counter(one.why for one in found.unmatched) == {
        "other_text": 1,
        "turn_absent": 1,
        "conversation_absent": 1,
    }


def test_two_conversations_of_one_id_are_told_apart(conversation):
    log = [
        conversation("c", ["Basil?", "Water it.", "Shorter, please."]),
        conversation("c", ["Cats?", "They purr.", "And dogs?"]),
    ]
    labels = [label(text="And dogs?", label="new_request", subtype="next_step"), label()]
    found = join(labels, log)
    assert {one.exchange.follow_up: one.label.label.value for one in found.examples} == {
        "Shorter, please.": "reattempt_with_feedback",
        "And dogs?": "new_request",
    }


def test_a_file_comes_back_as_it_was_written(tmp_path):
    labels = [label(turn=3, start=0, end=7), label()]
    write_labels(tmp_path / "labels.csv", labels)
    assert read_labels(tmp_path / "labels.csv") == sorted(labels, key=lambda one: one.turn)
    assert (tmp_path / "labels.csv").read_text().splitlines()[0] == ",".join(COLUMNS)


def test_a_bad_row_is_named(tmp_path):
    write_labels(tmp_path / "labels.csv", [label()])
    text = (tmp_path / "labels.csv").read_text()
    (tmp_path / "labels.csv").write_text(text.replace("shorter", "shortest"))
    with pytest.raises(ConfigError, match=r"labels\.csv:2: subtype"):
        read_labels(tmp_path / "labels.csv")
    with pytest.raises(ConfigError, match="cannot read"):
        read_labels(tmp_path / "absent.csv")


@pytest.fixture
def annotations(tmp_path) -> Path:
    (tmp_path / "out").mkdir()
    key = {f"c1.{turn}": {"source": "wildchat", "hash": "abc", "user_turn": turn, "part": 0} for turn in (2, 3, 4)}
    texts = {"c1.2": "No,  that is\nwrong!", "c1.3": "go on", "c1.4": "thanks"}
    (tmp_path / "key.json").write_text(json.dumps(key))
    (tmp_path / "texts.json").write_text(json.dumps(texts))
    lines = [
        "c1.2\tf\tpoints_out_error\th\tthat is wrong",
        "c1.3 | n | continue | m | ",
        "c1.9\tn\tother\th\t",
        "c1.4\tx",
    ]
    (tmp_path / "out" / "part2.tsv").write_text("\n".join(lines) + "\n")
    (tmp_path / "out" / "second0.tsv").write_text("c1.2\tf\tcorrection\tl\twrong\n")
    return tmp_path


def test_annotations_become_labels_without_text(annotations):
    found = read_annotations(annotations)
    assert [(one.turn, one.label.value, one.reader) for one in found.first] == [
        (2, "reattempt_with_feedback", 2),
        (3, "new_request", 2),
    ]
    assert "No,  that is\nwrong!"[found.first[0].start : found.first[0].end] == "that is\nwrong"
    assert found.first[1].start is None
    assert [(one.subtype.value, one.reader) for one in found.second] == [("correction", 0)]
    assert [problem.split(": ")[0] for problem in found.refused] == ["part2.tsv:3", "part2.tsv:4"]


def test_the_import_can_be_run_again(annotations, tmp_path):
    out = tmp_path / "labels"
    for _ in range(2):
        done = CliRunner().invoke(app, ["import-labels", str(annotations), "--out", str(out)])
        assert done.exit_code == 0, done.output
    assert len(read_labels(out / "follow_ups.csv")) == 2
    assert "wrong" not in (out / "follow_ups.csv").read_text()


@pytest.mark.parametrize(
    ("quote", "text", "span"),
    [("b c", "a B\n C d", (2, 6)), ("x", "abc", None), ("", "abc", None), ("(a)", "f(a)", (1, 4))],
)
def test_a_quotation_is_found_whatever_its_case_and_spacing(quote, text, span):
    assert find_span(quote, text) == span


def test_every_label_of_wildchat_finds_its_text(wildchat_path):
    labels = [one for one in read_labels() if one.source == "wildchat"]
    log = [one for one in read_log(wildchat_path, any_order=True) if isinstance(one, Conversation)]
    found = join(labels, log)
    assert len(found.examples) == len(labels) >= 1200
    assert found.unmatched == []
