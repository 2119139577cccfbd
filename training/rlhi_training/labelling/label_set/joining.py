"""From labels to labelled texts: the label set joined with a log that the reader has."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

from rlhi_plugin.labelling import Exchange, exchanges
from rlhi_plugin.records import Conversation
from rlhi_training.labelling.label_set.reading import Label, digest_of_text

Why = Literal["conversation_absent", "turn_absent", "other_text"]


class Example(NamedTuple):
    """A follow-up with its text and its label."""

    exchange: Exchange
    label: Label
    language: str | None


class Unmatched(NamedTuple):
    """A label whose text the log does not hold."""

    label: Label
    why: Why


class Joined(NamedTuple):
    """What a log and the label set have in common, and what of the label set the log lacks."""

    examples: list[Example]
    unmatched: list[Unmatched]


def join(labels: Sequence[Label], conversations: Iterable[Conversation]) -> Joined:
    """Find the texts of labels in a log.

    A conversation is found by its id, a follow-up by its place among the user messages and the digest of its text. Ids
    that stand for two conversations (Chatbot Arena's copy has some) are told apart by the digest.
    """
    wanted: dict[str, dict[tuple[int, str], list[Label]]] = defaultdict(lambda: defaultdict(list))
    for label in labels:
        wanted[label.conversation_id][label.turn, label.digest].append(label)
    examples: list[Example] = []
    seen: dict[str, set[int]] = defaultdict(set)
    for conversation in conversations:
        name = conversation.conversation_id
        if name not in wanted:
            continue
        for exchange in exchanges(conversation, unanswered=True):
            seen[name].add(exchange.turn + 1)
            waiting = wanted[name].get((exchange.turn + 1, digest_of_text(exchange.follow_up)))
            if waiting:
                examples.append(Example(exchange, waiting.pop(0), conversation.language))
    unmatched = [
        Unmatched(label, _why(label, seen))
        for by_turn in wanted.values()
        for waiting in by_turn.values()
        for label in waiting
    ]
    return Joined(examples, unmatched)


def _why(label: Label, seen: dict[str, set[int]]) -> Why:
    if label.conversation_id not in seen:
        return "conversation_absent"
    return "other_text" if label.turn in seen[label.conversation_id] else "turn_absent"
