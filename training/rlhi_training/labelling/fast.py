"""`FastLabeller`: thousands of follow-ups a second, with numpy alone."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from rlhi_plugin.labelling import Exchange
from rlhi_plugin.records import FollowUp
from rlhi_training.labelling.decision import Decision, records, verdicts
from rlhi_training.labelling.evidence import evidence
from rlhi_training.labelling.linear import LinearModel
from rlhi_training.labelling.weights import FOLDER

WEIGHTS = FOLDER / "fast.safetensors"


class FastLabeller:
    """Labels follow-ups by words, cues and how the texts relate (`rlhi_training.labelling.features`).

    Args:
        weights: File of `rlhi-train fit-labeller`; None is the one in this package.

    Raises:
        ArtefactError: the file is absent, damaged, or made for other features. When the first label is asked for.
    """

    def __init__(self, weights: Path | None = None) -> None:
        self._path = weights or WEIGHTS

    @property
    def name(self) -> str:
        """Name and digest of the weights."""
        return f"fast/1+{self._loaded[1]['digest'][:8]}"

    async def label(self, exchanges: Sequence[Exchange]) -> list[FollowUp]:
        """One label per exchange, in order, with sub-type, the probability of each class, and evidence."""
        return await asyncio.to_thread(self.label_now, list(exchanges)) if exchanges else []

    def label_now(self, exchanges: Sequence[Exchange]) -> list[FollowUp]:
        """As `label`, in this thread."""
        if not exchanges:
            return []
        said = verdicts(exchanges, self.model.scores(exchanges), self._decision)
        return records(exchanges, said, evidence(exchanges, said.labels, self.model), self.name)

    @property
    def model(self) -> LinearModel:
        """The weights."""
        return self._loaded[0]

    @cached_property
    def _loaded(self) -> tuple[LinearModel, dict[str, str]]:
        return LinearModel.load(self._path)

    @cached_property
    def _decision(self) -> Decision:
        return Decision.from_json(self._loaded[1]["decision"])
