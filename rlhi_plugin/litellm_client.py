"""LiteLLM as a `ChatClient`: any hosted or local model that LiteLLM knows, by its name; and its price list.

Keys come from the providers' own environment variables (``OPENAI_API_KEY``, ``ANTHROPIC_API_KEY``, ...). Retries are
not LiteLLM's: every attempt is journalled (`rlhi_plugin.calls.retrying`).
"""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import Iterator
from functools import cache, cached_property
from typing import Any

from rlhi_plugin.calls import failures
from rlhi_plugin.calls.completions import arguments_of, replies_of
from rlhi_plugin.calls.failures import Failure
from rlhi_plugin.calls.per_loop import PerLoop
from rlhi_plugin.calls.replies import check_replies
from rlhi_plugin.chat import Capabilities, ChatReply, ChatRequest, Price, require
from rlhi_plugin.errors import ConfigError, MissingExtraError, ModelCallError, ProviderSetupError

_NEVER_SENT = ("ConnectError", "ConnectTimeout", "ClientConnectorError", "UnsupportedProtocol")
"""Errors of the HTTP libraries below LiteLLM for a connection that was never made."""


class LiteLLMClient:
    """Answers chat requests through LiteLLM.

    Args:
        model: As LiteLLM writes it: ``openai/gpt-4o``, ``anthropic/claude-sonnet-4-5``, ``ollama/llama3.1``.
        api_base: Another address than the provider's own, such as that of a vLLM server.
        timeout_s: Seconds for one attempt, above 0.
        max_concurrency: Calls in flight at once, at least 1.
        price: Of its tokens; None is what LiteLLM's price list says, which is nothing about other addresses.

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
        max_concurrency: int = 64,
        price: Price | None = None,
    ) -> None:
        if not model:
            raise ConfigError("the model has no name. Give one as LiteLLM writes it, such as openai/gpt-4o.")
        if timeout_s <= 0 or max_concurrency < 1:
            raise ConfigError(
                f"timeout_s={timeout_s}, max_concurrency={max_concurrency}: one of them is out of range. "
                "Give a timeout above 0, and at least 1 call at once."
            )
        self._model = model
        self._given_price = price
        self._api_base = api_base
        # `drop_params`: what a provider does not know is left out of the call, as seeds are at some.
        self._options: dict[str, Any] = {"timeout": timeout_s, "num_retries": 0, "max_retries": 0, "drop_params": True}
        if api_base is not None:
            self._options["api_base"] = api_base
        self._litellm = _import_litellm()
        self._slots = PerLoop(lambda: asyncio.Semaphore(max_concurrency))

    @property
    def model(self) -> str:
        """The model's name as LiteLLM writes it."""
        return self._model

    @cached_property
    def capabilities(self) -> Capabilities:
        """What LiteLLM's own tables say of the model; of one that they lack, what OpenAI's protocol offers."""
        known = set(_supported(self._model))
        return Capabilities(
            json_schema="asked",
            logprobs="logprobs" in known,
            seed="seed" in known,
            many="n" in known,
            price=self._given_price or (None if self._api_base else litellm_price(self._model)),
        )

    async def complete(self, request: ChatRequest) -> tuple[ChatReply, ...]:
        """See `ChatClient.complete`. Tokens are counted on the first reply of each call, so that sums are right."""
        require(self, request)
        replies: list[ChatReply] = []
        # Some providers know no `n` and give one reply a call.
        while len(replies) < request.n:
            replies += await self._call(request, request.n - len(replies))
        return check_replies(self._model, request, replies[: request.n])

    async def one_call(self, request: ChatRequest) -> tuple[ChatReply, ...]:
        """See `rlhi_plugin.calls.singles.OneCallClient`."""
        require(self, request)
        return check_replies(self._model, request, (await self._call(request, request.n))[: request.n])

    async def _call(self, request: ChatRequest, n: int) -> list[ChatReply]:
        arguments = arguments_of(request, n)
        try:
            async with self._slots.get():
                response = await self._litellm.acompletion(model=self._model, **arguments, **self._options)
        except Exception as error:
            raise self._failure(error) from error
        return replies_of(self._model, response, self.capabilities.price)

    def _failure(self, error: Exception) -> ModelCallError:
        vendor = self._litellm
        status = getattr(error, "status_code", None)
        said = str(getattr(error, "message", "") or error)
        headers = _headers(error)
        failure = Failure(self._model, type(error).__name__, said, status, headers)
        if isinstance(error, vendor.Timeout):
            return failures.timed_out(failure)
        if isinstance(error, vendor.APIConnectionError) or (status == 500 and not headers):  # noqa: PLR2004 - made up
            # LiteLLM gives the status 500 to what never had one.
            return self._without_status(error, said)
        if isinstance(error, vendor.BadRequestError) and "LLM Provider NOT provided" in said:
            return ProviderSetupError(f"{self._model}: no such provider. Write the model as provider/model.")
        if isinstance(error, vendor.AuthenticationError):
            # Also raised without a call, where there is no key at all.
            return failures.answered_with(Failure(self._model, failure.kind, said, 401, headers))
        if status is not None:
            return failures.answered_with(failure)
        return ModelCallError(f"{failure} See the message.")

    def _without_status(self, error: Exception, said: str) -> ModelCallError:
        broken = next((cause for cause in _causes(error) if isinstance(cause, json.JSONDecodeError)), None)
        page = re.search(r"<!doctype html|<html", said, re.IGNORECASE)
        if broken is not None or page is not None:
            return failures.no_completion(self._model, broken.doc if broken else said[page.start() if page else 0 :])
        known = Failure(self._model, type(error).__name__, said)
        never_sent = any(type(cause).__name__ in _NEVER_SENT for cause in _causes(error))
        return failures.unreachable(known) if never_sent else failures.broken_off(known)


def litellm_price(model: str) -> Price | None:
    """What LiteLLM's price list, as installed, says of a model; None where it says nothing.

    Raises:
        MissingExtraError: LiteLLM is not installed.
    """
    prices = _import_litellm().model_cost
    entry = prices.get(model) or prices.get(model.partition("/")[2]) or {}
    if entry.get("input_cost_per_token") is None or entry.get("output_cost_per_token") is None:
        return None
    return Price(prompt_token=entry["input_cost_per_token"], completion_token=entry["output_cost_per_token"])


def litellm_tokens(model: str, messages: list[dict[str, str]]) -> int:
    """Tokens of a chat prompt by the model's own tokenizer, or cl100k where LiteLLM does not bring that.

    Raises:
        MissingExtraError: LiteLLM is not installed.
    """
    return int(_import_litellm().token_counter(model=model, messages=messages))


@cache
def _supported(model: str) -> tuple[str, ...]:
    try:
        return tuple(_import_litellm().get_supported_openai_params(model=model) or ())
    except Exception:  # noqa: BLE001 - an unknown provider is the call's to report, with its remedy
        return ()


def _headers(error: Exception) -> dict[str, str]:
    response = getattr(error, "response", None)
    found = getattr(error, "litellm_response_headers", None) or getattr(response, "headers", None) or {}
    return {str(name).lower(): str(value) for name, value in found.items()}


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error and what is behind it."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _import_litellm() -> Any:
    # Without it, importing LiteLLM fetches a price list from the network.
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    try:
        import litellm
    except ImportError as error:
        raise MissingExtraError("litellm", "llm") from error
    # It prints an advertisement to standard output with every error.
    litellm.suppress_debug_info = True
    return litellm
