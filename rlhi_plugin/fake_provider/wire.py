"""OpenAI's wire format: answers as chat completions and responses, whole and in pieces.

Sources: https://platform.openai.com/docs/api-reference/chat and .../responses (objects and streaming events).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from rlhi_plugin.fake_provider.behaviours import Answer, HTTPFault, ProviderRequest, text_of

Json = dict[str, Any]
CREATED = 1_700_000_000
"""Seconds since 1970 in every answer, so that equal scripts give equal bytes."""


def whole(request: ProviderRequest, answer: Answer) -> Json:
    """The body of an answer that is not streamed."""
    return _response(request, answer) if is_responses(request) else _completion(request, answer)


def pieces(request: ProviderRequest, answer: Answer) -> Iterator[str]:
    """The server-sent events of a streamed answer, each with its blank line."""
    if is_responses(request):
        for number, event in enumerate(_response_events(request, answer)):
            yield f"event: {event['type']}\ndata: {json.dumps({**event, 'sequence_number': number})}\n\n"
        return
    for chunk in _chunks(request, answer):
        yield f"data: {json.dumps(chunk)}\n\n"
    yield "data: [DONE]\n\n"


def error(fault: HTTPFault) -> Json:
    """The body of an error."""
    return {"error": {"message": fault.message, "type": "fake_provider", "param": None, "code": fault.code}}


def models(name: str = "fake-1") -> Json:
    """The body of ``GET /v1/models``."""
    entry = {"id": name, "object": "model", "created": CREATED, "owned_by": "rlhi"}
    return {"object": "list", "data": [entry]}


def is_responses(request: ProviderRequest) -> bool:
    """Whether the request is for the responses endpoint, not for chat completions."""
    return request.path.endswith("/responses")


def _usage(request: ProviderRequest, answer: Answer) -> tuple[int, int]:
    prompt = sum(len(text_of(message.get("content")).split()) for message in request.messages)
    return (
        prompt if answer.prompt_tokens is None else answer.prompt_tokens,
        len(answer.text.split()) if answer.completion_tokens is None else answer.completion_tokens,
    )


def _model(request: ProviderRequest, answer: Answer) -> str:
    return answer.model or str(request.body.get("model", "fake-1"))


def _words(text: str) -> list[str]:
    """The text in pieces that join to it again."""
    return re.findall(r"\s*\S+\s*$|\s*\S+|\s+$", text)


def _calls(request: ProviderRequest, answer: Answer) -> list[Json]:
    return [
        {
            "id": call.id or f"call_{request.number}_{i}",
            "type": "function",
            "function": {"name": call.name, "arguments": call.arguments},
        }
        for i, call in enumerate(answer.tool_calls)
    ]


# Chat completions


def _texts(request: ProviderRequest, answer: Answer) -> list[str]:
    wanted = int(request.body.get("n") or 1)
    return [*(answer.text, *answer.alternatives), *[answer.text] * wanted][:wanted]


def _logprobs(request: ProviderRequest, answer: Answer, text: str) -> Json | None:
    """Log-probabilities where they are asked for: the script's for the first token, else falling from word to word."""
    if not request.body.get("logprobs"):
        return None
    wanted = int(request.body.get("top_logprobs") or 0)
    if answer.top_logprobs:
        tokens = [{"token": t, "bytes": list(t.encode()), "logprob": value} for t, value in answer.top_logprobs]
        return {"content": [{**tokens[0], "top_logprobs": tokens[:wanted]}], "refusal": None}
    others = range(wanted)
    content = []
    for place, word in enumerate(_words(text)):
        sure = -0.01 * (place + 1)
        top = [{"token": word if i == 0 else f"{word}{i}", "logprob": sure - i, "bytes": None} for i in others]
        content.append({"token": word, "logprob": sure, "bytes": None, "top_logprobs": top})
    return {"content": content, "refusal": None}


def _finish(answer: Answer) -> str:
    return answer.finish_reason or ("tool_calls" if answer.tool_calls else "stop")


def _chat_usage(request: ProviderRequest, answer: Answer) -> Json:
    prompt, completion = _usage(request, answer)
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def _completion(request: ProviderRequest, answer: Answer) -> Json:
    choices = []
    for index, text in enumerate(_texts(request, answer)):
        said: str | None = None if answer.refusal or (answer.tool_calls and not text) else text
        message: Json = {"role": "assistant", "content": said, "refusal": answer.refusal}
        if answer.tool_calls:
            message["tool_calls"] = _calls(request, answer)
        logprobs = _logprobs(request, answer, text)
        choices.append({"index": index, "message": message, "finish_reason": _finish(answer), "logprobs": logprobs})
    return {
        "id": f"chatcmpl-{request.number}",
        "object": "chat.completion",
        "created": CREATED,
        "model": _model(request, answer),
        "choices": choices,
        "usage": _chat_usage(request, answer),
    }


def _chunks(request: ProviderRequest, answer: Answer) -> Iterator[Json]:
    head = {
        "id": f"chatcmpl-{request.number}",
        "object": "chat.completion.chunk",
        "created": CREATED,
        "model": _model(request, answer),
    }

    def chunk(index: int, delta: Json, finish: str | None = None) -> Json:
        return {**head, "choices": [{"index": index, "delta": delta, "finish_reason": finish}]}

    for index, text in enumerate(_texts(request, answer)):
        yield chunk(index, {"role": "assistant", "content": ""})
        for word in _words(text):
            yield chunk(index, {"content": word})
        if answer.refusal:
            yield chunk(index, {"refusal": answer.refusal})
        for i, call in enumerate(_calls(request, answer)):
            arguments = call["function"]["arguments"]
            started = {**call, "function": {"name": call["function"]["name"], "arguments": ""}}
            yield chunk(index, {"tool_calls": [{"index": i, **started}]})
            for half in (arguments[: len(arguments) // 2], arguments[len(arguments) // 2 :]):
                yield chunk(index, {"tool_calls": [{"index": i, "function": {"arguments": half}}]})
        yield chunk(index, {}, _finish(answer))
    if (request.body.get("stream_options") or {}).get("include_usage"):
        yield {**head, "choices": [], "usage": _chat_usage(request, answer)}


# Responses


def _output(request: ProviderRequest, answer: Answer) -> list[Json]:
    items: list[Json] = []
    if answer.text or answer.refusal or not answer.tool_calls:
        part: Json = {"type": "output_text", "text": answer.text, "annotations": []}
        if answer.refusal:
            part = {"type": "refusal", "refusal": answer.refusal}
        message = {"type": "message", "id": f"msg_{request.number}", "role": "assistant", "status": "completed"}
        items.append({**message, "content": [part]})
    for call in _calls(request, answer):
        function = {"type": "function_call", "id": f"fc_{call['id']}", "call_id": call["id"], "status": "completed"}
        items.append({**function, **call["function"]})
    return items


def _response(request: ProviderRequest, answer: Answer) -> Json:
    prompt, completion = _usage(request, answer)
    cut = answer.finish_reason == "length"
    return {
        "id": f"resp_{request.number}",
        "object": "response",
        "created_at": CREATED,
        "status": "incomplete" if cut else "completed",
        "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
        "error": None,
        "model": _model(request, answer),
        "instructions": request.body.get("instructions"),
        "previous_response_id": request.body.get("previous_response_id"),
        "output": _output(request, answer),
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": request.body.get("tools", []),
        "metadata": request.body.get("metadata") or {},
        "usage": {
            "input_tokens": prompt,
            "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens": completion,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": prompt + completion,
        },
    }


def _response_events(request: ProviderRequest, answer: Answer) -> Iterator[Json]:
    done = _response(request, answer)
    started = {**done, "status": "in_progress", "output": [], "usage": None, "incomplete_details": None}
    yield {"type": "response.created", "response": started}
    for index, item in enumerate(done["output"]):
        where = {"item_id": item["id"], "output_index": index}
        if item["type"] == "message":
            empty = {**item, "status": "in_progress", "content": []}
            yield {"type": "response.output_item.added", "output_index": index, "item": empty}
            yield from _message_events({**where, "content_index": 0}, item["content"][0])
        else:
            empty = {**item, "status": "in_progress", "arguments": ""}
            yield {"type": "response.output_item.added", "output_index": index, "item": empty}
            arguments = item["arguments"]
            yield {"type": "response.function_call_arguments.delta", **where, "delta": arguments}
            yield {
                "type": "response.function_call_arguments.done",
                **where,
                "arguments": arguments,
                "name": item["name"],
            }
        yield {"type": "response.output_item.done", "output_index": index, "item": item}
    yield {"type": f"response.{done['status']}", "response": done}


def _message_events(where: Json, part: Json) -> Iterator[Json]:
    if part["type"] == "refusal":
        yield {"type": "response.content_part.added", **where, "part": {**part, "refusal": ""}}
        yield {"type": "response.refusal.delta", **where, "delta": part["refusal"]}
        yield {"type": "response.refusal.done", **where, "refusal": part["refusal"]}
    else:
        yield {"type": "response.content_part.added", **where, "part": {**part, "text": ""}}
        for word in _words(part["text"]):
            yield {"type": "response.output_text.delta", **where, "delta": word, "logprobs": []}
        yield {"type": "response.output_text.done", **where, "text": part["text"], "logprobs": []}
    yield {"type": "response.content_part.done", **where, "part": part}
