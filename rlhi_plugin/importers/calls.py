"""Calls of a model joined into the conversation that they are: most logs write the whole history with every call."""

from __future__ import annotations

from collections.abc import Sequence

from rlhi_plugin.importers.branches import Node, as_tree
from rlhi_plugin.importers.chat_message import Said
from rlhi_plugin.records import Message, Role


class Thread:
    """Grows call by call. A history that leaves an earlier path is a branch: an edited request, another answer."""

    def __init__(self) -> None:
        self._said: list[Said] = []
        self._parents: list[int] = []
        self._children: dict[tuple[int, Role, str], int] = {}
        self._leaf = -1
        self._calls = 0
        self._replays = False

    def continues(self, asked: Sequence[Said]) -> bool:
        """Whether these messages begin with one that began this thread, and hold more than that."""
        return len(asked) > 1 and (-1, asked[0].role, asked[0].text) in self._children

    def add(self, asked: Sequence[Said], answered: Sequence[Said], *, only_new: bool = False) -> list[int]:
        """Take one call.

        Args:
            asked: What the model was given: all of the history, its end, or only what is new.
            answered: What came of it; where it repeats what was asked, as states of LangGraph do, with or without the
                history before that, what is repeated belongs to what was asked.
            only_new: Whether `asked` is known to hold nothing of the history.

        Returns:
            Positions in `messages` order of the messages of `answered` (without what it repeats).
        """
        repeated = _end_of(asked, answered)
        if repeated:
            asked, answered, only_new = answered[:repeated], answered[repeated:], False
        at, known = (self._leaf, 0) if only_new else self._where(asked)
        for one in asked[known:]:
            at = self._child(at, one)
        found = []
        for one in answered:
            at = self._child(at, one)
            found.append(at)
        self._leaf = at
        self._calls += 1
        return found

    def _where(self, asked: Sequence[Said]) -> tuple[int, int]:
        """The message after which the call adds something, and how many of its messages are known by then."""
        at, known = -1, 0
        for one in asked:
            child = self._children.get((at, one.role, one.text))
            if child is None:
                break
            at, known = child, known + 1
        turns = sum(1 for one in asked[:known] if one.role != "system")
        self._replays = self._replays or turns > 1
        # A first message that comes again is another answer to it; a user may also say the same thing twice, where
        # the calls hold only what is new.
        if not self._said or (turns and (self._replays or self._calls == 1)):
            return at, known
        # Not from the beginning: the end of the history, or only what is new. A repeated system prompt is neither.
        path = self._path()
        system = 0
        while system < len(asked) and asked[system].role == "system":
            system += 1
        rest = [(one.role, one.text) for one in asked[system:]]
        for overlap in range(min(len(rest), len(path)), 0, -1):
            if rest[:overlap] == path[-overlap:]:
                return self._leaf, system + overlap
        return self._leaf, system

    def _path(self) -> list[tuple[Role, str]]:
        path = []
        at = self._leaf
        while at >= 0:
            path.append((self._said[at].role, self._said[at].text))
            at = self._parents[at]
        return path[::-1]

    def _child(self, at: int, one: Said) -> int:
        number = self._children.setdefault((at, one.role, one.text), len(self._said))
        if number == len(self._said):
            self._said.append(one)
            self._parents.append(at)
        return number

    @property
    def messages(self) -> tuple[Message, ...]:
        """The conversation so far. The id of a message is its position in order of arrival."""
        nodes = [
            Node(str(i), str(parent) if parent >= 0 else None, one)
            for i, (one, parent) in enumerate(zip(self._said, self._parents, strict=True))
        ]
        return as_tree(nodes).messages


def _end_of(asked: Sequence[Said], answered: Sequence[Said]) -> int:
    """Where in the answer what was asked ends, at its last occurrence; 0 where it does not occur."""
    wanted = [(one.role, one.text) for one in asked]
    given = [(one.role, one.text) for one in answered]
    if not wanted or len(given) < len(wanted):
        return 0
    starts = range(len(given) - len(wanted), -1, -1)
    return next((start + len(wanted) for start in starts if given[start : start + len(wanted)] == wanted), 0)
