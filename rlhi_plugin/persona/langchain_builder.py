"""A persona builder on any LangChain chat model, through its own structured output."""

from __future__ import annotations

import json
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage

from rlhi_plugin.calls.replies import check_replies
from rlhi_plugin.chat import Capabilities, ChatReply, ChatRequest, require
from rlhi_plugin.errors import ConfigError, ModelCallError
from rlhi_plugin.persona.llm import LLMPersonaBuilder
from rlhi_plugin.persona.memory import DEFAULT, MemoryOptions

_ROLES: dict[str, type[BaseMessage]] = {"system": SystemMessage, "user": HumanMessage, "assistant": AIMessage}


class LangChainPersonaBuilder(LLMPersonaBuilder):
    """Builds personas with a LangChain chat model.

    Args:
        model: Any chat model. One that knows tools or JSON schemas is asked for structured output, any other for JSON.
        max_statements: Upper limit of statements, at least 1.
        options: What else may be set (`rlhi_plugin.persona.memory`).

    Raises:
        ConfigError: `model` is no chat model, or `max_statements` is below 1.
    """

    def __init__(self, model: BaseChatModel, *, max_statements: int = 6, options: MemoryOptions = DEFAULT) -> None:
        if not isinstance(model, BaseChatModel):
            raise ConfigError(
                f"{type(model).__name__} is no chat model. Pass one of LangChain's, as init_chat_model('...') gives."
            )
        super().__init__(LangChainClient(model), max_statements=max_statements, options=options)


class LangChainClient:
    """A LangChain chat model as a `ChatClient`. Sampling settings are the model's own."""

    def __init__(self, model: BaseChatModel) -> None:
        self._chat = model

    @property
    def model(self) -> str:
        """The name that the model gives, else that of its class."""
        for attribute in ("model_name", "model", "model_id"):
            name = getattr(self._chat, attribute, None)
            if isinstance(name, str) and name:
                return name
        return type(self._chat).__name__

    @property
    def capabilities(self) -> Capabilities:
        """JSON, by structured output or by the prompt; LangChain hides the rest."""
        return Capabilities(json_schema="asked")

    async def complete(self, request: ChatRequest) -> tuple[ChatReply, ...]:
        """See `ChatClient.complete`. A schema becomes structured output where the model knows that."""
        require(self, request)
        messages = [_ROLES[message.role](message.content) for message in request.messages]
        try:
            replies = [await self._one(messages, request.json_schema) for _ in range(request.n)]
        except Exception as error:
            raise ModelCallError(
                f"{self.model}: {type(error).__name__}: {error}. See the provider's message, or use another model."
            ) from error
        return check_replies(self.model, request, replies)

    async def _one(self, messages: list[BaseMessage], schema: dict[str, Any] | None) -> ChatReply:
        structured = None if schema is None else self._structured(schema)
        if structured is None:
            return ChatReply(text=(await self._chat.ainvoke(messages)).text)
        answer = await structured.ainvoke(messages)
        if answer["parsed"] is None:
            # It answered with text after all, which may be the JSON that the prompt asks for.
            return ChatReply(text=answer["raw"].text)
        return ChatReply(text=json.dumps(answer["parsed"], ensure_ascii=False))

    def _structured(self, schema: dict[str, Any]) -> Any:
        """The model bound to the schema; None where it cannot be."""
        named = {"title": "persona", "description": "How one person likes to be answered.", **schema}
        try:
            return self._chat.with_structured_output(named, include_raw=True)
        except NotImplementedError:  # LangChain's own way to say that a model has no structured output
            return None
