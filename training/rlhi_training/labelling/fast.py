"""`FastLabeller`: thousands of follow-ups a second, with numpy alone."""

from __future__ import annotations

import asyncio
import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cached_property, lru_cache
from itertools import chain
from pathlib import Path

from rlhi_plugin.errors import ConfigError
from rlhi_plugin.labelling import Exchange
from rlhi_plugin.records import FollowUp
from rlhi_training.labelling.decision import Decision, Verdicts, records, verdicts
from rlhi_training.labelling.evidence import evidence
from rlhi_training.labelling.linear import LinearModel
from rlhi_training.labelling.weights import FOLDER
from rlhi_training.workers import begin, holding_ctrl_c

WEIGHTS = FOLDER / "fast.safetensors"
_CHUNK = 256
"""Follow-ups that are sent to another process at once."""


class FastLabeller:
    """Labels follow-ups by words, cues and how the texts relate (`rlhi_training.labelling.features`).

    Args:
        weights: File of `rlhi-train fit-labeller`; None is the one in this package.
        workers: Processes that label; with more than one, each reads the weights for itself. They are started when
            the first large batch comes, and end with `close` or with this process.

    Raises:
        ConfigError: there would be no worker.
        ArtefactError: the file is absent, damaged, or made for other features. When the first label is asked for.
    """

    def __init__(self, weights: Path | None = None, *, workers: int = 1) -> None:
        if workers < 1:
            raise ConfigError(f"{workers} workers cannot label. Use 1 or more.")
        self._path = weights or WEIGHTS
        self._workers = workers

    @property
    def name(self) -> str:
        """Name and digest of the weights."""
        return f"fast/1+{self._loaded[1]['digest'][:8]}"

    async def label(self, exchanges: Sequence[Exchange]) -> list[FollowUp]:
        """One label per exchange, in order, with sub-type, the probability of each class, and evidence."""
        if self._workers > 1 and len(exchanges) > _CHUNK:
            chunks = [exchanges[start : start + _CHUNK] for start in range(0, len(exchanges), _CHUNK)]
            loop = asyncio.get_running_loop()
            with holding_ctrl_c():
                asked = [
                    loop.run_in_executor(self._pool, _decide, self._path, [(one.turn, *_texts(one)) for one in chunk])
                    for chunk in chunks
                ]
            answers = await asyncio.gather(*asked)
            made = (records(chunk, *answer, self.name) for chunk, answer in zip(chunks, answers, strict=True))
            return list(chain.from_iterable(made))
        return await asyncio.to_thread(self.label_now, list(exchanges)) if exchanges else []

    def label_now(self, exchanges: Sequence[Exchange]) -> list[FollowUp]:
        """As `label`, in this thread."""
        return records(exchanges, *self.decide(exchanges), self.name) if exchanges else []

    def decide(self, exchanges: Sequence[Exchange]) -> tuple[Verdicts, list[str | None]]:
        """Verdicts and evidence, before they become records."""
        said = verdicts(exchanges, self.model.scores(exchanges), self._decision)
        return said, evidence(exchanges, said.labels, self.model)

    def close(self) -> None:
        """End the workers."""
        if "_pool" in self.__dict__:
            self._pool.shutdown()
            del self._pool

    @property
    def model(self) -> LinearModel:
        """The weights."""
        return self._loaded[0]

    @cached_property
    def _pool(self) -> ProcessPoolExecutor:
        # Not forked: a copy of a process that runs torch's threads may hang.
        return ProcessPoolExecutor(self._workers, mp_context=multiprocessing.get_context("spawn"), initializer=begin)

    @cached_property
    def _loaded(self) -> tuple[LinearModel, dict[str, str]]:
        return LinearModel.load(self._path)

    @cached_property
    def _decision(self) -> Decision:
        return Decision.from_json(self._loaded[1]["decision"])


@lru_cache(maxsize=2)
def _in_this_process(path: Path) -> FastLabeller:
    return FastLabeller(path)


def _texts(exchange: Exchange) -> tuple[str, str, str, tuple[str, ...]]:
    return exchange.request, exchange.reply, exchange.follow_up, exchange.earlier


_Asked = tuple[int, str, str, str, tuple[str, ...]]
"""Turn and texts: records cost more to send between processes than they hold."""


def _decide(path: Path, asked: list[_Asked]) -> tuple[Verdicts, list[str | None]]:
    exchanges = [
        Exchange.model_construct(
            conversation_id="", message_id="", turn=turn, request=request, reply=reply, follow_up=said, earlier=earlier
        )
        for turn, request, reply, said, earlier in asked
    ]
    return _in_this_process(path).decide(exchanges)
