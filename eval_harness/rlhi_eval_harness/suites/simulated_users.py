"""The suite of simulated users: preferences that code can check, on users and requests that training never saw.

In order: users are made, talk with the base assistant, and get personas from what they said (`histories`); every
subject answers every user's held-out requests (`rlhi_eval_harness.answering`); a second pass scores the stored answers
(`rlhi_eval_harness.scoring`).
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping, Sequence

from rlhi_eval_harness.answering import PlannedSample, answer
from rlhi_eval_harness.run_folder import RunFolder, read_records, write_records
from rlhi_eval_harness.simulation import SimulatedUser, population, requests_for
from rlhi_eval_harness.subjects import SUBJECTS, Assistants
from rlhi_eval_harness.suites.histories import learn_personas, talk
from rlhi_eval_harness.suites.suite import Suite
from rlhi_plugin.errors import ConfigError
from rlhi_plugin.labelling import Labeller
from rlhi_plugin.persona import PersonaBuilder, render_persona, with_persona
from rlhi_plugin.records import ChatMessage, Persona

USER_PREFIX = "held-out"
"""No other population may have it: users are told apart by name."""


def run_suite(
    suite: Suite, assistants: Assistants, folder: RunFolder, *, labeller: Labeller, builder: PersonaBuilder
) -> None:
    """Bring the folder to where it can be scored. Stages whose files exist are not done again.

    Raises:
        ConfigError: the suite asks for what the phrase pools do not have.
        ModelCallError: a model failed for good; the folder keeps what is done.
    """
    users = held_out_users(suite)
    write_records(folder.users, users)
    utterances = talk(suite, users, assistants, folder)
    personas = learn_personas(utterances, folder, labeller=labeller, builder=builder)
    if not folder.plan.exists():
        write_records(folder.plan, make_plan(suite, users, personas))
    answer(read_records(folder.plan, PlannedSample), assistants, folder.outputs)


def held_out_users(suite: Suite) -> tuple[SimulatedUser, ...]:
    """The users that a suite evaluates on."""
    return population(USER_PREFIX, suite.users, preferences=suite.preferences, wordings=suite.wordings, seed=suite.seed)


def make_plan(suite: Suite, users: Sequence[SimulatedUser], personas: Mapping[str, Persona]) -> list[PlannedSample]:
    """Every prompt of every subject.

    Seeds belong to requests, so that subjects are compared under the same random numbers, and a request without persona
    is one prompt for all users that ask it.

    Raises:
        ConfigError: fewer held-out requests than a user is to ask.
    """
    pool = requests_for("held-out")
    if suite.requests > len(pool):
        raise ConfigError(f"there are {len(pool)} held-out requests; the suite asks for {suite.requests}. Lower it.")
    strangers = others(users, seed=suite.seed)
    plan = []
    for user in users:
        mine = sorted(random.Random(f"{suite.seed}/{user.name}/held-out").sample(range(len(pool)), suite.requests))
        for index in mine:
            for name in suite.subjects:
                whose = {"none": None, "own": user.name, "shuffled": strangers[user.name]}[SUBJECTS[name].persona]
                persona = None if whose is None else personas[whose]
                plan.append(
                    PlannedSample(
                        sample_id=f"{user.name}/{index:03d}/{name}",
                        suite=suite.name,
                        subject=name,
                        user=user.name,
                        group=user.wording,
                        request=pool[index],
                        prompt=_prompt(suite.system_prompt, persona, pool[index]),
                        max_tokens=suite.max_new_tokens,
                        temperature=suite.temperature,
                        seed=_seed(suite.seed, pool[index]),
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


def _prompt(system: str | None, persona: Persona | None, request: str) -> tuple[ChatMessage, ...]:
    """The system prompt as RLHIMiddleware would compose it, and the request."""
    text = with_persona(system, render_persona(persona))
    start = () if text is None else (ChatMessage(role="system", content=text),)
    return (*start, ChatMessage(role="user", content=request))


def _seed(seed: int, request: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}/{request}".encode()).digest()[:4], "big")
