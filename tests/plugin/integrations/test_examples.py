"""The examples run as a reader runs them, without a key or a network, and log what was said."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
EXAMPLES = ["openai_assistant", "langgraph_assistant", "langchain_chain", "litellm_assistant"]


@pytest.mark.slow
@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_logs_what_was_said(name, tmp_path):
    environ = {k: v for k, v in os.environ.items() if not k.endswith("_API_KEY")} | {"RLHI_KEY": "0" * 64}
    command = [sys.executable, ROOT / "examples" / f"{name}.py"]
    done = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    said = [line.strip() for line in done.stdout.split("t1 of u_")[1].splitlines()[1:]]
    assert [line for line in said if line.startswith("user: ")][:2] == [
        "user: How do plants grow?",
        "user: Shorter, please.",
    ]
    assert sum(line.startswith("assistant: ") for line in said) >= 2
    if name == "openai_assistant":
        assert "Be kind.\n\nWhat this user asked for" in done.stdout
    assert list(tmp_path.iterdir()) == []
