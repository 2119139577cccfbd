"""The workflow in the README is one: it parses, and its commands are ours, with options that exist."""

import re
import shlex
from pathlib import Path

import pytest
import yaml
from typer.main import get_command

from rlhi_eval_harness import cli

README = Path(__file__).parents[3] / "eval_harness" / "README.md"


@pytest.fixture
def workflow():
    (text,) = re.findall(r"^```yaml\n(.*?)^```$", README.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    return yaml.safe_load(text)


def test_the_workflow_has_what_github_needs(workflow):
    # YAML 1.1 reads the key `on` as true.
    assert workflow[True] == "pull_request"
    (job,) = workflow["jobs"].values()
    assert job["runs-on"]
    assert all(("uses" in step) != ("run" in step) for step in job["steps"])
    assert all(re.fullmatch(r"[\w-]+/[\w-]+@v\d+", step["uses"]) for step in job["steps"] if "uses" in step)
    commented = next(step for step in job["steps"] if "gh pr comment" in step.get("run", ""))
    assert commented["if"] == "always()", "a failed comparison must still be told"
    assert workflow["permissions"]["pull-requests"] == "write"


def test_its_commands_can_be_read_by_ours(workflow):
    (job,) = workflow["jobs"].values()
    lines = [shlex.split(step["run"]) for step in job["steps"] if step.get("run", "").startswith("rlhi-eval")]
    assert [words[1] for words in lines] == ["run", "compare"]
    program = get_command(cli.app)
    parsed = {}
    for _, name, *words in lines:
        command = program.commands[name]
        parsed[name] = command.make_context(name, list(words)).params
    assert parsed["compare"]["fail_on_regression"]
    assert str(parsed["compare"]["after"]) == str(parsed["run"]["out"])
    written = parsed["compare"]["markdown"].name
    assert any(f"--body-file {written}" in step.get("run", "") for step in job["steps"])
