"""Suites as files, environment and command line."""

import pytest

from rlhi_eval_harness.simulation import load_phrases, requests_for
from rlhi_eval_harness.suites import load_suite, shipped_suites
from rlhi_plugin.errors import ConfigError


@pytest.mark.parametrize("name", ["smoke", "smoke_small", "tiny"])
def test_shipped_suites_can_be_run_with_the_shipped_pools(name: str):
    suite = load_suite(name, environ={})
    assert suite.name == name
    assert shipped_suites()[name] == suite
    assert set(suite.preferences) <= set(load_phrases().complaints)
    assert suite.requests <= len(requests_for("held-out"))
    assert suite.habits.requests_per_user <= len(requests_for("training"))


def test_later_sources_win(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text('name = "mine"\nsummary = "s"\nusers = 3\n[habits]\npatience = 1\n')
    environ = {"RLHI_EVAL_USERS": "4", "RLHI_EVAL_HABITS_PATIENCE": "3", "RLHI_OTHER": "x"}
    assert load_suite(str(file), environ={}).users == 3
    suite = load_suite(str(file), environ=environ)
    assert (suite.users, suite.habits.patience) == (4, 3)
    suite = load_suite(str(file), overrides=["users=5", "habits.thanks_share=0.5"], environ=environ)
    assert (suite.users, suite.habits.thanks_share) == (5, 0.5)


@pytest.mark.parametrize(
    ("name", "overrides", "message"),
    [
        ("smok", [], "no suite named 'smok'. Shipped: .*smoke"),
        ("absent.toml", [], "cannot read the suite"),
        ("smoke", ["users"], "write it as key=value"),
        ("smoke", ["users=one"], "users: Input should be a valid integer"),
        ("smoke", ["wit=3"], "wit: Extra inputs"),
        ("smoke", ["users.x=3"], "not a section"),
        ("smoke", ["users=1"], "greater than or equal to 2"),
    ],
)
def test_mistakes_are_named(name, overrides, message):
    with pytest.raises(ConfigError, match=message):
        load_suite(name, overrides=overrides, environ={})


def test_a_broken_file_is_named(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text("name = ")
    with pytest.raises(ConfigError, match="not valid TOML"):
        load_suite(str(file), environ={})
