"""Trees of messages as the list that a conversation is: in order of time, branches marked by `Message.parent_id`."""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from rlhi_plugin.importers.chat_message import Said
from rlhi_plugin.records import Message

ROOT = "root"
"""Id of the empty system message that two first messages have in common, where the log itself has none."""

_BEGINNING = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Node:
    """A message and what it follows.

    Attributes:
        id: Unique in its tree.
        parent: Id of the node before it; None is a first message.
        said: The message; None is a node that holds none, and is passed through.
    """

    id: str
    parent: str | None
    said: Said | None


@dataclass(frozen=True, slots=True)
class Tree:
    """What became of the nodes.

    Attributes:
        messages: Those that lead back to a first message.
        detached: Ids of the others: their parent is missing, or they go round in a circle.
    """

    messages: tuple[Message, ...]
    detached: tuple[str, ...]


def as_tree(nodes: Sequence[Node]) -> Tree:
    """Put every message after its parent, and otherwise in order of time, else in the order of `nodes`.

    Raises:
        ValueError: two nodes share an id.
    """
    by_id = {node.id: node for node in nodes}
    if len(by_id) != len(nodes):
        raise ValueError("two messages share an id")
    children: dict[str | None, list[int]] = {}
    for number, node in enumerate(nodes):
        children.setdefault(node.parent, []).append(number)
    parents: dict[str, str | None] = {}
    ordered: list[Node] = []
    waiting = [(_BEGINNING, number) for number in children.get(None, ())]
    reached = set()
    while waiting:
        before, number = heapq.heappop(waiting)
        node = nodes[number]
        reached.add(node.id)
        # The nearest node above that holds a message.
        above = node.parent
        if above is not None and by_id[above].said is None:
            above = parents[above]
        parents[node.id] = above
        if node.said is not None:
            ordered.append(node)
        for child in children.get(node.id, ()):
            said = nodes[child].said
            # A message without a time, or from a clock that ran backwards, comes right after its parent.
            time = said.created_at if said is not None and said.created_at is not None else before
            heapq.heappush(waiting, (max(time, before), child))
    detached = tuple(node.id for node in nodes if node.id not in reached)
    return Tree(_linked(ordered, parents), detached)


def _linked(ordered: Sequence[Node], parents: Mapping[str, str | None]) -> tuple[Message, ...]:
    several = sum(1 for node in ordered if parents[node.id] is None) > 1
    messages = [Message(id=ROOT, role="system", content="")] if several else []
    for node in ordered:
        parent = parents[node.id] or (ROOT if several else None)
        follows = messages[-1].id if messages else None
        assert node.said is not None  # noqa: S101 - nodes without a message were left out above
        messages.append(record(node.said, node.id, parent=None if parent == follows else parent))
    return tuple(messages)


def record(said: Said, name: str, *, parent: str | None = None) -> Message:
    """The record of a message under this id."""
    answer = said.role == "assistant"
    return Message(
        id=name,
        role=said.role,
        content=said.text,
        created_at=said.created_at,
        model=said.model if answer else None,
        parent_id=parent,
        latency_s=said.latency_s if answer else None,
        input_tokens=said.input_tokens if answer else None,
        output_tokens=said.output_tokens if answer else None,
        finish=said.finish if answer else None,
    )


def in_line(said: Sequence[Said]) -> tuple[Message, ...]:
    """Records of messages that follow each other; their positions are their ids."""
    return tuple(record(one, str(i)) for i, one in enumerate(said))
