"""The one place where ``alpaca_eval`` is imported; it takes seconds, and warns of what its releases cannot help."""

from __future__ import annotations

import importlib
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rlhi_plugin.errors import MissingExtraError


def alpaca_eval_module(name: str) -> Any:
    """Import a module of ``alpaca_eval``.

    Args:
        name: Below the package, such as ``metrics.winrate``.

    Raises:
        MissingExtraError: the package is not installed.
    """
    root = logging.getLogger()
    level = root.level
    with warnings.catch_warnings():
        # alpaca_eval imports pkg_resources, which warns of its own end; the extra holds setuptools where it still is.
        warnings.filterwarnings("ignore", message=".*pkg_resources.*")
        try:
            return importlib.import_module(f"alpaca_eval.{name}")
        except ImportError as error:
            raise MissingExtraError("alpaca_eval", "eval") from error
        finally:
            # Its import makes the root logger talkative, and every other library's with it.
            root.setLevel(level)


@contextmanager
def as_a_guest() -> Iterator[None]:
    """While ``alpaca_eval`` works, its log, raw answers included, stays out of ours: it logs to the root logger."""
    root = logging.getLogger()
    level = root.level
    root.addFilter(_not_alpaca_eval)
    try:
        yield
    finally:
        root.removeFilter(_not_alpaca_eval)
        root.setLevel(level)


def _not_alpaca_eval(record: logging.LogRecord) -> bool:
    return "alpaca_eval" not in record.pathname
