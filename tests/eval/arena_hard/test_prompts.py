"""Prompts are read from where upstream keeps them, without running its code, and recognised by their digests."""

import json

import pytest

from rlhi_eval_harness.arena_hard.prompts import PUBLISHED, load_prompts
from rlhi_plugin.errors import ConfigError

TEMPLATE = "Q {QUESTION} A {ANSWER_A} B {ANSWER_B}"


@pytest.mark.parametrize("place", ["utils", "src/arenahard/utils"])
def test_a_checkout_of_v2(tmp_path, place):
    (tmp_path / place).mkdir(parents=True)
    (tmp_path / "config").mkdir()
    (tmp_path / place / "judge_utils.py").write_text(
        "import os\nos.abort()\nBASE = 'Judge.'\nJUDGE_SETTINGS = {\n"
        "    'hard_prompt': {'baseline': 'x', 'system_prompt': BASE},\n"
        "    'creative_writing': {'baseline': 'y', 'system_prompt': 'Judge kindly.'},\n}\n"
    )
    (tmp_path / "config" / "arena-hard-v2.0.yaml").write_text(f"prompt_template: {json.dumps(TEMPLATE)}\n")
    found = load_prompts(tmp_path, "v2.0")
    assert found.system == {"hard_prompt": "Judge.", "creative_writing": "Judge kindly."}
    assert found.render("1{x}", "2", "3") == "Q 1{x} A 2 B 3"
    assert found.digest("hard_prompt") != found.digest("creative_writing")


def test_a_checkout_of_v01(tmp_path):
    (tmp_path / "config").mkdir()
    template = "Q {question_1} A {answer_1} B {answer_2}"
    (tmp_path / "config" / "judge_config.yaml").write_text(
        json.dumps({"system_prompt": "Judge.", "prompt_template": [template]})
    )
    found = load_prompts(tmp_path, "v0.1")
    assert found.system_for("arena-hard-v0.1") == "Judge."
    assert found.render("1", "2", "3") == "Q 1 A 2 B 3"
    with pytest.raises(ConfigError, match="arena-hard-auto"):
        load_prompts(tmp_path, "v2.0")


def test_prompts_of_ones_own_are_not_the_published_ones(prompt_folder):
    found = load_prompts(prompt_folder, "v2.0")
    assert not found.published("hard_prompt")
    with pytest.raises(ConfigError, match="no system prompt for 'math'"):
        found.system_for("math")
    (prompt_folder / "user.md").write_text("{QUESTION} {ANSWER_A}")
    with pytest.raises(ConfigError, match=r"lacks \{ANSWER_B\}"):
        load_prompts(prompt_folder, "v2.0")


def test_digests_are_of_the_texts(prompt_folder, monkeypatch):
    import hashlib

    for name in ("hard_prompt", "user"):
        text = (prompt_folder / f"{name}.md").read_text().strip()
        monkeypatch.setitem(PUBLISHED, name, hashlib.sha256(text.encode()).hexdigest())
    assert load_prompts(prompt_folder, "v2.0").published("hard_prompt")
    assert not load_prompts(prompt_folder, "v2.0").published("creative_writing")
