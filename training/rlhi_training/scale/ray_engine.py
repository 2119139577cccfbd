"""Many machines: the same pieces of work as a Ray Data pipeline, one row in, one row out.

Each piece writes its files under one name, whole or not at all, and says what it did. So a piece whose worker is killed
is simply done again by another, and one that was done twice is there once. The machines share the run's folder.
"""

from __future__ import annotations

import json
import logging
import os
import pickle
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar, cast

from rlhi_plugin.errors import MissingExtraError, RLHIError

A = TypeVar("A")
R = TypeVar("R")


class RayEngine:
    """Workers of a Ray cluster: the one that ``RAY_ADDRESS`` names, or one on this machine that ends with the run.

    Args:
        processes: Of a cluster that is started here.

    Raises:
        MissingExtraError: Ray is not installed.
    """

    name = "ray"

    def __init__(self, processes: int) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        if not os.environ.get("RAY_ADDRESS"):
            # Whatever its name says: off, a cluster of one machine listens on the loopback address only.
            os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
        try:
            import ray.data  # noqa: F401 - whether it is there
        except ImportError as error:
            raise MissingExtraError("ray", "scale") from error
        self._processes = processes
        self._started = False

    def map(self, work: Callable[[A], R], items: Iterable[A]) -> Iterator[tuple[int, R]]:
        """See `Engine.map`; results are what JSON holds."""
        import ray
        from ray.exceptions import RayTaskError

        self._begin()
        every = list(items)
        if not every:
            return
        known = ray.put((work, every))

        def one(row: dict[str, Any]) -> dict[str, Any]:
            task, things = ray.get(known)
            number = int(row["item"])
            try:
                return {"number": number, "summary": json.dumps(task(things[number])), "error": b""}
            except (RLHIError, OSError) as error:
                # Ray would pass on the text of a traceback; who runs this needs the error and its remedy.
                return {"number": number, "summary": "", "error": pickle.dumps(error)}

        # A row is a piece of work of its own, to be lost and done again alone.
        rows = ray.data.from_items(list(range(len(every))), override_num_blocks=len(every))
        try:
            for row in rows.map(one, num_cpus=1).iter_rows():
                if row["error"]:
                    raise pickle.loads(row["error"])  # noqa: S301 - our own worker wrote it
                yield row["number"], cast("R", json.loads(row["summary"]))
        except RayTaskError as error:
            raise error.as_instanceof_cause() from error

    def _begin(self) -> None:
        import ray

        if not ray.is_initialized():
            here: dict[str, Any] = {"num_cpus": self._processes, "include_dashboard": False}
            if os.environ.get("RAY_ADDRESS"):
                here = {}
            else:
                self._started = True
            with _own_sigterm():
                ray.init(log_to_driver=False, configure_logging=False, **here)
        logging.getLogger("ray.data").setLevel(logging.WARNING)
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.print_on_execution_start = False

    def close(self) -> None:
        """End the cluster that was started here."""
        import ray

        if self._started:
            ray.shutdown()
            self._started = False


@contextmanager
def _own_sigterm() -> Iterator[None]:
    """What SIGTERM does stays as it was: Ray's own end would leave calls to models on their way."""
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if handler is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)
