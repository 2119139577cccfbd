"""A persona without a model: the user's own feedback, quoted.

Every follow-up that was labelled as feedback is cut to the sentence that carries it. Wordings of the same wish are
merged, the newest stands for all of them. Feedback on the manner of answering comes before feedback on facts, which
seldom holds for the next request.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from rlhi_plugin.errors import ConfigError
from rlhi_plugin.persona.builder import UserTurn, covers_until, user_turns
from rlhi_plugin.persona.render import fold
from rlhi_plugin.persona.screen import is_safe
from rlhi_plugin.records import Conversation, FollowUp, FollowUpLabel, Persona, PersonaStatement

MAX_QUOTE = 160
"""Characters of one quotation (ours)."""
MAX_EVIDENCE = 5
"""Turns cited for one statement, the newest ones."""
MIN_WORDS = 2
"""A shorter quotation ("No.") says nothing to a later prompt."""

_SAME_WORDS = 0.6
"""Share of common words (Jaccard) from which two quotations count as one wish (ours)."""
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


@dataclass(slots=True)
class _Wish:
    """Quotations that say the same, newest first."""

    turns: list[UserTurn]
    quotes: list[str]
    doubt: float
    """Probability that none of them is feedback."""
    words: frozenset[str] = field(default_factory=frozenset)

    def statement(self) -> PersonaStatement:
        cited = zip(self.turns[:MAX_EVIDENCE], self.quotes[:MAX_EVIDENCE], strict=True)
        evidence = tuple(turn.quote(quote) for turn, quote in cited)
        return PersonaStatement(text=self.quotes[0], evidence=evidence, confidence=round(1.0 - self.doubt, 4))


class ExtractivePersonaBuilder:
    """Builds personas by quoting. Needs no model; the labels of the follow-ups do the reading.

    Args:
        max_statements: How many quotations a persona holds, at least 1.

    Raises:
        ConfigError: `max_statements` is below 1.
    """

    def __init__(self, max_statements: int = 6) -> None:
        if max_statements < 1:
            raise ConfigError(f"max_statements={max_statements} leaves no persona. Give 1 or more.")
        self._max_statements = max_statements

    @property
    def name(self) -> str:
        """Name and version."""
        return "extractive-1"

    async def build(
        self, user_id: str, conversations: Sequence[Conversation], follow_ups: Sequence[FollowUp]
    ) -> Persona:
        """See `PersonaBuilder.build`. Asks nobody and never fails."""
        turns = user_turns(conversations, follow_ups)
        wishes: list[_Wish] = []
        for turn in reversed(turns):
            if turn.follow_up is not None and turn.follow_up.label is FollowUpLabel.WITH_FEEDBACK:
                _add(wishes, turn, turn.follow_up)
        # A stable sort: within each half the newest stays first.
        wishes.sort(key=lambda wish: _MANNER.search(wish.quotes[0]) is None)
        return Persona(
            user_id=user_id,
            statements=tuple(wish.statement() for wish in wishes[: self._max_statements]),
            covers_until=covers_until(turns),
            builder=self.name,
        )


def _add(wishes: list[_Wish], turn: UserTurn, follow_up: FollowUp) -> None:
    """Join the wish that this turn repeats, or begin a new one."""
    if not is_safe(turn.text):
        # One suspicious sentence puts the whole message in doubt.
        return
    quote = feedback_quote(turn.text, follow_up.evidence)
    words = frozenset(word.casefold() for word in _WORD.findall(quote))
    if len(words) < MIN_WORDS or not is_safe(quote):
        return
    doubt = 1.0 - follow_up.probabilities.get(FollowUpLabel.WITH_FEEDBACK, _UNSURE)
    for wish in wishes:
        if len(words & wish.words) / len(words | wish.words) >= _SAME_WORDS:
            wish.turns.append(turn)
            wish.quotes.append(quote)
            wish.doubt *= doubt
            return
    wishes.append(_Wish([turn], [quote], doubt, words))


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
