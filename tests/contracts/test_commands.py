"""Every command explains itself with an example, and tells a user's mistake (2) from a failure (1)."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

import rlhi_adapters.cli
import rlhi_eval_harness.cli
import rlhi_plugin.cli
import rlhi_training.cli

APPS: dict[str, typer.Typer] = {
    "rlhi": rlhi_plugin.cli.app,
    "rlhi-train": rlhi_training.cli.app,
    "rlhi-eval": rlhi_eval_harness.cli.app,
    "rlhi-adapters": rlhi_adapters.cli.app,
}


def _leaves(app: typer.Typer) -> list[list[str]]:
    """The words of every command under `app`, sub-groups included."""
    found = []
    for command in app.registered_commands:
        assert command.callback is not None
        found.append([command.name or command.callback.__name__.replace("_", "-")])
    for group in app.registered_groups:
        assert group.typer_instance is not None
        found += [[str(group.name), *words] for words in _leaves(group.typer_instance)]
    return found


LEAVES = [(program, words) for program, app in APPS.items() for words in _leaves(app)]


@pytest.mark.parametrize(
    ("program", "words"), LEAVES, ids=lambda value: "-".join(value) if isinstance(value, list) else value
)
def test_help_holds_an_example(program: str, words: list[str]) -> None:
    shown = CliRunner().invoke(APPS[program], [*words, "--help"], env={"COLUMNS": "200"})
    assert shown.exit_code == 0
    assert re.search(rf"{program} {' '.join(words)}\b", shown.output), "the help shows no example of its own command"


def _groups(command: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Every command line, group and command, by the words that name it."""
    yield path, command
    for name, inner in getattr(command, "commands", {}).items():
        yield from _groups(inner, f"{path} {name}")


NODES = [node for program, app in APPS.items() for node in _groups(typer.main.get_command(app), program)]


@pytest.mark.parametrize("command", [pytest.param(command, id=path) for path, command in NODES])
def test_every_option_says_what_it_is(command: Any) -> None:
    assert [param.name for param in command.params if not getattr(param, "help", None)] == []


@pytest.mark.parametrize(
    ("path", "command"), [pytest.param(*node, id=node[0]) for node in NODES if hasattr(node[1], "commands")]
)
def test_a_group_of_commands_shows_an_example_of_one(path: str, command: Any) -> None:
    assert re.search(rf"Example: `?{path} ", f"{command.help} {command.epilog}")


@pytest.mark.parametrize(
    ("command", "remedy"),
    [
        (["rlhi", "export", "--store", "mongodb://x", "--out", "logs.jsonl"], "sqlite:///"),
        (["rlhi-train", "run", "no_such_file.jsonl", "--recipe", "smoke_cpu"], "no_such_file.jsonl"),
        (["rlhi-train", "run", __file__, "--recipe", "no_such_recipe"], "smoke_cpu"),
        (
            ["rlhi-eval", "run", "--suite", "smoke", "--adapter", "no_such_adapter", "--out", "report"],
            "no_such_adapter",
        ),
        (["rlhi-eval", "run", "--suite", "no_such_suite", "--adapter", ".", "--out", "report"], "smoke"),
        (["rlhi-adapters", "show", "no_such_adapter"], "no_such_adapter"),
    ],
    ids=lambda value: " ".join(value[:2]) if isinstance(value, list) else "",
)
def test_a_mistake_exits_2_and_names_the_remedy(command: list[str], remedy: str, tmp_path: Path) -> None:
    program = Path(sys.executable).with_name(command[0])
    done = subprocess.run([program, *command[1:]], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stdout + done.stderr
    assert remedy in done.stderr
    assert "Traceback" not in done.stderr
