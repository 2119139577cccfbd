"""The commands as a user runs them: real files, a real HTTP server, exit codes and remedies."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from rlhi_eval_harness.published_cli import Claim, add_to, published_coefficients
from rlhi_plugin.errors import ConfigError
from rlhi_plugin.fake_provider import Answer, FakeProvider


@pytest.fixture(scope="module")
def app():
    commands = typer.Typer()
    add_to(commands)
    return commands


@pytest.fixture
def run(app, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "any")

    def call(*words, code=0):
        shown = CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "200"})
        if code == 0 and shown.exception is not None:
            raise shown.exception
        assert shown.exit_code == code, shown.output
        return shown.output

    return call


def _jsonl(path: Path, rows) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


@pytest.fixture
def alpaca_files(tmp_path):
    rows = [{"instruction": f"Do {i}.", "output_gpt4_1106_preview": f"baseline text {i}"} for i in range(12)]
    outputs = [{"instruction": f"Do {i}.", "output": "a better text " * (i + 1)} for i in range(12)]
    (tmp_path / "outputs.json").write_text(json.dumps(outputs))
    (tmp_path / "difficulty.csv").write_text(
        ",instruction_difficulty\n" + "".join(f"{i},{i / 6 - 1}\n" for i in range(12))
    )
    return _jsonl(tmp_path / "set.jsonl", rows), tmp_path / "outputs.json", tmp_path / "difficulty.csv"


def test_annotate_then_score_again_without_a_judge(run, alpaca_files, tmp_path):
    instructions, outputs, difficulty = alpaca_files

    def judge(request):
        text = request.last_user_text
        better = "m" if text.index("a better") < text.index("baseline") else "M"
        sure = 0.5 + 0.03 * text.count("a better")
        worse = "M" if better == "m" else "m"
        return Answer(better, top_logprobs=((better, math.log(sure)), (worse, math.log(1 - sure))))

    with FakeProvider(judge) as provider:
        shown = run(
            "alpaca-eval", "annotate", outputs, "--set", instructions, "--out", tmp_path / "out",
            "--base-url", provider.base_url, "--judge-model", "my-judge", "--difficulties", difficulty,
            "--json", tmp_path / "annotated.json",
        )  # fmt: skip
        assert len(provider.requests) == 12
    assert "do not compare these numbers" in shown
    assert "answered by: my-judge: 12" in shown
    assert "The judge my-judge is an alias" in shown
    told = json.loads((tmp_path / "annotated.json").read_text())["judge"]
    assert (told["pin"]["kind"], told["answered_by"]) == ("alias", {"my-judge": 12})
    assert "All 12 scored." in shown
    # A narrow terminal breaks the cell after this.
    assert "length-controlled (refit without the gamed" in shown
    again = run(
        "alpaca-eval", "score", tmp_path / "out" / "annotations.json", "--set", instructions,
        "--json", tmp_path / "numbers.json",
    )  # fmt: skip
    numbers = json.loads((tmp_path / "numbers.json").read_text())
    assert f"{numbers['raw']['win_rate']:.2f}" in shown
    assert f"{numbers['raw']['win_rate']:.2f}" in again
    assert numbers["length_controlled"] is None


def test_annotate_refuses_an_alias_where_a_pinned_judge_is_wanted(run, alpaca_files, tmp_path):
    instructions, outputs, _ = alpaca_files
    words = ("alpaca-eval", "annotate", outputs, "--set", instructions, "--out", tmp_path / "out")
    with FakeProvider([]) as provider:
        ours = ("--base-url", provider.base_url, "--judge-model", "gpt-4o", "--require-pinned-judge")
        with pytest.raises(ConfigError, match="--require-pinned-judge: gpt-4o"):
            run(*words, *ours)
        assert provider.requests == ()
    assert not (tmp_path / "out").exists()


@pytest.fixture
def arena_files(tmp_path, monkeypatch):
    questions = [{"uid": f"q{i}", "category": "hard_prompt", "prompt": f"Do {i}."} for i in range(6)]

    def answers(name, text):
        metadata = {"token_len": 5, "header_count": {}, "list_count": {}, "bold_count": {}}
        rows = [
            {
                "uid": f"q{i}",
                "model": name,
                "messages": [{"content": {"answer": f"{text} {i}"}}],
                "metadata": {
                    **metadata,
                    "token_len": 5 + len(text) * (i % 3),
                    "bold_count": {"**": i % 2 + len(text) % 3},
                },
            }
            for i in range(6)
        ]
        return _jsonl(tmp_path / f"{name}.jsonl", rows)

    folder = tmp_path / "prompts"
    folder.mkdir()
    (folder / "hard_prompt.md").write_text("Compare.")
    (folder / "user.md").write_text("{QUESTION}\nA: {ANSWER_A}\nB: {ANSWER_B}")
    return {
        "questions": _jsonl(tmp_path / "question.jsonl", questions),
        "ours": answers("ours", "a good answer"),
        "theirs": answers("theirs", "poor"),
        "prompts": folder,
    }


def test_judge_over_http_then_score_with_style_control(run, arena_files, tmp_path):
    def judge(request):
        mine_first = "A: a good" in request.last_user_text
        return Answer(f"So: [[{'A>>B' if mine_first else 'B>A'}]]")

    out = tmp_path / "judgments" / "ours.jsonl"
    with FakeProvider(judge) as provider:
        words = [
            "arena-hard", "judge", arena_files["ours"], "--questions", arena_files["questions"],
            "--baseline", arena_files["theirs"], "--prompts", arena_files["prompts"], "--judge", "openai/my-judge",
            "--out", out, "--api-base", provider.base_url,
        ]  # fmt: skip
        shown = run(*words)
        assert len(provider.requests) == 12
        run(*words)
        assert len(provider.requests) == 12, "what is judged is not asked again"
    assert "answered by: my-judge: 12" in shown
    assert "The judge openai/my-judge is an alias" in shown.replace("\n", " ")
    with FakeProvider(judge) as provider, pytest.raises(ConfigError, match="--require-pinned-judge: openai/my-judge"):
        run(*words[:-1], provider.base_url, "--require-pinned-judge")
    assert provider.requests == ()
    assert "Another prompt than the published one" in shown
    assert "hard_prompt is compared with theirs, the leaderboard compares with o3-mini-2025-01-31" in shown
    assert "100.00" in shown
    again = run("arena-hard", "score", out, "--questions", arena_files["questions"], "--json", tmp_path / "s.json")
    assert "100.00" in again
    numbers = json.loads((tmp_path / "s.json").read_text())["hard_prompt"]["ours"]
    assert numbers["verdicts"] == {"won": 6, "won clearly": 6}


def test_style_control_by_command(run, arena_files, tmp_path):
    rows = [
        {"uid": f"q{i}", "games": [{"score": ["A>B", "B>A", "B>>A"][i % 3]}, {"score": ["A>B", "B>A"][i % 2]}]}
        for i in range(6)
    ]
    folder = tmp_path / "judgments"
    folder.mkdir()
    shown = run(
        "arena-hard", "score", _jsonl(folder / "ours.jsonl", rows), "--questions", arena_files["questions"],
        "--answers", tmp_path, "--baseline", arena_files["theirs"],
    )  # fmt: skip
    assert "at the baseline's style" in shown
    with pytest.raises(ConfigError, match="both the models' and the baseline's"):
        run("arena-hard", "score", folder / "ours.jsonl", "--answers", tmp_path)


def test_the_published_coefficients_ship():
    from rlhi_eval_harness.alpaca.length_control import read_coefficients

    assert len(read_coefficients(published_coefficients())) == 16


def test_a_claim_about_nothing_is_not_met():
    assert not Claim("x", 0, 1.0, 0.0).met
    assert not Claim("x", 1, 1.0, 1.5).met
    assert Claim("x", 1, 1.0, 0.5).met


def test_prove_without_data_says_how_to_get_it(tmp_path):
    command = [sys.executable, "-m", "rlhi_eval_harness.published_cli", "prove", "--data", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert "eval_set_805.jsonl" in done.stderr
    assert "https://github.com/tatsu-lab/alpaca_eval" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_prove_prints_every_claim():
    root = Path(os.environ.get("RLHI_TEST_DATA") or Path(__file__).parents[3] / "shared" / "data")
    if not (root / "alpaca-eval-2").is_dir():
        pytest.skip(f"{root} is absent: set RLHI_TEST_DATA to the folder of real data")
    command = [sys.executable, "-m", "rlhi_eval_harness.published_cli", "prove", "--data", str(root)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "NO" not in done.stdout.split("Claims")[1]
    assert "text_davinci_003 is annotated, but not on the leaderboard." in done.stdout


@pytest.mark.parametrize(
    "words",
    [
        ("alpaca-eval", "score"),
        ("alpaca-eval", "annotate"),
        ("arena-hard", "score"),
        ("arena-hard", "judge"),
        ("prove",),
    ],
)
def test_help_holds_an_example_of_its_own_command(run, words):
    assert f"rlhi-eval {' '.join(words)}" in run(*words, "--help")


def test_nothing_heavy_is_imported_before_it_is_needed():
    code = "import sys, rlhi_eval_harness.published_cli; print(*sorted({m.partition('.')[0] for m in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"alpaca_eval", "pandas", "scipy", "sklearn", "statsmodels", "krippendorff", "torch", "litellm"}
    assert not heavy & set(done.stdout.split())
