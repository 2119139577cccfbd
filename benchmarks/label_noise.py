"""What wrong labels do to the pairs: how many survive the filters, and how good they are.

Simulated users with hidden preferences talk with a scripted assistant, so that every follow-up's true label and every
user's true preferences are known. Shares of the labels are flipped to another class, and the real stages (personas,
rewrite, reward, filter, pairs) run on what is left, with a scripted model that mends four answers in five. A pair is
right where the chosen answer keeps more of the user's preferences than the rejected one, checked by code; wrong where
it keeps fewer.

    python benchmarks/label_noise.py --quick --json noise.json
"""

from __future__ import annotations

import asyncio
import json
import os
import platform
import random
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import groupby
from pathlib import Path
from typing import Annotated, Any

import typer
from langchain_core.messages import AIMessage

from rlhi_eval_harness.simulation import Habits, SimulatedUser, converse, population, requests_for
from rlhi_eval_harness.simulation.conversation import Utterance
from rlhi_plugin import terminal
from rlhi_plugin.chat import ChatRequest, ScriptedClient
from rlhi_plugin.checks import CHECKS
from rlhi_plugin.persona import ExtractivePersonaBuilder
from rlhi_plugin.records import Conversation, FollowUp, FollowUpLabel, Message, Persona
from rlhi_training.asked_for import AskedFor
from rlhi_training.generation import Sampling
from rlhi_training.recipe import FilterSection, IngestSection, RewardSection, RewriteSection
from rlhi_training.records import LabelledTurn, PersonaBefore, ProposedPair
from rlhi_training.reward_models import CheckedReward
from rlhi_training.sentence_encoder import SentenceEncoder
from rlhi_training.stages.filter import KEPT, filter_pairs
from rlhi_training.stages.label import TURNS, label
from rlhi_training.stages.personas import PERSONAS, personas
from rlhi_training.stages.reward import REWARDS, reward
from rlhi_training.stages.rewrite import REWRITES, rewrite

NOISE = (0.0, 0.1, 0.2, 0.3)
TARGETS = {"right_share_at_20_percent": 0.75}
"""Lower bound (ours): of the surviving pairs that differ in the user's preferences, those that say what they should."""
_MENDS = 0.8
"""Share of rewrites that do what the follow-up asked for."""
_TRUE = {
    "request": FollowUpLabel.NEW_REQUEST,
    "complaint": FollowUpLabel.WITH_FEEDBACK,
    "thanks": FollowUpLabel.POSITIVE_FEEDBACK,
}
_START = datetime(2026, 1, 5, tzinfo=UTC)
_FACTS = (
    "It works best when the parts are given time to settle before anything else is tried.",
    "Most people begin too early, and then wonder why the result does not look as they hoped.",
    "A quiet place, a steady hand and some patience do more than any tool that can be bought.",
    "When the weather changes, so does everything around it, and the plan has to follow.",
    "Experts disagree about the order, yet all of them say that the first step decides the rest.",
    "What looks like a detail in the morning can be the whole matter by the evening.",
    "Keep notes of what was done, because memory is kinder than the facts are.",
)


def written(wanted: Sequence[str], draw: random.Random) -> str:
    """A text that has the wanted properties (`rlhi_plugin.checks`) and few of the others."""
    sentences = draw.sample(_FACTS, len(_FACTS))
    count = 1 if "short" in wanted else 7 if "detailed" in wanted else 3
    body = sentences[:count]
    if "numbers" in wanted:
        body[0] = f"Take {draw.randint(2, 9)} parts of it and wait {draw.randint(11, 99)} minutes."
    if "example" in wanted:
        body[-1] = "For example, try it with what is already there."
    if "short" in wanted:
        body = [" ".join(body[0].split()[:12]).rstrip(".,") + "."]
    text = "\n".join(f"- {one}" for one in [*body, "That is all."]) if "bullets" in wanted else " ".join(body)
    text = f"Hello! {text}" if "greeting" in wanted else text
    text = f"{text} \U0001f331" if "emojis" in wanted else text
    return f"{text} Shall we go on?" if "closing_question" in wanted else text


class ScriptedAgent:
    """An assistant that answers as chance will have it, and after a complaint mostly mends what was said."""

    def __init__(self, users: Sequence[SimulatedUser], seed: int) -> None:
        self._users = {user.name: user for user in users}
        self._draw = random.Random(seed)

    def batch(self, inputs: list[Any], config: list[Any], *, return_exceptions: bool) -> list[Any]:
        """Answer each input; see `rlhi_eval_harness.simulation.conversation.Agent`."""
        del return_exceptions
        users = [self._users[one["configurable"]["user_id"]] for one in config]
        return [
            {"messages": [*given["messages"], self._answer(user)]} for given, user in zip(inputs, users, strict=True)
        ]

    def _answer(self, user: SimulatedUser) -> AIMessage:
        wanted = [name for name in user.preferences if self._draw.random() < 0.4]  # noqa: PLR2004 - a mediocre assistant
        return AIMessage(written(wanted, self._draw))


@dataclass(frozen=True)
class Logged:
    """Conversations, the truth about their follow-ups, and who wants what."""

    conversations: list[Conversation]
    follow_ups: list[FollowUp]
    users: dict[str, SimulatedUser]
    words: dict[str, str]
    """Wordings of complaints."""


def logged(count: int, seed: int) -> Logged:
    """Let simulated users talk."""
    users = population("train", count, seed=seed)
    habits = Habits(threads_per_user=3, requests_per_thread=2)
    summary = converse(ScriptedAgent(users, seed), users, requests_for("training"), habits=habits, seed=seed)
    conversations, follow_ups = [], []
    threads = groupby(summary.utterances, key=lambda said: said.thread_id)
    for number, (thread, group) in enumerate(threads):
        said = list(group)
        conversations.append(_conversation(thread, said, number))
        follow_ups += [
            FollowUp(
                conversation_id=thread, turn=turn, message_id=one.message_id, label=_TRUE[one.kind], labeller="truth"
            )
            for turn, one in enumerate(said)
            if turn
        ]
    words = {one.text: one.text for one in summary.utterances if one.kind == "complaint"}
    return Logged(conversations, follow_ups, {user.name: user for user in users}, words)


def _conversation(thread: str, said: Sequence[Utterance], number: int) -> Conversation:
    start = _START + timedelta(hours=number % 3 * 24, minutes=number)
    messages = []
    for place, one in enumerate(said):
        time = start + timedelta(minutes=2 * place)
        messages.append(Message(id=one.message_id, role="user", content=one.text, created_at=time))
        messages.append(Message(id=f"{one.message_id}-a", role="assistant", content=one.answer, created_at=time))
    return Conversation(conversation_id=thread, user_id=said[0].user, messages=tuple(messages), started_at=start)


class NoisyLabeller:
    """Knows the truth, and says something else for a share of the follow-ups."""

    def __init__(self, follow_ups: Sequence[FollowUp], share: float, seed: int) -> None:
        draw = random.Random(seed)
        self._labels = {(one.conversation_id, one.message_id): one for one in follow_ups}
        flipped = draw.sample(sorted(self._labels), round(share * len(self._labels)))
        for key in flipped:
            one = self._labels[key]
            others = [name for name in FollowUpLabel if name is not one.label]
            self._labels[key] = one.model_copy(update={"label": draw.choice(others)})
        self.name = f"noisy-{share:g}"

    async def label(self, exchanges: Sequence[Any]) -> list[FollowUp]:
        """As a `Labeller`."""
        return [self._labels[one.conversation_id, one.message_id] for one in exchanges]


def writer(log: Logged, seed: int) -> ScriptedClient:
    """The scripted model: answers plain requests as chance will have it, and mends most of what a follow-up names."""
    reader, draw = AskedFor(), random.Random(seed)

    def answer(request: ChatRequest) -> str:
        asked = request.messages[-1].content
        complaint = next((text for text in log.words if f'"{text}"' in asked), None)
        if complaint is not None and draw.random() < _MENDS:
            return written(reader.read(complaint), draw)
        return written(draw.sample(sorted(CHECKS), 2), draw)

    return ScriptedClient(answer)


async def pairs_of(log: Logged, share: float, seed: int, folder: Path) -> tuple[list[ProposedPair], list[ProposedPair]]:
    """The proposed pairs, and those that survive the filters."""
    labelled = await label(log.conversations, NoisyLabeller(log.follow_ups, share, seed), IngestSection())
    turns = [one for one in labelled.files[TURNS] if isinstance(one, LabelledTurn)]
    follow_ups = [one for one in labelled.files["follow_ups.jsonl"] if isinstance(one, FollowUp)]
    known = await personas(log.conversations, follow_ups, ExtractivePersonaBuilder())
    before: dict[str, Persona | None] = {
        one.conversation_id: one.persona for one in known.files[PERSONAS] if isinstance(one, PersonaBefore)
    }
    encoder, reader, client = SentenceEncoder(), AskedFor(), writer(log, seed)
    sampling = Sampling(0.7, 96, seed)
    mended = await rewrite(
        turns,
        before,
        client,
        (reader, encoder),
        (RewriteSection(), sampling),
        answers=folder / f"{share}-rewrite.jsonl",
    )
    ranked = await reward(
        turns,
        before,
        client,
        (CheckedReward(reader), reader),
        (RewardSection(), sampling),
        answers=folder / f"{share}-reward.jsonl",
    )
    proposed = [one for one in (*mended.files[REWRITES], *ranked.files[REWARDS]) if isinstance(one, ProposedPair)]
    kept = filter_pairs(proposed, {turn.key: turn for turn in turns}, encoder, FilterSection(), seed)
    return proposed, [one for one in kept.files[KEPT] if isinstance(one, ProposedPair)]


def verdicts(pairs: Sequence[ProposedPair], log: Logged) -> Counter[str]:
    """``right``, ``wrong`` or ``neither``, by the hidden preferences of the pair's user."""
    owner = {conversation.conversation_id: conversation.user_id for conversation in log.conversations}
    counts: Counter[str] = Counter()
    for pair in pairs:
        user = log.users[str(owner[pair.conversation_id])]
        gain = len(user.broken(pair.rejected.text)) - len(user.broken(pair.chosen.text))
        counts["right" if gain > 0 else "wrong" if gain < 0 else "neither"] += 1
    return counts


def main(
    quick: Annotated[bool, typer.Option("--quick", help="Fewer users.")] = False,
    out: Annotated[Path | None, typer.Option("--json", help="Write figures here.")] = None,
    seed: Annotated[int, typer.Option("--seed", help="Draws everything.")] = 7,
) -> None:
    """Print the table."""
    log = logged(12 if quick else 60, seed)
    figures: dict[str, float] = {"follow_ups": len(log.follow_ups)}
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for share in NOISE:
            proposed, kept = asyncio.run(pairs_of(log, share, seed, Path(folder)))
            for stage, pairs in (("proposed", proposed), ("after the filters", kept)):
                found = verdicts(pairs, log)
                telling = found["right"] + found["wrong"]
                right = found["right"] / telling if telling else 0.0
                rows.append(
                    (
                        f"{share:.0%}",
                        stage,
                        len(pairs),
                        found["right"],
                        found["wrong"],
                        found["neither"],
                        f"{right:.1%}",
                    )
                )
                name = "kept" if stage != "proposed" else "proposed"
                figures[f"{name}_at_{share:.0%}".replace("%", "_percent")] = len(pairs)
                figures[f"{name}_right_share_at_{share:.0%}".replace("%", "_percent")] = right
    columns = ("labels flipped", "pairs", "count", "right", "wrong", "neither", "right of right and wrong")
    terminal.stdout.print(terminal.table("Label noise and pairs", columns, rows))
    met = {
        "right_share_at_20_percent": figures["kept_right_share_at_20_percent"] >= TARGETS["right_share_at_20_percent"]
    }
    if out is not None:
        machine = {"python": platform.python_version(), "cores": os.cpu_count()}
        report = {"figures": figures, "targets": TARGETS, "met": met, "machine": machine}
        out.write_text(json.dumps(report, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    typer.run(main)
