"""Self-training: what the pool holds and what not, which labels are believed, and what is learned from them."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pytest

from rlhi_plugin.errors import ConfigError
from rlhi_plugin.labelling import Exchange
from rlhi_plugin.records import Conversation, FollowUpLabel, FollowUpSubtype, Message
from rlhi_training.labelling.decision import N_OUTPUTS, Decision
from rlhi_training.labelling.fast import FastLabeller
from rlhi_training.labelling.fit_fast import FitRow, fit_linear, look
from rlhi_training.labelling.fitting import FitOptions, fit_labellers, invented_rows
from rlhi_training.labelling.label_set import Label
from rlhi_training.labelling.label_set.reading import digest_of_text
from rlhi_training.labelling.self_training import SelfTraining, fit_self_trained, pseudo_labelled, teach, unlabelled


def _conversation(name: str, *texts: str) -> Conversation:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    messages = [
        Message(id=f"{name}-{i}", role="assistant" if i % 2 else "user", content=text, created_at=now)
        for i, text in enumerate(texts)
    ]
    return Conversation(conversation_id=name, user_id=None, messages=tuple(messages), started_at=now)


def _label(conversation: str, follow_up: str) -> Label:
    return Label(
        source="arena",
        conversation_id=conversation,
        turn=2,
        digest=digest_of_text(follow_up),
        label=FollowUpLabel.NEW_REQUEST,
        subtype=FollowUpSubtype.NEW_TOPIC,
        confidence="high",
        reader=0,
    )


def _pool(count: int) -> tuple[Exchange, ...]:
    return tuple(
        Exchange(conversation_id=f"p{i}", turn=1, message_id="m", request="a", reply="b", follow_up=f"word {i}")
        for i in range(count)
    )


def test_the_pool_holds_nothing_of_the_label_set():
    log = [
        _conversation("labelled", "Why?", "So.", "An unread turn of a conversation that was read"),
        _conversation("copy", "Why?", "So.", "word for word"),
        _conversation("new", "Why?", "So.", "shorter", "So", "and in French"),
        _conversation("again", "Why?", "So.", "shorter"),
    ]
    found = unlabelled(log, [_label("labelled", "another turn"), _label("elsewhere", "word for word")])
    assert [(one.conversation_id, one.follow_up) for one in found] == [("new", "shorter"), ("new", "and in French")]


def test_of_each_class_the_surest_share_is_believed_and_none_below_the_bound():
    scores = np.zeros((20, N_OUTPUTS), dtype=np.float32)
    scores[:10, 0] = np.linspace(1.0, 6.0, 10)
    scores[10:, 1] = np.linspace(0.1, 6.0, 10)
    training = SelfTraining(_pool(20), share=0.3, confidence=0.5, weight=0.25)
    rows = pseudo_labelled(scores, Decision(), training)
    assert [row.exchange.follow_up for row in rows] == [f"word {i}" for i in (7, 8, 9, 17, 18, 19)]
    assert [row.label for row in rows] == [FollowUpLabel.NEW_REQUEST] * 3 + [FollowUpLabel.WITH_FEEDBACK] * 3
    assert {(row.subtype, row.weight) for row in rows} == {(None, 0.25)}
    # No group of a labelled conversation, and not the empty one, which would stand for an invented exchange.
    assert all(row.group.startswith("unlabelled:") for row in rows)
    bound = SelfTraining(_pool(20), share=1.0, confidence=0.9)
    probabilities = Decision().probabilities(scores)
    assert len(pseudo_labelled(scores, Decision(), bound)) == int((probabilities.max(axis=1) >= 0.9).sum())


@pytest.mark.parametrize("wrong", [{"share": 0.0}, {"share": 1.1}, {"confidence": 1.5}, {"weight": 0.0}])
def test_numbers_that_cannot_be_are_refused(wrong):
    with pytest.raises(ConfigError, match="Give a share above 0"):
        SelfTraining(_pool(1), **wrong)


@pytest.fixture(scope="module")
def rows() -> list[FitRow]:
    """Invented exchanges, each request a conversation of its own."""
    return [FitRow(row.exchange, row.label, None, row.exchange.request) for row in invented_rows()]


@pytest.fixture(scope="module")
def told(rows) -> list[FitRow]:
    """With sub-types, without which the fast tier cannot be fitted."""
    kinds = list(FollowUpSubtype)
    return [FitRow(row.exchange, row.label, kinds[i % 3], row.group) for i, row in enumerate(rows)]


def test_without_a_pool_it_is_the_plain_fit(told):
    looked = look(told[::4])
    plain, same = fit_linear(looked), fit_self_trained(looked, None)
    assert np.array_equal(plain.term_weights, same.term_weights)


def test_words_that_only_the_pool_has_get_weights_from_it(told):
    """Pool rows have a labelled row's words and one more of their own: its weight can come from nowhere else."""
    labelled = told[::2]
    pool = tuple(
        row.exchange.model_copy(update={"follow_up": f"{row.exchange.follow_up} zzyzx"})
        for row in labelled
        if row.label is FollowUpLabel.WITH_FEEDBACK
    )
    looked, training = look(labelled), SelfTraining(pool, share=1.0, confidence=0.0)
    pseudo = teach(looked, training)
    assert len(pseudo) == len(pool)
    assert np.mean([row.label is FollowUpLabel.WITH_FEEDBACK for row in pseudo]) > 0.8
    before, after = fit_linear(looked), fit_self_trained(looked, training)
    words = [term for term in after.vocabulary if "zzyzx" in term]
    assert words
    assert not any(term in before.vocabulary for term in words)
    added = after.term_scores([words])[0]
    assert added[1] > max(added[0], 0.0)


@pytest.mark.slow
def test_the_fit_with_a_pool_writes_weights_that_label(told, tmp_path):
    half = told[::2]
    pool = tuple(row.exchange for row in told[1::2])
    made = fit_labellers(half, tmp_path, FitOptions(None, more=SelfTraining(pool)))
    fit_labellers(half, tmp_path / "plain", FitOptions(None))
    assert made["rows"] == len(half)
    own, plain = (FastLabeller(folder / "fast.safetensors") for folder in (tmp_path, tmp_path / "plain"))
    assert own.name != plain.name
    asked = [row.exchange for row in told]
    right = [one.label is row.label for one, row in zip(own.label_now(asked), told, strict=True)]
    assert np.mean(right) > 0.8
