"""Reproducible sampling: per-request Gumbel noise on the best logits, then the largest wins.

Adding independent Gumbel(0, 1) noise to logits divided by the temperature and taking the largest draws exactly from
their softmax (the Gumbel-max trick, Gumbel 1954; Maddison et al., arXiv 1411.0030). The noise is a function of the
request's seed, the step and the token, so a request draws the same noise whatever else is in its batch, on any device,
and two tokens that change places by a rounding error keep their own noise.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_STEP = np.uint64(0xD1B54A32D192ED03)
_TOKEN = np.uint64(0x8CB92BA72F3D8DD7)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)


def gumbel_noise(
    seeds: npt.NDArray[np.uint64], steps: npt.NDArray[np.uint64], tokens: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    """Gumbel(0, 1) noise for some tokens of each row.

    Args:
        seeds: [rows] seed of each request.
        steps: [rows] 0-based count of tokens generated so far.
        tokens: [rows, k] token ids.

    Returns:
        [rows, k] noise; finite.
    """
    state = _mix(seeds + _GOLDEN) ^ (steps * _STEP)
    bits = _mix(_mix(state)[:, None] + tokens.astype(np.uint64) * _TOKEN)
    uniform = ((bits >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53
    return np.asarray(-np.log(-np.log(uniform)), dtype=np.float64)


def draw(
    logits: npt.NDArray[np.float32],
    tokens: npt.NDArray[np.int64],
    temperatures: npt.NDArray[np.float64],
    noise: npt.NDArray[np.float64],
) -> npt.NDArray[np.int64]:
    """Draw one token a row from its candidates.

    Args:
        logits: [rows, k], best first.
        tokens: [rows, k] their token ids.
        temperatures: [rows], >= 0; 0 takes the first candidate.
        noise: [rows, k] from `gumbel_noise`.

    Returns:
        [rows] token ids.
    """
    scaled = logits / np.maximum(temperatures, 1e-6)[:, None] + noise
    choice = np.where(temperatures > 0.0, scaled.argmax(axis=1), 0)
    return np.asarray(np.take_along_axis(tokens, choice[:, None], axis=1)[:, 0], dtype=np.int64)


def derive_seed(seed: int, index: int) -> int:
    """The seed of the `index`-th reply to a request with `seed`: unrelated for every pair of arguments. 64 bits."""
    mixed = _mix(np.array([seed % 2**64], dtype=np.uint64) + _GOLDEN) ^ np.uint64(index % 2**64)
    return int(_mix(mixed)[0])


def _mix(x: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """The finaliser of SplitMix64 (Steele, Lea and Flood, 2014); arithmetic modulo 2^64."""
    x = (x ^ (x >> np.uint64(30))) * _MIX_1
    x = (x ^ (x >> np.uint64(27))) * _MIX_2
    return x ^ (x >> np.uint64(31))
