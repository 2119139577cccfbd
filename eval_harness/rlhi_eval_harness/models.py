"""The models behind the subjects: local weights with adapters switched on and off, and served models.

All adapters of an evaluation lie over one set of base weights in memory; an adapter of another base is refused before
anything is loaded.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from rlhi_eval_harness.adapter_folders import AdapterFolder, read_adapter_folder
from rlhi_eval_harness.subjects import Subject
from rlhi_plugin.calls.opening import open_hosted
from rlhi_plugin.chat import ChatClient
from rlhi_plugin.errors import ConfigError
from rlhi_plugin.records import ChatMessage

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel

WrapClient = Callable[[ChatClient, bool], ChatClient]
"""Puts retries, limits and a budget around a served model's client; told whether it has an address of its own."""


def bare(client: ChatClient, own_server: bool) -> ChatClient:
    """The client as it is."""
    del own_server
    return client


class Assistants(Protocol):
    """The models behind the subjects."""

    @property
    def identity(self) -> Mapping[str, str]:
        """What exactly answers: names and digests. Reported; a resumed run must match."""
        ...

    def client(self, source: str) -> ChatClient:
        """What answers for a source (`rlhi_eval_harness.subjects`)."""
        ...

    def weigh(
        self, source: str, prompts: Sequence[tuple[Sequence[ChatMessage], Sequence[str]]]
    ) -> list[tuple[float, ...]] | None:
        """Log-likelihood of each option as the answer to its prompt; None where the source cannot tell."""
        ...

    def chat_model(self, *, max_tokens: int, temperature: float, seed: int) -> BaseChatModel:
        """The base as a LangChain chat model, for the agent that held-out users talk with."""
        ...


@dataclass(frozen=True)
class _Local:
    """A base with one adapter, or with none."""

    base: str
    adapter: AdapterFolder | None = None

    @property
    def adapter_name(self) -> str | None:
        """What the adapter is called inside the loaded model; nothing outside this file sees it."""
        # PEFT allows no dots, and no two adapters of one name.
        return None if self.adapter is None else hashlib.sha256(str(self.adapter.path).encode()).hexdigest()[:16]


class OpenModels:
    """Opens each source at its first use. Use `open_assistants`."""

    def __init__(
        self, local: Mapping[str, _Local], identity: Mapping[str, str], *, wrap: WrapClient, batch_size: int
    ) -> None:
        self._local = dict(local)
        self._identity = dict(identity)
        self._wrap = wrap
        self._batch_size = batch_size
        self._weights: dict[str, Any] = {}
        self._clients: dict[str, Any] = {}

    @property
    def identity(self) -> Mapping[str, str]:
        """Names and digests."""
        return self._identity

    def client(self, source: str) -> ChatClient:
        """Always the same client for a source; weights are loaded at their first use."""
        if source not in self._clients:
            self._clients[source] = self._open(source)
        client: ChatClient = self._clients[source]
        return client

    def weigh(
        self, source: str, prompts: Sequence[tuple[Sequence[ChatMessage], Sequence[str]]]
    ) -> list[tuple[float, ...]] | None:
        """In this process only; see `rlhi_adapters.likelihood`."""
        local = self._local.get(source)
        if local is None:
            return None
        loaded: list[tuple[float, ...]] = self._load(local.base).log_likelihoods(prompts, adapter=local.adapter_name)
        return loaded

    def chat_model(self, *, max_tokens: int, temperature: float, seed: int) -> BaseChatModel:
        """The base behind LangChain's interface.

        Raises:
            ConfigError: no subject is in this process.
        """
        from rlhi_adapters.langchain_model import LocalChatModel

        if "base" not in self._local:
            raise ConfigError("the held-out users talk with a base model in this process. Name it with --base.")
        return LocalChatModel(client=self.client("base"), max_tokens=max_tokens, temperature=temperature, seed=seed)

    def close(self) -> None:
        """Stop the clients' workers."""
        for client in self._clients.values():
            if hasattr(client, "close"):
                client.close()
        self._clients.clear()

    def _open(self, source: str) -> ChatClient:
        if source in self._local:
            from rlhi_adapters.local_client import LocalClient

            local = self._local[source]
            return LocalClient(self._load(local.base), adapter=local.adapter_name, batch_size=self._batch_size)
        kind, _, spec = source.partition("=")
        if kind == "endpoint":
            return self._wrap(open_served(spec), has_address(spec))
        raise ConfigError(
            f"{source} has no model. This is a mistake in the suite: ask models only where there are any."
        )

    def _load(self, base: str) -> Any:
        """The weights, with all adapters over them known by name."""
        if base not in self._weights:
            from rlhi_adapters.local_model import LocalModel

            mine = (each for each in self._local.values() if each.base == base and each.adapter is not None)
            folders = {each.adapter_name: each.adapter.path for each in mine if each.adapter is not None}
            self._weights[base] = LocalModel.load(base, adapters={str(name): path for name, path in folders.items()})
        return self._weights[base]


def has_address(spec: str) -> bool:
    """Whether a served model's line of text says where it is served."""
    return "@http" in spec


def open_served(spec: str) -> ChatClient:
    """A served model by one line of text (`rlhi_plugin.calls.opening`); nothing is asked yet.

    Raises:
        ConfigError: there is no model in it.
        MissingExtraError: LiteLLM is not installed.
    """
    return open_hosted(spec)


def open_assistants(
    subjects: Sequence[Subject],
    *,
    base: str | None = None,
    adapter: AdapterFolder | None = None,
    wrap: WrapClient = bare,
    batch_size: int = 32,
) -> OpenModels:
    """Check every source and name what answers; weights are loaded later.

    Args:
        subjects: Who is to answer.
        base: Base model; None is the one that the adapters name, or else the embedded one.
        adapter: What the source ``adapter`` without a path means.
        wrap: What goes around the client of each served model.
        batch_size: Replies generated at once by a model in this process.

    Raises:
        ConfigError: a base or an adapter cannot be found, or an adapter belongs to another base than the others.
        ArtefactError: an adapter is damaged.
    """
    folders: dict[str, AdapterFolder] = {}
    for source in dict.fromkeys(subject.source for subject in subjects if subject.kind == "adapter"):
        path = source.partition("=")[2]
        if path:
            folders[source] = read_adapter_folder(Path(path), base=base)
        elif adapter is None:
            raise ConfigError("a subject is called adapter, and there is none. Give --adapter, or adapter=PATH.")
        else:
            folders[source] = adapter
    bases = {folder.base for folder in folders.values()} | ({base} if base else set())
    if len(bases) > 1:
        raise ConfigError(f"the adapters belong to different bases: {', '.join(sorted(bases))}. Evaluate them apart.")
    local = {source: _Local(folder.base, folder) for source, folder in folders.items()}
    if folders or base or any(subject.source == "base" for subject in subjects):
        from rlhi_adapters.base_models import EMBEDDED

        local["base"] = _Local(next(iter(bases), EMBEDDED))
    local |= {s.source: _Local(s.source.partition("=")[2]) for s in subjects if s.kind == "model"}
    served = {s.source: s.source.partition("=")[2] for s in subjects if s.kind == "endpoint"}
    return OpenModels(local, _identity(local, served), wrap=wrap, batch_size=batch_size)


def _identity(local: Mapping[str, _Local], served: Mapping[str, str]) -> dict[str, str]:
    """Names and digests; the first adapter's under their plain names, further sources' under theirs."""
    from rlhi_adapters.base_models import resolve_base
    from rlhi_adapters.digests import adapter_digests

    identity: dict[str, str] = {}
    for source, each in local.items():
        resolved = resolve_base(each.base)
        if each.adapter is None:
            prefix = "base" if source == "base" else source
            identity |= {prefix: resolved.name, f"{prefix}_digest": resolved.digest}
            continue
        if each.adapter.base_digest not in {None, resolved.digest}:
            raise ConfigError(
                f"{each.adapter.path} was trained on other weights of {resolved.name}. Train it again on these."
            )
        digests = adapter_digests(each.adapter.path)
        named = {"adapter": str(each.adapter.path), "weights_digest": digests.weights, "config_digest": digests.config}
        identity |= named if "adapter" not in identity else {f"{source}:{key}": value for key, value in named.items()}
    return {**identity, **served}
