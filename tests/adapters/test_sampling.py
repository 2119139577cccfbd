"""Gumbel-max sampling draws from the softmax, and from nothing but seed, step and token."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from rlhi_adapters.sampling import derive_seed, draw, gumbel_noise

UINT64 = st.integers(min_value=0, max_value=2**64 - 1)


def noise_for(seeds: list[int], steps: list[int], tokens: list[list[int]]) -> np.ndarray:
    return gumbel_noise(np.array(seeds, dtype=np.uint64), np.array(steps, dtype=np.uint64), np.array(tokens))


def test_draws_follow_the_softmax_at_the_temperature() -> None:
    logits = np.array([2.0, 1.0, 0.0, -1.0], dtype=np.float32)
    temperature, n = 0.7, 40_000
    tokens = np.tile(np.array([9, 400, 3, 77]), (n, 1))
    noise = gumbel_noise(np.arange(n, dtype=np.uint64), np.full(n, 5, dtype=np.uint64), tokens)
    drawn = draw(np.tile(logits, (n, 1)), tokens, np.full(n, temperature), noise)
    scaled = np.exp(logits / temperature)
    expected = scaled / scaled.sum()
    found = np.array([(drawn == token).mean() for token in (9, 400, 3, 77)])
    # Five standard errors of a proportion.
    assert np.all(np.abs(found - expected) < 5 * np.sqrt(expected * (1 - expected) / n))


def test_noise_is_gumbel_distributed_along_seeds_steps_and_tokens() -> None:
    n = 20_000
    ones, counts = np.ones(n, dtype=np.uint64), np.arange(n, dtype=np.uint64)
    samples = {
        "seeds": gumbel_noise(counts, ones, np.full((n, 1), 7)),
        "steps": gumbel_noise(ones, counts, np.full((n, 1), 7)),
        "tokens": gumbel_noise(ones[:1], ones[:1], np.arange(n)[None]),
    }
    for name, sample in samples.items():
        values = sample.ravel()
        assert abs(values.mean() - 0.57722) < 0.05, name
        assert abs(values.var() - np.pi**2 / 6) < 0.1, name
        assert abs(np.corrcoef(values[:-1], values[1:])[0, 1]) < 0.04, name


@given(seed=UINT64, step=st.integers(0, 4096), tokens=st.permutations(list(range(0, 50_000, 5_000))))
def test_noise_belongs_to_the_token_not_to_its_rank_or_row(seed: int, step: int, tokens: list[int]) -> None:
    alone = noise_for([seed], [step], [sorted(tokens)])[0]
    among = noise_for([1, seed], [0, step], [sorted(tokens), tokens])[1]
    assert np.isfinite(alone).all()
    assert dict(zip(sorted(tokens), alone, strict=True)) == dict(zip(tokens, among, strict=True))


def test_temperature_zero_takes_the_best_whatever_the_noise() -> None:
    tokens = np.array([[5, 6], [8, 9]])
    noise = np.array([[0.0, 100.0], [0.0, 100.0]])
    logits = np.array([[1.0, 0.9], [1.0, 0.9]], dtype=np.float32)
    assert draw(logits, tokens, np.array([0.0, 1.0]), noise).tolist() == [5, 9]


@given(seed=UINT64)
def test_replies_of_one_request_have_different_seeds(seed: int) -> None:
    seeds = [derive_seed(seed, index) for index in range(16)]
    assert len(set(seeds)) == 16
    assert all(0 <= value < 2**64 for value in seeds)
    assert derive_seed(seed + 1, 0) != seeds[0]
