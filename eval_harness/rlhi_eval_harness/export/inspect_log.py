"""Inspect's ``.eval`` logs: one file a subject, a zip of JSON, as inspect_ai 0.3.285 reads it (schema 2).

Written by ourselves: inspect_ai pins libraries elsewhere than this environment's, and a log needs none of its code. The
layout is that of ``inspect_ai/log/_recorders/eval.py``: ``header.json``, ``summaries.json``,
``samples/ID_epoch_1.json`` and ``_journal/start.json``. What could not be scored is NaN with a reason, which Inspect
leaves out of every mean.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rlhi_eval_harness.export.subjects import Answer, Subject, standard_error
from rlhi_eval_harness.numbers import ALL
from rlhi_eval_harness.records import Estimate, EvalSample, Metric, Score

VERSION = 2
"""Of Inspect's log schema."""
EPOCH = 1
SHOWN = 1000
"""Characters of a text in a summary: Inspect cuts there as well."""
_STOPS = {"stop": "stop", "length": "max_tokens", "refused": "content_filter"}


def write_logs(subjects: Sequence[Subject], out: Path) -> list[Path]:
    """Write one log a subject; each appears whole or not at all.

    Args:
        subjects: Of one report.
        out: Folder for them; it exists.

    Returns:
        The files, named as Inspect names them: ``TIME_SUITE-SUBJECT_ID.eval``.
    """
    paths = []
    for subject in subjects:
        created = f"{subject.report.created_at:%Y-%m-%dT%H-%M-%S+00-00}"
        task = f"{subject.report.suite}-{subject.file_name}".replace("_", "-")
        path = out / f"{created}_{task}_{subject.digest}.eval"
        partial = path.with_suffix(".partial")
        _write(subject, partial)
        partial.replace(path)
        paths.append(path)
    return paths


def _write(subject: Subject, path: Path) -> None:
    samples = {answer.item: _sample(answer, subject) for answer in subject.answers}
    spec = _spec(subject)
    plan = {"name": "plan", "steps": [], "config": {}}
    header = {
        "version": VERSION,
        "status": "success" if any(answer.failed is None for answer in subject.answers) else "error",
        "eval": spec,
        "plan": plan,
        "results": _results(subject),
        "stats": {
            "started_at": "",
            "completed_at": subject.report.created_at.isoformat(),
            "model_usage": {_model(subject): _usage([each.sample for each in subject.answers])},
        },
    }
    if header["status"] == "error":
        header["error"] = _error("no sample was answered")
    members = {
        "_journal/start.json": {"version": VERSION, "eval": spec, "plan": plan},
        **{f"samples/{item}_epoch_{EPOCH}.json": sample for item, sample in samples.items()},
        "summaries.json": [_summary(sample) for sample in samples.values()],
        "header.json": header,
    }
    with zipfile.ZipFile(path, "w", compression=zipfile.ZIP_DEFLATED) as archive:
        for name, value in members.items():
            archive.writestr(name, json.dumps(value, ensure_ascii=False))


def _model(subject: Subject) -> str:
    """Inspect's models are PROVIDER/NAME."""
    return f"rlhi/{subject.name}"


def _spec(subject: Subject) -> dict[str, Any]:
    """The header's ``EvalSpec``."""
    config = subject.report.config
    suite = config["suite"]
    return {
        "eval_id": subject.digest,
        "run_id": subject.digest,
        "created": subject.report.created_at.isoformat(),
        "task": subject.report.suite,
        "task_id": subject.digest,
        "task_version": subject.report.schema_version,
        "task_description": suite.get("summary", ""),
        "task_args": suite,
        "dataset": {
            "name": subject.report.suite,
            "samples": len(subject.answers),
            "sample_ids": [answer.item for answer in subject.answers],
            "shuffled": False,
        },
        "model": _model(subject),
        "model_generate_config": {
            key: suite[name]
            for key, name in (("temperature", "temperature"), ("max_tokens", "max_new_tokens"), ("seed", "seed"))
            if suite.get(name) is not None
        },
        "model_args": {"subject": subject.name, "source": subject.source, **config.get("models", {})},
        "config": {"epochs": EPOCH},
        "packages": config.get("versions", {}),
        "metadata": {**subject.settings, "findings": list(subject.report.findings)},
        "scorers": [
            {"name": metric.name, "metrics": [{"name": "mean"}], "metadata": metric.model_dump(mode="json")}
            for metric in subject.metrics
        ],
        "headline_metric": _headline(subject),
    }


def _headline(subject: Subject) -> dict[str, str] | None:
    return {"scorer": subject.metrics[0].name, "metric": "mean"} if subject.metrics else None


def _results(subject: Subject) -> dict[str, Any]:
    return {
        "total_samples": len(subject.answers),
        "completed_samples": sum(answer.failed is None for answer in subject.answers),
        "scores": [_score_of(subject, metric) for metric in subject.metrics],
        "headline": _headline(subject),
        "metadata": {
            "differences": [
                each.model_dump(mode="json") for each in subject.report.differences if each.subject == subject.name
            ]
        },
    }


def _score_of(subject: Subject, metric: Metric) -> dict[str, Any]:
    """One ``EvalScore``: the mean with its interval and standard error, and the same of every group."""
    estimates = subject.estimates(metric.name)
    found: dict[str, dict[str, Any]] = {}
    for each in estimates:
        # A group that the suite makes up from more than the samples' own is not told apart here.
        error = standard_error(subject.values(metric.name, each.group))
        for name, value in _numbers(each, error).items():
            key = name if each.group == ALL else f"{name} ({each.group})"
            found[key] = {"name": name, "value": value, **({} if each.group == ALL else {"group": each.group})}
    whole = next((each for each in estimates if each.group == ALL), None)
    return {
        "name": metric.name,
        "scorer": metric.name,
        "scored_samples": whole.n if whole else 0,
        "unscored_samples": whole.unscored if whole else 0,
        "metrics": found,
        "metadata": {**metric.model_dump(mode="json"), "clusters": whole.clusters if whole else 0},
    }


def _numbers(each: Estimate, error: float | None) -> dict[str, float]:
    """NaN is Inspect's sign for a mean of nothing."""
    found = {"mean": float("nan") if each.value is None else each.value}
    more = {"stderr": error, "ci_low": each.low, "ci_high": each.high}
    return {**found, **{name: value for name, value in more.items() if value is not None}}


def _sample(answer: Answer, subject: Subject) -> dict[str, Any]:
    """One ``EvalSample``."""
    sample = answer.sample
    prompt = [_message(each.role, each.content) for each in answer.prompt]
    answered = sample is not None and sample.failed is None
    said = [_message("assistant", sample.output, _model(subject))] if sample is not None and answered else []
    found: dict[str, Any] = {
        "id": answer.item,
        "epoch": EPOCH,
        "input": prompt or answer.request,
        "choices": list(answer.planned.options) if answer.planned and answer.planned.options else None,
        "target": "",
        "messages": [*prompt, *said],
        "output": _output(sample, subject) if sample is not None and answered else {"model": _model(subject)},
        "scores": {name: _score(score, sample) for name, score in answer.scores.items()},
        "metadata": {"user": answer.user, "group": answer.group, "subject": subject.name},
        "model_usage": {_model(subject): _usage([sample])} if answered else {},
        "uuid": f"{subject.digest}/{answer.item}",
    }
    if sample is not None and sample.latency_s is not None:
        found |= {"total_time": sample.latency_s, "working_time": sample.latency_s}
    if answer.failed is not None:
        found["error"] = _error(answer.failed)
    return found


def _message(role: str, content: str, model: str | None = None) -> dict[str, Any]:
    return {"role": role, "content": content, **({"source": "generate", "model": model} if model else {})}


def _output(sample: EvalSample, subject: Subject) -> dict[str, Any]:
    model = _model(subject)
    return {
        "model": model,
        "choices": [
            {
                "message": _message("assistant", sample.output, model),
                "stop_reason": _STOPS[sample.finish_reason],
            }
        ],
        "completion": sample.output,
        "usage": _usage([sample]),
        "time": sample.latency_s,
        **({"metadata": {"likelihoods": list(sample.likelihoods)}} if sample.likelihoods else {}),
    }


def _usage(samples: Sequence[EvalSample | None]) -> dict[str, Any]:
    """Inspect's ``ModelUsage`` over some samples."""
    given = [each for each in samples if each is not None]
    costs = [each.cost_usd for each in given if each.cost_usd is not None]
    read, written = (sum(getattr(each, name) for each in given) for name in ("prompt_tokens", "completion_tokens"))
    usage: dict[str, Any] = {"input_tokens": read, "output_tokens": written, "total_tokens": read + written}
    return {**usage, **({"total_cost": sum(costs)} if costs else {})}


def _score(score: Score, sample: EvalSample | None) -> dict[str, Any]:
    said = {"answer": sample.output} if sample is not None and sample.failed is None else {}
    if score.value is not None:
        return {"value": score.value, **said}
    return {"value": float("nan"), "reason": score.unscored, "explanation": f"unscored: {score.unscored}", **said}


def _error(message: str) -> dict[str, str]:
    return {"message": message, "traceback": "", "traceback_ansi": ""}


def _summary(sample: Mapping[str, Any]) -> dict[str, Any]:
    """One ``EvalSampleSummary``: what Inspect's viewer lists before a sample is opened."""
    kept = ("id", "epoch", "choices", "target", "metadata", "model_usage", "total_time", "working_time", "uuid")
    asked = sample["input"]
    last = asked if isinstance(asked, str) else asked[-1]["content"]
    scores = {
        name: {key: _short(value) for key, value in score.items()} for name, score in sample["scores"].items()
    }  # fmt: skip
    found = {key: sample[key] for key in kept if key in sample}
    found |= {"input": _short(last), "scores": scores, "completed": True, "message_count": len(sample["messages"])}
    return {**found, **({"error": sample["error"]["message"]} if "error" in sample else {})}


def _short(value: Any) -> Any:
    return f"{value[: SHOWN - 3]}..." if isinstance(value, str) and len(value) > SHOWN else value
