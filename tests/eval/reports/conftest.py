"""Evaluations with known scores: real plans, outputs and reports of a suite whose answers nobody had to make."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from rlhi_eval_harness.records import EvalReport, EvalSample, Metric, PlannedSample
from rlhi_eval_harness.report.build import build_report, run_config
from rlhi_eval_harness.run_folder import RunFolder, write_records, write_text
from rlhi_eval_harness.scoring import HEALTH_TABLE, health_scores, scored
from rlhi_eval_harness.suites.kind import Stored, SuiteKind
from rlhi_eval_harness.suites.suite import Suite
from rlhi_plugin.records import ChatMessage

GAIN = Metric(name="gain", label="Gain", meaning="What it is for.", role="headline")
HARM = Metric(name="leak", label="Leaks", meaning="What it costs.", better="lower", role="harm")

WIDTHS = {"desktop": (1280, 900), "phone": (390, 844)}

Score = Callable[[int, int], float | str]
"""User and item to a value, or to the reason why there is none."""


class Given(SuiteKind):
    """Its scores are given: `HEALTH_TABLE` from the outputs, the others from functions."""

    options = Suite

    def __init__(self, suite: Suite, given: Mapping[str, Mapping[str, Score]]) -> None:
        super().__init__(suite)
        self._given = given

    def plan(self, assistants, folder):
        raise AssertionError("the plan is written by `make_report`")

    def metrics(self, stored):
        return (GAIN, HARM, *HEALTH_TABLE)

    def score(self, stored, judgments):
        found = []
        for sample in stored.plan:
            user, item = sample.facts["place"]
            found += [
                scored(sample.sample_id, name, say(user, item)) for name, say in self._given[sample.subject].items()
            ]
            found += health_scores(sample, stored.outputs.get(sample.sample_id))
        return found


@pytest.fixture
def make_report(tmp_path):
    """Write a whole evaluation's folder, its page excepted, and return the folder."""

    def make(
        name: str,
        given: Mapping[str, Mapping[str, Score]],
        *,
        users: int = 12,
        items: int = 4,
        models: Mapping[str, str] | None = None,
        judging: list[dict] | None = None,
        change: Callable[[PlannedSample], PlannedSample | None] = lambda sample: sample,
        answer: Callable[[PlannedSample], EvalSample | None] | None = None,
        **options: object,
    ) -> Path:
        suite = Suite.model_validate(
            {"name": "given", "summary": "for tests", "subjects": list(given), "resamples": 100, **options}
        )
        plan = [
            planned
            for user in range(users)
            for item in range(items)
            for subject in given
            if (planned := change(_planned(suite, user, item, subject))) is not None
        ]
        outputs = [output for sample in plan if (output := (answer or _answered)(sample)) is not None]
        folder = RunFolder(tmp_path / name)
        folder.begin(run_config(suite, dict(models or {"base": "tiny", "base_digest": "0" * 8}), "frame"))
        write_records(folder.plan, plan)
        write_records(folder.outputs, outputs)
        stored = Stored(folder, plan, {output.sample_id: output for output in outputs})
        report = build_report(folder, Given(suite, given), stored)
        if judging is not None:
            report = report.model_copy(update={"config": {**report.config, "judging": judging}})
        write_text(folder.report_json, report.model_dump_json(indent=1))
        return folder.path

    return make


def _planned(suite: Suite, user: int, item: int, subject: str) -> PlannedSample:
    return PlannedSample(
        sample_id=f"user-{user}/{item}/{subject}",
        suite=suite.name,
        subject=subject,
        source="base",
        user=f"user-{user}",
        group="initial" if item % 2 == 0 else "follow-up",
        request=f"question {user}.{item}",
        prompt=(
            ChatMessage(role="system", content=f"persona of user-{user}"),
            ChatMessage(role="user", content=f"question {user}.{item}"),
        ),
        max_tokens=8,
        temperature=0.0,
        seed=0,
        facts={"place": (user, item)},
    )


def _answered(sample: PlannedSample) -> EvalSample:
    return EvalSample(
        sample_id=sample.sample_id,
        suite=sample.suite,
        subject=sample.subject,
        user=sample.user,
        group=sample.group,
        prompt=sample.prompt,
        output=f"an answer to {sample.request}",
        finish_reason="stop",
        latency_s=0.5,
        prompt_tokens=11,
        completion_tokens=5,
    )


@pytest.fixture
def answered():
    return _answered


@pytest.fixture
def read():
    return lambda folder: EvalReport.model_validate(json.loads((folder / "report.json").read_text()))


@pytest.fixture
def opened(browser, tmp_path):
    """Open a page's file; whatever it asks for and complains of is kept."""
    pages = []

    def open_(html: str, width: str = "desktop"):
        file = tmp_path / f"report-{len(pages)}.html"
        file.write_text(html)
        wide, high = WIDTHS[width]
        page = browser.new_page(viewport={"width": wide, "height": high})
        page.asked, page.wrong = [], []
        page.on("request", lambda request: page.asked.append(request.url))
        page.on("pageerror", lambda error: page.wrong.append(str(error)))
        page.on("console", lambda said: page.wrong.append(said.text) if said.type == "error" else None)
        page.goto(file.as_uri())
        pages.append((page, file))
        return page

    yield open_
    for page, file in pages:
        assert page.asked == [file.as_uri()], "the page asked for something outside its file"
        assert page.wrong == []
        page.close()


@pytest.fixture
def widths():
    return WIDTHS


@pytest.fixture
def apart():
    """Run something in a thread: Playwright keeps an event loop in this one, and an evaluation wants one of its own."""

    def run(work):
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(work).result()

    return run


@pytest.fixture
def fits():
    """Whether nothing makes the page itself scroll sideways; wide tables scroll in their own box."""
    return lambda page: page.evaluate(
        "document.documentElement.scrollWidth <= document.documentElement.clientWidth + 1"
    )
