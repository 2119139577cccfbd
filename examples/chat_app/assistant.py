"""The assistant: all of RLHI's API that a chat needs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from langchain.agents import create_agent
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AnyMessage, RemoveMessage
from langgraph.checkpoint.memory import InMemorySaver

from rlhi_plugin import Persona, RLHIMiddleware, open_store
from rlhi_plugin.durability import journal_folders
from rlhi_plugin.errors import ConfigError
from rlhi_plugin.identity import pseudonym
from rlhi_plugin.persona import PersonaBuilding, WorkerOptions
from rlhi_plugin.persona.command_messages import is_command_traffic
from rlhi_plugin.persona.edits import EditAction
from rlhi_plugin.privacy import Places, forget_user
from rlhi_plugin.records import FeedbackKind


class Assistant:
    """An ordinary LangChain agent with one middleware, and what a chat asks of that middleware.

    Args:
        model: Answers.
        store: URL of the conversation store.
    """

    def __init__(self, model: BaseChatModel, store: str) -> None:
        self.store = open_store(store)
        self.rlhi = RLHIMiddleware(
            store=self.store,
            # People may ask in the chat what is known of them, and take it back.
            commands=True,
            # Personas are built behind the chat, here after every turn, by quoting what the person said.
            persona_builder=PersonaBuilding(builder="extractive", when=WorkerOptions(after_turns=1)),
        )
        self._model = model
        self._agent: Any = create_agent(model, tools=[], middleware=[self.rlhi], checkpointer=InMemorySaver())

    def messages(self, thread: str) -> list[AnyMessage]:
        """What was said in a thread, commands and their answers included."""
        return list(self._agent.get_state(_config(thread)).values.get("messages", []))

    def say(self, user: str, thread: str, text: str) -> Iterator[str]:
        """The answer, as far as it has come. When it ends, the turn is on disk."""
        return self._run(user, thread, [("user", text)])

    def say_again(self, user: str, thread: str) -> Iterator[str]:
        """Another answer in the place of the last one. The log keeps both, and that the person wanted another."""
        *_, request, answer = self.messages(thread)
        self.rate(user, thread, -1, FeedbackKind.REGENERATE)
        if hasattr(self._model, "seed"):
            self._model.seed += 1  # the same conversation and seed would give the same answer
        return self._run(user, thread, [RemoveMessage(str(answer.id)), request])

    def rate(self, user: str, thread: str, index: int, kind: FeedbackKind) -> bool:
        """Store what the person did with an answer. The reply to a command is no answer of the model's."""
        answer = self.messages(thread)[index]
        if is_command_traffic(answer):
            return False
        return self.rlhi.record_feedback(kind, thread_id=thread, user_id=user, message_id=answer.id)

    def known(self, user: str) -> Persona | None:
        """What was learned of a person: each statement with the words of theirs that it rests on."""
        return self.rlhi.get_persona(user)

    def change(self, user: str, action: EditAction, text: str, wording: str | None = None) -> None:
        """Let a person correct a statement that they see; the conversation that is under way sees it too.

        Raises:
            ConfigError: it is not known any more, or the wording cannot be kept; the message is for the person.
        """
        persona = self.known(user)
        texts = [] if persona is None else [each.text for each in (*persona.statements, *persona.reserve)]
        # Its number may be another one by now: personas are built behind the chat.
        if text not in texts:
            raise ConfigError("This has just changed. Look at it again.")
        self.rlhi.edit_persona(user, action, texts.index(text) + 1, wording)

    def stored(self, user: str) -> str:
        """How much is on disk of a person."""
        user_id = pseudonym(user)
        talks = list(self.store.conversations(user_id=user_id))
        said = sum(len(talk.messages) for talk in talks)
        clicks = len(list(self.store.feedback(user_id=user_id)))
        return f"{said} messages in {len(talks)} conversations, {clicks} clicks and refusals"

    def forget(self, user: str) -> str:
        """Delete everything of a person, here and on disk."""
        journals = [folder for folder in journal_folders(self.store) if folder.is_dir()]
        places = Places(journals=journals, caches=[lambda _: self.rlhi.forget(user)])
        done = forget_user(self.store, pseudonym(user), places)
        return ", ".join(f"{count} {what}" for what, count in done.deleted.items() if count) or "nothing was stored"

    def close(self) -> None:
        """Write what is left, and let go of the store."""
        self.rlhi.close()
        self.store.close()

    def _run(self, user: str, thread: str, messages: list[Any]) -> Iterator[str]:
        answer = ""
        stream = self._agent.stream({"messages": messages}, config=_config(thread, user), stream_mode="messages")
        for chunk, _ in stream:
            if isinstance(chunk, AIMessage):
                answer += chunk.text
                yield answer


def _config(thread: str, user: str | None = None) -> dict[str, Any]:
    return {"configurable": {"thread_id": thread, "user_id": user}}
