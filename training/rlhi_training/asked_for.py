"""What a user's own words ask for, among the properties that code can check.

Feedback is read in two steps. Patterns find the usual wordings ("too long", "bullet points", "say hi first") and handle
refusals ("no emojis") and complaints of absence ("no emojis? add some"). A sentence in which no pattern matches is
compared with prototype sentences (``asked_for.toml``) by sentence embeddings, and counts as the wish of the nearest
prototype if that is near enough and nearer than every sentence that asks for nothing checkable.

The result decides which candidates a persona prefers, so it rests on what users said and on nothing else.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Sequence
from functools import cached_property
from importlib.resources import files
from typing import TYPE_CHECKING

from rlhi_plugin.checkable import is_check, rivals
from rlhi_plugin.records import Persona
from rlhi_training.measured_wishes import measured_wishes
from rlhi_training.sentence_encoder import Encoder

if TYPE_CHECKING:
    from rlhi_training.sentence_encoder import Embeddings

OPPOSITES = {
    "short": "detailed",
    "detailed": "short",
    "bullets": "no_lists",
    "no_lists": "bullets",
    "emojis": "no_emojis",
    "no_emojis": "emojis",
}
"""Wishes that cannot both be granted; the later one counts."""

_SIMILARITY = 0.58
"""Least cosine to a prototype. Chosen on invented sentences; precision and recall are asserted in the tests."""
_LEAD = 0.05
"""How much nearer than the nearest sentence that asks for nothing checkable."""
_MAX_EMBEDDED_WORDS = 25
"""Longer sentences tell a story, and their embedding is about its topic."""
_PERSONAS = 2_000
"""Personas whose wishes are remembered: each is asked about for every turn of its conversation."""
_REMEMBERED = 50_000
"""Messages whose wishes are remembered, some ten megabytes."""
_MAX_MESSAGE_CHARS = 400
_END_CHARS = 120
"""Of a longer message only the beginning and the end are read: the middle is pasted material."""
_MAX_SENTENCE_WORDS = 30
"""A longer sentence is pasted material or a task of its own."""

_WORDINGS = tomllib.loads((files("rlhi_training") / "asked_for.toml").read_text("utf-8"))
_PATTERNS = {name: re.compile(rf"\b(?:{'|'.join(parts)})(?!\w)") for name, parts in _WORDINGS["patterns"].items()}
_PROTOTYPES = [(name, sentence) for name, sentences in _WORDINGS["prototypes"].items() for sentence in sentences]

_ABSENT = re.compile(
    r"\b(?:where(?:'s| is| are|s)|(?:you|u) (?:never|didn't|did not|don't|forgot|skipped|left out|still don't)"
    r"|again no|still no|missing|i don't (?:get|understand) it without|lacks?|not a single"
    r"|(?:isn't|aren't|wasn't|weren't) (?:any|a|an)|without saying"
    r"|(?:looks?|is|it's|feels?) \w+ without)\b|\bno \w+(?: \w+){0,4}\?"
)
"""The property is complained of as absent, so it is wanted."""
_REFUSED = re.compile(
    r"\b(?:no|not|never|without|stop|avoid|drop|skip|remove|delete|lose|ditch|hate|dislike|less|fewer|too many|enough"
    r"|don't|do not|doesn't|instead of|rather than|over|leave out|cut|get rid of|spare me|sick of|tired of|quit|nor"
    r"|isn't|not need|except)\b(?:[^\w,;]+\w+){0,4}[^\w,;]*$"
)
"""Directly before a term: the property is refused."""
_REFUSED_AFTER = re.compile(
    r"^\W*(?:\w+\W+){0,3}(?:out|away|are (?:annoying|silly|childish|unnecessary|distracting)"
    r"|is (?:annoying|silly|unnecessary))\b"
)
_SENTENCE = re.compile(r"(?<=[.!?\n])\s+|\n+|\s+[\u2013\u2014-]\s+|;\s+|,?\s+but\s+")
_REFUSED_FOR_ANOTHER = {"emojis", "bullets", "no_lists"}
"""Refusing one of these asks for its opposite; refusing an example or a figure asks for nothing that is checked."""
_NEVER_REFUSED = {"short", "detailed"}
"""Their wordings are complaints already: "less rambling" wants it shorter."""


class AskedFor:
    """Reads feedback into names of checks (`rlhi_plugin.checkable.check`).

    Args:
        encoder: Embeds the sentences in which no pattern matches; None: patterns only.
    """

    name = "asked_for/2"

    def __init__(self, encoder: Encoder | None = None) -> None:
        self._encoder = encoder
        self._seen: dict[str, tuple[str, ...]] = {}
        self._personas: dict[int, tuple[Persona, tuple[str, ...]]] = {}

    def read(self, text: str) -> tuple[str, ...]:
        """The wishes in one message, sorted; empty where it asks for nothing checkable."""
        return self.read_all([text])[0]

    def read_all(self, texts: Sequence[str]) -> list[tuple[str, ...]]:
        """`read` for many messages at once, which embeds faster."""
        known = [self._seen.get(text) for text in texts]
        if None not in known:
            return [wishes for wishes in known if wishes is not None]
        if len(self._seen) > _REMEMBERED:
            self._seen.clear()
        # Not a difference with the keys: that goes through all of them.
        new = sorted({text for text in texts if text not in self._seen})
        sentences = {text: _sentences(text) for text in new}
        matched = {s: _by_pattern(s) for parts in sentences.values() for s in parts}
        silent = sorted(s for s, found in matched.items() if not found and _worth_embedding(s))
        near = dict(zip(silent, self._by_prototype(silent), strict=True))
        for text in new:
            # An embedding may fill in what no pattern of the message saw, never add to what one did.
            by_pattern = [name for s in sentences[text] for name in matched[s]]
            by_prototype = [near[s] for s in sentences[text] if near.get(s)]
            self._seen[text] = _settle(by_pattern or by_prototype)
        return [self._seen[text] for text in texts]

    def of_persona(self, persona: Persona | None) -> tuple[str, ...]:
        """What a persona's statements ask for. Where two quotes contradict each other, the later one counts."""
        if persona is None:
            return ()
        known = self._personas.get(id(persona))
        if known is None or known[0] is not persona:
            if len(self._personas) > _PERSONAS:
                self._personas.clear()
            # The object is kept, so that its address stays its own.
            known = self._personas[id(persona)] = persona, self._of_persona(persona)
        return known[1]

    def _of_persona(self, persona: Persona) -> tuple[str, ...]:
        # The text is what the prompt shows; a statement's first evidence is its newest.
        dated = [(s.evidence[0].said_at, s.text) for s in reversed(persona.statements)]
        dated.sort(key=lambda pair: pair[0].timestamp() if pair[0] else 0.0)
        found = self.read_all([text for _, text in dated])
        return _settle(name for names in found for name in names)

    def _by_prototype(self, sentences: Sequence[str]) -> list[str]:
        if self._encoder is None or not sentences:
            return [""] * len(sentences)
        names, prototypes = self._prototypes
        similarity = self._encoder.encode(sentences) @ prototypes.T
        nearest = similarity.argmax(axis=1).tolist()
        highest = similarity.max(axis=1).tolist()
        rivals_of = similarity[:, [name == "none" for name in names]].max(axis=1).tolist()
        return [
            names[best] if high >= _SIMILARITY and high >= rival + _LEAD else ""
            for best, high, rival in zip(nearest, highest, rivals_of, strict=True)
        ]

    @cached_property
    def _prototypes(self) -> tuple[list[str], Embeddings]:
        assert self._encoder is not None  # noqa: S101 - only called after the check in _by_prototype
        return [name for name, _ in _PROTOTYPES], self._encoder.encode([sentence for _, sentence in _PROTOTYPES])


def _sentences(text: str) -> list[str]:
    if len(text) > _MAX_MESSAGE_CHARS:
        text = f"{text[:_END_CHARS]}\n{text[-_END_CHARS:]}"
    plain = text.replace("\u2019", "'").replace("\u2018", "'").replace("\u201c", '"').replace("\u201d", '"').lower()
    return [part.strip() for part in _SENTENCE.split(plain) if part and part.strip()]


def _worth_embedding(sentence: str) -> bool:
    return 1 <= len(sentence.split()) <= _MAX_EMBEDDED_WORDS and any(c.isalpha() for c in sentence)


def _by_pattern(sentence: str) -> list[str]:
    """Wishes that patterns find in one sentence, in order of their terms."""
    found: list[str] = []
    if len(sentence.split()) > _MAX_SENTENCE_WORDS:
        return found
    absent = bool(_ABSENT.search(sentence))
    for name, pattern in _PATTERNS.items():
        match = pattern.search(sentence)
        if match is None:
            continue
        before, after = sentence[: match.start()], sentence[match.end() :]
        refused = (
            name not in _NEVER_REFUSED and not absent and bool(_REFUSED.search(before) or _REFUSED_AFTER.search(after))
        )
        if not refused:
            found.append(name)
        elif name in _REFUSED_FOR_ANOTHER:
            found.append(OPPOSITES[name])
    measured = [name for name, place in measured_wishes(sentence) if not _REFUSED.search(sentence[:place])]
    if any(name.startswith(("max_words:", "max_sentences:")) for name in measured):
        # "Under 50 words" is that, and not an answer in one sentence.
        found = [name for name in found if name != "short"]
    if any(name.startswith("min_words:") for name in measured):
        found = [name for name in found if name != "detailed"]
    return [*found, *measured]


def _settle(names: Iterable[str]) -> tuple[str, ...]:
    """Unique names, sorted; of two that cannot both be granted the one named last."""
    kept: list[str] = []
    for name in names:
        against = rivals(name)
        kept = [other for other in kept if other != name and other.partition(":")[0] not in against]
        kept.append(name)
    return tuple(sorted(name for name in kept if is_check(name)))
