"""A persona written by a language model that must prove each statement with the user's own words.

A statement counts only where it cites turns that exist, with quotations that stand in them. What does not is discarded,
and said so in the log.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import BaseModel, Field

from rlhi_plugin.chat import ChatClient, ChatRequest
from rlhi_plugin.json_reply import complete_json
from rlhi_plugin.persona.builder import UserTurn, covers_until, user_turns
from rlhi_plugin.persona.render import fold
from rlhi_plugin.persona.screen import is_safe
from rlhi_plugin.prompt_files import load_prompt
from rlhi_plugin.records import ChatMessage, Conversation, Evidence, FollowUp, Persona, PersonaStatement

_log = logging.getLogger("rlhi.persona")

MAX_TURN = 1_000
"""Characters of one message that the model is shown; longer ones are pasted material, not taste (ours)."""
MAX_HISTORY = 24_000
"""Characters of messages that the model is shown, the newest ones (ours)."""
MAX_STATEMENT = 200
"""Characters of one statement (ours)."""


class _Cited(BaseModel):
    id: str
    quote: str


class _Statement(BaseModel):
    text: str
    confidence: Annotated[float, Field(ge=0, le=1)] = 1.0
    evidence: list[_Cited]


class _Reply(BaseModel):
    statements: list[_Statement]


class LLMPersonaBuilder:
    """Builds personas with any `ChatClient`.

    Args:
        client: What is asked.
        max_statements: Upper limit of statements.
    """

    def __init__(self, client: ChatClient, *, max_statements: int = 6) -> None:
        self._client = client
        self._max_statements = max_statements
        self._prompt = load_prompt("rlhi_plugin.persona", "persona")

    @property
    def name(self) -> str:
        """Model and prompt version."""
        return f"llm:{self._client.model}:{self._prompt.version}"

    async def build(
        self, user_id: str, conversations: Sequence[Conversation], follow_ups: Sequence[FollowUp]
    ) -> Persona:
        """See `PersonaBuilder.build`. One model call, none when the user has said nothing."""
        turns = user_turns(conversations, follow_ups)
        shown = _newest(turns)
        statements: list[PersonaStatement] = []
        if shown:
            request = ChatRequest(
                messages=(
                    ChatMessage(role="system", content=self._prompt.text.format(max_statements=self._max_statements)),
                    ChatMessage(role="user", content=json.dumps(_as_data(shown), ensure_ascii=False)),
                ),
                max_tokens=1_500,
                json_schema=_Reply.model_json_schema(),
            )
            reply = await complete_json(self._client, request, _Reply)
            statements = [kept for said in reply.statements if (kept := _checked(said, shown)) is not None]
            if len(statements) < len(reply.statements):
                _log.info("%s: discarded %d unsupported statement(s)", user_id, len(reply.statements) - len(statements))
        return Persona(
            user_id=user_id,
            statements=tuple(statements[: self._max_statements]),
            covers_until=covers_until(turns),
            builder=self.name,
        )


def _newest(turns: Sequence[UserTurn]) -> Mapping[str, UserTurn]:
    """The newest turns that fit, oldest first, under short names that a model can repeat without a slip."""
    chosen: list[UserTurn] = []
    room = MAX_HISTORY
    for turn in reversed(turns):
        room -= min(len(turn.text), MAX_TURN)
        if room < 0:
            break
        if turn.text.strip() and is_safe(turn.text):
            chosen.append(turn)
    return {f"m{i}": turn for i, turn in enumerate(reversed(chosen), start=1)}


def _as_data(shown: Mapping[str, UserTurn]) -> list[dict[str, Any]]:
    return [
        {"id": name, "text": turn.text[:MAX_TURN]} | ({"label": turn.follow_up.label.value} if turn.follow_up else {})
        for name, turn in shown.items()
    ]


def _checked(said: _Statement, shown: Mapping[str, UserTurn]) -> PersonaStatement | None:
    """The statement with the evidence that holds, or None."""
    text = fold(said.text)
    if not text or len(text) > MAX_STATEMENT or not is_safe(said.text):
        return None
    evidence: list[Evidence] = []
    for cited in said.evidence:
        turn, quote = shown.get(cited.id), fold(cited.quote)
        if turn is not None and quote and quote in fold(turn.text):
            evidence.append(turn.quote(quote))
    if not evidence:
        return None
    return PersonaStatement(text=text, evidence=tuple(evidence), confidence=said.confidence)
