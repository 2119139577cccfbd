"""What the embedded labeller looks at in one exchange: a sentence embedding and a few dozen plain facts.

The embedding says what kind of message the follow-up is; the facts say how it relates to the request and the reply
(is it the same prompt again? the same template with another item?), which embeddings of single texts cannot.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rlhi_plugin.labelling import Exchange
from rlhi_training.asked_for import AskedFor
from rlhi_training.sentence_encoder import Encoder

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_CLIP = 1000
"""Characters of each text that the facts are computed on: follow-ups show their intent early."""
_EMBEDDED = 140
"""Characters of each text that are embedded: what kind of message it is shows there, and embedding costs most."""

_CUES: dict[str, tuple[str, ...]] = {
    "thanks": (
        r"\b(?:thanks?|thank you|thx|ty|cheers|merci|danke|gracias|grazie|obrigad[oa]|appreciate)\b",
        "спасибо|谢谢|ありがとう",
    ),
    "praise": (
        r"\b(?:great|perfect(?:ly|o)?|awesome|amazing|brilliant|excellent|nice|love(?:d| it)?|cool)\b",
        r"\b(?:wonderful|helpful|lovely|good (?:job|answer|one|work)|well done|exactly|super|bravo)\b",
        r"\b(?:beautiful|works|got it|makes sense)\b",
        r"\blike (?:it|this|that)\b|отлично|很好|完美",
    ),
    "again": (
        r"\b(?:again|regenerate|redo|repeat|retry|once more|one more time|another (?:try|version|attempt))\b",
        r"\b(?:noch ?mal|otra vez|encore)\b|ещё раз|再来",
    ),
    "onward": (
        r"^\W*(?:continue|go on|keep going|next|more|now|and|then|also|weiter|continua|continúa|und|et|y|ahora)\b",
        r"^继续|^теперь",
    ),
    "fault": (
        r"\b(?:wrong|incorrect|not (?:what|right|correct|true|working|enough)|isn't|doesn't|didn't|don't)\b",
        r"\b(?:can't|won't|wasn't|forgot|missing|missed|left out|error|still|too|instead|but|only|never|stop|no|bad)\b",
        r"\b(?:useless|boring|should(?:n't)?|wanted|meant|asked|told|rather|prefer|without|falta|trop|zu)\b",
    ),
    "change": (
        r"\b(?:make (?:it|this|that|them)|change|rewrite|rephrase|reword|add|remove|delete|replace|use)\b",
        r"\b(?:include|mention|keep|shorten|shorter|longer|expand|fix|correct|improve|simpler|simplify|more \w+)\b",
        r"\b(?:(?:put|turn) (?:it|that|this)|\w+er please|less \w+|bitte|hazlo|plus)\b",
    ),
    "doubt": (r"\b(?:are you sure|really|source|prove|check (?:it|your|again)|i thought|certain)\b",),
    "wh": (
        r"^\W*(?:what|who|where|when|why|how|which|whose|can|could|do|does|did|is|are|was|were|should|would)\b",
        r"^\W*(?:was|wer|wie|warum|qué|cómo|quién|qui|comment)\b",
    ),
    "task": (
        r"^\W*(?:write|create|generate|make|give|tell|explain|describe|list|translate|summari[sz]e|solve|plan|draft)\b",
        r"^\W*(?:recommend|suggest|act|compare|calculate|show)\b",
    ),
    "acts": (r"^\W*\*|^\W*i \w+|^\W*we \w+",),
}
_PATTERNS = [re.compile("|".join(cues)) for cues in _CUES.values()]
_WORD = re.compile(r"\w+")
_WISHES = AskedFor()
_FEW, _MANY = 3, 40
"""Words of a message that is hardly one, and of one that is mostly pasted."""
_SAME, _SIMILAR, _OTHER = 0.9, 0.5, 0.7
"""Overlaps from which two texts are the same or similar, and below which a template holds another item."""


def matrix(exchanges: Sequence[Exchange], encoder: Encoder) -> NDArray[np.float32]:
    """Shape (exchanges, features): the follow-up's embedding, its cosine to the request, plain facts."""
    import numpy as np

    count = len(exchanges)
    texts = [text for e in exchanges for text in (e.follow_up, e.request)]
    vectors = encoder.encode([text[:_EMBEDDED] for text in texts]).reshape(count, 2, -1)
    follow_up, request = vectors[:, 0], vectors[:, 1]
    cosine = (follow_up * request).sum(axis=1, keepdims=True)
    facts = np.array([_facts(e) for e in exchanges], dtype=np.float32)
    # The embedding's 384 columns have a total length of one; twice that puts them on a par with the facts.
    return np.concatenate([2.0 * follow_up, cosine, facts], axis=1).astype(np.float32)


def _facts(exchange: Exchange) -> list[float]:
    follow_up, request, reply = (
        t[:_CLIP].lower().strip() for t in (exchange.follow_up, exchange.request, exchange.reply)
    )
    words, asked, said = _WORD.findall(follow_up), _WORD.findall(request), _WORD.findall(reply)
    same = _overlap(_trigrams(follow_up), _trigrams(request))
    return [
        *(float(bool(pattern.search(follow_up))) for pattern in _PATTERNS),
        float(bool(_WISHES.read(exchange.follow_up))),
        float(follow_up.rstrip().endswith("?")),
        math.log1p(len(words)) / 3,
        float(len(words) <= _FEW),
        float(len(words) > _MANY),
        float("\n" in follow_up or "```" in follow_up),
        sum(not c.isascii() for c in follow_up) / max(1, len(follow_up)),
        math.log1p(len(asked)) / 5,
        math.log1p(len(said)) / 5,
        _overlap(set(words), set(asked)),
        len(set(words) & set(said)) / max(1, len(set(words))),
        same,
        float(same > _SAME),
        float(_SIMILAR < same <= _SAME),
        # The same opening with other contents: the same template with another item, or the request with a change.
        float(len(words) > _FEW and words[:2] == asked[:2]),
        float(len(words) > _FEW and words[:3] == asked[:3] and _overlap(set(words), set(asked)) < _OTHER),
    ]


def _trigrams(text: str) -> set[str]:
    plain = " ".join(_WORD.findall(text))
    return {plain[i : i + 3] for i in range(max(1, len(plain) - 2))}


def _overlap(first: set[str], second: set[str]) -> float:
    """Jaccard index, in [0, 1]."""
    return len(first & second) / max(1, len(first | second))
