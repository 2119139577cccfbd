"""The language model as a classifier: what its rows hold, that it learns, comes back from its folder, can be cut."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rlhi_adapters.loading import load_tokenizer
from rlhi_plugin.errors import ArtefactError, ConfigError
from rlhi_plugin.labelling import Exchange
from rlhi_plugin.records import FollowUpLabel
from rlhi_training.labelling.decision import CLASSES, N_OUTPUTS
from rlhi_training.labelling.fit_fast import FitRow
from rlhi_training.labelling.language_model import (
    LanguageModelClassifier,
    LanguageModelOptions,
    TokenRows,
    fit_language_model,
)


def _row(follow_up: str, label: FollowUpLabel, number: int) -> FitRow:
    exchange = Exchange(
        conversation_id=f"c{number}", turn=1, message_id="m", request="water", reply="Water it", follow_up=follow_up
    )
    return FitRow(exchange, label, None, f"c{number}")


@pytest.fixture(scope="module")
def rows() -> list[FitRow]:
    words = (("shorter please", FollowUpLabel.WITH_FEEDBACK), ("bread and cheese", FollowUpLabel.NEW_REQUEST))
    return [_row(f"{text} {i}", label, i) for i in range(32) for text, label in words]


@pytest.fixture(scope="module")
def options(tiny_model_dir) -> LanguageModelOptions:
    return LanguageModelOptions(
        base=str(tiny_model_dir), layers=2, epochs=12, learning_rate=1e-2, batch=16, most_tokens=64
    )


@pytest.fixture(scope="module")
def fitted(rows, options):
    return fit_language_model(rows, options)


def test_the_follow_up_is_kept_whole_and_the_others_share_what_is_left(tiny_model_dir):
    tokenizer = load_tokenizer(tiny_model_dir)
    maker = TokenRows(tokenizer, 120)
    long = " ".join(f"word{i}" for i in range(400))
    one = Exchange(conversation_id="c", turn=1, message_id="m", request=long, reply=long, follow_up="keep this whole")
    ids = maker.row(one)
    text = tokenizer.decode(ids)
    assert len(ids) == 120
    assert "User: keep this whole\nLabel:" in text
    assert text.startswith("User: word0")
    assert "\nAssistant: word0" in text
    short = maker.row(one.model_copy(update={"request": "a", "reply": "b"}))
    assert tokenizer.decode(short) == "User: a\nAssistant: b\nUser: keep this whole\nLabel:"
    cut = tokenizer.decode(maker.row(one.model_copy(update={"follow_up": long})))
    assert len(maker.row(one.model_copy(update={"follow_up": long}))) == 120
    assert cut.endswith("word399\nLabel:")


def test_it_learns_and_says_nothing_of_sub_types(rows, fitted):
    scores = fitted.classifier.scores([row.exchange for row in rows])
    assert scores.shape == (len(rows), N_OUTPUTS)
    assert not scores[:, len(CLASSES) :].any()
    found = [CLASSES[k] for k in scores[:, : len(CLASSES)].argmax(axis=1)]
    assert np.mean([one is row.label for one, row in zip(found, rows, strict=True)]) > 0.9
    assert (fitted.rows, fitted.steps) == (12 * len(rows), fitted.planned)


def test_a_score_does_not_depend_on_what_stands_beside_it(rows, fitted):
    alone = fitted.classifier.scores([rows[0].exchange])
    longer = rows[1].exchange.model_copy(update={"reply": "Water it well and give it light " * 5})
    beside = fitted.classifier.scores([longer, rows[0].exchange])
    assert np.allclose(alone[0], beside[1], atol=2e-2)


def test_it_comes_back_from_its_folder(rows, options, fitted, tmp_path):
    fitted.classifier.save(tmp_path / "kept")
    assert not list((tmp_path / "kept").glob("*.bin"))
    loaded = LanguageModelClassifier.load(tmp_path / "kept", options)
    asked = [row.exchange for row in rows[:6]]
    assert np.allclose(loaded.scores(asked), fitted.classifier.scores(asked), atol=1e-3)
    with pytest.raises(ArtefactError, match="cannot read the classifier"):
        LanguageModelClassifier.load(tmp_path / "absent", options)
    weights = tmp_path / "kept" / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:200])
    with pytest.raises(ArtefactError, match="Fit it again"):
        LanguageModelClassifier.load(tmp_path / "kept", options)


def test_only_the_uppermost_layers_and_the_head_are_trained(rows, options):
    one = fit_language_model(rows[:16], LanguageModelOptions(base=options.base, layers=1, most_tokens=64))
    trained = [name for name, part in one.classifier.model.named_parameters() if part.requires_grad]
    assert all(".layers.1." in name or ".score." in name for name in trained)
    assert any(".score." in name for name in trained)


def test_a_limit_ends_training_and_says_how_far_it_came(rows, options):
    fitted = fit_language_model(
        rows, LanguageModelOptions(base=options.base, layers=1, epochs=10_000, batch=16, most_tokens=64, most_seconds=1)
    )
    assert 0 < fitted.steps < fitted.planned == 40_000
    assert fitted.rows == fitted.steps * 16
    assert fitted.tokens > fitted.rows
    assert torch.isfinite(torch.tensor(fitted.classifier.scores([rows[0].exchange]))).all()


@pytest.mark.parametrize("wrong", [{"layers": 0}, {"most_tokens": 31}, {"epochs": 0}])
def test_numbers_that_cannot_be_are_refused(wrong):
    with pytest.raises(ConfigError, match="Give larger numbers"):
        LanguageModelOptions(**wrong)
