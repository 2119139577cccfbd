"""LiteLLM as a `ChatClient`: any hosted or local model that LiteLLM knows, by its name.

Keys come from the providers' own environment variables (``OPENAI_API_KEY``, ``ANTHROPIC_API_KEY``, ...).
"""

from __future__ import annotations

import asyncio
import os
from typing import Any

from rlhi_plugin.chat import ChatReply, ChatRequest, FinishReason
from rlhi_plugin.errors import ConfigError, MissingExtraError, ModelCallError

_REMEDIES = {
    "AuthenticationError": "Set the provider's API key in the environment.",
    "PermissionDeniedError": "Use a key that may use this model.",
    "NotFoundError": "Check the model's name, written as provider/model, and api_base.",
    "BadRequestError": "Check the model's name, written as provider/model, and what it supports.",
    "ContextWindowExceededError": "Use a model with a longer context.",
    "RateLimitError": "Wait, ask for fewer calls at once, or raise num_retries.",
    "Timeout": "Raise timeout_s, or try again later.",
    "APIConnectionError": "Check the network and api_base.",
    "ServiceUnavailableError": "Try again later.",
    "InternalServerError": "Try again later.",
}
_FINISH: dict[str | None, FinishReason] = {"length": "length", "content_filter": "refused"}


class LiteLLMClient:
    """Answers chat requests through LiteLLM, which also does the retrying.

    Args:
        model: As LiteLLM writes it: ``openai/gpt-4o``, ``anthropic/claude-sonnet-4-5``, ``ollama/llama3.1``.
        api_base: Another address than the provider's own, such as that of a vLLM server.
        timeout_s: Seconds for one attempt, above 0.
        num_retries: Attempts after the first, 0 or more.
        max_concurrency: Calls in flight at once, at least 1.

    Raises:
        ConfigError: an argument is out of range.
        MissingExtraError: LiteLLM is not installed.
    """

    def __init__(
        self,
        model: str,
        *,
        api_base: str | None = None,
        timeout_s: float = 60.0,
        num_retries: int = 2,
        max_concurrency: int = 8,
    ) -> None:
        if not model:
            raise ConfigError("the model has no name. Give one as LiteLLM writes it, such as openai/gpt-4o.")
        if timeout_s <= 0 or num_retries < 0 or max_concurrency < 1:
            raise ConfigError(
                f"timeout_s={timeout_s}, num_retries={num_retries}, max_concurrency={max_concurrency}: one of them is "
                "out of range. Give a timeout above 0, 0 or more retries, and at least 1 call at once."
            )
        self._model = model
        self._options: dict[str, Any] = {"timeout": timeout_s, "num_retries": num_retries, "drop_params": True}
        if api_base is not None:
            self._options["api_base"] = api_base
        self._litellm = _import_litellm()
        self._slots = asyncio.Semaphore(max_concurrency)

    @property
    def model(self) -> str:
        """The model's name as LiteLLM writes it."""
        return self._model

    async def complete(self, request: ChatRequest) -> tuple[ChatReply, ...]:
        """See `ChatClient.complete`. Tokens are counted on the first reply of each call, so that sums are right."""
        replies: list[ChatReply] = []
        # Some providers know no `n` and give one reply a call.
        while len(replies) < request.n:
            replies += await self._call(request, request.n - len(replies))
        return tuple(replies[: request.n])

    async def _call(self, request: ChatRequest, n: int) -> list[ChatReply]:
        arguments: dict[str, Any] = {
            "model": self._model,
            "messages": [message.model_dump() for message in request.messages],
            "temperature": request.temperature,
            "max_tokens": request.max_tokens,
            **self._options,
        }
        if n > 1:
            arguments["n"] = n
        if request.seed is not None:
            arguments["seed"] = request.seed
        if request.json_schema is not None:
            schema = {"name": "reply", "schema": request.json_schema}
            arguments["response_format"] = {"type": "json_schema", "json_schema": schema}
        try:
            async with self._slots:
                response = await self._litellm.acompletion(**arguments)
        except Exception as error:
            kind = type(error).__name__
            remedy = _REMEDIES.get(kind, "See the provider's message.")
            raise ModelCallError(f"{self._model}: {kind}: {error}. {remedy}") from error
        if not response.choices:
            raise ModelCallError(f"{self._model} gave no reply at all. Check api_base, or try again later.")
        return [_reply(choice, response.usage if i == 0 else None) for i, choice in enumerate(response.choices)]


def _reply(choice: Any, usage: Any) -> ChatReply:
    return ChatReply(
        text=choice.message.content or "",
        finish_reason=_FINISH.get(choice.finish_reason, "stop"),
        prompt_tokens=getattr(usage, "prompt_tokens", 0) or 0,
        completion_tokens=getattr(usage, "completion_tokens", 0) or 0,
    )


def _import_litellm() -> Any:
    # Without it, importing LiteLLM fetches a price list from the network.
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    try:
        import litellm
    except ImportError as error:
        raise MissingExtraError("litellm", "llm") from error
    return litellm
