"""A persona written by a language model that must prove each statement with the user's own words.

A statement counts only where it cites turns that exist, with quotations that stand in them, or continues a statement
that did so before. What does not is discarded, and said so in the log. The model is shown what is known and the new
turns; it is never shown what the user removed, and what it writes cannot touch what the user locked or wrote.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, Field

from rlhi_plugin.chat import ChatClient, ChatRequest
from rlhi_plugin.json_reply import complete_json
from rlhi_plugin.persona.builder import LONG_AGO, UserTurn, covers_until, empty_persona, user_turns
from rlhi_plugin.persona.edits import MAX_STATEMENT
from rlhi_plugin.persona.memory import DEFAULT, MAX_EVIDENCE, MemoryOptions, fit, is_own_wording
from rlhi_plugin.persona.removals import is_removed
from rlhi_plugin.persona.render import fold
from rlhi_plugin.persona.screen import is_safe
from rlhi_plugin.persona.wishes import contradict, read_wishes, statement_type
from rlhi_plugin.prompt_files import load_prompt
from rlhi_plugin.records import (
    ChatMessage,
    Conversation,
    Evidence,
    FollowUp,
    Persona,
    PersonaStatement,
    StatementType,
)

_log = logging.getLogger("rlhi.persona")

MAX_TURN = 1_000
"""Characters of one message that the model is shown; longer ones are pasted material, not taste (ours)."""
MAX_HISTORY = 24_000
"""Characters of messages that the model is shown, the newest ones (ours)."""


def _known_type(value: object) -> object:
    """A type that the model made up is no reason to lose the statement; code reads one from the words instead."""
    return value if value in set(StatementType) else None


class _Cited(BaseModel):
    id: str
    quote: str


class _Statement(BaseModel):
    text: str
    type: Annotated[StatementType | None, BeforeValidator(_known_type)] = None
    confidence: Annotated[float, Field(ge=0, le=1)] = 1.0
    keeps: list[str] = []
    evidence: list[_Cited] = []


class _Reply(BaseModel):
    statements: list[_Statement]


@dataclass(frozen=True, slots=True)
class _Shown:
    """What the model saw, under short names that it can repeat without a slip."""

    known: Mapping[str, PersonaStatement]
    turns: Mapping[str, UserTurn]

    def as_json(self) -> str:
        known = [{"id": name, "type": s.type.value, "text": s.text} for name, s in self.known.items()]
        messages: list[dict[str, Any]] = [
            {"id": name, "text": turn.text[:MAX_TURN]}
            | ({"label": turn.follow_up.label.value} if turn.follow_up else {})
            for name, turn in self.turns.items()
        ]
        return json.dumps({"known": known, "messages": messages}, ensure_ascii=False)


class LLMPersonaBuilder:
    """Builds personas with any `ChatClient`, from the beginning or from the persona so far.

    Args:
        client: What is asked.
        max_statements: Upper limit of statements, at least 1.
        options: What else may be set; its `max_statements` is overruled by the argument of that name.

    Raises:
        ConfigError: `max_statements` is below 1.
    """

    def __init__(self, client: ChatClient, *, max_statements: int = 6, options: MemoryOptions = DEFAULT) -> None:
        self._client = client
        self._options = replace(options, max_statements=max_statements)
        self._prompt = load_prompt("rlhi_plugin.persona", "persona")

    @property
    def name(self) -> str:
        """Model and prompt version."""
        return f"llm:{self._client.model}:{self._prompt.version}"

    async def build(
        self, user_id: str, conversations: Sequence[Conversation], follow_ups: Sequence[FollowUp]
    ) -> Persona:
        """See `PersonaBuilder.build`. One model call, none when the user has said nothing."""
        return await self.extend(empty_persona(user_id, self.name), user_turns(conversations, follow_ups))

    async def extend(self, persona: Persona, turns: Sequence[UserTurn]) -> Persona:
        """See `IncrementalBuilder.extend`. One model call, none when there is nothing new to read."""
        times = [time for time in (persona.covers_until, covers_until(turns)) if time is not None]
        until = max(times, default=None)
        fixed = [s for s in persona.statements if s.locked or is_own_wording(s)]
        loose = [s for s in (*persona.statements, *persona.reserve) if not (s.locked or is_own_wording(s))]
        shown = _Shown({f"s{i}": s for i, s in enumerate(loose, start=1)}, _newest(turns))
        ranked = [*fixed, *loose]
        if shown.turns:
            written = await self._ask(shown, persona.user_id)
            ranked = _settled([*fixed, *(s for s in written if not is_removed(s, persona.removed))])
        kept = fit(ranked, until, self._options)
        return persona.model_copy(
            update={
                "statements": tuple(kept),
                "reserve": tuple(s for s in ranked if s not in kept),
                "covers_until": until,
                "builder": self.name,
            }
        )

    async def _ask(self, shown: _Shown, user_id: str) -> list[PersonaStatement]:
        """The statements of the model's answer that have support, in its order."""
        rules = self._prompt.text.format(
            max_statements=self._options.max_statements, types=", ".join(kind.value for kind in StatementType)
        )
        request = ChatRequest(
            messages=(
                ChatMessage(role="system", content=rules),
                ChatMessage(role="user", content=shown.as_json()),
            ),
            max_tokens=2_000,
            json_schema=_Reply.model_json_schema(),
        )
        reply = await complete_json(self._client, request, _Reply)
        kept = [statement for said in reply.statements if (statement := _checked(said, shown)) is not None]
        if len(kept) < len(reply.statements):
            _log.info("%s: discarded %d unsupported statement(s)", user_id, len(reply.statements) - len(kept))
        return kept


def _newest(turns: Sequence[UserTurn]) -> Mapping[str, UserTurn]:
    """The newest turns that fit, oldest first."""
    chosen: list[UserTurn] = []
    room = MAX_HISTORY
    for turn in reversed(turns):
        room -= min(len(turn.text), MAX_TURN)
        if room < 0:
            break
        if turn.text.strip() and is_safe(turn.text):
            chosen.append(turn)
    return {f"m{i}": turn for i, turn in enumerate(reversed(chosen), start=1)}


def _checked(said: _Statement, shown: _Shown) -> PersonaStatement | None:
    """The statement with the evidence that holds, or None."""
    text = fold(said.text)
    if not text or len(text) > MAX_STATEMENT or not is_safe(said.text):
        return None
    evidence: list[Evidence] = []
    for cited in said.evidence:
        turn, quote = shown.turns.get(cited.id), fold(cited.quote)
        if turn is not None and quote and quote in fold(turn.text):
            evidence.append(turn.quote(quote))
    continued = [shown.known[name] for name in said.keeps if name in shown.known]
    evidence += [cited for before in continued for cited in before.evidence]
    if not evidence:
        return None
    distinct = sorted(dict.fromkeys(evidence), key=lambda cited: cited.said_at or LONG_AGO, reverse=True)
    times = [cited.said_at for cited in distinct if cited.said_at is not None]
    first = [before.first_seen for before in continued if before.first_seen is not None]
    return PersonaStatement(
        text=text,
        evidence=tuple(distinct[:MAX_EVIDENCE]),
        confidence=said.confidence,
        type=said.type or statement_type(text),
        first_seen=min([*times, *first], default=None),
        last_seen=max(times, default=None),
    )


def _settled(statements: Sequence[PersonaStatement]) -> list[PersonaStatement]:
    """In the same order, without what another contradicts: what is locked wins, then what is newer, then the first."""
    by_weight = sorted(
        enumerate(statements),
        key=lambda entry: (entry[1].locked, entry[1].last_seen or LONG_AGO, -entry[0]),
        reverse=True,
    )
    kept: dict[int, PersonaStatement] = {}
    for place, statement in by_weight:
        wishes = read_wishes(statement.text)
        if not any(contradict(wishes, read_wishes(other.text)) for other in kept.values()):
            kept[place] = statement
    return [kept[place] for place in sorted(kept)]
