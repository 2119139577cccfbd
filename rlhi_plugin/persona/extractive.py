"""A persona without a model: the user's own feedback, quoted.

Every follow-up that was labelled as feedback is cut to the sentence that carries it. Wordings of the same wish are
merged, the newest stands for all of them; what a newer one contradicts goes. Feedback on the manner of answering comes
before feedback on facts, which seldom holds for the next request.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

from rlhi_plugin.persona.builder import UserTurn, covers_until, empty_persona, user_turns
from rlhi_plugin.persona.memory import DEFAULT, MemoryOptions, arrange, remember
from rlhi_plugin.persona.render import fold
from rlhi_plugin.persona.screen import is_safe
from rlhi_plugin.persona.wishes import is_one_off, statement_type
from rlhi_plugin.records import Conversation, FollowUp, FollowUpLabel, Persona, PersonaStatement

MAX_QUOTE = 160
"""Characters of one quotation (ours)."""
MIN_WORDS = 2
"""A shorter quotation ("No.") says nothing to a later prompt."""

_SHORT = 200
"""Characters of a message that may be remembered (ours)."""
_UNSURE = 0.7
"""Probability assumed where the labeller gives none."""

_SENTENCE = re.compile(r"[^.!?\n\u3002\uff01\uff1f]+[.!?\u3002\uff01\uff1f\"')\]]*")
_WORD = re.compile(r"\w+")
_MANNER = re.compile(
    r"""\b(?:
      short|shorter|brief|briefly|concise|long|longer|lengthy|wordy|verbose|words?|sentences?|paragraphs?|detail\w*|depth|
      bullets?|bulleted|lists?|points?|tables?|headings?|markdown|format\w*|prose|plain|steps?|numbered|
      numbers?|figures?|statistics|data|examples?|sources?|emojis?|smileys?|tone|style|formal\w*|casual\w*|friendl\w+|polite\w*|
      greet\w*|hello|questions?|simple|simpler|simply|jargon|technical|language|english|explain\w*|summar\w+|rambl\w*|
      wall\s+of\s+text|to\s+the\s+point|code\s+only|repeat\w*|always|never|every\s+time|from\s+now\s+on|prefer|i\s+(?:like|hate|want|asked)
    )\b""",
    re.IGNORECASE | re.VERBOSE,
)
_WISH = re.compile(
    r"\b(?:please|instead|more|less|fewer|without|with|don'?t|do\s+not|no|not|stop|too|again|should|could|can\s+you|want|need|"
    r"use|add|give|make|include|leave|remove|avoid|skip|keep|end|start|wrong|missing|rather|just|only|prefer)\b",
    re.IGNORECASE,
)


class ExtractivePersonaBuilder:
    """Builds personas by quoting. Needs no model; the labels of the follow-ups do the reading.

    Reading a history piece by piece gives the same persona as reading it at once, whatever the pieces
    (`rlhi_plugin.persona.memory`).

    Args:
        max_statements: How many quotations a persona holds, at least 1.
        options: What else may be set; its `max_statements` is overruled by the argument of that name.

    Raises:
        ConfigError: `max_statements` is below 1.
    """

    def __init__(self, max_statements: int | None = None, *, options: MemoryOptions = DEFAULT) -> None:
        self._options = options if max_statements is None else replace(options, max_statements=max_statements)

    @property
    def name(self) -> str:
        """Name and version."""
        return "extractive-2"

    async def build(
        self, user_id: str, conversations: Sequence[Conversation], follow_ups: Sequence[FollowUp]
    ) -> Persona:
        """See `PersonaBuilder.build`. Asks nobody and never fails."""
        return await self.extend(empty_persona(user_id, self.name), user_turns(conversations, follow_ups))

    async def extend(self, persona: Persona, turns: Sequence[UserTurn]) -> Persona:
        """See `IncrementalBuilder.extend`. Asks nobody and never fails."""
        known = [*persona.statements, *persona.reserve]
        for turn in turns:
            if (said := _statement(turn)) is not None:
                known = remember(known, said, persona.removed, self._options)
        times = [time for time in (persona.covers_until, covers_until(turns)) if time is not None]
        until = max(times, default=None)
        statements, reserve = arrange(known, until, self._options, matters=_is_manner)
        return persona.model_copy(
            update={"statements": statements, "reserve": reserve, "covers_until": until, "builder": self.name}
        )


def _statement(turn: UserTurn) -> PersonaStatement | None:
    """What one turn adds, or None: no feedback, not safe, too short, or meant for this once."""
    label = turn.follow_up
    if label is None or label.label is not FollowUpLabel.WITH_FEEDBACK:
        return None
    quote = (_known_quote if len(turn.text) <= _SHORT else _safe_quote)(turn.text, label.evidence)
    if not quote:
        return None
    return PersonaStatement(
        text=quote,
        evidence=(turn.quote(quote),),
        confidence=round(label.probabilities.get(FollowUpLabel.WITH_FEEDBACK, _UNSURE), 4),
        type=statement_type(quote),
        first_seen=turn.said_at,
        last_seen=turn.said_at,
    )


def _safe_quote(text: str, evidence: str | None) -> str:
    """What may be quoted of a message; empty where nothing may."""
    # One suspicious sentence puts the whole message in doubt.
    if not is_safe(text):
        return ""
    quote = feedback_quote(text, evidence)
    words = {word.casefold() for word in _WORD.findall(quote)}
    return "" if len(words) < MIN_WORDS or not is_safe(quote) or is_one_off(quote) else quote


_known_quote = lru_cache(maxsize=8192)(_safe_quote)
"""Many people say the same in few words."""


def _is_manner(statement: PersonaStatement) -> bool:
    return _of_manner(statement.text)


@lru_cache(maxsize=8192)
def _of_manner(text: str) -> bool:
    return _MANNER.search(text) is not None


def feedback_quote(text: str, evidence: str | None = None) -> str:
    """The part of a user message that carries its feedback.

    Args:
        text: The message.
        evidence: The words that decided its label, where the labeller named them.

    Returns:
        One line of at most `MAX_QUOTE` characters, verbatim but for white space; empty when nothing is left.
    """
    sentences = [folded for part in _SENTENCE.findall(text) if (folded := fold(part))]
    if not sentences:
        return ""
    named = fold(evidence) if evidence else ""
    start = max(range(len(sentences)), key=lambda i: (_weight(sentences[i], named), -i))
    quote = sentences[start]
    for sentence in sentences[start + 1 :]:
        # Following sentences are often the wish itself: "Too long. Two sentences, please."
        longer = f"{quote} {sentence}"
        if _weight(sentence, named) == 0 or len(longer) > MAX_QUOTE or longer not in fold(text):
            break
        quote = longer
    return _cut(quote)


def _weight(sentence: str, named: str) -> int:
    """How much a sentence looks like feedback."""
    is_named = bool(named) and (named in sentence or sentence in named)
    return 4 * is_named + 2 * bool(_MANNER.search(sentence)) + bool(_WISH.search(sentence))


def _cut(quote: str) -> str:
    """At most `MAX_QUOTE` characters, ending with a whole word where there is one."""
    if len(quote) <= MAX_QUOTE:
        return quote
    head = quote[: MAX_QUOTE + 1]
    space = head.rfind(" ")
    return (head[:space] if space > 0 else quote[:MAX_QUOTE]).rstrip(" ,;:")
