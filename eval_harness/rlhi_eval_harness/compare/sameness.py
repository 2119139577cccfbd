"""What two reports must have in common before their numbers may be subtracted: suite, data, base, judge, items."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal, get_args

from rlhi_eval_harness.compare.sides import Side
from rlhi_plugin.errors import ConfigError

Aspect = Literal["suite", "models", "judges", "subjects", "metrics", "items"]
ASPECTS: tuple[Aspect, ...] = get_args(Aspect)

_MAY_DIFFER = frozenset({"subjects", "summary", "folder", "data", "distractors"})
"""Options of a suite that say who answers, and where files lie: what is in the files is in digests and prompts."""
_UNDER_TEST = ("adapter", "weights_digest", "config_digest", "model=", "endpoint=", "outputs=")
"""Beginnings of the names of what is compared, and so may differ."""
SHOWN = 3

Matches = tuple[tuple[str, str], ...]
"""Subjects that are compared: its name in the first report, its name in the second."""


def matched(before: Side, after: Side, wanted: Iterable[str]) -> Matches:
    """Which subject of the first report is compared with which of the second.

    Args:
        before: The first report.
        after: The second.
        wanted: ``NAME`` or ``NAME=NAME IN THE SECOND``; nothing: every name that both have.

    Raises:
        ConfigError: a name is unknown, or the two have none in common.
    """
    pairs = [(first, second or first) for first, _, second in (text.partition("=") for text in wanted)]
    for side, names in ((before, [first for first, _ in pairs]), (after, [second for _, second in pairs])):
        if unknown := [name for name in names if name not in side.subjects]:
            raise ConfigError(
                f"{side.path} has no subject {unknown[0]}. It has: {', '.join(side.subjects)}. Write --subject NAME, "
                "or --subject NAME=NAME where the second report calls it otherwise."
            )
    pairs = pairs or [(name, name) for name in before.subjects if name in after.subjects]
    if not pairs:
        suites = dict.fromkeys(side.report.suite for side in (before, after))
        of = f" (suites {' and '.join(suites)})" if len(suites) > 1 else ""
        raise ConfigError(
            f"the reports{of} have no subject in common: {', '.join(before.subjects)} against "
            f"{', '.join(after.subjects)}. Say which belong together: --subject NAME=NAME"
        )
    return tuple(dict.fromkeys(pairs))


def refuse_unequal(before: Side, after: Side, pairs: Matches, *, allowed: Iterable[str], named: bool) -> list[str]:
    """Check every aspect.

    Args:
        before: The first report.
        after: The second.
        pairs: Subjects that are compared.
        allowed: Aspects that may differ.
        named: Whether the user named the subjects, so that others may be missing.

    Returns:
        What differs and was allowed, in words.

    Raises:
        ConfigError: something differs that was not allowed, or there is no such aspect.
    """
    wanted = set(allowed)
    if strange := wanted - set(ASPECTS):
        raise ConfigError(f"--allow {min(strange)}: choose among {', '.join(ASPECTS)}.")
    found = [
        *(("suite", text) for text in _suite(before, after)),
        *(("models", text) for text in _models(before, after)),
        *(("judges", text) for text in _judges(before, after)),
        *(("subjects", text) for text in ([] if named else _subjects(before, after))),
        *(("metrics", text) for text in _metrics(before, after, pairs)),
        *(("items", text) for text in _items(before, after, pairs)),
    ]
    refused = [(aspect, text) for aspect, text in found if aspect not in wanted]
    if refused:
        lines = [f"  {aspect}: {text}" for aspect, text in refused]
        ways = " ".join(f"--allow {aspect}" for aspect in dict.fromkeys(aspect for aspect, _ in refused))
        raise ConfigError(
            "\n".join(
                [
                    f"{before.path} and {after.path} do not measure the same thing:",
                    *lines,
                    f"Run both alike; to compare them all the same: {ways}",
                ]
            )
        )
    return [f"{aspect} differ: {text}" for aspect, text in found]


def _suite(before: Side, after: Side) -> Iterator[str]:
    one, other = (
        {key: value for key, value in side.report.config["suite"].items() if key not in _MAY_DIFFER}
        for side in (before, after)
    )
    yield from _fields(one, other)
    frames = [{"persona_frame_digest": side.report.config.get("persona_frame_digest")} for side in (before, after)]
    yield from _fields(*frames)


def _models(before: Side, after: Side) -> Iterator[str]:
    one, other = (
        {key: value for key, value in side.report.config["models"].items() if not key.startswith(_UNDER_TEST)}
        for side in (before, after)
    )
    yield from _fields(one, other)


def _judges(before: Side, after: Side) -> Iterator[str]:
    """The numbers are the first judge's."""
    one, other = ((side.report.config.get("judging") or [{}])[0] for side in (before, after))
    for field in ("judge", "prompts"):
        yield from _fields({field: one.get(field)}, {field: other.get(field)})
    answered = [sorted(side.report.judges[0].answered_by) if side.report.judges else [] for side in (before, after)]
    if all(answered) and answered[0] != answered[1]:
        texts = (", ".join(names) for names in answered)
        yield "the judge's name stands for {} against {}".format(*texts)


def _subjects(before: Side, after: Side) -> Iterator[str]:
    if missing := [name for name in before.subjects if name not in after.subjects]:
        yield f"{after.path} lacks {', '.join(missing)}"


def _metrics(before: Side, after: Side, pairs: Matches) -> Iterator[str]:
    for first, second in pairs:
        one, other = ({metric.name: metric for metric in s.measured(n)} for s, n in ((before, first), (after, second)))
        for name in sorted(one.keys() ^ other.keys()):
            yield f"{name} of {first} is in {(before if name in one else after).path} only"
        for name in sorted(one.keys() & other.keys()):
            fields = [(each.unit, each.better, each.neutral) for each in (one[name], other[name])]
            if fields[0] != fields[1]:
                yield f"{name} is measured in another way"


def _items(before: Side, after: Side, pairs: Matches) -> Iterator[str]:
    for first, second in pairs:
        one, other = before.item_ids(first), after.item_ids(second)
        for side, only in ((before, one - other), (after, other - one)):
            if only:
                yield f"{len(only)} items of {first} are in {side.path} only ({_some(only)})"
    shared = sorted(before.items.keys() & after.items.keys())
    if changed := [item for item in shared if before.items[item].asked != after.items[item].asked]:
        yield f"{len(changed)} items ask something else ({_some(changed)})"


def other_personas(before: Side, after: Side, pairs: Matches) -> int:
    """How many compared samples had another system prompt, and so another persona, in the second report."""
    return sum(
        before.personas[first, item] != after.personas[second, item]
        for first, second in pairs
        for item in before.item_ids(first) & after.item_ids(second)
        if (first, item) in before.personas and (second, item) in after.personas
    )


def _fields(one: Mapping[str, Any], other: Mapping[str, Any]) -> Iterator[str]:
    for key in sorted(one.keys() | other.keys()):
        if one.get(key) != other.get(key):
            yield f"{key} is {_short(one.get(key))} against {_short(other.get(key))}"


def _short(value: Any) -> str:
    text = "nothing" if value is None else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."  # noqa: PLR2004 - a line of a terminal


def _some(names: Iterable[str]) -> str:
    every = sorted(names)
    return f"{', '.join(every[:SHOWN])}{', ...' if len(every) > SHOWN else ''}"
