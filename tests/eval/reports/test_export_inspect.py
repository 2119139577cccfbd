"""Our ``.eval`` logs, read by Inspect's own reader."""

import math
import zipfile

import pytest
from typer.testing import CliRunner

from rlhi_eval_harness import cli
from rlhi_eval_harness.compare.sides import read_report
from rlhi_eval_harness.export.inspect_log import write_logs
from rlhi_eval_harness.export.subjects import standard_error, subjects_in
from rlhi_eval_harness.judge_identity import identity_of
from rlhi_eval_harness.statistics import Value
from rlhi_plugin.errors import ConfigError

RUN = CliRunner()


def _gain(user, item):
    return "judge_prose" if (user, item) == (2, 1) else float(user % 2)


GIVEN = {
    "base": {"gain": _gain, "leak": lambda user, item: 0.0},
    "adapter+persona": {"gain": lambda user, item: 1.0, "leak": lambda user, item: 0.25},
}


@pytest.fixture
def folder(make_report, answered):
    """Two subjects; one answer failed, one never came, one was cut."""

    def answer(sample):
        output = answered(sample)
        match sample.sample_id:
            case "user-0/0/base":
                return output.model_copy(update={"output": "", "failed": "call_failed: no such model"})
            case "user-1/0/base":
                return None
            case "user-3/1/base":
                return output.model_copy(update={"finish_reason": "length", "cost_usd": 0.25, "latency_s": 2.5})
            case _:
                return output

    return make_report("report", GIVEN, users=6, answer=answer)


@pytest.fixture
def inspect_log():
    return pytest.importorskip("inspect_ai.log", reason="inspect-ai is not installed: nothing reads the logs back")


@pytest.fixture
def logs(folder, tmp_path):
    """By subject, the file of its log."""
    (tmp_path / "logs").mkdir()
    subjects = subjects_in(folder, read_report(folder))
    paths = write_logs(subjects, tmp_path / "logs")
    return {subject.name: str(path) for subject, path in zip(subjects, paths, strict=True)}


def test_the_header_says_what_was_evaluated_and_what_came_of_it(logs, inspect_log, folder, read):
    report = read(folder)
    log = inspect_log.read_eval_log(logs["base"], header_only=True)
    assert log.samples is None
    assert (log.version, log.status) == (2, "success")
    assert (log.eval.task, log.eval.model) == ("given", "rlhi/base")
    assert log.eval.model_args["base_digest"] == "0" * 8
    assert log.eval.created == report.created_at.isoformat(timespec="microseconds")
    assert log.eval.task_args["resamples"] == 100
    assert (log.eval.dataset.samples, len(log.eval.dataset.sample_ids)) == (24, 24)
    assert log.eval.packages["scipy"]
    assert (log.results.total_samples, log.results.completed_samples) == (24, 22)
    assert log.results.headline.scorer == "gain"
    assert [score.name for score in log.results.scores] == [metric.name for metric in report.metrics]
    gain = log.results.scores[0]
    (whole,) = [e for e in report.estimates if (e.metric, e.subject, e.group) == ("gain", "base", "all")]
    assert (gain.scored_samples, gain.unscored_samples) == (whole.n, whole.unscored) == (23, 1)
    assert gain.metrics["mean"].value == whole.value
    assert (gain.metrics["ci_low"].value, gain.metrics["ci_high"].value) == (whole.low, whole.high)
    assert gain.metrics["mean (initial)"].group == "initial"
    usage = log.stats.model_usage["rlhi/base"]
    assert (usage.input_tokens, usage.output_tokens, usage.total_tokens, usage.total_cost) == (253, 115, 368, 0.25)


def test_who_judged_goes_along(folder, inspect_log, logs, tmp_path):
    assert "judges" not in inspect_log.read_eval_log(logs["base"], header_only=True).eval.metadata
    judge = identity_of("openai/gpt-4o", ["gpt-4o-2024-08-06"] * 3 + ["gpt-4o-2024-11-20"])
    report = read_report(folder).model_copy(update={"judges": (judge,)})
    (tmp_path / "judged").mkdir()
    for path in write_logs(subjects_in(folder, report), tmp_path / "judged"):
        (told,) = inspect_log.read_eval_log(str(path), header_only=True).eval.metadata["judges"]
        assert (told["judge"], told["pin"]["kind"]) == ("openai/gpt-4o", "alias")
        assert told["answered_by"] == {"gpt-4o-2024-08-06": 3, "gpt-4o-2024-11-20": 1}


def test_every_sample_reads_back(logs, inspect_log, folder, read):
    report = read(folder)
    for subject, path in logs.items():
        log = inspect_log.read_eval_log(path)
        assert len(log.samples) == 24
        mine = {each.sample_id.removesuffix(f"/{subject}"): each for each in report.samples if each.subject == subject}
        scores = {(s.sample_id, s.metric): s for s in report.scores}
        for sample in log.samples:
            stored = mine.get(sample.id)
            for metric, score in sample.scores.items():
                ours = scores[f"{sample.id}/{subject}", metric]
                assert math.isnan(score.value) if ours.value is None else score.value == ours.value
                assert score.reason == ours.unscored
            if stored is None or stored.failed:
                assert sample.error.message.startswith("call_failed" if stored else "no_output")
                assert sample.output.completion == ""
                continue
            assert sample.error is None
            assert sample.output.completion == stored.output
            assert [message.text for message in sample.messages] == [*(m.content for m in stored.prompt), stored.output]
            assert [message.role for message in sample.input] == ["system", "user"]
            assert sample.total_time == sample.output.time == stored.latency_s
            assert sample.model_usage[f"rlhi/{subject}"].input_tokens == stored.prompt_tokens
            assert sample.output.usage.output_tokens == stored.completion_tokens
            assert sample.metadata["user"] == stored.user


def test_one_sample_and_the_summaries_are_read_alone(logs, inspect_log):
    cut = inspect_log.read_eval_log_sample(logs["base"], "user-3/1", 1)
    assert (cut.output.stop_reason, cut.output.time) == ("max_tokens", 2.5)
    assert cut.model_usage["rlhi/base"].total_cost == 0.25
    assert inspect_log.read_eval_log_sample(logs["base"], uuid=cut.uuid).id == "user-3/1"
    never = inspect_log.read_eval_log_sample(logs["base"], "user-1/0", 1)
    assert never.error.message.startswith("no_output")
    assert never.input[-1].text == "question 1.0", "the plan beside the report knows the prompt"
    with pytest.raises(IndexError):
        inspect_log.read_eval_log_sample(logs["base"], "user-9/9", 1)
    summaries = inspect_log.read_eval_log_sample_summaries(logs["base"])
    assert len(summaries) == 24
    assert sum(each.error is not None for each in summaries) == 2
    assert all(each.completed for each in summaries)
    assert [each.scores["gain"].reason for each in summaries].count("judge_prose") == 1


def test_logs_are_listed_and_written_again_by_inspect(logs, inspect_log, tmp_path):
    listed = inspect_log.list_eval_logs(str(tmp_path / "logs"))
    assert {each.task for each in listed} == {"given-base", "given-adapter+persona"}
    log = inspect_log.read_eval_log(logs["base"])
    inspect_log.write_eval_log(log, str(tmp_path / "again.eval"))
    again = inspect_log.read_eval_log(str(tmp_path / "again.eval"))
    assert [each.id for each in again.samples] == [each.id for each in log.samples]
    assert again.results == log.results


def test_a_report_alone_is_enough_but_for_prompts_of_what_has_no_answer(folder, inspect_log, tmp_path):
    alone = tmp_path / "alone.json"
    alone.write_bytes((folder / "report.json").read_bytes())
    (tmp_path / "logs").mkdir()
    subjects = subjects_in(alone, read_report(alone), ["base"])
    (path,) = write_logs(subjects, tmp_path / "logs")
    log = inspect_log.read_eval_log(str(path))
    assert len(log.samples) == 24
    assert inspect_log.read_eval_log_sample(str(path), "user-1/0", 1).input == "user-1/0"


def test_the_same_report_gives_the_same_log(logs, folder, tmp_path):
    (tmp_path / "twice").mkdir()
    again = write_logs(subjects_in(folder, read_report(folder)), tmp_path / "twice")
    for path, first in zip(again, logs.values(), strict=True):
        with zipfile.ZipFile(path) as one, zipfile.ZipFile(first) as other:
            assert [(info.filename, info.CRC) for info in one.infolist()] == [
                (info.filename, info.CRC) for info in other.infolist()
            ]
    assert not list((tmp_path / "twice").glob("*.partial"))


def test_nobody_answered_is_an_error(make_report, inspect_log, tmp_path):
    folder = make_report("none", {"base": GIVEN["base"]}, users=2, answer=lambda sample: None)
    (path,) = write_logs(subjects_in(folder, read_report(folder)), tmp_path)
    log = inspect_log.read_eval_log(str(path))
    assert (log.status, log.error.message) == ("error", "no sample was answered")
    assert math.isnan(next(score for score in log.results.scores if score.name == "words").metrics["mean"].value)


def test_standard_errors_are_over_users():
    values = [Value(f"u{u}", f"{u}/{i}", float(u % 2)) for u in range(4) for i in range(5)]
    # Four independent values of 0, 1, 0, 1, however often each is repeated.
    assert standard_error(values) == pytest.approx(0.57735 / 2, abs=1e-5)
    assert standard_error(values[:5]) is None
    assert standard_error([*values, Value("u9", "x", None)]) == standard_error(values)


def test_the_command(folder, tmp_path):
    words = ["export", str(folder), "--to", "inspect", "--out", str(tmp_path / "new/logs")]
    shown = RUN.invoke(cli.app, words, catch_exceptions=False)
    assert shown.exit_code == 0
    assert len(list((tmp_path / "new/logs").iterdir())) == 2
    assert RUN.invoke(cli.app, [*words, "--to", "csv"]).exit_code == 2
    with pytest.raises(ConfigError, match="no subject nobody"):
        RUN.invoke(cli.app, [*words, "--subject", "nobody"], catch_exceptions=False)
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot write to"):
        RUN.invoke(cli.app, [*words[:-1], str(tmp_path / "file/x")], catch_exceptions=False)
