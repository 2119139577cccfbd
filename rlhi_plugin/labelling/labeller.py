"""What a labeller is, and how one is found by name.

Labellers are entry points of the group ``rlhi.labellers``, so that the live half can use one that needs torch without
importing it, and anybody's package can bring another.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.metadata import entry_points
from inspect import signature
from typing import Protocol, runtime_checkable

from rlhi_plugin.errors import ConfigError, MissingExtraError, ModelCallError
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


@runtime_checkable
class PatientLabeller(Labeller, Protocol):
    """A labeller that goes on where one follow-up cannot be labelled."""

    async def label_each(self, exchanges: Sequence[Exchange]) -> list[FollowUp | ModelCallError]:
        """For each exchange its label, or why it has none.

        Raises:
            ProviderUnavailableError: no call can succeed as things are.
        """
        ...


async def label_each(labeller: Labeller, exchanges: Sequence[Exchange]) -> list[FollowUp | ModelCallError]:
    """See `PatientLabeller.label_each`; of a labeller that is none, all labels or the error of the first without."""
    if isinstance(labeller, PatientLabeller):
        return await labeller.label_each(exchanges)
    return [*await labeller.label(exchanges)]


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
