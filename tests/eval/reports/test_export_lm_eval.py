"""Our results in lm-eval's layout, held against its own schema, writer and readers."""

import json

import pytest
from pydantic import TypeAdapter, with_config

from rlhi_eval_harness.compare.sides import read_report
from rlhi_eval_harness.export.lm_eval_results import write_results
from rlhi_eval_harness.export.subjects import subjects_in
from rlhi_eval_harness.judge_identity import identity_of

utils = pytest.importorskip("lm_eval.utils", reason="lm-eval is not installed: nothing to hold the files against")


def _gain(user, item):
    return "judge_prose" if (user, item) == (2, 1) else float(user % 2)


GIVEN = {
    "base": {"gain": _gain, "leak": lambda user, item: 0.0},
    "mine:adapter+persona": {"gain": lambda user, item: 1.0, "leak": lambda user, item: 0.25},
}


@pytest.fixture
def folder(make_report, answered):
    failed = {"output": "", "failed": "call_failed: no such model"}
    return make_report(
        "report",
        GIVEN,
        users=6,
        answer=lambda sample: answered(sample).model_copy(update=failed if sample.sample_id == "user-0/0/base" else {}),
    )


@pytest.fixture
def written(folder, tmp_path):
    """Folder of the subject ``base``."""
    (path, _) = write_results(subjects_in(folder, read_report(folder)), tmp_path)
    return path.parent


def _lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_lm_eval_finds_and_names_the_files(written):
    assert written.name == "base"
    names = [str(path) for path in written.iterdir()]
    (results,) = utils.get_results_filenames(names)
    (samples,) = utils.get_sample_results_filenames(names)
    name = samples.rpartition("/")[2]
    assert utils.get_file_task_name(name) == "given"
    assert utils.get_file_datetime(name) == utils.get_file_datetime(results).removesuffix(".json")
    assert (written.parent / utils.sanitize_model_name("mine:adapter+persona")).is_dir()


def test_results_keep_to_lm_evals_schema(written):
    schema = pytest.importorskip("lm_eval.result_schema")
    results = json.loads(next(written.glob("results_*")).read_text())
    known = {key: results[key] for key in results if key != "rlhi"}
    assert set(known) <= set(schema.EvalResults.__annotations__)
    assert set(schema.EvalResults.__annotations__) - set(known) <= {
        *("groups", "samples", "git_hash", "pretty_env_info", "lm_eval_version", "upper_git_hash"),
        *("tokenizer_pad_token", "tokenizer_eos_token", "tokenizer_bos_token", "eot_token_id", "max_length"),
        "total_evaluation_time_seconds",
    }
    sample = TypeAdapter(with_config({"extra": "allow"})(schema.SampleResult))
    rows = _lines(next(written.glob("samples_*")))
    assert len(rows) == 24
    for row in rows:
        sample.validate_python(row)
        assert all(isinstance(row[metric], float) for metric in row["metrics"])


def test_its_table_prints_our_numbers(written, folder, read):
    results = json.loads(next(written.glob("results_*")).read_text())
    (whole,) = [
        each for each in read(folder).estimates if (each.metric, each.subject, each.group) == ("gain", "base", "all")
    ]
    assert results["results"]["given"]["gain,none"] == whole.value
    table = utils.make_table(results)
    rows = [[cell.strip() for cell in line.split("|")] for line in table.splitlines()]
    gain = next(row for row in rows if "gain" in row)
    assert f"{whole.value:.4f}" in gain
    assert any(row[1] == "- given_initial" for row in rows)
    assert any("↓" in row and "leak" in row for row in rows)


def test_its_own_writer_writes_the_same(written, tmp_path):
    """lm-eval's tracker, given our content, adds nothing but its clock and its name of the model."""
    loggers = pytest.importorskip("lm_eval.loggers")
    results = json.loads(next(written.glob("results_*")).read_text())
    rows = _lines(next(written.glob("samples_*")))
    raw = [{**row, "arguments": [tuple(row["arguments"]["gen_args_0"].values())]} for row in rows]
    tracker = loggers.EvaluationTracker(output_path=str(tmp_path / "theirs"))
    tracker.general_config_tracker.log_experiment_args(
        "rlhi", {"model": "base"}, system_instruction=None, chat_template=None, fewshot_as_multiturn=False
    )
    tracker.save_results_aggregated(results=dict(results), samples={"given": raw})
    tracker.save_results_samples("given", raw)
    (theirs,) = (tmp_path / "theirs/base").glob("results_*")
    found = json.loads(theirs.read_text())
    clock = {"start_time", "end_time", "total_evaluation_time_seconds", "fewshot_as_multiturn"}
    assert {k: v for k, v in found.items() if k not in clock} == {k: v for k, v in results.items() if k not in clock}
    assert _lines(next((tmp_path / "theirs/base").glob("samples_*"))) == rows


def test_what_is_unscored_or_failed_is_told_beside_it(written):
    rows = {row["doc"]["item_id"]: row for row in _lines(next(written.glob("samples_*")))}
    details = {row["item_id"]: row for row in _lines(next(written.glob("details_*")))}
    assert "gain" not in rows["user-2/1"]["metrics"]
    assert "gain" not in rows["user-2/1"]
    assert details["user-2/1"]["unscored"] == {"gain": "judge_prose"}
    assert details["user-0/0"]["failed"] == "call_failed: no such model"
    assert details["user-3/0"]["latency_s"] == 0.5
    results = json.loads(next(written.glob("results_*")).read_text())
    assert results["rlhi"]["unscored"]["gain"] == {"judge_prose": 1}
    assert results["rlhi"]["unscored"]["words"] == {"call_failed": 1}
    assert results["n-samples"]["given"] == {"original": 24, "effective": 24}


def test_who_judged_goes_along(folder, tmp_path):
    judge = identity_of("openai/gpt-4o", ["gpt-4o-2024-08-06"] * 3 + ["gpt-4o-2024-11-20"])
    report = read_report(folder)
    for name in ("plain", "judged"):
        (tmp_path / name).mkdir()
    (plain, _) = write_results(subjects_in(folder, report), tmp_path / "plain")
    assert "judges" not in json.loads(plain.read_text())["rlhi"]
    judged = report.model_copy(update={"judges": (judge,)})
    (path, _) = write_results(subjects_in(folder, judged), tmp_path / "judged")
    (told,) = json.loads(path.read_text())["rlhi"]["judges"]
    assert (told["judge"], told["pin"]["kind"]) == ("openai/gpt-4o", "alias")
    assert told["answered_by"] == {"gpt-4o-2024-08-06": 3, "gpt-4o-2024-11-20": 1}
