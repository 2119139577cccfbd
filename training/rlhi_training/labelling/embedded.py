"""`EmbeddedLabeller`: the four classes of follow-ups (arXiv 2509.25137, section 2.2) without a language model.

A logistic regression over sentence embeddings and plain facts (`rlhi_training.labelling.features`), fitted when it is
first used, on the invented exchanges of ``examples.jsonl``. Nothing is unpickled, and whoever wants
other decisions edits the examples. It is a default that needs no key, not a replacement for reading: an LLM labeller is
one option away (``label.labeller = "llm"``).
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import re
import tempfile
from collections.abc import Sequence
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlhi_adapters.base_models import cache_root
from rlhi_plugin.labelling import Exchange
from rlhi_plugin.records import FollowUp, FollowUpLabel
from rlhi_training.labelling.features import matrix
from rlhi_training.sentence_encoder import Encoder, SentenceEncoder

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_INVERSE_REGULARISATION = 1.0
"""scikit-learn's C. Ours, by cross-validation over the requests of the examples."""
_SENTENCE = re.compile(r"(?<=[.!?\u3002])\s+|\n+")
_SPACE = re.compile(r"\W+")
_MAX_EVIDENCE_CHARS = 300
_MAX_SENTENCES = 6
"""Of a longer message, mostly pasted material, the first sentence is the evidence."""


class EmbeddedLabeller:
    """Labels follow-ups on the CPU, about a hundred exchanges a second.

    Args:
        encoder: Defaults to all-MiniLM-L6-v2.

    Raises:
        MissingEncoderError: the package with the encoder's weights is not installed.
    """

    def __init__(self, encoder: Encoder | None = None) -> None:
        self._encoder = SentenceEncoder() if encoder is None else encoder
        text = (files("rlhi_training") / "labelling" / "examples.jsonl").read_text("utf-8")
        self._examples: list[dict[str, str]] = [json.loads(line) for line in text.splitlines()]
        self.name = f"embedded/1+{hashlib.sha256(text.encode()).hexdigest()[:8]}"

    async def label(self, exchanges: Sequence[Exchange]) -> list[FollowUp]:
        """One label per exchange, in order, with the probability of each class.

        The evidence is the sentence of the follow-up that speaks most for the label, verbatim.
        """
        return await asyncio.to_thread(self._label, list(exchanges)) if exchanges else []

    def _label(self, exchanges: list[Exchange]) -> list[FollowUp]:
        classes = [FollowUpLabel(name) for name in self._model.classes_]
        rows = self._model.predict_proba(matrix(exchanges, self._encoder))
        labels, probabilities = [], []
        for exchange, row in zip(exchanges, rows, strict=True):
            table = dict(zip(classes, map(float, row), strict=True))
            label = max(table, key=lambda name: table[name])
            if _same(exchange.follow_up, exchange.request):
                # Only spacing, case or punctuation differ: decided by the rules, whatever the embedding says.
                label = FollowUpLabel.WITHOUT_FEEDBACK
                table = {name: float(name is label) for name in classes}
            labels.append(label)
            probabilities.append(table)
        evidence = self._evidence(exchanges, labels)
        return [
            FollowUp(
                conversation_id=exchange.conversation_id,
                turn=exchange.turn,
                message_id=exchange.message_id,
                label=label,
                probabilities=table,
                evidence=quote,
                labeller=self.name,
            )
            for exchange, label, table, quote in zip(exchanges, labels, probabilities, evidence, strict=True)
        ]

    def _evidence(self, exchanges: list[Exchange], labels: list[FollowUpLabel]) -> list[str | None]:
        """Of each follow-up the sentence that is likeliest to have its label; the first one where any would do."""
        parts = [
            [s.strip()[:_MAX_EVIDENCE_CHARS] for s in _SENTENCE.split(e.follow_up[:2000]) if s.strip()]
            for e in exchanges
        ]
        tells = (FollowUpLabel.WITH_FEEDBACK, FollowUpLabel.POSITIVE_FEEDBACK)
        asked = [
            (i, sentence)
            for i, sentences in enumerate(parts)
            if labels[i] in tells and 1 < len(sentences) <= _MAX_SENTENCES
            for sentence in sentences
        ]
        best: dict[int, tuple[float, str]] = {}
        if asked:
            singles = [exchanges[i].model_copy(update={"follow_up": s}) for i, s in asked]
            rows = self._model.predict_proba(matrix(singles, self._encoder))
            columns = {FollowUpLabel(name): k for k, name in enumerate(self._model.classes_)}
            for (i, sentence), row in zip(asked, rows, strict=True):
                best[i] = max(best.get(i, (-1.0, "")), (float(row[columns[labels[i]]]), sentence))
        return [best[i][1] if i in best else (s[0] if s else None) for i, s in enumerate(parts)]

    @cached_property
    def _model(self) -> Any:
        return fit(self._examples, self._features())

    def _features(self) -> NDArray[np.float32]:
        """Features of the examples: computed once, then read from the cache folder (numbers only, no pickle)."""
        import numpy as np

        source = (files("rlhi_training") / "labelling" / "features.py").read_bytes()
        wordings = (files("rlhi_training") / "asked_for.toml").read_bytes()
        encoder = getattr(self._encoder, "name", type(self._encoder).__name__)
        key = hashlib.sha256(b"\0".join([source, wordings, self.name.encode(), encoder.encode()])).hexdigest()
        path = cache_root() / "labeller" / f"{key[:16]}.npy"
        try:
            known: NDArray[np.float32] = np.load(path, allow_pickle=False)
        except (OSError, ValueError):
            known = matrix([as_exchange(example) for example in self._examples], self._encoder)
            _keep(path, known)
        return known


def fit(examples: Sequence[dict[str, str]], features: NDArray[np.float32]) -> Any:
    """Fit scikit-learn's logistic regression; classes weigh the same however many examples they have."""
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=_INVERSE_REGULARISATION, class_weight="balanced", max_iter=500)
    return model.fit(features, [example["label"] for example in examples])


def _keep(path: Path, features: NDArray[np.float32]) -> None:
    """Write the cache if the folder allows it; without, the next start computes again."""
    import numpy as np

    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".npy", delete=False) as draft:
            np.save(draft, features, allow_pickle=False)
        Path(draft.name).replace(path)


def as_exchange(example: dict[str, str]) -> Exchange:
    """An example of the data file as the exchange that it describes."""
    return Exchange(
        conversation_id="example",
        turn=1,
        message_id="example",
        request=example["request"],
        reply=example["reply"],
        follow_up=example["follow_up"],
    )


def _same(follow_up: str, request: str) -> bool:
    """Equal but for spacing, case and punctuation."""
    first, second = (_SPACE.sub(" ", text).strip().lower() for text in (follow_up, request))
    return first == second and bool(first)
