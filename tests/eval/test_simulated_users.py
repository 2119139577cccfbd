"""Simulated users and what they can say."""

import re
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhi_eval_harness.simulation import compatible, load_phrases, population, requests_for
from rlhi_plugin.checks import CHECKS
from rlhi_plugin.errors import ConfigError


def _normal(text: str) -> str:
    return re.sub(r"\W+", " ", text.lower()).strip()


def test_pools_share_nothing():
    phrases = load_phrases()
    assert not {_normal(text) for text in phrases.requests["training"]} & {
        _normal(text) for text in phrases.requests["held-out"]
    }
    assert not set(map(_normal, phrases.thanks["seen"])) & set(map(_normal, phrases.thanks["new"]))
    seen = [_normal(text) for pools in phrases.complaints.values() for text in pools["seen"]]
    new = [_normal(text) for pools in phrases.complaints.values() for text in pools["new"]]
    assert not set(seen) & set(new)
    assert len(set(seen)) == len(seen)
    assert len(set(new)) == len(new)


@pytest.mark.parametrize("preference", sorted(load_phrases().complaints))
def test_complaints_are_varied_and_in_the_users_own_words(preference: str):
    pools = load_phrases().complaints[preference]
    assert len(pools["seen"]) >= 10
    assert len(pools["new"]) >= 5
    for complaint in (*pools["seen"], *pools["new"]):
        assert complaint == complaint.strip()
        assert 1 <= len(complaint.split()) <= 20
        for check in CHECKS.values():
            assert _normal(check.instruction) not in _normal(complaint)
            # One-word names are everyday words; the others are ours and no user's.
            assert "_" not in check.name or check.name not in complaint


def test_populations_are_reproducible_and_share_nobody():
    training = population("train", 12, seed=3)
    assert training == population("train", 12, seed=3)
    assert training != population("train", 12, seed=4)
    held_out = population("held-out", 12, seed=3)
    assert not {user.name for user in training} & {user.name for user in held_out}
    assert not {user.seed for user in training} & {user.seed for user in held_out}


@given(st.integers(1, 40), st.integers(0, 1000))
def test_everyone_wants_two_things_that_go_together(count: int, seed: int):
    users = population("p", count, preferences=sorted(load_phrases().complaints), seed=seed, wordings=("seen", "new"))
    assert len(users) == count
    for user in users:
        assert len(user.preferences) == 2
        assert compatible(*user.preferences)
    wordings = Counter(user.wording for user in users)
    assert abs(wordings["seen"] - wordings["new"]) <= 1


def test_each_preference_is_wanted_about_alike():
    wanted = Counter(
        name
        for user in population("p", 15, preferences=["numbers", "greeting", "closing_question", "example", "emojis"])
        for name in user.preferences
    )
    assert max(wanted.values()) - min(wanted.values()) <= 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"count": 0}, "at least one user"),
        ({"count": 2, "preferences": ["short", "wit"]}, "no user complains about wit"),
        ({"count": 2, "preferences": ["short", "bullets"]}, "go together"),
        ({"count": 2, "wordings": ()}, "one wording"),
    ],
)
def test_impossible_populations_are_refused(arguments, message):
    with pytest.raises(ConfigError, match=message):
        population("p", **arguments)


def test_broken_names_exactly_what_is_missing():
    (user,) = population("p", 1, preferences=["greeting", "numbers"])
    assert user.broken("Hello! Take 2 or 3.") == ()
    assert user.broken("Take 2 or 3.") == ("greeting",)
    assert user.broken("") == ("greeting", "numbers")


def test_requests_ask_for_no_manner_of_answering(plain: str):
    requests = (*requests_for("training"), *requests_for("held-out"))
    assert len(set(requests)) == len(requests) >= 60
    assert all(request.endswith("?") and len(request.split()) <= 15 for request in requests)
