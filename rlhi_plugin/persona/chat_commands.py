"""Commands in the chat, carried out to the end: the persona, the caches, and what the store has to remember."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from langchain_core.messages import AIMessage, AnyMessage, BaseMessage

from rlhi_plugin.durability.deadline import DeadlineThreads
from rlhi_plugin.errors import ConfigError, StoreTimeoutError
from rlhi_plugin.persona import phrases
from rlhi_plugin.persona.command_messages import last_user_text, reply_message, without_commands
from rlhi_plugin.persona.commands import CommandHandler, CommandResult, ConversationExcluded, PersonaChanged
from rlhi_plugin.persona.phrases import is_command, read_command
from rlhi_plugin.privacy.exclusions import exclusion
from rlhi_plugin.records import FeedbackEvent, PersonaStatement
from rlhi_plugin.stores import PersonaStore

_log = logging.getLogger("rlhi.persona")


@dataclass(frozen=True, slots=True)
class Speaking:
    """Who gives a command, and where.

    Attributes:
        user_id: Pseudonym; None for an anonymous user.
        conversation_id: The thread.
        named: Whether the app named the thread, so that its next turn will be of the same conversation.
        used: The statements that are in the thread's prompt.
    """

    user_id: str | None
    conversation_id: str
    named: bool = True
    used: Sequence[PersonaStatement] = ()


class ChatCommands:
    """Answers commands in the model's place. Thread-safe; never raises.

    Args:
        personas: Where personas are.
        keep: Keeps an exclusion (`rlhi_plugin.privacy.exclusions`) with other feedback; raises where it cannot.
        changed: Told the pseudonym of each user whose persona is now another one.
        timeout_s: Seconds for which a user waits for the stores.
    """

    def __init__(
        self,
        personas: PersonaStore,
        *,
        keep: Callable[[FeedbackEvent], object],
        changed: Callable[[str], object],
        timeout_s: float,
    ) -> None:
        self._keep = keep
        self._handler = CommandHandler(personas)
        self._changed = changed
        self._threads = DeadlineThreads("rlhi-commands")
        self._timeout_s = timeout_s

    def close(self) -> None:
        """Let idle threads end; may be asked again afterwards."""
        self._threads.close()

    @staticmethod
    def given(messages: Sequence[BaseMessage]) -> str | None:
        """The command that a thread ends with, verbatim; None where the model should answer."""
        text = last_user_text(messages)
        return text if text is not None and is_command(text) else None

    def answer(self, text: str, speaking: Speaking) -> AIMessage:
        """Carry out a command and say what came of it. Waits for the stores: in an event loop, ask in a thread."""
        command = read_command(text)
        if command is not None and command.name == "do-not-learn" and not speaking.named:
            return reply_message(CommandResult(phrases.NO_THREAD))
        try:
            result = self._threads.call(lambda: self._carry_out(text, speaking), self._timeout_s)
        except StoreTimeoutError:
            _log.exception("the command %s was not carried out in time", text.strip())
            result = CommandResult(phrases.FAILED)
        except Exception:  # noqa: BLE001 - any store may raise anything; the user is told that it did not work
            _log.exception("the command %s could not be carried out", text.strip())
            result = CommandResult(phrases.FAILED)
        return reply_message(result)

    def _carry_out(self, text: str, speaking: Speaking) -> CommandResult:
        result = self._handler.handle(
            text, user_id=speaking.user_id, conversation_id=speaking.conversation_id, used=speaking.used
        )
        if result is None:
            raise ConfigError(f"{text!r} is no command. Ask `given` first.")
        for effect in result.effects:
            match effect:
                case PersonaChanged(user_id):
                    self._changed(user_id)
                case ConversationExcluded(conversation_id, user_id, decided_at):
                    self._keep(exclusion(conversation_id, user_id, decided_at))
        return result


def without_command_traffic(messages: Sequence[AnyMessage]) -> Sequence[AnyMessage]:
    """The messages that the model and the log should see: the very same ones where no command was given."""
    kept = without_commands(messages)
    return messages if len(kept) == len(messages) else kept
