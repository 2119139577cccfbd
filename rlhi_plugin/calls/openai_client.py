"""Any server that speaks OpenAI's chat completions as a `ChatClient`: OpenAI, vLLM, llama.cpp, Ollama, gateways.

The key is ``OPENAI_API_KEY``; servers of one's own need none. Retries are not the vendor library's: every attempt is
journalled (`rlhi_plugin.calls.retrying`).
"""

from __future__ import annotations

import json
import os
from typing import Any, Literal

from rlhi_plugin.calls import failures
from rlhi_plugin.calls.completions import arguments_of, replies_of
from rlhi_plugin.calls.failures import Failure
from rlhi_plugin.calls.per_loop import PerLoop
from rlhi_plugin.calls.replies import check_replies
from rlhi_plugin.chat import Capabilities, ChatReply, ChatRequest, Price, require
from rlhi_plugin.errors import ConfigError, MissingExtraError, ModelCallError, ProviderSetupError

TokenField = Literal["max_tokens", "max_completion_tokens"]


class OpenAIChatClient:
    """Answers chat requests through the ``openai`` library.

    Args:
        model: The model's name, as the server knows it.
        base_url: Address with its ``/v1``; None is OpenAI's.
        timeout_s: Seconds for one attempt, above 0.
        price: Of its tokens; None where it is not known.
        token_field: What the server calls the cap on new tokens; OpenAI's reasoning models know only the newer name.

    Raises:
        ConfigError: an argument is out of range.
        MissingExtraError: ``openai`` is not installed.
    """

    def __init__(
        self,
        model: str,
        *,
        base_url: str | None = None,
        timeout_s: float = 120.0,
        price: Price | None = None,
        token_field: TokenField = "max_tokens",  # noqa: S107 - the name of a field, not a secret
    ) -> None:
        if not model or timeout_s <= 0:
            raise ConfigError(f"model={model!r}, timeout_s={timeout_s}: give a model's name and a timeout above 0.")
        if base_url is not None and not base_url.startswith(("http://", "https://")):
            raise ConfigError(f"{base_url!r} is no address. Give one such as http://127.0.0.1:8000/v1.")
        self._model = model
        self._base_url = base_url
        self._timeout_s = timeout_s
        self._price = price
        self._token_field = token_field
        self._openai = _import_openai()
        self._clients = PerLoop(self._connect)

    def _connect(self) -> Any:
        key = os.environ.get("OPENAI_API_KEY") or ("none" if self._base_url else None)
        if key is None:
            raise ProviderSetupError(f"{self._model}: there is no API key. Set OPENAI_API_KEY in the environment.")
        return self._openai.AsyncOpenAI(api_key=key, base_url=self._base_url, timeout=self._timeout_s, max_retries=0)

    @property
    def model(self) -> str:
        """The model's name, as the server knows it."""
        return self._model

    @property
    def capabilities(self) -> Capabilities:
        """What the protocol offers; whether a server keeps to the schema is checked on each reply."""
        return Capabilities(json_schema="asked", logprobs=True, seed=True, many=True, price=self._price)

    async def complete(self, request: ChatRequest) -> tuple[ChatReply, ...]:
        """See `ChatClient.complete`. Where a server gives fewer replies than `n`, it is asked for the rest."""
        require(self, request)
        replies: list[ChatReply] = []
        while len(replies) < request.n:
            replies += await self._call(request, request.n - len(replies))
        return check_replies(self._model, request, replies[: request.n])

    async def one_call(self, request: ChatRequest) -> tuple[ChatReply, ...]:
        """See `rlhi_plugin.calls.singles.OneCallClient`."""
        require(self, request)
        return check_replies(self._model, request, (await self._call(request, request.n))[: request.n])

    async def aclose(self) -> None:
        """Close the connections of the running loop."""
        client = self._clients.pop()
        if client is not None:
            await client.close()

    async def _call(self, request: ChatRequest, n: int) -> list[ChatReply]:
        arguments = arguments_of(request, n)
        arguments[self._token_field] = arguments.pop("max_tokens")
        try:
            response = await self._clients.get().chat.completions.create(model=self._model, **arguments)
        except ModelCallError:
            raise
        except Exception as error:
            raise self._failure(error) from error
        return replies_of(self._model, response, self._price)

    def _failure(self, error: Exception) -> ModelCallError:
        vendor = self._openai
        status = getattr(error, "status_code", None)
        response = getattr(error, "response", None)
        headers = {name.lower(): value for name, value in response.headers.items()} if response is not None else {}
        failure = Failure(self._model, type(error).__name__, _said(error), status, headers)
        if isinstance(error, vendor.APITimeoutError):
            return failures.timed_out(failure)
        if isinstance(error, vendor.APIConnectionError):
            cause = str(error.__cause__ or error)
            known = Failure(self._model, type(error.__cause__ or error).__name__, cause)
            before = type(error.__cause__).__name__ in ("ConnectError", "ConnectTimeout", "UnsupportedProtocol")
            return failures.unreachable(known) if before else failures.broken_off(known)
        if isinstance(error, vendor.APIStatusError):
            return failures.answered_with(failure)
        if isinstance(error, json.JSONDecodeError):
            return failures.no_completion(self._model, error.doc)
        return ModelCallError(f"{failure} See the message.")


def _said(error: Exception) -> str:
    """The provider's words and its code, without the frame that the library puts around them."""
    body = getattr(error, "body", None)
    if not isinstance(body, dict) or not body.get("message"):
        return str(error)
    return f"{body['message']} ({body['code']})" if body.get("code") else str(body["message"])


def _import_openai() -> Any:
    try:
        import openai
    except ImportError as error:
        raise MissingExtraError("openai", "llm") from error
    return openai
