"""What simulated users say: complaints, thanks and requests, read from the TOML files beside this one.

Every pool is split in two that share no entry. Training users speak the ``seen`` wordings and ask ``training``
requests; evaluation asks ``held-out`` requests, of users who complain in ``seen`` or in ``new`` wordings.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Literal

from rlhi_plugin.checks import CHECKS

Wording = Literal["seen", "new"]
"""Which pool a user's complaints and thanks come from."""
RequestPool = Literal["training", "held-out"]


@dataclass(frozen=True)
class Phrases:
    """All pools.

    Attributes:
        complaints: By preference (a name from `rlhi_plugin.checks.CHECKS`), then by wording.
        thanks: By wording.
        requests: By pool.
    """

    complaints: Mapping[str, Mapping[Wording, tuple[str, ...]]]
    thanks: Mapping[Wording, tuple[str, ...]]
    requests: Mapping[RequestPool, tuple[str, ...]]


@cache
def load_phrases() -> Phrases:
    """The shipped pools. A complaint about something that no check decides is a defect of the data.

    Raises:
        KeyError: complaints.toml names a preference that is not in `CHECKS`.
    """
    complaints = _read("complaints")
    unknown = sorted(set(complaints) - set(CHECKS))
    if unknown:
        raise KeyError(f"complaints.toml names preferences that no check decides: {', '.join(unknown)}")
    return Phrases(
        complaints={preference: _pools(pools) for preference, pools in complaints.items()},
        thanks=_pools(_read("thanks")),
        requests=_pools(_read("requests")),
    )


def requests_for(pool: RequestPool) -> tuple[str, ...]:
    """The requests of one pool, in file order."""
    return load_phrases().requests[pool]


def _read(name: str) -> dict[str, Any]:
    return tomllib.loads((files("rlhi_eval_harness.simulation") / "data" / f"{name}.toml").read_text("utf-8"))


def _pools(table: dict[str, list[str]]) -> dict[Any, tuple[str, ...]]:
    return {pool: tuple(entries) for pool, entries in table.items()}
