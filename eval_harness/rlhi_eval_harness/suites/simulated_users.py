"""The suite of simulated users: preferences that code can check, on users and requests that training never saw.

In order: users are made, talk with the base assistant, and get personas from what they said (`histories`); every
subject answers every user's held-out requests (`rlhi_eval_harness.answering`); a second pass scores the stored answers
(`rlhi_eval_harness.scoring`).
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import Field

from rlhi_eval_harness.judging import Judgment
from rlhi_eval_harness.models import Assistants
from rlhi_eval_harness.numbers import ALL, Numbers, Pick
from rlhi_eval_harness.prompting import prompt_with, seed_of
from rlhi_eval_harness.records import Metric, PlannedSample, Score
from rlhi_eval_harness.run_folder import RunFolder, read_records, write_records
from rlhi_eval_harness.scoring import KEPT_PREFIX, METRIC_TABLE, WORDS, score
from rlhi_eval_harness.simulation import Habits, SimulatedUser, Utterance, population, requests_for
from rlhi_eval_harness.simulation.phrases import Wording
from rlhi_eval_harness.simulation.users import USUAL
from rlhi_eval_harness.subjects import parse_subjects
from rlhi_eval_harness.suites.histories import learn_personas, talk
from rlhi_eval_harness.suites.kind import ADAPTED, NO_LENGTH_WISH, Stored, SuiteKind
from rlhi_eval_harness.suites.suite import Suite
from rlhi_plugin.checks import CHECKS
from rlhi_plugin.errors import ConfigError
from rlhi_plugin.labelling import Labeller, load_labeller
from rlhi_plugin.persona import ExtractivePersonaBuilder, PersonaBuilder
from rlhi_plugin.records import FollowUp, Persona

LENGTH_PREFERENCES = frozenset({"short", "detailed"})
USER_PREFIX = "held-out"
"""No other population may have it: users are told apart by name."""


class SimulatedUsersOptions(Suite):
    """A whole evaluation with simulated users."""

    kind: Literal["simulated_users"] = "simulated_users"
    """This kind of suite."""
    users: int = Field(default=16, ge=2)
    """Held-out simulated users: the clusters of every interval."""
    wordings: tuple[Wording, ...] = ("seen", "new")
    """How they complain, in turn: as the training users do, or in words of their own."""
    preferences: tuple[str, ...] = USUAL
    """What they may want: names from `rlhi_plugin.checks` that there are complaint wordings for."""
    habits: Habits = Habits()
    """How they talk with the base assistant before they are evaluated."""
    requests: int = Field(default=6, ge=1)
    """Held-out requests per user; every subject answers each of them."""
    labeller: str = "embedded"
    """What reads the history: ``embedded``, ``llm``, or another package's entry point."""


class SimulatedUsers(SuiteKind):
    """The kind ``simulated_users``.

    Args:
        suite: Its options.
        labeller: Instead of the one that the options name.
        builder: Instead of the builder that quotes.
    """

    options = SimulatedUsersOptions

    def __init__(
        self, suite: Suite, *, labeller: Labeller | None = None, builder: PersonaBuilder | None = None
    ) -> None:
        super().__init__(suite)
        if not isinstance(suite, SimulatedUsersOptions):
            raise ConfigError(f"{suite.name} is no suite of simulated users. Take its own kind.")
        self._options = suite
        self._labeller = labeller
        self._builder = builder or ExtractivePersonaBuilder()

    @property
    def labeller(self) -> Labeller:
        """Loaded at its first use: scoring does not need it."""
        if self._labeller is None:
            self._labeller = load_labeller(self._options.labeller)
        return self._labeller

    @property
    def identity(self) -> Mapping[str, str]:
        """What reads the histories and what makes personas of them."""
        return {"labeller": self.labeller.name, "persona_builder": self._builder.name}

    def plan(self, assistants: Assistants, folder: RunFolder) -> Sequence[PlannedSample]:
        """Users talk, get their personas, and are given requests. Stages whose files exist are not done again."""
        users = held_out_users(self._options)
        write_records(folder.users, users)
        utterances = talk(self._options, users, assistants, folder)
        personas = learn_personas(utterances, folder, labeller=self.labeller, builder=self._builder)
        return make_plan(self._options, users, personas)

    def score(self, stored: Stored, judgments: Mapping[str, Judgment]) -> Sequence[Score]:
        """By code."""
        del judgments
        return score(stored.plan, list(stored.outputs.values()), _users(stored))

    def metrics(self, stored: Stored) -> tuple[Metric, ...]:
        """The shared ones, and each preference that somebody has."""
        wanted = sorted({name for user in _users(stored) for name in user.preferences})
        single = (
            Metric(
                name=f"{KEPT_PREFIX}{name}",
                label=CHECKS[name].description,
                meaning="Kept, of the users who want it.",
                role="detail",
            )
            for name in wanted
        )
        return (*METRIC_TABLE, *single)

    def groups(self, metric: str, stored: Stored) -> Mapping[str, Pick]:
        """Wordings apart; for the length also the users who have no wish about it."""
        if metric.startswith(KEPT_PREFIX):
            return {ALL: lambda _: True}
        found = dict(super().groups(metric, stored))
        wishes = {user.name: bool(LENGTH_PREFERENCES & set(user.preferences)) for user in _users(stored)}
        if metric == WORDS and any(wishes.values()) and not all(wishes.values()):
            found[NO_LENGTH_WISH] = lambda sample: not wishes[sample.user]
        return found

    def findings(self, numbers: Numbers, metrics: Sequence[Metric]) -> tuple[str, ...]:
        """Sentences of this suite's own, where base and adapter were compared; the general ones elsewhere."""
        from rlhi_eval_harness.report.findings import findings

        if any(each.subject == ADAPTED for each in numbers.estimates):
            return findings(numbers.estimates, numbers.differences)
        return super().findings(numbers, metrics)

    def facts(self, stored: Stored, judgments: Mapping[str, Judgment]) -> dict[str, Any]:
        """Who the users are, how their history went, and how the adapter was trained."""
        del judgments
        from rlhi_eval_harness.report.facts import history_facts

        users, folder = _users(stored), stored.folder
        utterances = read_records(folder.utterances, Utterance)
        names = sorted({utterance.user for utterance in utterances})
        personas = dict(zip(names, read_records(folder.personas, Persona), strict=True))
        follow_ups = read_records(folder.follow_ups, FollowUp)
        return {
            "users": {user.name: user.model_dump(mode="json") for user in users},
            "history": history_facts(users, utterances, follow_ups, personas),
        }


def _users(stored: Stored) -> list[SimulatedUser]:
    return read_records(stored.folder.users, SimulatedUser)


def held_out_users(suite: SimulatedUsersOptions) -> tuple[SimulatedUser, ...]:
    """The users that a suite evaluates on."""
    return population(USER_PREFIX, suite.users, preferences=suite.preferences, wordings=suite.wordings, seed=suite.seed)


def make_plan(
    suite: SimulatedUsersOptions, users: Sequence[SimulatedUser], personas: Mapping[str, Persona]
) -> list[PlannedSample]:
    """Every prompt of every subject.

    Seeds belong to requests, so that subjects are compared under the same random numbers, and a request without persona
    is one prompt for all users that ask it.

    Raises:
        ConfigError: fewer held-out requests than a user is to ask.
    """
    pool = requests_for("held-out")
    if suite.requests > len(pool):
        raise ConfigError(f"there are {len(pool)} held-out requests; the suite asks for {suite.requests}. Lower it.")
    subjects = parse_subjects(suite.subjects)
    strangers = others(users, seed=suite.seed)
    plan = []
    for user in users:
        mine = sorted(random.Random(f"{suite.seed}/{user.name}/held-out").sample(range(len(pool)), suite.requests))
        for index in mine:
            for subject in subjects:
                whose = {"none": None, "own": user.name, "shuffled": strangers[user.name]}[subject.persona]
                persona = None if whose is None else personas[whose]
                plan.append(
                    PlannedSample(
                        sample_id=f"{user.name}/{index:03d}/{subject.name}",
                        suite=suite.name,
                        subject=subject.name,
                        source=subject.source,
                        user=user.name,
                        group=user.wording,
                        request=pool[index],
                        prompt=prompt_with(suite.system_prompt, persona, pool[index]),
                        max_tokens=suite.max_new_tokens,
                        temperature=suite.temperature,
                        seed=seed_of(suite.seed, pool[index]),
                    )
                )
    return plan


def others(users: Sequence[SimulatedUser], *, seed: int) -> dict[str, str]:
    """For each user another one, who shares as few preferences as can be: whose persona is the shuffled control.

    Among equals the draw is random, and nobody lends their persona twice while others have not lent theirs.
    """
    rng = random.Random(f"{seed}/shuffle")
    lent = dict.fromkeys((user.name for user in users), 0)
    result = {}
    for user in users:
        candidates = [other for other in users if other.name != user.name]
        rng.shuffle(candidates)
        stranger = min(
            candidates,
            key=lambda other: (len(set(other.preferences) & set(user.preferences)), lent[other.name]),
        )
        lent[stranger.name] += 1
        result[user.name] = stranger.name
    return result
