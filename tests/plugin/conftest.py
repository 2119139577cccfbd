"""Fixtures of the live half's tests."""

from collections.abc import Iterator

import pytest
from postgres_server import NoServerError, PostgresServer


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """A running PostgreSQL, one for all tests. A test that stops it starts it again."""
    pytest.importorskip("psycopg", reason="needs the extra postgres")
    try:
        server = PostgresServer()
    except NoServerError as error:
        pytest.skip(str(error))
    with server:
        yield server


@pytest.fixture
def postgres_url(postgres_server: PostgresServer) -> str:
    """The store URL of an empty database."""
    return postgres_server.new_database()
