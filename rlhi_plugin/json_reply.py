"""A model's answer as a checked object: asked for once, and once more when it cannot be read."""

from __future__ import annotations

import re
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from rlhi_plugin.chat import ChatClient, ChatRequest
from rlhi_plugin.errors import ModelCallError

_Reply = TypeVar("_Reply", bound=BaseModel)

ATTEMPTS = 2

_FENCE = re.compile(r"^\s*```(?:json)?\s*(.*?)\s*```\s*$", re.DOTALL)


async def complete_json(client: ChatClient, request: ChatRequest, kind: type[_Reply]) -> _Reply:
    """Ask for JSON of the form `kind`. A greedy model may repeat its mistake, so the second try samples.

    Raises:
        ModelCallError: the call failed, or neither answer could be read.
    """
    problem = ""
    for attempt in range(ATTEMPTS):
        again = request if attempt == 0 else request.model_copy(update={"temperature": max(0.5, request.temperature)})
        reply = (await client.complete(again))[0]
        try:
            return kind.model_validate_json(_FENCE.sub(r"\1", reply.text))
        except ValidationError as error:
            cut = " (it was cut at max_tokens)" if reply.finish_reason == "length" else ""
            problem = f"{error.errors()[0]['msg']}{cut}; it began: {reply.text[:80]!r}"
    raise ModelCallError(
        f"{client.model} did not answer with the JSON that was asked for, {ATTEMPTS} times: {problem}. "
        "Use a model that follows JSON schemas."
    )
