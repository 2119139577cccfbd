"""Who does the work: a pool of processes here, or `rlhi_training.scale.ray_engine` on many machines."""

from __future__ import annotations

import gc
import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Protocol, TypeVar

from rlhi_plugin.errors import ArtefactError
from rlhi_training import workers

A = TypeVar("A")
R = TypeVar("R")

_COLLECT_AFTER = 50_000
"""Objects that a worker makes before Python looks for cycles: a batch makes more, and none of them is one (ours)."""
_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_ATTEMPTS = 3


class Engine(Protocol):
    """Runs pieces of work, each of which writes files and says in a summary what it did."""

    name: str

    def map(self, work: Callable[[A], R], items: Iterable[A]) -> Iterator[tuple[int, R]]:
        """Number and result of each item, as they are done.

        Raises:
            ArtefactError: a worker ended again and again.
        """
        ...

    def close(self) -> None:
        """End what was started."""
        ...


class LocalEngine:
    """Processes of this machine.

    Args:
        processes: How many, at least 1.
    """

    name = "local"

    def __init__(self, processes: int) -> None:
        self._processes = processes
        self._pool: ProcessPoolExecutor | None = None
        self._unfinished = False

    def map(self, work: Callable[[A], R], items: Iterable[A]) -> Iterator[tuple[int, R]]:
        """See `Engine.map`. Items are taken as they are needed, two for each process."""
        waiting = iter(enumerate(items))
        running: dict[Future[R], tuple[int, A]] = {}
        again: list[tuple[int, A]] = []
        losses = 0
        self._unfinished = True
        while True:
            while len(running) < 2 * self._processes:
                one = again.pop() if again else next(waiting, None)
                if one is None:
                    break
                try:
                    with workers.holding_ctrl_c():
                        running[self._open().submit(work, one[1])] = one
                except BrokenProcessPool:
                    again.append(one)
                    losses += self._drop_pool()
            if not running:
                self._unfinished = False
                return
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                number, item = running.pop(future)
                try:
                    yield number, future.result()
                except BrokenProcessPool as error:
                    # A worker was killed, for want of memory or by hand. What is done is in files.
                    again.append((number, item))
                    losses += self._drop_pool()
                    if losses > _ATTEMPTS:
                        raise ArtefactError(
                            "worker processes were killed again and again: is there too little memory? Use fewer"
                            " --processes or more --shards."
                        ) from error

    def _open(self) -> ProcessPoolExecutor:
        if self._pool is None:
            with _single_threads():
                # Not forked: a copy of a process that runs torch's threads may hang.
                context = multiprocessing.get_context("spawn")
                self._pool = ProcessPoolExecutor(self._processes, mp_context=context, initializer=_begin)
        return self._pool

    def _drop_pool(self) -> bool:
        """Let a broken pool go; whether there was one: all its pieces of work report the same loss."""
        broken, self._pool = self._pool, None
        if broken is not None:
            broken.shutdown(wait=False, cancel_futures=True)
        return broken is not None

    def close(self) -> None:
        """See `Engine.close`. After an error or Ctrl-C no piece of work is waited for: it is whole, or not there."""
        if self._pool is not None:
            if self._unfinished:
                for process in list(self._pool._processes.values()):  # noqa: SLF001 - public from Python 3.14 on
                    process.terminate()
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None


def _begin() -> None:
    workers.begin()
    gc.set_threshold(_COLLECT_AFTER, 20, 20)


@contextmanager
def _single_threads() -> Iterator[None]:
    """Processes that are started inside use one thread each for matrices: there is one for every core already."""
    before = {name: os.environ.get(name) for name in _ONE_THREAD}
    os.environ.update(dict.fromkeys(_ONE_THREAD, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
