"""A fixed key, so that pseudonyms are the same in every run, and the folder of real data."""

import json
import os
from pathlib import Path

import pytest

from rlhi_plugin.errors import RecordError
from rlhi_plugin.importers import read_log
from rlhi_plugin.records import Conversation, FeedbackEvent


@pytest.fixture(autouse=True)
def _key(monkeypatch):
    monkeypatch.setenv("RLHI_KEY", "0123456789abcdef")


class Read:
    """What came out of a log, sorted by kind."""

    def __init__(self, records):
        self.all = list(records)
        self.conversations = [r for r in self.all if isinstance(r, Conversation)]
        self.feedback = [r for r in self.all if isinstance(r, FeedbackEvent)]
        self.errors = [r for r in self.all if isinstance(r, RecordError)]

    @property
    def one(self):
        assert self.errors == []
        (found,) = self.conversations
        return found

    @property
    def why(self):
        return [str(error) for error in self.errors]


@pytest.fixture
def read(tmp_path):
    """Writes rows as JSONL (or bytes as they are) to a file and reads it."""

    def reading(*rows, name="log.jsonl", **how):
        file = tmp_path / name
        lines = [row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows]
        file.write_bytes(b"\n".join(lines) + b"\n")
        return Read(read_log(file, **how))

    return reading


@pytest.fixture
def read_file():
    return lambda path, **how: Read(read_log(path, **how))


@pytest.fixture
def real_data():
    """The folder of real logs; the test is skipped where it is absent."""
    root = Path(os.environ.get("RLHI_TEST_DATA") or Path(__file__).parents[4] / "shared" / "data")
    if not root.is_dir():
        pytest.skip(f"{root} is absent: set RLHI_TEST_DATA to the folder of real data")
    return root
