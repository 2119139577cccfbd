"""The command line: exit codes, remedies, and that help is quick because nothing heavy is imported."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from rlhi_plugin import terminal
from rlhi_training.cli import app
from rlhi_training.records import Stage


@pytest.fixture
def rlhi_train(monkeypatch, capsys):
    """Runs the command in this process; returns exit code, stdout and stderr."""

    def run(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["rlhi-train", *map(str, words)])
        monkeypatch.setattr(terminal, "setup_logging", lambda **_: None)
        with pytest.raises(SystemExit) as caught:
            terminal.run(app, "rlhi-train")
        captured = capsys.readouterr()
        return int(caught.value.code or 0), captured.out, captured.err

    return run


def test_a_run_without_a_place_says_how_to_go_on_with_it(rlhi_train, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.jsonl").touch()
    _, out, _ = rlhi_train("run", "empty.jsonl")
    place = out.partition("run directory: ")[2].partition(";")[0]
    assert f"to go on with it later, add: --out {place}" in out
    assert Path(place).is_dir()
    _, out, _ = rlhi_train("run", "empty.jsonl", "--out", place)
    assert "add: --out" not in out


@pytest.mark.parametrize(
    ("words", "remedy"),
    [
        (["run", "nowhere.jsonl"], "Give a log file"),
        (["run", "{folder}"], "inside the logs"),
        (["run", "hf://datasets/"], "hf://datasets/OWNER/NAME"),
        (["run", "hf://datasets/allenai/WildChat-1M", "--out", "{folder}/r"], "give its folder"),
        (["run", "{empty}", "--out", "{folder}/r"], "rlhi export"),
        (["run", "{empty}", "--recipe", "smoke_gpu"], "smoke_cpu"),
        (["run", "{empty}", "--set", "train.epoch=1"], "train.epoch"),
        (["run", "{garbage}", "--out", "{folder}/r"], "dropped/ingest.jsonl"),
        (["run", "{empty}", "--out", "{empty}"], "Give another --out"),
        (["label", "{folder}"], "rlhi-train ingest"),
        (["show", "{folder}"], "rlhi-train ingest"),
        (["report", "{folder}"], "rlhi-train ingest"),
        (["run"], "Missing argument"),
        (["dance"], "dance"),
    ],
)
def test_a_users_mistake_exits_2_with_a_remedy(rlhi_train, tmp_path, monkeypatch, words, remedy):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.jsonl").touch()
    (tmp_path / "garbage.jsonl").write_text("these are\nno conversations\n")
    places = {"folder": tmp_path, "empty": tmp_path / "empty.jsonl", "garbage": tmp_path / "garbage.jsonl"}
    code, out, err = rlhi_train(*(word.format(**places) for word in words))
    assert code == 2, out + err
    assert remedy in " ".join((out + err).split())
    assert "Traceback" not in err


def test_a_damaged_run_exits_1(rlhi_train, tmp_path):
    (tmp_path / "manifest.json").write_text("{")
    code, _, err = rlhi_train("show", tmp_path)
    assert code == 1
    assert "damaged" in err


def test_ingest_starts_a_run_that_show_reads(rlhi_train, tmp_path, four_users):
    from rlhi_plugin.logs import write_conversations

    write_conversations(tmp_path / "logs.jsonl", four_users)
    with (tmp_path / "logs.jsonl").open("a") as handle:
        handle.write("{broken\n")
    code, out, _ = rlhi_train("ingest", tmp_path / "logs.jsonl", "--out", tmp_path / "run", "--set", "seed=5")
    assert code == 0, out
    code, out, _ = rlhi_train("show", tmp_path / "run")
    assert code == 0
    assert "malformed 1" in out
    assert "12 conversations to learn from; 4 known users, 4 of them with several conversations." in out
    code, out, _ = rlhi_train("report", tmp_path / "run")
    assert code == 0
    assert str(tmp_path / "run" / "report.html") in out.replace("\n", "")
    assert "malformed: 1" in (tmp_path / "run" / "report.html").read_text()
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert manifest["seed"] == manifest["recipe"]["seed"] == 5
    assert manifest["stages"]["ingest"]["passed"] == len(four_users)
    dropped = json.loads((tmp_path / "run" / "dropped" / "ingest.jsonl").read_text())
    assert dropped["key"] == f"logs.jsonl:{len(four_users) + 1}"


def test_every_stage_has_a_command_with_an_example(rlhi_train):
    from typing import get_args

    for command in (*get_args(Stage), "run", "recipes", "show", "report"):
        code, out, _ = rlhi_train(command, "--help")
        assert code == 0
        assert f"Example: rlhi-train {command}" in " ".join(out.split())


def test_recipes_lists_names_and_summaries(rlhi_train):
    code, out, _ = rlhi_train("recipes")
    assert code == 0
    assert all(name in out for name in ("smoke_cpu", "rewrites_lora", "rewards_lora", "rlhi_llama31_8b"))


def test_help_imports_nothing_heavy():
    check = (
        "import sys, rlhi_training.cli, rlhi_training.pipeline\n"
        "print([m for m in ('torch', 'transformers', 'trl', 'sklearn', 'litellm', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_module_is_where_the_script_points():
    import importlib.metadata

    (script,) = importlib.metadata.entry_points(group="console_scripts", name="rlhi-train")
    assert script.value == "rlhi_training.cli:main"
    assert Path(sys.executable).exists()
