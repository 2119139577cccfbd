"""OpenAI's chat completions as arguments and as replies: what the ``openai`` library and LiteLLM have in common.

Source: https://platform.openai.com/docs/api-reference/chat.
"""

from __future__ import annotations

from typing import Any

from rlhi_plugin.calls.failures import no_completion
from rlhi_plugin.chat import ChatReply, ChatRequest, FinishReason, Price, TokenLogprob
from rlhi_plugin.errors import TransientCallError

_FINISH: dict[str | None, FinishReason] = {"length": "length", "content_filter": "refused"}


def arguments_of(request: ChatRequest, n: int) -> dict[str, Any]:
    """Keyword arguments of one call that yields `n` replies, without the model."""
    arguments: dict[str, Any] = {
        "messages": [message.model_dump() for message in request.messages],
        "temperature": request.temperature,
        "max_tokens": request.max_tokens,
    }
    if n > 1:
        arguments["n"] = n
    if request.seed is not None:
        # Calls that ask for the rest of the replies must not get the first ones again.
        arguments["seed"] = request.seed + request.n - n
    if request.json_schema is not None:
        schema = {"name": "reply", "schema": request.json_schema}
        arguments["response_format"] = {"type": "json_schema", "json_schema": schema}
    if request.logprobs is not None:
        arguments |= {"logprobs": True, "top_logprobs": request.logprobs}
    return arguments


def replies_of(model: str, response: Any, price: Price | None) -> list[ChatReply]:
    """The replies of one response; tokens and cost are on the first.

    Raises:
        ProviderSetupError: it is a web page.
        TransientCallError: it is no chat completion, or holds no reply.
    """
    choices = getattr(response, "choices", None)
    if not isinstance(choices, list):
        raise no_completion(model, str(response))
    if not choices:
        raise TransientCallError(
            f"{model} gave no reply at all. Check the address, or try again later.", maybe_paid=True
        )
    usage = getattr(response, "usage", None)
    prompt = getattr(usage, "prompt_tokens", 0) or 0
    completion = getattr(usage, "completion_tokens", 0) or 0
    counted = {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "cost_usd": None if price is None else price.of(prompt, completion),
    }
    served_by = getattr(response, "model", None) or None
    return [_reply(choice, served_by, counted if i == 0 else {}) for i, choice in enumerate(choices)]


def _reply(choice: Any, served_by: str | None, counted: dict[str, Any]) -> ChatReply:
    message = choice.message
    # LiteLLM puts what it has no field for into a field of its own.
    more = getattr(message, "provider_specific_fields", None) or {}
    refusal = getattr(message, "refusal", None) or more.get("refusal")
    finish = "refused" if refusal else _FINISH.get(choice.finish_reason, "stop")
    return ChatReply(
        text=message.content or refusal or "",
        finish_reason=finish,
        logprobs=_logprobs(choice),
        served_by=served_by,
        **counted,
    )


def _logprobs(choice: Any) -> tuple[TokenLogprob, ...] | None:
    content = getattr(getattr(choice, "logprobs", None), "content", None)
    if not content:
        return None
    return tuple(
        TokenLogprob(
            token=entry.token,
            logprob=min(0.0, entry.logprob),
            top=tuple((other.token, other.logprob) for other in entry.top_logprobs or ()),
        )
        for entry in content
    )
