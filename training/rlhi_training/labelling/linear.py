"""The linear model of the fast tier: terms and facts in, a score for each class and sub-type out. Numpy alone.

Terms are binary, weighted by their rarity (idf) and brought to unit length; facts are standardised, clipped and scaled
down, so that neither drowns the other. Weights are those of multinomial logistic regressions (scikit-learn), one over
the four classes and one over the sub-types.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlhi_plugin.errors import ArtefactError
from rlhi_plugin.labelling import Exchange
from rlhi_training.labelling.features import as_rows, fact_names, see
from rlhi_training.labelling.term_index import TermIndex
from rlhi_training.labelling.weights import read_weights, write_weights

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]

CLIP = 4.0
"""Standard deviations that a fact counts at most (ours)."""
FACT_SCALE = 0.1
"""What a standardised fact is multiplied with. By cross-validation, see the README."""


@dataclass(frozen=True)
class LinearModel:
    """Weights. Outputs are the classes, then the sub-types.

    Attributes:
        vocabulary: Row of each term in `term_weights`.
        idf: Rarity of each term, shape (terms,).
        term_weights: Shape (terms, outputs), half precision.
        means: Of each fact, shape (facts,).
        scales: One over its standard deviation.
        fact_weights: Shape (facts, outputs).
        bias: Shape (outputs,).
    """

    vocabulary: dict[str, int]
    idf: Floats
    term_weights: Floats
    means: Floats
    scales: Floats
    fact_weights: Floats
    bias: Floats

    def scores(self, exchanges: Sequence[Exchange]) -> Floats:
        """Log-odds up to a constant, shape (exchanges, outputs)."""
        import numpy as np

        # All of one exchange at once: its words are still near then, and soon forgotten.
        looked_at = [(see(exchange), self._terms.of(exchange)) for exchange in exchanges]
        facts = self.standardised(as_rows([seen for seen, _ in looked_at]))
        # How float32 products are added up depends on how many rows there are; a label must not. In double precision
        # what is left of that is far below what is kept.
        told = facts.astype(np.float64) @ self.fact_weights.astype(np.float64)
        return (told + self._scores_of([found for _, found in looked_at]) + self.bias).astype(np.float32)

    def standardised(self, facts: Floats) -> Floats:
        """Facts as the weights expect them."""
        import numpy as np

        standard: Floats = np.clip((facts - self.means) * self.scales, -CLIP, CLIP) * FACT_SCALE
        return standard.astype(np.float32)

    def term_scores(self, found: Sequence[Sequence[str]]) -> Floats:
        """What the terms of each text add to the scores, shape (texts, outputs)."""
        return self._scores_of([self._terms.numbers(one) for one in found])

    @cached_property
    def _terms(self) -> TermIndex:
        return TermIndex(self.vocabulary)

    def _scores_of(self, rows: Sequence[Sequence[int]]) -> Floats:
        """The same, for numbers of terms, sorted."""
        import numpy as np

        counts = np.array([len(row) for row in rows])
        total = np.zeros((len(rows), self.term_weights.shape[1]), dtype=np.float32)
        if not counts.sum():
            return total
        flat = np.fromiter((k for row in rows for k in row), dtype=np.int64, count=int(counts.sum()))
        filled = counts > 0
        starts = np.concatenate([[0], np.cumsum(counts)[:-1]])[filled]
        weights = self.idf[flat]
        length = np.sqrt(np.add.reduceat(weights**2, starts))
        total[filled] = np.add.reduceat(self.term_weights[flat] * weights[:, None], starts, axis=0) / length[:, None]
        return total

    def save(self, path: Path, facts: dict[str, str]) -> None:
        """Write one file; `facts` are kept beside the weights."""
        import numpy as np

        tensors: dict[str, Any] = {
            "idf": self.idf.astype(np.float16),
            "term_weights": self.term_weights.astype(np.float16),
            "means": self.means.astype(np.float32),
            "scales": self.scales.astype(np.float32),
            "fact_weights": self.fact_weights.astype(np.float32),
            "bias": self.bias.astype(np.float32),
        }
        vocabulary = json.dumps(list(self.vocabulary), ensure_ascii=False)
        write_weights(path, tensors, {**facts, "vocabulary": vocabulary, "facts": json.dumps(fact_names())})

    @classmethod
    def load(cls, path: Path) -> tuple[LinearModel, dict[str, str]]:
        """Read what `save` wrote: the model and the facts beside it.

        Raises:
            ArtefactError: the file is absent or damaged, or was made for other features.
        """
        import numpy as np

        tensors, metadata = read_weights(path)
        if tuple(json.loads(metadata["facts"])) != fact_names():
            raise ArtefactError(f"{path} was fitted on other features. Fit it again with: rlhi-train fit-labeller")
        names = json.loads(metadata["vocabulary"])
        return cls(
            {name: i for i, name in enumerate(names)}, **{k: v.astype(np.float32) for k, v in tensors.items()}
        ), metadata
