"""A judge whose bias is known because we made it, corrected by people who judged a random part."""

import re

import numpy as np
import pytest

from rlhi_eval_harness.inference import JudgedItem, prediction_powered_mean
from rlhi_eval_harness.statistics import Value, mean

TRUTH = 0.5


def world(rng, *, users=60, each=5, labelled=60, bias=0.2, noise=0.15, useless=False):
    """Judge = people + bias + noise, whose users differ; `labelled` items at random are judged by people."""
    taste = np.repeat(rng.normal(TRUTH, 0.2, users), each)
    people = np.clip(taste + rng.normal(0, 0.15, users * each), -1, 2)
    judge = rng.uniform(size=users * each) if useless else people + bias + rng.normal(0, noise, users * each)
    seen = set(rng.choice(users * each, labelled, replace=False).tolist())
    return [
        JudgedItem(f"u{i // each}", float(judge[i]), float(people[i]) if i in seen else None)
        for i in range(users * each)
    ]


def test_the_formula_by_hand():
    # Ten users: three items of people and judge each, one of the judge alone.
    rng = np.random.default_rng(0)
    people, judge, rest = rng.uniform(size=30), rng.uniform(size=30), rng.uniform(size=10)
    judge += people
    items = [JudgedItem(f"u{i // 3}", judge[i], people[i]) for i in range(30)]
    items += [JudgedItem(f"u{i}", rest[i], None) for i in range(10)]
    found = prediction_powered_mean(items)
    spread = np.var(np.concatenate([judge, rest]), ddof=1)
    weight = np.cov(people, judge)[0, 1] / ((1 + 30 / 10) * spread)
    assert found.weight == pytest.approx(weight)
    assert found.value == pytest.approx(people.mean() + weight * (rest.mean() - judge.mean()))
    assert (found.labelled, found.unlabelled, found.why_not) == (30, 10, None)


def test_the_bias_is_gone_the_interval_is_narrower_and_covers_as_often_as_it_says():
    covered, narrower, errors, judges = 0, 0, [], []
    for seed in range(100):
        items = world(np.random.default_rng(seed), noise=0.05)
        found = prediction_powered_mean(items, resamples=300)
        covered += found.low <= TRUTH <= found.high
        alone = mean([Value(each.user, str(i), each.people) for i, each in enumerate(items)], resamples=300)
        narrower += found.high - found.low < alone.high - alone.low
        errors.append(found.value - TRUTH)
        judges.append(np.mean([each.judge for each in items]) - TRUTH)
    assert np.mean(judges) == pytest.approx(0.2, abs=0.02)
    assert abs(np.mean(errors)) < 0.015
    assert 89 <= covered <= 100
    assert narrower >= 90


def test_the_interval_is_the_normal_one_where_users_have_one_item():
    items = world(np.random.default_rng(5), users=800, each=1, labelled=300)
    found = prediction_powered_mean(items)
    people, judge = (
        np.array([getattr(each, name) for each in items if each.people is not None]) for name in ("people", "judge")
    )
    rest = np.array([each.judge for each in items if each.people is None])
    variance = np.var(people - found.weight * judge) / len(people) + found.weight**2 * np.var(rest) / len(rest)
    assert found.high - found.low == pytest.approx(2 * 1.96 * np.sqrt(variance), rel=0.08)


def test_a_useless_judge_has_next_to_no_weight():
    items = world(np.random.default_rng(3), useless=True, labelled=150)
    found = prediction_powered_mean(items)
    people = np.mean([each.people for each in items if each.people is not None])
    assert found.weight < 0.15
    assert found.value == pytest.approx(people, abs=0.01)
    constant = [JudgedItem(each.user, 0.5, each.people) for each in items]
    assert prediction_powered_mean(constant).weight == 0.0


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"labelled": 20}, "people and judge share 20 pairs of .* users; it takes 30 of 10"),
        ({"users": 8, "each": 10, "labelled": 40}, "share 40 pairs of 8 users"),
        ({"labelled": 300}, "people judged all that the judge did"),
    ],
)
def test_too_little_is_said_and_not_computed(more, why):
    found = prediction_powered_mean(world(np.random.default_rng(0), **more))
    assert (found.value, found.low, found.weight) == (None, None, None)
    assert re.search(why, found.why_not)
