"""Fitting the fast tier: multinomial logistic regressions over terms and facts, by scikit-learn."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rlhi_plugin.labelling import Exchange
from rlhi_plugin.records import FollowUpLabel, FollowUpSubtype
from rlhi_training.labelling.decision import CLASSES, N_OUTPUTS, SUBTYPES
from rlhi_training.labelling.features import matrix, terms
from rlhi_training.labelling.linear import CLIP, FACT_SCALE, LinearModel

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MIN_FREQUENCY = 3
"""Follow-ups that a term must be in to get a weight (ours): also keeps what one user wrote out of the weights."""
INVERSE_REGULARISATION = 1.0
"""scikit-learn's C. By cross-validation, see the README."""
INVENTED_MORE = 3.0
"""By cross-validation and what simulated users say, see the README."""


@dataclass(frozen=True)
class FitRow:
    """One exchange to learn from.

    Attributes:
        exchange: The texts.
        label: What it is.
        subtype: In more detail; None where nobody said.
        group: What must not be split between folds: the conversation.
        weight: How much it counts.
    """

    exchange: Exchange
    label: FollowUpLabel
    subtype: FollowUpSubtype | None
    group: str
    weight: float = 1.0


@dataclass(frozen=True)
class Looked:
    """Rows and what was seen in them; computed once, used by every fold.

    Attributes:
        rows: The rows.
        facts: Shape (rows, facts).
        terms: Of each row.
    """

    rows: list[FitRow]
    facts: NDArray[np.float32]
    terms: list[list[str]]

    def part(self, places: Sequence[int]) -> Looked:
        """Some of the rows."""
        return Looked([self.rows[i] for i in places], self.facts[list(places)], [self.terms[i] for i in places])


def look(rows: list[FitRow]) -> Looked:
    """See what is in the rows."""
    exchanges = [row.exchange for row in rows]
    return Looked(rows, matrix(exchanges), [terms(exchange) for exchange in exchanges])


def fit_linear(looked: Looked) -> LinearModel:
    """Fit the weights of classes and sub-types.

    Invented rows (without a group) count `INVENTED_MORE` times what they do for the network: it has read a library
    before, this model nothing.

    Raises:
        MissingExtraError: scikit-learn is not installed.
    """
    import numpy as np
    from scipy.sparse import csr_matrix, hstack

    counts = Counter(term for found in looked.terms for term in set(found))
    names = sorted(term for term, count in counts.items() if count >= MIN_FREQUENCY)
    vocabulary = {name: i for i, name in enumerate(names)}
    seen = np.array([counts[name] for name in names], dtype=np.float64)
    idf = np.log((1 + len(looked.rows)) / (1 + seen)) + 1
    means, deviations = looked.facts.mean(axis=0), looked.facts.std(axis=0)
    scales = np.divide(1.0, deviations, out=np.zeros_like(deviations), where=deviations > 1e-6)  # noqa: PLR2004 - constant columns
    facts = np.clip((looked.facts - means) * scales, -CLIP, CLIP) * FACT_SCALE
    inputs = hstack([csr_matrix(facts), _rows(looked.terms, vocabulary, idf)]).tocsr()
    weights = np.zeros((facts.shape[1] + len(names), N_OUTPUTS), dtype=np.float32)
    bias = np.zeros(N_OUTPUTS, dtype=np.float32)
    labels = [row.label for row in looked.rows]
    strength = np.array([row.weight * (1.0 if row.group else INVENTED_MORE) for row in looked.rows])
    _regress(inputs, labels, strength, (weights, bias), {name: i for i, name in enumerate(CLASSES)})
    told = [i for i, row in enumerate(looked.rows) if row.subtype is not None]
    columns = {name: len(CLASSES) + i for i, name in enumerate(SUBTYPES)}
    _regress(inputs[told], [looked.rows[i].subtype for i in told], strength[told], (weights, bias), columns)
    cut = facts.shape[1]
    return LinearModel(
        vocabulary, *(a.astype(np.float32) for a in (idf, weights[cut:], means, scales, weights[:cut], bias))
    )


def _rows(found: Sequence[Sequence[str]], vocabulary: dict[str, int], idf: NDArray[np.float64]) -> Any:
    import numpy as np
    from scipy.sparse import csr_matrix

    columns = [sorted({vocabulary[term] for term in one if term in vocabulary}) for one in found]
    values = [idf[row] / max(1e-9, float(np.sqrt((idf[row] ** 2).sum()))) for row in columns]
    starts = np.cumsum([0, *(len(row) for row in columns)])
    flat = (np.concatenate(values), np.concatenate(columns).astype(np.int64), starts)
    return csr_matrix(flat, shape=(len(found), len(idf)))


def _regress(
    inputs: Any, targets: Sequence[Any], strength: Any, into: tuple[Any, Any], columns: dict[Any, int]
) -> None:
    """Fit one regression and write its weights to its columns; a class that nobody saw gets a score that never wins."""
    from sklearn.linear_model import LogisticRegression

    weights, bias = into
    model = LogisticRegression(C=INVERSE_REGULARISATION, max_iter=300)
    model.fit(inputs, [columns[target] for target in targets], sample_weight=strength)
    for column in columns.values():
        bias[column] = -30.0
    if len(model.classes_) == 2:  # noqa: PLR2004 - scikit-learn then keeps one row of weights for two classes
        weights[:, model.classes_[1]], bias[list(model.classes_)] = model.coef_[0], [0.0, model.intercept_[0]]
        return
    weights[:, model.classes_] = model.coef_.T
    bias[model.classes_] = model.intercept_
