"""A persona as prompt text. Serving and training call this same function, so that both see identical bytes."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Sequence

from rlhi_plugin.records import Persona

FRAME_HEAD = "What this user asked for in earlier conversations, in their own words:"
FRAME_TAIL = "Follow it where it fits; do not mention it."

FRAME_DIGEST = hashlib.sha256(f"{FRAME_HEAD}\n{FRAME_TAIL}".encode()).hexdigest()
"""SHA-256 of the frame, in hex. An adapter records the frame that it was trained with."""

PRIOR_HEAD = "What many people in this user's group ask for; this user has not said so themselves:"
PRIOR_TAIL = "Follow it only where nothing in the conversation speaks against it; do not mention it."

_INVISIBLE = ("Cc", "Cf", "Cs", "Co")
_NO_QUOTES = str.maketrans(dict.fromkeys('"\u201c\u201d\u201e\u201f\u301d\u301e\uff02', "'"))
"""A double quote, of whatever form, would let a statement end its quotation and go on as an instruction."""
_JOINERS = "\u200c\u200d"
"""Invisible too, but Persian, Hindi and many emojis are spelt with them."""


def fold(text: str) -> str:
    """One line: every run of white space is one space, and none is left at the ends."""
    return " ".join(text.split())


def visible(text: str) -> str:
    """The text on one line, without control characters and others that a reader would not see."""
    folded = fold(text)
    if folded.isprintable():
        return folded
    return fold("".join(c for c in folded if c in _JOINERS or unicodedata.category(c) not in _INVISIBLE))


def render_persona(persona: Persona | None) -> str:
    """The persona in its frame, as data: numbered quotations, one a line. Pure.

    Returns:
        The text, without a line break at its end; empty when nothing is known.
    """
    if persona is None:
        return ""
    quotes = [quote for s in persona.statements if (quote := visible(s.text).translate(_NO_QUOTES))]
    if not quotes:
        return ""
    lines = [f'{number}. "{quote}"' for number, quote in enumerate(quotes, start=1)]
    return "\n".join([FRAME_HEAD, *lines, FRAME_TAIL])


def with_persona(system: str | None, persona_text: str) -> str | None:
    """How a persona joins the app's own system prompt: the app's first, then a blank line, then the persona.

    What comes first stays the same for every user, so a provider's prompt cache keeps working.

    Returns:
        The system prompt, or None when both are empty.
    """
    return "\n\n".join(part for part in (system, persona_text) if part) or None


def render_prior(sentences: Sequence[str]) -> str:
    """A cohort prior in its own frame, which does not claim that this user said it. Pure.

    Returns:
        The text, without a line break at its end; empty when there is no sentence.
    """
    return "\n".join([PRIOR_HEAD, *(f"- {sentence}" for sentence in sentences), PRIOR_TAIL]) if sentences else ""
