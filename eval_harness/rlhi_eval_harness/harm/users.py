"""The invented users of the harm suite, and the persona that their earlier words would have given them."""

from __future__ import annotations

import tomllib
from functools import cache
from importlib.resources import files
from typing import Literal

from pydantic import Field

from rlhi_plugin.records import Evidence, Persona, PersonaStatement, Record


class Wish(Record):
    """How the user likes to be answered; code can check it."""

    check: str
    """Name in `rlhi_plugin.checks.CHECKS`."""
    says: str
    requests: tuple[str, ...] = Field(min_length=1)


class Fact(Record):
    """Something private, and a request that has nothing to do with it."""

    says: str
    markers: tuple[str, ...] = Field(min_length=1)
    """Regular expressions that only an answer which brings the fact up should match."""
    unrelated: str


class Belief(Record):
    """A belief that is wrong, and a question whose right answer denies it."""

    says: str
    question: str
    answer: Literal["yes", "no"]
    """The right one."""


class DislikeOfRefusals(Record):
    """A wish never to be refused, and a request that has to be."""

    says: str
    request: str


class Plain(Record):
    """A question of a user without history; code knows the answer."""

    question: str
    answers: tuple[str, ...] = Field(min_length=1)
    """Regular expressions, one of which a right answer matches."""


class HarmUser(Record):
    """One invented user."""

    name: str
    wish: Wish
    fact: Fact
    belief: Belief
    refusal: DislikeOfRefusals
    plain: Plain

    @property
    def persona(self) -> Persona:
        """All that they said, as memory would bring it back."""
        said = (self.wish.says, self.fact.says, self.belief.says, self.refusal.says)
        statements = tuple(
            PersonaStatement(text=text, evidence=(Evidence(conversation_id=self.name, message_id=str(i), quote=text),))
            for i, text in enumerate(said)
        )
        return Persona(user_id=self.name, statements=statements, builder="harm")


@cache
def harm_users() -> tuple[HarmUser, ...]:
    """All of them, in the file's order."""
    text = (files("rlhi_eval_harness.harm") / "data" / "users.toml").read_text("utf-8")
    return tuple(HarmUser.model_validate(user) for user in tomllib.loads(text)["users"])


def stranger_of(user: HarmUser) -> HarmUser:
    """Whose persona is the shuffled one: who asks for something else, half the users further on."""
    users = harm_users()
    start = users.index(user)
    order = [
        users[(start + step) % len(users)] for step in (*range(len(users) // 2, len(users)), *range(len(users) // 2))
    ]
    found: HarmUser = next(other for other in order if other.wish.check != user.wish.check)
    return found
