"""`EncoderLabeller`: the best tier that needs no language model, some hundred follow-ups a second on two CPU cores.

Two opinions are put together: what the fine-tuned encoder reads out of the three texts
(`rlhi_training.labelling.network`), and what the fast tier sees in words, cues and relations. They err differently; a
small regression, fitted on rows that neither had learned from, weighs them.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlhi_plugin.errors import ArtefactError
from rlhi_plugin.labelling import Exchange
from rlhi_plugin.records import FollowUp
from rlhi_training.labelling.decision import CLASSES, Decision, records, verdicts
from rlhi_training.labelling.evidence import evidence
from rlhi_training.labelling.fast import FastLabeller
from rlhi_training.labelling.weights import FOLDER, read_weights
from rlhi_training.sentence_encoder import minilm_folder

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]

WEIGHTS = FOLDER / "encoder.safetensors"
_BATCH = 64
_STACK = "stack."


@dataclass(frozen=True)
class Stack:
    """How the two opinions are weighed.

    Attributes:
        weights: Shape (8, 4): log-probabilities of the classes by the encoder, then by the fast tier, to scores.
        bias: Shape (4,).
    """

    weights: Floats
    bias: Floats

    def scores(self, network: Floats, fast: Floats) -> Floats:
        """Scores of classes and sub-types, shape (rows, 4 + 16), from those of both.

        Sub-types are the mean of the two.
        """
        import numpy as np

        count = len(CLASSES)
        both = np.concatenate([log_softmax(network[:, :count]), log_softmax(fast[:, :count])], axis=1)
        kinds = (log_softmax(network[:, count:]) + log_softmax(fast[:, count:])) / 2
        return np.concatenate([both @ self.weights + self.bias, kinds], axis=1).astype(np.float32)


def log_softmax(scores: Floats) -> Floats:
    """Log-probabilities, row by row."""
    import numpy as np

    shifted = scores - scores.max(axis=1, keepdims=True)
    rows: Floats = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return rows


class EncoderLabeller:
    """Labels follow-ups with a fine-tuned all-MiniLM-L6-v2 and the fast tier together.

    Args:
        weights: File of `rlhi-train fit-labeller`; None is the one in this package.
        fast: The fast tier that it was fitted with; None is the one in this package.

    Raises:
        MissingEncoderError: the package with the encoder's own weights is not installed.
        ArtefactError: the weights are absent or damaged, or fitted with another fast tier. When the first label is
            asked for.
    """

    def __init__(self, weights: Path | None = None, *, fast: FastLabeller | None = None) -> None:
        minilm_folder()
        self._path = weights or WEIGHTS
        self._fast = fast or FastLabeller()

    @property
    def name(self) -> str:
        """Name and digest of the weights."""
        return f"encoder/1+{self._facts['digest'][:8]}"

    async def label(self, exchanges: Sequence[Exchange]) -> list[FollowUp]:
        """One label per exchange, in order, with sub-type, the probability of each class, and evidence."""
        return await asyncio.to_thread(self.label_now, list(exchanges)) if exchanges else []

    def label_now(self, exchanges: Sequence[Exchange]) -> list[FollowUp]:
        """As `label`, in this thread."""
        if not exchanges:
            return []
        said = verdicts(exchanges, self.scores(exchanges), Decision.from_json(self._facts["decision"]))
        return records(exchanges, said, evidence(exchanges, said.labels, self._fast.model), self.name)

    def scores(self, exchanges: Sequence[Exchange]) -> Floats:
        """Scores of classes and sub-types before calibration, shape (exchanges, 4 + 16)."""
        return self._stack.scores(self._network_scores(exchanges), self._fast.model.scores(exchanges))

    def _network_scores(self, exchanges: Sequence[Exchange]) -> Floats:
        import numpy as np

        rows, run = self._runner
        pieces = rows.rows(exchanges)
        from rlhi_training.labelling.tokens import batches

        scores = np.zeros((len(pieces), self._outputs), dtype=np.float32)
        for places in batches(pieces, _BATCH):
            scores[places] = run([pieces[i] for i in places])
        return scores

    @cached_property
    def _runner(self) -> Any:
        """Makes rows, and scores a batch of them."""
        from rlhi_training.labelling.network_runner import NetworkRunner
        from rlhi_training.labelling.tokens import RowMaker

        tensors = {k: v for k, v in self._loaded[0].items() if not k.startswith(_STACK)}
        return RowMaker(), NetworkRunner(tensors)

    @cached_property
    def _loaded(self) -> tuple[dict[str, Any], dict[str, str]]:
        tensors, facts = read_weights(self._path)
        made_with = json.loads(facts["made_with"])
        if made_with["fast"] != self._fast.name:
            raise ArtefactError(
                f"{self._path} was fitted with {made_with['fast']}, not with {self._fast.name}."
                " Fit both again with: rlhi-train fit-labeller"
            )
        return tensors, facts

    @property
    def _facts(self) -> dict[str, str]:
        return self._loaded[1]

    @cached_property
    def _stack(self) -> Stack:
        tensors = self._loaded[0]
        return Stack(tensors[f"{_STACK}weights"], tensors[f"{_STACK}bias"])

    @property
    def _outputs(self) -> int:
        from rlhi_training.labelling.decision import N_OUTPUTS

        return N_OUTPUTS


def stack_tensors(stack: Stack) -> dict[str, Any]:
    """As they are kept in the weights file."""
    return {f"{_STACK}weights": stack.weights, f"{_STACK}bias": stack.bias}
