"""What had come of an answer when a streamed model call failed or was given up: only callbacks hear of it."""

from __future__ import annotations

import logging
from contextvars import Token
from typing import Any
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler, BaseCallbackManager
from langchain_core.messages import AIMessageChunk, BaseMessage, message_chunk_to_message
from langchain_core.outputs import ChatGenerationChunk
from langchain_core.runnables.config import RunnableConfig, ensure_config, var_child_runnable_config

from rlhi_plugin.attributes import attributes_of
from rlhi_plugin.records import Finish

_STREAMING = ("streaming",)

_log = logging.getLogger("rlhi.middleware")


class PartialAnswer(BaseCallbackHandler):
    """Listens to the chat model calls inside ``with``, and keeps the pieces of the last one until it is whole.

    One object for one call; it hears the calls made in this thread or task. What they raise goes on, and sets `finish`.
    It asks for no stream: where nobody else does, there are no pieces.

    Args:
        model: The one that is called, where that is known: where neither it nor whoever called the graph streams,
            nothing is listened to, which would take a tenth of the time of a turn.
    """

    ignore_chain = ignore_agent = ignore_retriever = True
    # A piece is put into a list, for which no thread has to be started.
    run_inline = True

    def __init__(self, model: object = None) -> None:
        self.finish: Finish | None = None
        self._model = model
        self._pieces: list[AIMessageChunk] = []
        self._token: Token[RunnableConfig | None] | None = None

    def __enter__(self) -> None:
        try:
            if self._model is None or attributes_of(self._model, _STREAMING)[0] or _somebody_streams():
                self._token = var_child_runnable_config.set(self._heard(ensure_config()))
        except Exception:  # noqa: BLE001 - observing never breaks the observed, whatever happens
            _log.exception("a model call goes on unheard: a part of its answer would be lost")

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if error is not None:
            self.finish = finish_of(error)
        if self._token is not None:
            var_child_runnable_config.reset(self._token)
            self._token = None

    def messages(self) -> list[BaseMessage]:
        """What had come, as one message; empty where nothing had."""
        if not self._pieces:
            return []
        whole = self._pieces[0]
        for piece in self._pieces[1:]:
            whole += piece
        said = message_chunk_to_message(whole)
        return [said] if said.content or getattr(said, "tool_calls", None) else []

    def on_chat_model_start(self, serialized: dict[str, Any], messages: Any, *, run_id: UUID, **kwargs: Any) -> None:
        """Another call begins: what came of the one before it was not the last word."""
        del serialized, messages, run_id, kwargs
        self._pieces = []

    def on_llm_new_token(self, token: Any, *, chunk: Any = None, **kwargs: Any) -> None:
        """Keep a piece."""
        del token, kwargs
        if isinstance(chunk, ChatGenerationChunk) and isinstance(chunk.message, AIMessageChunk):
            self._pieces.append(chunk.message)

    def _heard(self, config: RunnableConfig) -> RunnableConfig:
        callbacks = config.get("callbacks")
        if isinstance(callbacks, BaseCallbackManager):
            manager = callbacks.copy()
            manager.add_handler(self, inherit=True)
            return {**config, "callbacks": manager}
        return {**config, "callbacks": [*(callbacks or []), self]}


def _somebody_streams() -> bool:
    """Whether a handler asks models to stream: LangChain knows it by this method."""
    config = var_child_runnable_config.get()
    callbacks = config.get("callbacks") if config else None
    for handler in callbacks.handlers if isinstance(callbacks, BaseCallbackManager) else callbacks or ():
        if hasattr(handler, "tap_output_iter"):
            return True
    return False


def finish_of(error: BaseException | None) -> Finish | None:
    """What an answer is that ended so: given up (a closed stream, a cancelled run), failed, or whole."""
    if error is None:
        return None
    return "failed" if isinstance(error, Exception) else "incomplete"
