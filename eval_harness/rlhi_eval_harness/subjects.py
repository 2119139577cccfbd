"""Who answers: the base and the adapter, with the right persona, with another user's, and without one.

Controls are subjects like any other. `Assistants` is the one place where a subject gets its model: both sides are one
set of base weights in memory, with the adapter switched on or off.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, Protocol

from rlhi_eval_harness.suites.suite import SubjectName
from rlhi_plugin.chat import ChatClient
from rlhi_plugin.errors import ArtefactError, ConfigError
from rlhi_plugin.persona import FRAME_DIGEST

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel

ADAPTER_NAME = "evaluated"
"""What the adapter is called inside the loaded model; nothing outside this file sees it."""


@dataclass(frozen=True)
class Subject:
    """One thing under test.

    Attributes:
        name: As in the suite and in the report.
        adapter: Whether the LoRA adapter is on.
        persona: Whose persona is in the prompt: nobody's, the asking user's, or that of a user who wants other things.
    """

    name: SubjectName
    adapter: bool
    persona: Literal["none", "own", "shuffled"]


SUBJECTS: Mapping[SubjectName, Subject] = MappingProxyType(
    {
        subject.name: subject
        for subject in (
            Subject("base", adapter=False, persona="none"),
            Subject("base+persona", adapter=False, persona="own"),
            Subject("adapter", adapter=True, persona="none"),
            Subject("adapter+persona", adapter=True, persona="own"),
            Subject("adapter+shuffled-persona", adapter=True, persona="shuffled"),
        )
    }
)


class Assistants(Protocol):
    """The models behind the subjects."""

    @property
    def identity(self) -> Mapping[str, str]:
        """What exactly answers: names and digests of base and adapter. Reported; a resumed run must match."""
        ...

    def client(self, *, adapter: bool) -> ChatClient:
        """The base, or the base with the adapter on."""
        ...

    def chat_model(self, *, max_tokens: int, temperature: float, seed: int) -> BaseChatModel:
        """The base as a LangChain chat model, for the agent that held-out users talk with."""
        ...


@dataclass(frozen=True)
class AdapterFolder:
    """A folder that holds a LoRA adapter.

    Attributes:
        path: The folder.
        base: The base model that it was trained on.
        base_digest: Digest of that base's weights, where the registry knows it.
    """

    path: Path
    base: str
    base_digest: str | None = None


def read_adapter_folder(path: Path, *, base: str | None = None) -> AdapterFolder:
    """Check that `path` holds a LoRA adapter and find the base it was trained on.

    Args:
        path: Folder with ``adapter_config.json`` and ``adapter_model.safetensors``.
        base: The base that the caller asked for; must then be the adapter's own.

    Raises:
        ConfigError: no such folder.
        ArtefactError: not an adapter, or an adapter of another base.
    """
    if not path.is_dir():
        raise ConfigError(f"there is no adapter folder {path}. Train one with: rlhi-train run LOGS --out RUN")
    config_file, weights = path / "adapter_config.json", path / "adapter_model.safetensors"
    missing = [file.name for file in (config_file, weights) if not file.is_file()]
    if missing:
        raise ArtefactError(f"{path} is not a LoRA adapter: it has no {' and no '.join(missing)}. Give RUN/adapter.")
    try:
        trained_on = json.loads(config_file.read_text("utf-8"))["base_model_name_or_path"]
    except (ValueError, KeyError, TypeError) as error:
        raise ArtefactError(f"{config_file} names no base model. Train the adapter again, or mend the file.") from error
    if base is not None and trained_on is not None and base != trained_on:
        raise ArtefactError(f"the adapter {path} belongs to {trained_on}, not to {base}. Leave out --base, or use it.")
    if base is None and not trained_on:
        raise ConfigError(f"{config_file} does not say which base it belongs to. Name it with --base.")
    return AdapterFolder(path=path, base=base or str(trained_on))


def read_registered_adapter(registry: Path, adapter_id: str, *, base: str | None = None) -> AdapterFolder:
    """As `read_adapter_folder`, for an adapter in a registry, whose record pins its files, its base and its frame.

    Raises:
        ConfigError: no such registry or adapter.
        ArtefactError: its files changed, it belongs to another base, or it was trained with another persona frame.
    """
    from rlhi_adapters.registry import AdapterRegistry

    if not registry.is_dir():
        raise ConfigError(f"there is no registry folder {registry}. See: rlhi-adapters list")
    record = AdapterRegistry(registry).verify(adapter_id)
    if record.persona_prompt_digest != FRAME_DIGEST:
        raise ArtefactError(f"{adapter_id} was trained with another persona frame than this version's. Train it again.")
    if base is not None and base != record.base_model:
        raise ArtefactError(f"{adapter_id} belongs to {record.base_model}, not to {base}. Leave out --base, or use it.")
    return AdapterFolder(path=Path(record.path), base=record.base_model, base_digest=record.base_digest)


class LocalAssistants:
    """Base and adapter in this process, on one set of weights."""

    def __init__(self, model: Any, identity: Mapping[str, str], *, batch_size: int) -> None:
        self._model = model
        self._identity = dict(identity)
        self._batch_size = batch_size
        self._clients: dict[bool, Any] = {}

    @classmethod
    def load(cls, folder: AdapterFolder, *, batch_size: int = 32) -> LocalAssistants:
        """Load the weights; takes seconds, and converts the embedded model on its first use.

        Raises:
            ConfigError: the base cannot be found.
            ArtefactError: the adapter does not fit the base's weights.
        """
        from rlhi_adapters.base_models import resolve_base
        from rlhi_adapters.digests import adapter_digests
        from rlhi_adapters.local_model import LocalModel

        base = resolve_base(folder.base)
        if folder.base_digest not in {None, base.digest}:
            raise ArtefactError(f"{folder.path} was trained on other weights of {base.name}. Train it again on these.")
        digests = adapter_digests(folder.path)
        identity = {
            "base": base.name,
            "base_digest": base.digest,
            "adapter": str(folder.path),
            "weights_digest": digests.weights,
            "config_digest": digests.config,
        }
        model = LocalModel.load(folder.base, adapters={ADAPTER_NAME: folder.path})
        return cls(model, identity, batch_size=batch_size)

    @property
    def identity(self) -> Mapping[str, str]:
        """Names and digests."""
        return self._identity

    def client(self, *, adapter: bool) -> ChatClient:
        """The base, or the base with the adapter on; always the same client."""
        from rlhi_adapters.local_client import LocalClient

        if adapter not in self._clients:
            name = ADAPTER_NAME if adapter else None
            self._clients[adapter] = LocalClient(self._model, adapter=name, batch_size=self._batch_size)
        client: ChatClient = self._clients[adapter]
        return client

    def chat_model(self, *, max_tokens: int, temperature: float, seed: int) -> BaseChatModel:
        """The base behind LangChain's interface."""
        from rlhi_adapters.langchain_model import LocalChatModel

        return LocalChatModel(
            client=self.client(adapter=False), max_tokens=max_tokens, temperature=temperature, seed=seed
        )

    def close(self) -> None:
        """Stop the clients' workers."""
        for client in self._clients.values():
            client.close()
        self._clients.clear()
