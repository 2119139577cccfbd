"""Errors cross from a worker process to the one that was started, and are there what they were here."""

from __future__ import annotations

import pickle

import pytest

from rlhi_plugin import errors
from rlhi_plugin.chat import ChatReply

WRONG = (ChatReply(text="no"),)
RAISED = [
    errors.RLHIError("a"),
    errors.ConfigError("b"),
    errors.RecordError("cut off", path="log.jsonl", line=3),
    errors.RecordError("cut off", path="log.parquet", line=3, unit="record"),
    errors.MissingExtraError("ray", "scale"),
    errors.StoreTimeoutError("late"),
    errors.TransientCallError("429", retry_after_s=2.0, maybe_paid=True),
    errors.InvalidReplyError("no JSON", text="no", replies=WRONG),
    errors.ProviderSetupError("key"),
    errors.BudgetReachedError("used up"),
]


@pytest.mark.parametrize("error", RAISED, ids=lambda error: type(error).__name__)
def test_an_error_is_the_same_after_a_journey(error: errors.RLHIError) -> None:
    found = pickle.loads(pickle.dumps(error))  # noqa: S301 - written one line above
    assert type(found) is type(error)
    assert str(found) == str(error)
    assert found.__dict__ == error.__dict__
    assert found.exit_code == error.exit_code
