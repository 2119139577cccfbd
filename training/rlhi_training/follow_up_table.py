"""The table of arXiv 2509.25137, section 2.2: what user messages do, overall and per turn, beside the paper."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from pydantic import Field
from rich.table import Table

from rlhi_plugin.records import Conversation, FollowUp, FollowUpLabel, Record
from rlhi_plugin.terminal import table

INITIAL = "initial"
KINDS: tuple[str, ...] = (INITIAL, *(label.value for label in FollowUpLabel))
PAPER: dict[str, float] = {
    INITIAL: 0.2707,
    FollowUpLabel.NEW_REQUEST: 0.4040,
    FollowUpLabel.WITH_FEEDBACK: 0.2651,
    FollowUpLabel.WITHOUT_FEEDBACK: 0.0477,
    FollowUpLabel.POSITIVE_FEEDBACK: 0.0125,
}
"""Shares of user messages in WildChat-1M, labelled by GPT-4o, as the paper states them."""
PAPER_LATE_WITH_FEEDBACK = 0.8315
"""The paper's share of re-attempts with feedback after the fifth turn; it states no other share there."""
_LATE = 5
_TITLES = {
    INITIAL: "initial",
    FollowUpLabel.NEW_REQUEST: "new request",
    FollowUpLabel.WITH_FEEDBACK: "with feedback",
    FollowUpLabel.WITHOUT_FEEDBACK: "without",
    FollowUpLabel.POSITIVE_FEEDBACK: "positive",
}


class FollowUpTable(Record):
    """Shares of each kind of user message, in [0, 1]; each row sums to 1."""

    labeller: str
    messages: int = Field(ge=0)
    """Initial requests and labelled follow-ups."""
    unlabelled: int = Field(ge=0)
    """User messages that follow up on no reply, or that could not be labelled; in no share."""
    overall: dict[str, float]
    by_turn: dict[str, dict[str, float]]
    """Keys ``2`` to ``5`` and ``>5``: the user message's place in its conversation, counted from 1."""
    counts_by_turn: dict[str, int]
    paper: dict[str, float] = PAPER
    paper_late_with_feedback: float = PAPER_LATE_WITH_FEEDBACK


class FollowUpCounts(Record):
    """What the table is made of; counts of parts of a log add up."""

    initial: int = 0
    users: int = 0
    """User messages."""
    by_place: dict[str, dict[str, int]] = Field(default_factory=dict)

    def __add__(self, other: FollowUpCounts) -> FollowUpCounts:
        places = sorted({*self.by_place, *other.by_place})
        empty: dict[str, int] = {}
        return FollowUpCounts(
            initial=self.initial + other.initial,
            users=self.users + other.users,
            by_place={
                place: dict(Counter(self.by_place.get(place, empty)) + Counter(other.by_place.get(place, empty)))
                for place in places
            },
        )

    def table(self, labeller: str) -> FollowUpTable:
        """Shares."""
        rows = {place: Counter(self.by_place.get(place, {})) for place in ("2", "3", "4", "5", ">5")}
        total = Counter({INITIAL: self.initial})
        for row in rows.values():
            total += row
        return FollowUpTable(
            labeller=labeller,
            messages=total.total(),
            unlabelled=max(0, self.users - total.total()),
            overall=_shares(total),
            by_turn={name: _shares(row) for name, row in rows.items()},
            counts_by_turn={name: row.total() for name, row in rows.items()},
        )


def count_follow_ups(conversations: Sequence[Conversation], follow_ups: Sequence[FollowUp]) -> FollowUpCounts:
    """Count the labels. The first user message of each conversation is its initial request."""
    users = [sum(m.role == "user" for m in c.messages) for c in conversations]
    rows: dict[str, Counter[str]] = {}
    for follow_up in follow_ups:
        place = follow_up.turn + 1
        rows.setdefault(str(place) if place <= _LATE else f">{_LATE}", Counter())[follow_up.label.value] += 1
    return FollowUpCounts(
        initial=sum(count > 0 for count in users),
        users=sum(users),
        by_place={place: dict(row) for place, row in rows.items()},
    )


def follow_up_table(
    conversations: Sequence[Conversation], follow_ups: Sequence[FollowUp], labeller: str
) -> FollowUpTable:
    """The table of a log's labels."""
    return count_follow_ups(conversations, follow_ups).table(labeller)


def _shares(counts: Counter[str]) -> dict[str, float]:
    total = counts.total()
    return {kind: counts[kind] / total for kind in KINDS} if total else {}


def render_follow_ups(result: FollowUpTable) -> Table:
    """The table for a terminal, in per cent."""
    turns = [name for name, count in result.counts_by_turn.items() if count]
    columns = ["kind", "all", "paper", *(f"#{name}" for name in turns), "paper #>5"]
    rows: list[list[object]] = []
    for kind in KINDS:
        late = _percent(PAPER_LATE_WITH_FEEDBACK) if kind == FollowUpLabel.WITH_FEEDBACK else ""
        per_turn = [_percent(result.by_turn[name][kind]) if kind != INITIAL else "" for name in turns]
        rows.append([_TITLES[kind], _percent(result.overall.get(kind, 0.0)), _percent(PAPER[kind]), *per_turn, late])
    rows.append(["messages", result.messages, "", *(result.counts_by_turn[name] for name in turns), ""])
    title = f"User messages in %, all and by place in the conversation (#); labelled by {result.labeller}"
    return table(title, columns, rows)


def _percent(share: float) -> str:
    return f"{100 * share:.2f}"
