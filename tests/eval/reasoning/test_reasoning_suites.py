"""Reasoning suites on small files: prompts, states of an answer, statistics, and what is refused."""

import json
import re

import pytest

from rlhi_eval_harness.evaluate import answer_suite, evaluate, score_again
from rlhi_eval_harness.models import open_assistants
from rlhi_eval_harness.reasoning.checking import CUT, EMPTY, UNREAD, Checker, declares, stopped
from rlhi_eval_harness.reasoning.kind import CORRECT, Reasoning
from rlhi_eval_harness.records import PlannedSample
from rlhi_eval_harness.run_folder import RunFolder, read_records
from rlhi_eval_harness.subjects import parse_subjects
from rlhi_plugin.errors import ConfigError, RecordError


def _sum(request):
    first = int(re.search(r"What is (\d+)", request.messages[-1].content)[1])
    return f"Both make \\boxed{{{2 * first}}}."


def _plan(options, tmp_path, scripted):
    kind = Reasoning(options)
    answer_suite(kind, scripted(lambda _: ""), tmp_path / "plan", plan_only=True)
    return read_records(RunFolder(tmp_path / "plan").plan, PlannedSample)


def test_right_answers_are_right_and_the_report_says_how_it_was_asked(suite, scripted, tmp_path):
    report = evaluate(Reasoning(suite("amc23")), scripted(_sum), tmp_path / "out")
    numbers = {each.metric: each for each in report.estimates}
    assert numbers[CORRECT].value == numbers["math_verify,none"].value == 1.0
    assert numbers[CORRECT].clusters == 6
    markdown = (tmp_path / "out/report.md").read_text()
    assert "| amc23 | 1.0 | base | 6 | 0 |" in markdown
    assert "items resampled" in markdown
    assert "6 answers, 6 items" in report.findings[0]
    assert "Tasks and prompts" in (tmp_path / "out/report.html").read_text()


def test_an_answer_that_cannot_be_judged_has_a_reason_and_counts_as_wrong_only_for_lm_eval(suite, scripted, tmp_path):
    answers = iter(["\\boxed{0}", "no idea", "", "\\boxed{7}", "\\boxed{8}", "\\boxed{10}"])
    report = evaluate(Reasoning(suite("amc23")), scripted(lambda _: next(answers)), tmp_path / "out")
    of = {score.sample_id: score for score in report.scores if score.metric == CORRECT}
    assert [each.unscored for each in of.values()] == [None, UNREAD, EMPTY, None, None, None]
    numbers = {each.metric: each for each in report.estimates}
    assert numbers[CORRECT].value == 3 / 4
    assert numbers["math_verify,none"].value == 3 / 6
    assert any("not to be used" in finding for finding in report.findings)
    assert "Answers without a verdict" in (tmp_path / "out/report.md").read_text()


def test_stop_texts_end_an_answer_as_lm_eval_does():
    assert stopped("So 4.\nProblem: next", ("Problem:", "Q:"), cut=True) == ("So 4.\n", False)
    assert stopped("So 4.", ("Problem:",), cut=True) == ("So 4.", True)
    assert declares("the answer is (B)")
    assert declares("thus \\boxed{4")
    assert not declares("then we get 12")


def test_what_is_cut_counts_only_if_it_has_declared_its_answer(suite, data):
    bench = Reasoning(suite("gsm8k"))._benchmark
    (task,) = bench.tasks.values()
    items = bench.items["gsm8k_cot"][:3]
    verdicts = Checker(task, bench.metric).check(
        items, ["The answer is 0. And then 5", "We have 2 and", "So it is 4"], [True, True, False]
    )
    assert [each.unscored for each in verdicts] == [None, CUT, None]
    assert verdicts[2].correct == 1.0
    # The last number is what flexible-extract reads.
    assert verdicts[0].metrics["exact_match,strict-match"] == 1.0


def test_two_subjects_are_compared_item_by_item(suite, scripted, tmp_path, data):
    lines = [{"item_id": f"amc23/{i:05d}", "output": f"\\boxed{{{2 * i if i < 2 else 99}}}"} for i in range(6)]
    made = tmp_path / "made.jsonl"
    made.write_text("".join(json.dumps(line) + "\n" for line in lines))
    subjects = (f"theirs:outputs={made}", "base")
    report = evaluate(Reasoning(suite("amc23", subjects=subjects)), scripted(_sum), tmp_path / "out")
    said = next(finding for finding in report.findings if finding.startswith("Item by item"))
    assert "4 are right only with the first and 0 only with the second (McNemar p = 0.125" in said
    (difference,) = [each for each in report.differences if each.metric == CORRECT]
    assert difference.value == pytest.approx(4 / 6)


def test_scoring_again_needs_no_data_and_checks_nothing_twice(suite, scripted, tmp_path, data, monkeypatch):
    first = evaluate(Reasoning(suite("amc23")), scripted(_sum), tmp_path / "out")
    for file in data.iterdir():
        file.unlink()
    monkeypatch.setattr(Checker, "_one", lambda *_, **__: pytest.fail("checked again"))
    written = (tmp_path / "out" / "report.json").read_text()
    again = score_again(tmp_path / "out")
    assert again.scores == first.scores
    assert written == (tmp_path / "out" / "report.json").read_text()


def test_a_killed_run_goes_on_and_scores_come_out_the_same(suite, scripted, tmp_path):
    whole = evaluate(Reasoning(suite("amc23")), scripted(_sum), tmp_path / "whole")
    answer_suite(Reasoning(suite("amc23")), scripted(_sum), tmp_path / "half")
    outputs = tmp_path / "half/outputs.jsonl"
    lines = outputs.read_text().splitlines(keepends=True)
    outputs.write_text("".join(lines[:2]) + lines[2][:20])
    (tmp_path / "half/verdicts.jsonl").write_text('{"key": "torn')
    rest = scripted(_sum)
    assert evaluate(Reasoning(suite("amc23")), rest, tmp_path / "half").scores == whole.scores
    assert len(rest.calls.requests) == 4


def test_a_limit_is_named_and_leaves_prompts_as_they_are(suite, scripted, tmp_path):
    every = {sample.item_id: sample.prompt for sample in _plan(suite("gsm8k"), tmp_path / "a", scripted)}
    few = {sample.item_id: sample.prompt for sample in _plan(suite("gsm8k", limit=2), tmp_path / "b", scripted)}
    assert len(few) == 2
    assert few.items() <= every.items()
    report = evaluate(Reasoning(suite("amc23", limit=2)), scripted(_sum), tmp_path / "out")
    assert any("Only 2 of 6 items were asked (limit = 2)" in finding for finding in report.findings)
    with pytest.raises(ConfigError, match="has 6 items; limit=7"):
        Reasoning(suite("amc23", limit=7))._benchmark.chosen()


def test_examples_that_are_missing_are_an_error_and_not_fewer_examples(suite, scripted, tmp_path):
    with pytest.raises(ConfigError, match=r"5 examples of its validation split.*few_shot=0"):
        _plan(suite("mmlu_pro"), tmp_path, scripted)
    report = evaluate(
        Reasoning(suite("mmlu_pro", few_shot=0)), scripted(lambda _: "The answer is (B)."), tmp_path / "out"
    )
    assert any("Prompts hold 0 examples, and not 5" in finding for finding in report.findings)
    assert {each.group for each in report.estimates if each.metric == CORRECT} == {"all", "law", "math"}
    assert all(each.value == 1.0 for each in report.estimates if each.metric == CORRECT)


def test_examples_from_a_file_stand_in_the_prompt_as_text_or_as_turns(suite, scripted, tmp_path, data):
    row = {"question": "Shown?", "options": ["x", "y"], "answer": "A", "answer_index": 0, "src": "s", "question_id": 9}
    shown = [{**row, "category": name, "cot_content": "A: Let's think step by step. The answer is (A)."}
             for name in ("math", "law")]  # fmt: skip
    (data / "mmlu_pro_validation.jsonl").write_text("".join(json.dumps(each) + "\n" for each in shown))
    plan = _plan(suite("mmlu_pro", few_shot=1), tmp_path / "a", scripted)
    assert [message.role for message in plan[0].prompt] == ["system", "user"]
    assert "Shown?" in plan[0].prompt[-1].content
    turns = _plan(suite("mmlu_pro", few_shot=1, few_shot_as_turns=True), tmp_path / "b", scripted)
    assert [message.role for message in turns[0].prompt] == ["system", "user", "assistant", "user"]


def test_a_persona_joins_the_system_prompt_of_the_task(suite, scripted, tmp_path):
    options = suite(
        "mmlu_pro", few_shot=0, persona=("Prefers figures.",), other_persona=("Likes rhymes.",),
        subjects=("base", "base+persona", "base+shuffled-persona"),
    )  # fmt: skip
    plain, own, other = (sample.prompt[0].content for sample in _plan(options, tmp_path, scripted)[:3])
    assert own.startswith(plain)
    assert "Prefers figures." in own
    assert "Likes rhymes." in other
    with pytest.raises(ConfigError, match="needs a persona"):
        _plan(suite("amc23", subjects=("base+persona",)), tmp_path / "x", scripted)


def test_gpqa_from_a_file_generated_and_by_likelihood(suite, scripted, tmp_path):
    def right(request):
        return f"The answer is ({re.search(r'.([A-D]). right', request.messages[-1].content)[1]})."

    report = evaluate(Reasoning(suite("gpqa_diamond")), scripted(right), tmp_path / "words")
    assert next(each.value for each in report.estimates if each.metric == CORRECT) == 1.0
    assert any("do not publish this report" in finding for finding in report.findings)
    plan = read_records(RunFolder(tmp_path / "words").plan, PlannedSample)
    assert len({sample.facts["item"]["answer"] for sample in plan}) > 1, "options are shuffled"
    weighs = scripted(lambda _: "", weigh=lambda options: tuple(-1.0 * i for i in range(len(options))))
    by_likelihood = evaluate(Reasoning(suite("gpqa_diamond_likelihood")), weighs, tmp_path / "weighed")
    firsts = sum(sample.facts["item"]["answer"] == "(A)" for sample in plan)
    assert next(e.value for e in by_likelihood.estimates if e.metric == CORRECT) == firsts / 4


def test_parts_of_a_benchmark_without_rows_are_refused_by_name_or_named_in_the_report(suite, scripted, tmp_path):
    with pytest.raises(ConfigError, match=r"4 of 12032 items.*12 of its parts have none \(mmlu_pro_bio.*partial="):
        _plan(suite("mmlu_pro", few_shot=0, partial=False), tmp_path / "refused", scripted)
    assert not (tmp_path / "refused/plan").exists()
    report = evaluate(
        Reasoning(suite("mmlu_pro", few_shot=0)), scripted(lambda _: "The answer is (B)."), tmp_path / "out"
    )
    (said,) = [finding for finding in report.findings if finding.startswith("Not all of mmlu_pro was there")]
    assert "12 of its parts have none (mmlu_pro_biology, mmlu_pro_business," in said
    assert "No comparison with published numbers." in said
    assert said in (tmp_path / "out/report.md").read_text()
    assert score_again(tmp_path / "out").findings == report.findings, "what was not there is on record"


def test_rows_that_are_missing_or_doubled_are_never_unsaid(suite, scripted, tmp_path, data):
    with pytest.raises(ConfigError, match=r"not hold all of amc23: 6 of 40 items are there\. .*--set partial=true"):
        _plan(suite("amc23", partial=False), tmp_path, scripted)
    assert len(_plan(suite("amc23", partial=False, published_items=6), tmp_path / "whole", scripted)) == 6
    report = evaluate(Reasoning(suite("amc23", published_items=5)), scripted(_sum), tmp_path / "more")
    assert any("hold 6 items, and amc23 has 5: no comparison" in finding for finding in report.findings)
    rows = (data / "amc23.jsonl").read_text().splitlines(keepends=True)
    (data / "amc23.jsonl").write_text("".join([*rows, rows[1]]))
    with pytest.raises(ConfigError, match=r"amc23\.jsonl: row 7 is row 2 again"):
        _plan(suite("amc23"), tmp_path / "doubled", scripted)


def test_outputs_of_the_whole_benchmark_may_answer_a_part_of_it(suite, scripted, tmp_path):
    lines = [{"item_id": f"amc23/{i:05d}", "output": f"\\boxed{{{2 * i}}}"} for i in range(6)]
    made = tmp_path / "made.jsonl"
    made.write_text("".join(json.dumps(line) + "\n" for line in lines))
    subjects = (f"theirs:outputs={made}",)
    report = evaluate(Reasoning(suite("amc23", subjects=subjects, limit=3)), scripted(_sum), tmp_path / "out")
    assert [each.value for each in report.scores if each.metric == CORRECT] == [1.0] * 3
    made.write_text("".join(json.dumps(line) + "\n" for line in lines[1:]))
    with pytest.raises(ConfigError, match=r"1 missing \(amc23/00000\)"):
        evaluate(Reasoning(suite("amc23", subjects=subjects)), scripted(_sum), tmp_path / "less")


@pytest.mark.parametrize("source", ["endpoint=openai/m@http://127.0.0.1:1/v1", "outputs=x.jsonl"])
def test_who_gives_no_likelihoods_is_told_so(suite, scripted, tmp_path, source):
    with pytest.raises(ConfigError, match="gives none: only models in this process do"):
        _plan(suite("gpqa_diamond_likelihood", subjects=(source,)), tmp_path, scripted)


@pytest.mark.parametrize(
    ("break_it", "error", "message"),
    [
        (lambda d: (d / "amc23.jsonl").unlink(), ConfigError, "amc23.jsonl is missing"),
        (lambda d: (d / "amc23.jsonl").write_text(""), ConfigError, "holds no row"),
        (lambda d: (d / "amc23.jsonl").write_text('{"question": 1'), RecordError, "no JSON"),
        (lambda d: (d / "amc23.jsonl").write_text("[1]\n"), RecordError, "no JSON object"),
        (lambda d: (d / "amc23.jsonl").write_bytes(b"\xff\xfe"), ConfigError, "cannot be read"),
    ],
)
def test_bad_files_are_named(  # noqa: PLR0917 - fixtures and cases
    suite, scripted, tmp_path, data, break_it, error, message
):
    break_it(data)
    with pytest.raises(error, match=message):
        _plan(suite("amc23"), tmp_path, scripted)


def test_a_metric_or_a_task_that_does_not_exist_names_those_that_do(suite, scripted, tmp_path):
    with pytest.raises(ConfigError, match=r"has no task 'nothing'.*amc23"):
        _plan(suite("amc23", task="nothing"), tmp_path, scripted)
    with pytest.raises(ConfigError, match=r"no metric acc,none.*math_verify,none"):
        evaluate(Reasoning(suite("amc23", metric="acc,none")), scripted(_sum), tmp_path / "out")


@pytest.mark.parametrize("name", ["minerva_math", "olympiadbench", "aime24", "gsm8k", "gpqa_diamond_likelihood"])
def test_a_real_model_runs_each_suite(name, suite, tmp_path, tiny_model_dir):
    options = suite(name, max_new_tokens=4, limit=2, system_prompt=None)
    models = open_assistants(parse_subjects(options.subjects), base=str(tiny_model_dir))
    try:
        report = evaluate(Reasoning(options), models, tmp_path / "out")
    finally:
        models.close()
    assert len(report.samples) == 2
    assert all(sample.failed is None for sample in report.samples)
