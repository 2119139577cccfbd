"""lm-eval's results: one folder a subject with ``results_TIME.json`` and ``samples_TASK_TIME.jsonl``, as 0.4.13 writes.

The layout is that of ``lm_eval/result_schema.py`` and ``lm_eval/loggers/evaluation_tracker.py``. lm-eval has no
place for an unscored sample: its metric is absent there, and ``details_TASK_TIME.jsonl`` beside it says why.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rlhi_eval_harness.export.subjects import Answer, Subject, standard_error
from rlhi_eval_harness.numbers import ALL
from rlhi_eval_harness.records import Estimate
from rlhi_eval_harness.run_folder import write_text

FILTER = "none"
_BETTER = {"higher": True, "lower": False, "neither": None}


def write_results(subjects: Sequence[Subject], out: Path) -> list[Path]:
    """Write one folder a subject, named as lm-eval names a model's.

    Args:
        subjects: Of one report.
        out: Folder for them; it exists.

    Returns:
        Each subject's ``results_TIME.json``.
    """
    paths = []
    for subject in subjects:
        folder = out / _model_folder(subject.name)
        folder.mkdir(exist_ok=True)
        date = subject.report.created_at.replace(tzinfo=None).isoformat().replace(":", "-")
        task = task_name(subject.report.suite)
        rows = [_row(number, answer, subject) for number, answer in enumerate(subject.answers)]
        details = [_detail(number, answer) for number, answer in enumerate(subject.answers)]
        path = folder / f"results_{date}.json"
        write_text(path, json.dumps(_results(subject, rows), indent=2, ensure_ascii=False))
        for kind, lines in (("samples", rows), ("details", details)):
            text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
            write_text(folder / f"{kind}_{task}_{date}.jsonl", text)
        paths.append(path)
    return paths


def task_name(text: str) -> str:
    """A suite or a group as lm-eval writes the names of tasks in its files."""
    return re.sub(r"\W", "_", text)


def _model_folder(name: str) -> str:
    return re.sub(r"[\"<>:/|\\?*\[\]]+", "__", name)


def _results(subject: Subject, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    suite, config = subject.report.config["suite"], subject.report.config
    tasks = _tasks(subject)
    planned = {name: sum(_of(answer, group) for answer in subject.answers) for name, group in tasks.items()}
    whole = task_name(subject.report.suite)
    hashes = "".join(row["doc_hash"] + row["prompt_hash"] + row["target_hash"] for row in rows)
    return {
        "results": {name: _numbers(subject, name, group, planned[name]) for name, group in tasks.items()},
        "group_subtasks": {whole: [name for name in tasks if name != whole]} if len(tasks) > 1 else {whole: []},
        "configs": {
            name: {"task": name, "output_type": "generate_until", "metadata": {"suite": suite, "group": group}}
            for name, group in tasks.items()
        },
        "versions": dict.fromkeys(tasks, subject.report.schema_version),
        "n-shot": dict.fromkeys(tasks, 0),
        "higher_is_better": {
            name: {metric.name: _BETTER[metric.better] for metric in subject.metrics} for name in tasks
        },
        "n-samples": {name: {"original": count, "effective": count} for name, count in planned.items()},
        "config": {
            "model": "rlhi",
            "model_args": {"subject": subject.name, "source": subject.source, **config.get("models", {})},
            "limit": None,
            "bootstrap_iters": suite.get("resamples", 0),
            "gen_kwargs": {"temperature": suite.get("temperature"), "max_gen_toks": suite.get("max_new_tokens")},
            "random_seed": suite.get("seed", 0),
        },
        "date": subject.report.created_at.timestamp(),
        "transformers_version": config.get("versions", {}).get("transformers", "N/A"),
        "task_hashes": {whole: _digest(hashes)},
        "model_source": "rlhi",
        "model_name": subject.name,
        "model_name_sanitized": _model_folder(subject.name),
        "system_instruction": suite.get("system_prompt"),
        "system_instruction_sha": _digest(suite["system_prompt"]) if suite.get("system_prompt") else None,
        "fewshot_as_multiturn": None,
        "chat_template": None,
        "chat_template_sha": None,
        "rlhi": {
            **subject.settings,
            "findings": list(subject.report.findings),
            "estimates": [each.model_dump(mode="json") for m in subject.metrics for each in subject.estimates(m.name)],
            "unscored": _unscored(subject),
        },
    }


def _tasks(subject: Subject) -> dict[str, str]:
    """Task name to group: the whole suite, and each group of samples where there are several."""
    groups = sorted({answer.group for answer in subject.answers})
    suite = subject.report.suite
    apart = {task_name(f"{suite}_{group}"): group for group in groups} if len(groups) > 1 else {}
    return {task_name(suite): ALL, **apart}


def _of(answer: Answer, group: str) -> bool:
    return group in {ALL, answer.group}


def _numbers(subject: Subject, name: str, group: str, planned: int) -> dict[str, Any]:
    """A task's metrics; one without a value is left out, and told under ``rlhi``."""
    found: dict[str, Any] = {"name": name, "alias": name, "sample_len": planned}
    for metric in subject.metrics:
        each = next((e for e in subject.estimates(metric.name) if e.group == group), None)
        values = subject.values(metric.name, group)
        mean = each.value if isinstance(each, Estimate) else _mean([v.value for v in values if v.value is not None])
        if mean is not None:
            error = standard_error(values)
            found[f"{metric.name},{FILTER}"] = mean
            found[f"{metric.name}_stderr,{FILTER}"] = "N/A" if error is None else error
    return found


def _mean(values: Sequence[float]) -> float | None:
    """Of a group that the suite does not report apart for this metric."""
    return sum(values) / len(values) if values else None


def _row(number: int, answer: Answer, subject: Subject) -> dict[str, Any]:
    """One ``SampleResult``."""
    doc = {"item_id": answer.item, "user": answer.user, "group": answer.group, "request": answer.request}
    prompt = json.dumps([message.model_dump() for message in answer.prompt], ensure_ascii=False)
    suite = subject.report.config["suite"]
    settings = {
        "temperature": answer.planned.temperature if answer.planned else suite.get("temperature"),
        "max_gen_toks": answer.planned.max_tokens if answer.planned else suite.get("max_new_tokens"),
    }
    text = answer.sample.output if answer.sample is not None and answer.failed is None else ""
    scored = {name: score.value for name, score in answer.scores.items() if score.value is not None}
    return {
        "doc_id": number,
        "doc": doc,
        "target": "",
        "arguments": {"gen_args_0": {"arg_0": prompt, "arg_1": settings}},
        "resps": [[text]],
        "filtered_resps": [text],
        "filter": FILTER,
        "metrics": list(scored),
        "doc_hash": _digest(json.dumps(doc, indent=2, ensure_ascii=False)),
        "prompt_hash": _digest(prompt),
        "target_hash": _digest(""),
        **scored,
    }


def _detail(number: int, answer: Answer) -> dict[str, Any]:
    """What lm-eval has no place for."""
    sample = answer.sample
    return {
        "doc_id": number,
        "item_id": answer.item,
        "failed": answer.failed,
        "unscored": {name: score.unscored for name, score in answer.scores.items() if score.unscored is not None},
        "finish_reason": None if sample is None else sample.finish_reason,
        "latency_s": None if sample is None else sample.latency_s,
        "prompt_tokens": 0 if sample is None else sample.prompt_tokens,
        "completion_tokens": 0 if sample is None else sample.completion_tokens,
        "cost_usd": None if sample is None else sample.cost_usd,
    }


def _unscored(subject: Subject) -> dict[str, dict[str, int]]:
    """Reasons by metric, where there are any."""
    found: dict[str, Counter[str]] = {}
    for answer in subject.answers:
        for name, score in answer.scores.items():
            if score.unscored is not None:
                found.setdefault(name, Counter())[score.unscored] += 1
    return {name: dict(reasons) for name, reasons in found.items()}


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
