"""Which of a vocabulary's terms an exchange has, without spelling out the many that no vocabulary holds.

`rlhi_training.labelling.features.terms` says what the terms are. A word and its place are looked up as they are, a pair
of words as a pair; only where a word holds an underscore, which is what joins the words of a term, are terms spelt.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise

from rlhi_plugin.labelling import Exchange
from rlhi_training.labelling.features import SAID_FIRST, SAID_LAST, SAID_PAIRED, terms
from rlhi_training.labelling.texts import first_of, last_of, look, split_runs

_Find = Callable[[str], int | None]


class TermIndex:
    """Finds terms.

    Args:
        vocabulary: Number of each term.
    """

    def __init__(self, vocabulary: Mapping[str, int]) -> None:
        by_kind: dict[str, dict[str, int]] = {}
        for term, number in vocabulary.items():
            kind, _, rest = term.partition(" ")
            by_kind.setdefault(kind, {})[rest] = number
        self._vocabulary = vocabulary
        self._word: dict[str, _Find] = {
            kind: by_kind.get(kind, {}).get for kind in ("f", "^", "$", "r", "s", "s$", "q", "q^")
        }
        self._pair = {kind: _pairs_in(by_kind.get(kind, {})) for kind in ("f", "r")}

    def of(self, exchange: Exchange) -> list[int]:
        """Numbers of the exchange's terms that are in the vocabulary, sorted."""
        follow_up, request, reply = look(exchange.follow_up), look(exchange.request), look(exchange.reply)
        if "_" in follow_up.shown or "_" in reply.shown or "_" in request.shown:
            return self.numbers(terms(exchange))
        mine = split_runs(follow_up.words, spaced=follow_up.spaced)
        said, asked = first_of(reply, SAID_FIRST), first_of(request, SAID_FIRST)
        word = self._word
        found: set[int | None] = set(map(word["f"], mine))
        found.update(map(self._pair["f"], pairwise(mine)))
        found.update(map(word["^"], mine[:1]))
        found.update(map(word["r"], said))
        found.update(map(self._pair["r"], pairwise(said[:SAID_PAIRED])))
        found.update(map(word["s"], last_of(reply, SAID_LAST)))
        found.update(map(word["q"], asked))
        found.add(word["^"]("_".join(mine[:2])))
        found.add(word["$"](follow_up.shown[-1:]))
        found.add(word["s$"](reply.shown[-1:]))
        found.add(word["q^"]("_".join(asked[:2])))
        return _sorted(found)

    def numbers(self, found: Iterable[str]) -> list[int]:
        """Numbers of spelt terms that are in the vocabulary, sorted."""
        return _sorted(set(map(self._vocabulary.get, found)))


def _sorted(found: set[int | None]) -> list[int]:
    found.discard(None)
    return sorted(number for number in found if number is not None)


def _pairs_in(known: Mapping[str, int]) -> Callable[[tuple[str, str]], int | None]:
    """Of the terms that are two words without an underscore of their own."""
    pairs: dict[tuple[str, str], int] = {}
    for rest, number in known.items():
        words: Sequence[str] = rest.split("_")
        if len(words) == 2:  # noqa: PLR2004 - a pair
            pairs[words[0], words[1]] = number
    return pairs.get
