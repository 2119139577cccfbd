"""What builds personas in the app's own process, from one option: a name, a chat model, or a builder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias, Union

from rlhi_plugin.errors import ConfigError
from rlhi_plugin.labelling import Labeller, load_labeller
from rlhi_plugin.persona.builder import PersonaBuilder
from rlhi_plugin.persona.extractive import ExtractivePersonaBuilder
from rlhi_plugin.persona.llm import LLMPersonaBuilder
from rlhi_plugin.persona.updater import PersonaUpdater
from rlhi_plugin.persona.worker import PersonaWorker, WorkerOptions
from rlhi_plugin.stores import ConversationStore, PersonaStore

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel

    from rlhi_plugin.chat import ChatClient

EXTRACTIVE = "extractive"
"""Name of the builder that quotes the user and asks no model."""
EMBEDDED = "embedded"
"""Name of the labeller that needs no model to be named; it comes with the extra ``train``."""

Writer: TypeAlias = Union[str, "BaseChatModel", PersonaBuilder]


@dataclass(frozen=True, kw_only=True, slots=True)
class PersonaBuilding:
    """Who builds personas, and when.

    Attributes:
        builder: ``extractive``; another name, of a model as LiteLLM writes it (``openai/gpt-4o``); any LangChain chat
            model; or a `PersonaBuilder`.
        labeller: Labels follow-ups: a `Labeller`, or the name of one. Without it the model that builds labels too, and
            where none does, ``embedded``.
        when: After how many turns, and after how long a silence.

    Raises:
        ConfigError: `builder` builds nothing.
    """

    builder: Writer
    labeller: Labeller | str | None = None
    when: WorkerOptions = field(default_factory=WorkerOptions)

    def __post_init__(self) -> None:
        if isinstance(self.builder, str | PersonaBuilder) and self.builder:
            return
        from langchain_core.language_models import BaseChatModel

        if not isinstance(self.builder, BaseChatModel):
            raise ConfigError(
                f"persona_builder={self.builder!r} builds no personas. Pass 'extractive', the name of a model as "
                "LiteLLM writes it, a LangChain chat model, or a PersonaBuilder."
            )

    def updater(self) -> PersonaUpdater:
        """What makes the next persona.

        Raises:
            ConfigError: there is no such labeller.
            MissingExtraError: the model or the labeller needs a package that is not installed.
        """
        builder, client = self._builder()
        if isinstance(self.labeller, Labeller):
            return PersonaUpdater(labeller=self.labeller, builder=builder)
        if self.labeller is None and client is not None:
            from rlhi_plugin.labelling.llm import LLMLabeller

            return PersonaUpdater(labeller=LLMLabeller(client), builder=builder)
        return PersonaUpdater(labeller=load_labeller(self.labeller or EMBEDDED), builder=builder)

    def _builder(self) -> tuple[PersonaBuilder, ChatClient | None]:
        """The builder and, where it asks a model, what asks it."""
        if isinstance(self.builder, PersonaBuilder):
            return self.builder, None
        if self.builder == EXTRACTIVE:
            return ExtractivePersonaBuilder(), None
        client: ChatClient
        if isinstance(self.builder, str):
            from rlhi_plugin.litellm_client import LiteLLMClient

            client = LiteLLMClient(self.builder)
        else:
            from rlhi_plugin.persona.langchain_builder import LangChainClient

            client = LangChainClient(self.builder)
        return LLMPersonaBuilder(client), client


BuilderOption: TypeAlias = Writer | PersonaBuilding | None
"""What an app gives: a `PersonaBuilding`, or its `builder` alone; None builds nothing."""


def checked_building(option: BuilderOption) -> PersonaBuilding | None:
    """The option in its full form.

    Raises:
        ConfigError: it builds nothing.
    """
    if option is None or isinstance(option, PersonaBuilding):
        return option
    return PersonaBuilding(builder=option)


def open_worker(
    building: PersonaBuilding,
    store: ConversationStore,
    personas: PersonaStore,
    *,
    allows: Callable[[str], bool],
    updated: Callable[[str], object],
) -> PersonaWorker:
    """A worker that builds as it is told.

    Args:
        building: Who builds, and when.
        store: Where conversations are.
        personas: Where personas are.
        allows: Whether a user, by pseudonym, may be personalised at this moment.
        updated: Told the pseudonym of each user whose persona was brought up to date.

    Raises:
        ConfigError, MissingExtraError: see `PersonaBuilding.updater`.
    """
    return PersonaWorker(
        store, building.updater(), personas=personas, options=building.when, allows=allows, updated=updated
    )
