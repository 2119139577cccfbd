"""A real PostgreSQL that stops, is killed and cuts connections under a talking assistant."""

import pytest
from outage_harness import KINDS, outages
from postgres_server import PostgresServer

pytestmark = [pytest.mark.slow, pytest.mark.postgres]


def test_outages_lose_nothing(tmp_path, postgres_server):
    del postgres_server  # skips where there is none; this one is stopped, which the others' must not be
    with PostgresServer() as server:
        result = outages(5, tmp_path, server, seed=3)
    assert result.problems == []
    assert set(result.kinds) == set(KINDS)
    assert result.restarts > 0
    assert result.late > 0
    assert result.acknowledged > 50
