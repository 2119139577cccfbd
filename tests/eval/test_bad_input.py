"""What users get wrong: absent data, a plan that lost lines, answers that never came; and which exit code that is."""

import json

import pytest

from rlhi_eval_harness import cli
from rlhi_eval_harness.evaluate import answer_suite, evaluate, score_again
from rlhi_eval_harness.harm.kind import Harm, HarmOptions
from rlhi_eval_harness.run_folder import RunFolder, held
from rlhi_plugin.chat import ScriptedClient
from rlhi_plugin.errors import ArtefactError, ConfigError

NEEDS_DATA = {
    "usereval": "rlhi-eval build-usereval",
    "prefeval": "data",
    "amc23": "there is no folder",
    "alpaca_eval": "eval_set_805.jsonl",
    "arena_hard_v01": "question.jsonl",
    "arena_hard_v2": "question.jsonl",
}


def _exit_code(monkeypatch, *words) -> int:
    monkeypatch.setattr("sys.argv", ["rlhi-eval", *map(str, words)])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    return stopped.value.code


@pytest.mark.parametrize("suite", NEEDS_DATA)
def test_a_suite_without_its_data_says_what_is_missing_and_leaves_nothing(suite, tmp_path, monkeypatch, capsys):
    data = ["--set", f"folder={tmp_path / 'absent'}"] if suite == "usereval" else ["--data", tmp_path / "absent"]
    out = tmp_path / "out"
    assert _exit_code(monkeypatch, "run", "--suite", suite, "--subject", "base", "--out", out, *data) == 2
    said = capsys.readouterr().err
    assert NEEDS_DATA[suite] in said
    assert str(tmp_path / "absent") in said.replace("\n", "")
    assert not (out / "plan.jsonl").exists()


@pytest.fixture
def harm():
    return Harm(HarmOptions(name="harm", summary="s", subjects=("base", "adapter+persona"), resamples=100))


def test_a_plan_that_lost_lines_is_refused_and_no_smaller_suite_scored(harm, make_assistants, tmp_path):
    answer_suite(harm, make_assistants(), tmp_path / "out")
    plan, outputs = tmp_path / "out/plan.jsonl", tmp_path / "out/outputs.jsonl"
    whole, answers = plan.read_text(), outputs.read_text()
    # One item, and its answers with it, so that nothing looks missing.
    item = json.loads(whole.partition("\n")[0])["sample_id"].rpartition("/")[0]
    for path in (plan, outputs):
        lines = path.read_text().splitlines(keepends=True)
        path.write_text("".join(line for line in lines if not json.loads(line)["sample_id"].startswith(f"{item}/")))
    with pytest.raises(ArtefactError, match="it may lack samples"):
        score_again(tmp_path / "out")
    with pytest.raises(ArtefactError, match="it may lack samples"):
        answer_suite(harm, make_assistants(), tmp_path / "out")
    plan.write_text(whole)
    outputs.write_text(answers)
    assert score_again(tmp_path / "out").suite == "harm"


def test_answers_that_never_came_stay_in_every_count(harm, make_assistants, tmp_path):
    whole = evaluate(harm, make_assistants(), tmp_path / "out")
    (tmp_path / "out/outputs.jsonl").write_text("")
    nothing = score_again(tmp_path / "out")
    assert len(nothing.scores) == len(whole.scores)
    assert {score.unscored for score in nothing.scores} <= {"no_output"}
    counts = {(e.metric, e.subject, e.group): e.n + e.unscored for e in whole.estimates}
    assert {(e.metric, e.subject, e.group): e.n + e.unscored for e in nothing.estimates} == counts
    assert nothing.findings[0].endswith(
        "not to be used, because more than 5 % is unscored (base 100 %, adapter+persona 100 %)."
    )


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        ("I think that the first one reads better.", "judge_prose"),
        ("", "judge_empty"),
        ('{"verdict": "perhaps", "quality": "both"}', "judge_unclear_quality"),
    ],
)
def test_a_judge_that_says_nothing_usable_changes_no_number(harm, make_assistants, tmp_path, reply, reason):
    judge = ScriptedClient(lambda _: reply, model="judge")
    report = evaluate(harm, make_assistants(lambda _: "Something else."), tmp_path / "out", judges=[judge])
    quality = [score for score in report.scores if score.metric == "quality_without_history"]
    assert {score.unscored for score in quality} == {reason}
    assert not any(each.value for each in report.estimates if each.metric == "quality_without_history")
    (facts,) = report.config["judging"]
    assert facts["answered"] == 0
    assert sum(facts["unscored"].values()) == facts["questions"]


def test_a_second_start_in_the_same_folder_is_refused_until_the_first_has_ended(harm, make_assistants, tmp_path):
    answer_suite(harm, make_assistants(), tmp_path / "out")
    said = (tmp_path / "out/outputs.jsonl").read_bytes()
    with held(tmp_path / "out"):
        with pytest.raises(ConfigError, match=r"another rlhi-eval is at work in .*Wait until it is done"):
            answer_suite(harm, make_assistants(), tmp_path / "out")
        with pytest.raises(ConfigError, match="another rlhi-eval is at work"):
            score_again(tmp_path / "out")
    assert (tmp_path / "out/outputs.jsonl").read_bytes() == said
    assert score_again(tmp_path / "out").suite == "harm"
    (tmp_path / "a file").touch()
    for wrong in ("elsewhere", "a file"):
        with pytest.raises(ConfigError, match="holds no evaluation"):
            score_again(tmp_path / wrong)


@pytest.mark.parametrize(
    "words",
    [("score",), ("human",), ("compare", "."), ("export", "--to", "inspect", "--out", "logs")],
    ids=lambda words: words[0],
)
def test_a_folder_without_an_evaluation_is_the_users_mistake_in_every_command(words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "letters").mkdir()
    (tmp_path / "letter.txt").write_text("Dear all")
    for wrong in ("letters", "nowhere", "letter.txt"):
        assert _exit_code(monkeypatch, words[0], wrong, *words[1:]) == 2
        assert wrong in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["letter.txt", "letters"]


def test_an_evaluation_that_is_not_finished_is_the_users_to_go_on_with(harm, make_assistants, tmp_path, monkeypatch):
    answer_suite(harm, make_assistants(), tmp_path / "out", plan_only=True)
    assert _exit_code(monkeypatch, "score", tmp_path / "out") == 2
    (tmp_path / "out/outputs.jsonl").write_text("{}\n")
    assert _exit_code(monkeypatch, "score", tmp_path / "out") == 1


def test_what_is_killed_between_digest_and_plan_writes_both_again(harm, make_assistants, tmp_path):
    answer_suite(harm, make_assistants(), tmp_path / "whole", plan_only=True)
    folder = RunFolder(tmp_path / "out")
    answer_suite(harm, make_assistants(), folder.path, plan_only=True)
    folder.plan.unlink()
    folder.plan_digest.write_text("of another plan\n")
    answer_suite(harm, make_assistants(), folder.path, plan_only=True)
    assert folder.plan.read_bytes() == (tmp_path / "whole/plan.jsonl").read_bytes()
    assert len(folder.read_plan()) > 0
