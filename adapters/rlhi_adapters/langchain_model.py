"""A LangChain chat model over a model in this process, so that `create_agent` runs without key, server or network."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.outputs import ChatGeneration, ChatResult
from pydantic import ConfigDict, Field, model_validator

from rlhi_adapters.digests import adapter_digests
from rlhi_adapters.local_client import LocalClient
from rlhi_adapters.registry import AdapterRegistry
from rlhi_plugin.chat import ChatReply, ChatRequest
from rlhi_plugin.errors import ArtefactError, ConfigError
from rlhi_plugin.records import ChatMessage, Role

_ROLES: dict[str, Role] = {"system": "system", "human": "user", "ai": "assistant", "tool": "tool"}


class LocalChatModel(BaseChatModel):
    """Answers LangChain messages with a `LocalClient`; calls from several threads or tasks share a batch.

    The seed of a call is made from `seed` and the messages, so the same conversation gets the same answer whatever
    else is asked, and different conversations get unrelated draws.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    client: LocalClient
    temperature: float = Field(default=0.7, ge=0.0, le=2.0)
    """0 is greedy."""
    max_tokens: int = Field(default=96, ge=1)
    """Cap on an answer, in tokens."""
    seed: int = 0
    adapter_id: str | None = None
    """The adapter that `RLHIMiddleware` notes with each answer; the client's own name for it unless given."""

    @model_validator(mode="after")
    def _names_its_adapter(self) -> Self:
        if self.adapter_id is None:
            self.adapter_id = self.client.adapter
        return self

    @classmethod
    def load(cls, base: str, *, adapter: Path | None = None, **options: Any) -> Self:
        """Load a base model, and an adapter for it, into this process.

        Args:
            base: See `rlhi_adapters.base_models.resolve_base`.
            adapter: Folder of a LoRA adapter that was trained on this base. Answers are logged under the name by which
                it is registered, else under that of the folder.
            options: Fields of this class: ``temperature``, ``max_tokens``, ``seed``.

        Raises:
            UserError: the base cannot be found.
            ArtefactError: the base or the adapter cannot be read.
        """
        from rlhi_adapters.local_model import LocalModel

        if adapter is None:
            return cls(client=LocalClient(LocalModel.load(base)), **options)
        # PEFT allows no dots in an adapter's name.
        name = adapter.resolve().name.replace(".", "-")
        client = LocalClient(LocalModel.load(base, adapters={name: adapter}), adapter=name)
        return cls(client=client, **{"adapter_id": _registered_as(adapter), **options})

    @property
    def _llm_type(self) -> str:
        return "rlhi-local"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {"model": self.client.model, "temperature": self.temperature, "max_tokens": self.max_tokens}

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,  # noqa: ARG002 - LangChain's signature
        **kwargs: Any,
    ) -> ChatResult:
        return self._result(self.client.complete_sync(self._request(messages, kwargs))[0], stop)

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,  # noqa: ARG002 - LangChain's signature
        **kwargs: Any,
    ) -> ChatResult:
        return self._result((await self.client.complete(self._request(messages, kwargs)))[0], stop)

    def _request(self, messages: Sequence[BaseMessage], options: dict[str, Any]) -> ChatRequest:
        if options.get("tools"):
            raise ConfigError(f"{self.client.model} calls no tools. Use a model that does, or leave tools empty.")
        chat = tuple(_as_chat(message) for message in messages)
        body = "\0".join(f"{message.role}\1{message.content}" for message in chat)
        seed = int.from_bytes(hashlib.sha256(f"{self.seed}\0{body}".encode()).digest()[:7], "big")
        return ChatRequest(
            messages=chat,
            temperature=options.get("temperature", self.temperature),
            max_tokens=options.get("max_tokens", self.max_tokens),
            seed=seed,
        )

    def _result(self, reply: ChatReply, stop: list[str] | None) -> ChatResult:
        text = reply.text
        for word in stop or []:
            text = text.partition(word)[0]
        metadata = {"model_name": self.client.model, "finish_reason": reply.finish_reason}
        if self.adapter_id is not None:
            metadata["adapter_id"] = self.adapter_id
        message = AIMessage(
            content=text,
            response_metadata=metadata,
            usage_metadata=UsageMetadata(
                input_tokens=reply.prompt_tokens,
                output_tokens=reply.completion_tokens,
                total_tokens=reply.prompt_tokens + reply.completion_tokens,
            ),
        )
        return ChatResult(generations=[ChatGeneration(message=message)])


def _registered_as(adapter: Path) -> str | None:
    """The registered name of what is in this folder now; None where it is not in the registry."""
    folder = str(adapter.resolve())
    try:
        found = [record for record in AdapterRegistry().list() if record.path == folder]
    except ArtefactError:
        # Somebody else's record is damaged, which `rlhi-adapters list` says: no reason not to answer.
        return None
    if not found:
        return None
    weights = adapter_digests(adapter).weights
    # A folder that was trained into again has a record of each time.
    return next((record.adapter_id for record in reversed(found) if record.weights_digest == weights), None)


def _as_chat(message: BaseMessage) -> ChatMessage:
    if message.type not in _ROLES:
        raise ConfigError(
            f"a {message.type!r} message has no place in a chat template. Send system, human or ai messages."
        )
    return ChatMessage(role=_ROLES[message.type], content=str(message.text))
