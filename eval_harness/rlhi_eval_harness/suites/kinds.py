"""Finds a kind of suite by name: ours, and those that other packages register as entry points ``rlhi.suites``."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import entry_points
from types import MappingProxyType
from typing import cast

from rlhi_eval_harness.suites.kind import SuiteKind
from rlhi_eval_harness.suites.suite import Suite
from rlhi_plugin.errors import ConfigError, MissingExtraError

ENTRY_POINTS = "rlhi.suites"
KINDS = MappingProxyType(
    {
        "simulated_users": "rlhi_eval_harness.suites.simulated_users:SimulatedUsers",
        "usereval": "rlhi_eval_harness.usereval.kind:UserEval",
        "prefeval": "rlhi_eval_harness.prefeval.kind:PrefEval",
        "harm": "rlhi_eval_harness.harm.kind:Harm",
        "reasoning": "rlhi_eval_harness.reasoning.kind:Reasoning",
        "alpaca_eval": "rlhi_eval_harness.alpaca.kind:AlpacaEval",
        "arena_hard": "rlhi_eval_harness.arena_hard.kind:ArenaHard",
    }
)
"""Kinds that ship, each as ``module:class``; imported at first use, since some need heavy libraries."""


def kind_named(name: str) -> type[SuiteKind]:
    """The class of a kind.

    Raises:
        ConfigError: there is no such kind.
        MissingExtraError: what it needs is not installed.
    """
    others = {entry.name: entry.value for entry in entry_points(group=ENTRY_POINTS)}
    known = {**others, **KINDS}
    if name not in known:
        raise ConfigError(f"there is no kind of suite called {name!r}. Choose one of: {', '.join(sorted(known))}.")
    module, _, attribute = known[name].partition(":")
    try:
        return cast("type[SuiteKind]", getattr(import_module(module), attribute))
    except ImportError as error:
        if isinstance(error, MissingExtraError):
            raise
        raise MissingExtraError(error.name or name, "eval") from error


def open_kind(suite: Suite) -> SuiteKind:
    """The suite, ready to run and to score."""
    return kind_named(suite.kind)(suite)
