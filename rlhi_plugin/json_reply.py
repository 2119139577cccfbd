"""A model's answer as a checked object: asked for once, and once more when it cannot be read."""

from __future__ import annotations

from typing import TypeVar

from pydantic import BaseModel, ValidationError

from rlhi_plugin.calls.replies import another_try, without_fence
from rlhi_plugin.chat import ChatClient, ChatRequest
from rlhi_plugin.errors import InvalidReplyError

_Reply = TypeVar("_Reply", bound=BaseModel)

ATTEMPTS = 2


async def complete_json(client: ChatClient, request: ChatRequest, kind: type[_Reply]) -> _Reply:
    """Ask for JSON of the form `kind`. A greedy model may repeat its mistake, so the second try samples.

    `kind` has the last word: what it can read is taken, even where it breaks the letter of the schema.

    Raises:
        InvalidReplyError: neither answer could be read.
        ModelCallError: the call failed.
    """
    asked = request
    for attempt in range(ATTEMPTS):
        try:
            replies = await client.complete(asked)
        except InvalidReplyError as error:
            replies = error.replies
        reply = replies[0]
        try:
            return kind.model_validate_json(without_fence(reply.text))
        except ValidationError as error:
            cut = " (it was cut at max_tokens)" if reply.finish_reason == "length" else ""
            problem = f"{error.errors()[0]['msg']}{cut}; it began: {reply.text[:80]!r}"
        asked = another_try(request, attempt + 1)
    raise InvalidReplyError(
        f"{client.model} did not answer with the JSON that was asked for, {ATTEMPTS} times: {problem}. "
        "Use a model that follows JSON schemas.",
        text=reply.text,
        replies=replies,
    )
