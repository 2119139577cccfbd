"""Lets simulated users talk with an ordinary LangChain agent, many at once, each over several threads.

A user asks; if the answer breaks one of their preferences they say so in their own words, once or twice; if it keeps
them they may say thanks; then they ask the next thing. They never say what they want before an answer has broken it.

Users speak in rounds: in each round everyone who still has something to say sends one message through `agent.batch`. So
a model that batches concurrent calls gets full batches, and a deterministic model gives the same conversations again.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import suppress
from itertools import count
from typing import Any, Literal, Protocol, cast

from pydantic import Field

from rlhi_eval_harness.simulation.phrases import load_phrases
from rlhi_eval_harness.simulation.users import SimulatedUser
from rlhi_plugin.errors import ConfigError, ModelCallError
from rlhi_plugin.records import Record

UtteranceKind = Literal["request", "complaint", "thanks"]


class Habits(Record):
    """How much simulated users talk, and how patient they are. All values: ours."""

    threads_per_user: int = Field(default=2, ge=1)
    requests_per_thread: int = Field(default=2, ge=1)
    patience: int = Field(default=2, ge=1)
    """A user complains at least once and at most so many times about the answers to one request."""
    thanks_share: float = Field(default=0.3, ge=0.0, le=1.0)
    """Probability that a satisfied user says so before asking the next thing."""

    @property
    def requests_per_user(self) -> int:
        """Requests that one user asks over all threads."""
        return self.threads_per_user * self.requests_per_thread


class Utterance(Record):
    """One thing a simulated user said, and why: known to the simulation only, to check the pipeline against."""

    user: str
    thread_id: str
    message_id: str
    kind: UtteranceKind
    text: str
    preference: str | None = None
    """What a complaint is about."""
    answer: str = ""
    """What the assistant said to it."""


class ConversationSummary(Record):
    """What happened, in counts. `utterances` holds every user message in the order of the users."""

    users: int
    threads: int
    requests: int
    complaints: int
    thanks: int
    satisfied_at_once: int
    """Requests whose first answer kept all of the user's preferences."""
    satisfied_later: int
    """Requests whose answer did so after one or more complaints."""
    complaints_by_preference: dict[str, int]
    utterances: tuple[Utterance, ...]


class Agent(Protocol):
    """What `create_agent` returns, as far as it is used here."""

    def batch(self, inputs: list[Any], config: list[Any], *, return_exceptions: bool) -> list[Any]:
        """Run once per input, concurrently; results in order."""
        ...


Visit = Generator[Utterance, str, None]
"""Yields what a user says next; is sent the assistant's answer."""


def converse(
    agent: Agent,
    users: Sequence[SimulatedUser],
    requests: Sequence[str],
    *,
    habits: Habits | None = None,
    seed: int = 0,
    max_concurrency: int = 32,
    on_progress: Callable[[int], None] | None = None,
) -> ConversationSummary:
    """Let every user hold their conversations with `agent`.

    Args:
        agent: A compiled agent with a checkpointer. Calls carry ``thread_id`` and ``user_id`` in ``configurable``.
        users: Who talks. Names are unique.
        requests: What they ask; each user draws without repeating.
        habits: Default: `Habits()`.
        seed: With a deterministic model, the same arguments give the same conversations.
        max_concurrency: Calls in flight at once.
        on_progress: Called with 1 for each request that is over; ``len(users) * habits.requests_per_user`` in all.

    Raises:
        ConfigError: two users with one name, or fewer requests than a user asks.
        ModelCallError: the agent failed; what was logged before stays in its store.
    """
    habits = habits or Habits()
    if len({user.name for user in users}) != len(users):
        raise ConfigError("two simulated users have the same name. Give each population a prefix of its own.")
    if len(requests) < habits.requests_per_user:
        raise ConfigError(
            f"each user asks {habits.requests_per_user} requests, but there are only {len(requests)}. "
            "Lower threads_per_user or requests_per_thread."
        )
    visits = [_visit(user, requests, habits, random.Random(f"{seed}/{user.name}/{user.seed}")) for user in users]
    said: list[list[Utterance]] = [[] for _ in users]
    waiting = {index: next(visit) for index, visit in enumerate(visits)}
    while waiting:
        answers = _ask(agent, waiting.values(), max_concurrency)
        following: dict[int, Utterance] = {}
        for (index, utterance), answer in zip(waiting.items(), answers, strict=True):
            said[index].append(utterance.model_copy(update={"answer": answer}))
            with suppress(StopIteration):
                following[index] = visits[index].send(answer)
            over = index not in following or following[index].kind == "request"
            if over and on_progress is not None:
                on_progress(1)
        waiting = following
    return _summary([utterance for each in said for utterance in each], users)


def _ask(agent: Agent, utterances: Iterable[Utterance], max_concurrency: int) -> list[str]:
    from langchain_core.messages import HumanMessage

    round_ = list(utterances)
    inputs = [{"messages": [HumanMessage(content=each.text, id=each.message_id)]} for each in round_]
    configs = [
        {
            "configurable": {"thread_id": each.thread_id, "user_id": each.user},
            "max_concurrency": max_concurrency,
        }
        for each in round_
    ]
    results = agent.batch(inputs, configs, return_exceptions=True)
    for utterance, result in zip(round_, results, strict=True):
        if isinstance(result, BaseException):
            raise ModelCallError(
                f"the assistant failed in thread {utterance.thread_id}: {result}. "
                "Messages logged so far are in the store; mend the model and run again."
            ) from result
    return [cast("str", result["messages"][-1].text) for result in results]


def _visit(user: SimulatedUser, requests: Sequence[str], habits: Habits, rng: random.Random) -> Visit:
    """Everything that one user says, thread after thread."""
    phrases = load_phrases()
    asked = rng.sample(requests, habits.requests_per_user)
    wordings = {name: _deck(phrases.complaints[name][user.wording], rng) for name in user.preferences}
    thanks = _deck(phrases.thanks[user.wording], rng)
    for thread in range(habits.threads_per_user):
        say = _Speaker(user.name, f"{user.name}-thread-{thread + 1}")
        start = thread * habits.requests_per_thread
        for request in asked[start : start + habits.requests_per_thread]:
            answer = yield say("request", request)
            for _ in range(rng.randint(1, habits.patience)):
                broken = user.broken(answer)
                if not broken:
                    break
                preference = rng.choice(broken)
                answer = yield say("complaint", next(wordings[preference]), preference)
            if not user.broken(answer) and rng.random() < habits.thanks_share:
                yield say("thanks", next(thanks))


class _Speaker:
    """Numbers what one user says in one thread."""

    def __init__(self, user: str, thread_id: str) -> None:
        self._user = user
        self._thread_id = thread_id
        self._numbers = count(1)

    def __call__(self, kind: UtteranceKind, text: str, preference: str | None = None) -> Utterance:
        return Utterance(
            user=self._user,
            thread_id=self._thread_id,
            message_id=f"{self._thread_id}-user-{next(self._numbers)}",
            kind=kind,
            text=text,
            preference=preference,
        )


def _deck(phrases: Sequence[str], rng: random.Random) -> Generator[str, None, None]:
    """Each phrase once in random order, then again in another: a user repeats themselves as late as possible."""
    while True:
        yield from rng.sample(phrases, len(phrases))


def _summary(utterances: Sequence[Utterance], users: Sequence[SimulatedUser]) -> ConversationSummary:
    by_name = {user.name: user for user in users}
    at_once = later = 0
    for index, utterance in enumerate(utterances):
        if utterance.kind != "request":
            continue
        last = index
        while last + 1 < len(utterances) and utterances[last + 1].kind == "complaint":
            last += 1
        if not by_name[utterance.user].broken(utterances[last].answer):
            at_once += last == index
            later += last != index
    kinds = Counter(utterance.kind for utterance in utterances)
    return ConversationSummary(
        users=len(users),
        threads=len({utterance.thread_id for utterance in utterances}),
        requests=kinds["request"],
        complaints=kinds["complaint"],
        thanks=kinds["thanks"],
        satisfied_at_once=at_once,
        satisfied_later=later,
        complaints_by_preference=dict(
            sorted(Counter(each.preference for each in utterances if each.preference is not None).items())
        ),
        utterances=tuple(utterances),
    )
