"""What a LangChain model call asks and answers, in the forms that LangChain gives it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

from langchain.agents.middleware import ModelRequest, ModelResponse
from langchain.agents.middleware.types import ExtendedModelResponse
from langchain_core.messages import AIMessage, BaseMessage, SystemMessage

from rlhi_plugin.attributes import attributes_of
from rlhi_plugin.partial_answer import PartialAnswer
from rlhi_plugin.persona.render import with_persona

Response: TypeAlias = "ModelResponse[Any] | AIMessage | ExtendedModelResponse[Any]"


def join_persona(system: SystemMessage | None, persona_text: str) -> SystemMessage:
    """The system message with a persona at its end."""
    if system is None or isinstance(system.content, str):
        return SystemMessage(with_persona(None if system is None else str(system.content), persona_text))
    # A block of its own at the end leaves the app's blocks, and their prompt-cache marks, as they are.
    return system.model_copy(update={"content": [*system.content, {"type": "text", "text": f"\n\n{persona_text}"}]})


def reply_messages(response: Response | PartialAnswer) -> Sequence[BaseMessage]:
    """What came back; of a call that failed, what had come until then."""
    if isinstance(response, PartialAnswer):
        return response.messages()
    if isinstance(response, AIMessage):
        return (response,)
    return (response.model_response if isinstance(response, ExtendedModelResponse) else response).result


_NAMES = ("model_name", "model", "model_id", "adapter_id")


def names_of(request: ModelRequest[Any], reply: Sequence[BaseMessage]) -> tuple[str, Any]:
    """Names of the model that answered and of its adapter, if it has one.

    Of the model it is what the provider says, else what was asked, else the class of the chat model.
    """
    *asked, adapter = attributes_of(request.model, _NAMES)
    for message in reply:
        said = message.response_metadata
        if said and (name := said.get("model_name") or said.get("model")):
            return str(name), said.get("adapter_id") or adapter
    for name in asked:
        if name and isinstance(name, str):
            return name, adapter
    return type(request.model).__name__, adapter


def adapter_in(reply: Sequence[BaseMessage]) -> str | None:
    """Id of the adapter that answered, where the chat model says so with its answer, as `LocalChatModel` does."""
    found = (message.response_metadata.get("adapter_id") for message in reply)
    return next((str(adapter) for adapter in found if adapter), None)
