"""Replies against the JSON schema that was asked for."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from rlhi_plugin.errors import ConfigError, InvalidReplyError

if TYPE_CHECKING:
    from rlhi_plugin.chat import ChatReply, ChatRequest

_FENCE = re.compile(r"^\s*```(?:json)?\s*(.*?)\s*```\s*$", re.DOTALL)
_SHOWN = 80
"""Characters of a wrong reply that its error message shows; the whole text is in the error (ours)."""


_STRIDE = 7919
"""A prime that no stage steps its seeds by."""


def another_try(request: ChatRequest, attempt: int) -> ChatRequest:
    """The request again, so that a model does not repeat its mistake: sampled, and with a seed of its own.

    The same arguments give the same request, so that a resumed run finds the answer in its journal.
    """
    if attempt == 0:
        return request
    seed = ((request.seed or 0) + _STRIDE * attempt) % 2**31
    return request.model_copy(update={"temperature": max(0.5, request.temperature), "seed": seed})


def without_fence(text: str) -> str:
    """The text without the Markdown fence that some models put around JSON."""
    return _FENCE.sub(r"\1", text)


def check_replies(model: str, request: ChatRequest, replies: Iterable[ChatReply]) -> tuple[ChatReply, ...]:
    """The replies, if each of them is what the request asks for.

    Raises:
        ConfigError: the request's schema is no JSON schema.
        InvalidReplyError: a reply is not JSON, or breaks the schema.
    """
    checked = tuple(replies)
    if request.json_schema is None:
        return checked
    for reply in checked:
        problem = _problem(reply.text, request.json_schema)
        if problem is not None:
            cut = " (it was cut at max_tokens)" if reply.finish_reason == "length" else ""
            raise InvalidReplyError(
                f"{model} did not answer with the JSON that was asked for: {problem}{cut}; it began: "
                f"{reply.text[:_SHOWN]!r}. Use a model that follows JSON schemas, or raise max_tokens.",
                text=reply.text,
                replies=checked,
            )
    return checked


def _problem(text: str, schema: dict[str, Any]) -> str | None:
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import SchemaError, best_match

    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        raise ConfigError(f"json_schema is no JSON schema: {error.message}. See https://json-schema.org.") from error
    try:
        value = json.loads(without_fence(text))
    except ValueError as error:
        return f"no JSON, {error}"
    worst = best_match(Draft202012Validator(schema).iter_errors(value))
    return None if worst is None else str(worst.message)[:200]
