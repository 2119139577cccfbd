"""Filters that ask no model. Each returns the name of its reason for dropping, or None."""

from __future__ import annotations

from collections.abc import Sequence

from rlhi_plugin.checks import word_count
from rlhi_plugin.text_language import text_languages
from rlhi_training.recipe import FilterSection
from rlhi_training.records import LabelledTurn, ProposedPair
from rlhi_training.soundness import flaw

LENGTH_WISHES = frozenset({"short", "detailed", "max_words", "min_words", "max_sentences"})
"""Wishes (without their value) that make a difference in length the point of a pair."""


def identical(pair: ProposedPair) -> str | None:
    """``identical``: chosen and rejected are the same text but for white space."""
    chosen, rejected = pair.chosen.text, pair.rejected.text
    # Nearly all differ in their first word.
    if chosen.split(None, 1)[:1] != rejected.split(None, 1)[:1]:
        return None
    return "identical" if chosen.split() == rejected.split() else None


def without_persona(pair: ProposedPair, section: FilterSection) -> str | None:
    """``no_persona`` where the recipe asks for one. Neutral pairs of persona contrast are exempt: it is their point."""
    return "no_persona" if section.require_persona and pair.persona is None and pair.source != "contrast" else None


def unsound(pair: ProposedPair, section: FilterSection) -> str | None:
    """``chosen_<flaw>``: the chosen answer is cut off, repetitive, too short, or no language."""
    min_words = 1 if LENGTH_WISHES & _families(pair) else section.min_chosen_words
    problem = flaw(
        pair.chosen.text,
        pair.chosen.finish_reason,
        min_words=min_words,
        max_repeated_share=section.max_repeated_share,
    )
    return f"chosen_{problem}" if problem else None


def small_margin(pair: ProposedPair, section: FilterSection) -> str | None:
    """``small_margin``: scored, and ahead by less than `FilterSection.min_margin`. Margin 0 was not scored."""
    return "small_margin" if 0 < pair.margin < section.min_margin else None


def lengths_apart(pair: ProposedPair, section: FilterSection) -> str | None:
    """``lengths_apart``: one answer is much longer than the other, and nobody asked about length."""
    if section.max_length_ratio is None or LENGTH_WISHES & _families(pair):
        return None
    shorter, longer = sorted(max(1, word_count(text)) for text in (pair.chosen.text, pair.rejected.text))
    return "lengths_apart" if longer > section.max_length_ratio * shorter else None


def other_language(pairs: Sequence[tuple[ProposedPair, LabelledTurn]], section: FilterSection) -> list[str | None]:
    """``other_language``: the chosen answer leaves the language of the request, the rejected one does not.

    No language is asked for by the pair's wishes, and all three texts are long enough to tell. Of many pairs at once,
    since languages are told for many texts at once.
    """
    found: list[str | None] = [None] * len(pairs)
    if not section.match_language:
        return found
    asked = [place for place, (pair, _) in enumerate(pairs) if "language" not in _families(pair)]
    # The answers first: where they are in one language, nobody needs that of the request.
    chosen = dict(zip(asked, text_languages([pairs[place][0].chosen.text for place in asked]), strict=True))
    told = [place for place in asked if chosen[place] is not None]
    rejected = dict(zip(told, text_languages([pairs[place][0].rejected.text for place in told]), strict=True))
    apart = [place for place in told if rejected[place] not in (None, chosen[place])]
    requests = text_languages([pairs[place][1].context[-1].content for place in apart])
    for place, request in zip(apart, requests, strict=True):
        if request == rejected[place]:
            found[place] = "other_language"
    return found


def _families(pair: ProposedPair) -> frozenset[str]:
    return frozenset(name.partition(":")[0] for name in pair.asked)
