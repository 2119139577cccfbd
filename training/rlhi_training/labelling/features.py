"""What the embedded labellers look at in one exchange: cues, how its three texts relate, and words.

`facts` are numbers with names: wordings that show what a message does (``cues.toml``), whether the reply refused, asked
back or broke off, how much of the request and the reply the follow-up takes up, and products of the two kinds. `terms`
are the words themselves, for the linear model of the fast tier. Only what was said up to the follow-up is looked at,
never what came after it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from rlhi_plugin.labelling import Exchange
from rlhi_training.labelling.cues import CUES
from rlhi_training.labelling.texts import (
    HEAD,
    first_of,
    has_capitals,
    has_code,
    has_item,
    has_quote,
    is_spaced,
    last_of,
    look,
    split_runs,
    words_of,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_DIGIT = re.compile(r"\d")
_ENDED = ".!?)]}\"'`:*>|~\u3002\uff01\uff1f\u201d\u300d\u2026"
_SAME, _SIMILAR, _HALF = 0.9, 0.5, 0.4
SAID_FIRST, SAID_PAIRED, SAID_LAST = 12, 9, 10
"""Words of a reply that are terms: the first, those of them in pairs, and the last; of a request, the first."""


def _overlap(first: frozenset[str | int], second: frozenset[str | int]) -> float:
    """Jaccard index, in [0, 1]."""
    common = len(first & second)
    return common / ((len(first) + len(second) - common) or 1)


def _size(text: str) -> float:
    return math.log1p(len(text)) / 8


def relations(exchange: Exchange) -> dict[str, float]:
    """How the follow-up relates to what came before it. Every value is in about [0, 1]."""
    follow_up, request, reply = look(exchange.follow_up), look(exchange.request), look(exchange.reply)
    # Texts overlap in sets of hundreds of words: one common set gives all figures about two texts.
    repeated = follow_up.wide & request.wide
    n_said, n_asked, n_answered = len(follow_up.wide), len(request.wide), len(reply.wide)
    n_same, n_taken = len(repeated), len(follow_up.wide & reply.wide)
    n_known = n_same + n_taken - len(repeated & reply.wide)
    same = n_same / ((n_said + n_asked - n_same) or 1)
    added, removed = n_said - n_same, n_asked - n_same
    mine, theirs = follow_up.words, request.words
    end = reply.raw.rstrip()[-1:]
    before = [_overlap(follow_up.wide, look(t).wide) for t in exchange.earlier[-8:]]
    opening = next(
        (i for i, (a, b) in enumerate(zip(mine, theirs, strict=False)) if a != b), min(len(mine), len(theirs))
    )
    return {
        "size": _size(follow_up.raw),
        "words<=2": len(mine) <= 2,  # noqa: PLR2004 - the name says it
        "words<=5": len(mine) <= 5,  # noqa: PLR2004
        "words<=12": len(mine) <= 12,  # noqa: PLR2004
        "long": len(follow_up.raw) > 400,  # noqa: PLR2004
        "very_long": len(follow_up.raw) > 1500,  # noqa: PLR2004
        "lines": "\n" in follow_up.raw.strip(),
        "question": follow_up.shown.endswith(("?", "\uff1f", "\u061f")),
        "question_inside": "?" in follow_up.shown or "\uff1f" in follow_up.shown,
        "exclaims": "!" in follow_up.shown or "\uff01" in follow_up.shown,
        "colon": follow_up.shown.endswith((":", "\uff1a")),
        "quotes": has_quote(follow_up.shown),
        "ellipsis": "..." in follow_up.shown or "\u2026" in follow_up.shown,
        "code": has_code(follow_up.raw[:2000]),
        "digits": bool(_DIGIT.search(follow_up.shown)),
        "capitals": has_capitals(follow_up.raw[:HEAD]),
        "starts_small": follow_up.raw.lstrip()[:1].islower(),
        "script_changed": bool(request.words) and follow_up.script != request.script,
        "script_answered": bool(reply.words) and reply.script != request.script,
        "not_latin": follow_up.script != "latin",
        "no_reply": not reply.raw.strip(),
        "reply_size": _size(reply.raw),
        "reply_short": len(reply.raw) < 120,  # noqa: PLR2004
        "reply_long": len(reply.raw) > 1500,  # noqa: PLR2004
        "reply_cut": bool(end) and end not in _ENDED and len(reply.raw) > 300,  # noqa: PLR2004
        "reply_question": end in "?\uff1f" and bool(end),
        "reply_code": "```" in reply.raw or has_code(reply.raw[:1000]),
        "reply_list": has_item(reply.raw[:2000]),
        "request_size": _size(request.raw),
        "request_question": request.shown.endswith(("?", "\uff1f")),
        "request_code": has_code(request.raw[:2000]),
        "request_colon": request.shown.endswith((":", "\uff1a")),
        "turn": math.log(exchange.turn) / 3,
        "second": exchange.turn == 1,
        "same": same,
        "is_same": same > _SAME,
        "is_similar": _SIMILAR < same <= _SAME,
        "same_as_earlier": max(before, default=0.0),
        "is_earlier": max(before, default=0.0) > _SAME,
        "like_earlier": sum(before) / max(1, len(before)),
        "added": math.log1p(added) / 4,
        "removed": math.log1p(removed) / 4,
        "extends": removed == 0 and added > 0 and n_asked > 2,  # noqa: PLR2004 - more than a greeting
        "cuts": added == 0 and removed > 0,
        "swaps": 0 < added <= 3 and 0 < removed <= 3 and same > _HALF,  # noqa: PLR2004 - an item in a sentence
        "reply_on_request": len(request.wide & reply.wide) / (n_asked or 1),
        "in_request": n_same / (n_said or 1),
        "request_in": n_same / (n_asked or 1),
        "in_reply": n_taken / (n_said or 1),
        "news": 1.0 - n_known / (n_said or 1),
        "reply_in": n_taken / (n_answered or 1),
        "opening": min(opening, 6) / 6,
        "template": opening >= 2 and same < _SIMILAR,  # noqa: PLR2004 - two words begin alike
        "longer": math.log((len(follow_up.raw) + 10) / (len(request.raw) + 10)) / 4,
        "prefix": len(request.raw) > 8 and exchange.follow_up.strip().startswith(exchange.request.strip()),  # noqa: PLR2004
    }


_CROSSED = (
    (
        "reply:refuses",
        ("size", "question", "same", "news", "words<=5", "fu:negation_first", "fu:must", "fu:task", "fu:wh"),
    ),
    ("reply:apologises", ("size", "question", "same", "fu:wh", "fu:not_done", "fu:task")),
    ("reply:asks", ("size", "question", "same", "news", "words<=12", "fu:task", "fu:wh")),
    ("reply_question", ("size", "question", "news", "words<=5", "fu:task")),
    (
        "question",
        ("fu:wh", "fu:doubt", "fu:not_done", "fu:you_did", "fu:pointing", "in_reply", "same", "fu:contrast_first"),
    ),
    ("request:greets", ("size", "question", "fu:task")),
    ("request:role", ("size", "fu:acts", "fu:must", "question")),
    ("reply_code", ("fu:not_done", "fu:broken", "fu:must", "question", "code")),
    ("fu:pointing", ("fu:make_it", "fu:must", "fu:more_less", "fu:add_remove", "fu:form", "fu:new_thing", "words<=12")),
    ("words<=12", ("fu:more_less", "fu:form", "fu:add_remove", "fu:make_it", "fu:fault", "news", "same", "fu:wish")),
    (
        "request:makes",
        ("fu:more_less", "fu:form", "fu:add_remove", "fu:make_it", "fu:pointing", "fu:task", "fu:wh", "question"),
    ),
    ("rq:fault", ("fu:fault", "fu:not_done", "fu:wh", "fu:task")),
    ("long", ("same", "code", "in_reply", "fu:task")),
    ("very_long", ("same", "code", "in_reply", "prefix")),
    ("second", ("same", "fu:fault", "fu:not_done", "size")),
    (
        "fu:property",
        ("words<=5", "words<=12", "long", "fu:task", "fu:must", "second", "question", "fu:pointing", "news", "same"),
    ),
    ("extends", ("reply:refuses", "reply:asks", "request_size", "words<=12")),
    ("swaps", ("reply:refuses", "request_size", "second", "like_earlier", "digits")),
    ("template", ("reply:refuses", "request_size", "like_earlier", "second")),
)


def facts(exchange: Exchange) -> dict[str, float]:
    """Named numbers of one exchange; absent names are 0."""
    found = relations(exchange)
    follow_up, request, reply = look(exchange.follow_up), look(exchange.request), look(exchange.reply)
    for prefix, group, text in (
        ("fu", "follow_up", follow_up),
        ("rq", "follow_up", request),
        ("request", "request", request),
        ("reply", "reply", reply),
    ):
        for name in text.heard(group):
            found[f"{prefix}:{name}"] = 1.0
    for first, others in _CROSSED:
        value = found.get(first, 0.0)
        if value:
            for second in others:
                other = found.get(second, 0.0)
                if other:
                    found[f"{first} x {second}"] = value * other
    return found


def fact_names() -> tuple[str, ...]:
    """Every name that `facts` can give, in the order of the columns."""
    sample = Exchange(conversation_id="c", turn=1, message_id="m", request="", reply="", follow_up="")
    cues = [
        f"{prefix}:{name}"
        for prefix, group in (("fu", "follow_up"), ("rq", "follow_up"), ("request", "request"), ("reply", "reply"))
        for name in CUES[group].names
    ]
    crossed = [f"{first} x {second}" for first, others in _CROSSED for second in others]
    return (*relations(sample), *cues, *crossed)


_NAMES = fact_names()
_COLUMN = {name: i for i, name in enumerate(_NAMES)}
_HEARD = tuple(
    (group, {name: _COLUMN[f"{prefix}:{name}"] for name in CUES[group].names})
    for prefix, group in (("fu", "follow_up"), ("rq", "follow_up"), ("request", "request"), ("reply", "reply"))
)
"""Of follow-up, request, request and reply: the group that is listened for, and the column of each of its cues."""
_PRODUCTS = tuple(
    (_COLUMN[f"{first} x {second}"], _COLUMN[first], _COLUMN[second]) for first, others in _CROSSED for second in others
)


def follow_up_cues(text: str) -> set[str]:
    """Names of the cues that are heard in a follow-up."""
    return look(text).heard("follow_up")


Seen = tuple[list[float], list[int]]
"""What was seen of one exchange: the values of `relations`, and the columns of the cues that were heard."""


def see(exchange: Exchange) -> Seen:
    """Look at an exchange."""
    related = list(relations(exchange).values())
    follow_up, request, reply = look(exchange.follow_up), look(exchange.request), look(exchange.reply)
    heard: list[int] = []
    for text, (group, columns) in zip((follow_up, request, request, reply), _HEARD, strict=True):
        heard += [columns[name] for name in text.heard(group)]
    return related, heard


def as_rows(seen: Sequence[Seen]) -> NDArray[np.float32]:
    """Facts as rows: shape (exchanges, len(fact_names()))."""
    import numpy as np

    rows = np.zeros((len(seen), len(_NAMES)))
    if not seen:
        return rows.astype(np.float32)
    rows[:, : len(seen[0][0])] = [related for related, _ in seen]
    places = [number * len(_NAMES) + column for number, (_, heard) in enumerate(seen) for column in heard]
    rows.reshape(-1)[places] = 1.0
    product, first, second = (list(columns) for columns in zip(*_PRODUCTS, strict=True))
    rows[:, product] = rows[:, first] * rows[:, second]
    return rows.astype(np.float32)


def matrix(exchanges: Sequence[Exchange]) -> NDArray[np.float32]:
    """The facts of exchanges as rows."""
    return as_rows([see(exchange) for exchange in exchanges])


def clause_terms(clause: str) -> list[str]:
    """The terms that a clause of a follow-up has on its own."""
    words = split_runs(words_of(clause.lower()), spaced=is_spaced(clause))
    return _own_terms(words, clause.lower())


def _own_terms(words: Sequence[str], shown: str) -> list[str]:
    found = [f"f {word}" for word in words]
    found += [f"f {a}_{b}" for a, b in pairwise(words)]
    return [*found, *(f"^ {word}" for word in words[:1]), f"^ {'_'.join(words[:2])}", f"$ {shown[-1:]}"]


def terms(exchange: Exchange) -> list[str]:
    """Words of the follow-up and pairs of them, the reply's first and last words, and the request's first words.

    What a term belongs to is in its name: ``f not``, ``^ no``, ``r i_apologize``.
    """
    follow_up, request, reply = look(exchange.follow_up), look(exchange.request), look(exchange.reply)
    found = _own_terms(split_runs(follow_up.words, spaced=follow_up.spaced), follow_up.shown)
    said, asked = first_of(reply, SAID_FIRST), first_of(request, SAID_FIRST)
    found += [f"r {word}" for word in said] + [f"r {a}_{b}" for a, b in pairwise(said[:SAID_PAIRED])]
    found += [f"s {word}" for word in last_of(reply, SAID_LAST)] + [f"s$ {reply.shown[-1:]}"]
    found += [f"q {word}" for word in asked] + [f"q^ {'_'.join(asked[:2])}"]
    return found
