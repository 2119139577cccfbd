"""What a labeller is, and how one is found by name.

Labellers are entry points of the group ``rlhi.labellers``, so that the live half can use one that needs torch without
importing it, and anybody's package can bring another.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.metadata import entry_points
from inspect import signature
from typing import Protocol, runtime_checkable

from rlhi_plugin.errors import ConfigError, MissingExtraError
from rlhi_plugin.labelling.exchange import Exchange
from rlhi_plugin.records import FollowUp

ENTRY_POINTS = "rlhi.labellers"


@runtime_checkable
class Labeller(Protocol):
    """Labels follow-ups."""

    @property
    def name(self) -> str:
        """Name and version; recorded in every label."""
        ...

    async def label(self, exchanges: Sequence[Exchange]) -> list[FollowUp]:
        """Label each exchange: as many labels as exchanges, in the same order.

        Raises:
            ModelCallError: a labeller that asks a model could not.
        """
        ...


def load_labeller(name: str, *, llm: str | None = None) -> Labeller:
    """Make the labeller that is registered under `name`.

    Args:
        name: ``embedded``, ``llm``, or what another package registers.
        llm: Name of a model for a labeller that asks one, as LiteLLM writes it (``openai/gpt-4o``).

    Raises:
        ConfigError: no such labeller, or it does not go with `llm`.
        MissingExtraError: what it needs is not installed.
    """
    found = {entry.name: entry for entry in entry_points(group=ENTRY_POINTS)}
    if name not in found:
        raise ConfigError(
            f"there is no labeller {name!r}. Choose one of: {', '.join(sorted(found)) or 'none installed'}."
        )
    try:
        factory: Callable[..., Labeller] = found[name].load()
        if llm is None:
            return factory()
        if "llm" not in signature(factory).parameters:
            raise ConfigError(f"the labeller {name!r} asks no model. Leave the model out, or use: --labeller llm")
        return factory(llm=llm)
    except ImportError as error:
        if isinstance(error, MissingExtraError):
            raise
        raise MissingExtraError(error.name or name, "train") from error
