"""The report of every suite, of a study with people, and a comparison, in a real browser at two widths.

Models and judges are scripted, everything between them and the page is real. With ``RLHI_SCREENSHOTS=FOLDER`` the
screenshots are kept.
"""

from __future__ import annotations

import json
import math
import os
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from arena_hard_files import write_arena_hard, write_rows
from typer.testing import CliRunner

from rlhi_eval_harness import cli
from rlhi_eval_harness.alpaca.kind import AlpacaEval, AlpacaEvalOptions
from rlhi_eval_harness.arena_hard.kind import ArenaHard, ArenaHardOptions
from rlhi_eval_harness.evaluate import answer_suite, evaluate, read_stored, score_again
from rlhi_eval_harness.human.desk import Desk
from rlhi_eval_harness.human.planning import VERDICTS, Wishes, open_study, pairs_of, study_folder
from rlhi_eval_harness.human.verdict_file import VerdictFile
from rlhi_eval_harness.prefeval.kind import PrefEval, PrefEvalOptions
from rlhi_eval_harness.reasoning.kind import Reasoning
from rlhi_eval_harness.run_folder import RunFolder
from rlhi_eval_harness.suites import load_suite
from rlhi_eval_harness.suites.kinds import open_kind
from rlhi_eval_harness.usereval import build as build_module
from rlhi_eval_harness.usereval.build import BuildRequest, build
from rlhi_plugin.calls.openai_client import OpenAIChatClient
from rlhi_plugin.chat import ScriptedClient
from rlhi_plugin.fake_provider import Answer, FakeProvider
from rlhi_plugin.logs import write_conversations
from rlhi_plugin.records import Conversation, Message

pytestmark = [pytest.mark.browser, pytest.mark.slow]

USUAL = {"h-findings", "h-ranking", "h-cost", "h-samples", "h-method"}
HEALTH = {"h-health"}
THREE = ("base", "base+persona", "adapter+persona")
CUT_OFF = """() => [...document.querySelectorAll("figure svg")].flatMap((svg) => {
  const whole = svg.getBoundingClientRect();
  return [...svg.querySelectorAll("text")]
    .filter((text) => {
      const box = text.getBoundingClientRect();
      return box.left < whole.left - 2 || box.right > whole.right + 2 || box.top < whole.top - 2 ||
        box.bottom > whole.bottom + 2;
    })
    .map((text) => text.textContent);
})"""
"""Words of a plot that do not stand wholly inside it."""


SEEN_AT_ONCE = """() => [...document.querySelectorAll("table.items")].every((table) => {
  const box = table.parentElement;
  return box.scrollWidth <= box.clientWidth + 1;
})"""
"""Whether the tables of outcomes item by item, whose last columns decide, need no scrolling."""


class Answering:
    """The base says little, an adapter more; options are weighed by their length, the adapter's the other way round."""

    identity = {"base": "scripted", "base_digest": "0"}  # noqa: RUF012 - a plain stand-in

    def __init__(self, base=lambda _: "It depends.", adapted=lambda _: "A brilliant answer, short."):
        self._clients = {"base": ScriptedClient(base, model="base")}
        self._adapted = ScriptedClient(adapted, model="adapted")

    def client(self, source):
        return self._clients.get(source, self._adapted)

    def weigh(self, source, prompts):
        sign = -1.0 if source == "base" else 1.0
        return [tuple(sign * len(option) - 40 for option in options) for _, options in prompts]


def _talk(user, day, *texts):
    start = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=day)
    messages = tuple(
        Message(
            id=f"m{i}", role="assistant" if i % 2 else "user", content=text, created_at=start + timedelta(minutes=i)
        )
        for i, text in enumerate(texts)
    )
    return Conversation(conversation_id=f"{user}-{day}", user_id=user, messages=messages)


def _compares(request):
    """Prefers the brilliant answer in most cases, and finds that its user need not ask again."""
    shown = json.loads(request.messages[-1].content)
    if "new_answer" in shown:
        return json.dumps({"asks_again": "no" if "brilliant" in shown["new_answer"] else "yes"})
    better = "A" if "brilliant" in shown["answer_A"] else "B" if "brilliant" in shown["answer_B"] else "tie"
    return json.dumps({"overall": better, "personalization": better, "instruction_following": "tie"})


def usereval(tmp_path, labeller):
    talks = []
    for number in range(8):
        user, wish = f"user-{number}", f"Please keep it shorter, {number} times."
        talks += [_talk(user, day, "How do plants grow?", "They do.", wish, "Better.") for day in (1, 2)]
        talks += [_talk(user, day, f"{user} asks {day}?", "logged", "No, shorter please.", "ok") for day in (3, 4)]
    write_conversations(tmp_path / "log.jsonl", talks)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build_module, "load_labeller", lambda name, llm=None: labeller)
        build(BuildRequest(log=tmp_path / "log.jsonl", out=tmp_path / "suite"))
    subjects = json.dumps(["logged", "base", "base+persona", "adapter+persona"])
    suite = load_suite(str(tmp_path / "suite"), overrides=["resamples=100", f"subjects={subjects}"], environ={})
    judges = [ScriptedClient(_compares, model="first-judge"), ScriptedClient(_compares, model="second-judge")]
    evaluate(open_kind(suite), Answering(), tmp_path / "out", judges=judges)
    return {*USUAL, *HEALTH, "h-groups", "h-judges"}


def human(tmp_path, labeller):
    sections = usereval(tmp_path, labeller)
    folder = RunFolder(tmp_path / "out")
    stored = read_stored(folder)
    kind = open_kind(load_suite(str(tmp_path / "suite"), environ={}))
    study = open_study(folder, "main", kind, stored, Wishes(("logged", "adapter+persona"), check_every=0))
    file = VerdictFile(study_folder(folder, "main") / VERDICTS)
    desk = Desk(study, pairs_of(stored, study.subject, study.versus)[0], file)
    for rater in ("ann", "ben"):
        for place in range(len(study.items)):
            view = desk.view(rater)
            side = "tie" if place % 5 == 0 else "left" if "brilliant" in view.left else "right"
            desk.judge(rater, view.token, dict.fromkeys(study.dimensions, side))
    file.close()
    score_again(folder.path)
    return {*sections, "h-people-1"}


def prefeval(tmp_path, labeller):
    del labeller
    for topic in ("food", "travel"):
        rows = [
            {
                "preference": f"I avoid {topic} {i}.", "question": f"Which {topic} would you take, {i}?",
                "classification_task_options": ["a" * (9 + i), "short", "middling", "the longest " * (1 + i % 2)],
                "explanation": "",
            }
            for i in range(6)
        ]  # fmt: skip
        (tmp_path / "data/mcq_options").mkdir(parents=True, exist_ok=True)
        (tmp_path / f"data/mcq_options/{topic}.json").write_text(json.dumps(rows))
    write_conversations(tmp_path / "log.jsonl", [_talk(f"u{i}", i, "one", "two", "three", "four") for i in range(20)])
    options = PrefEvalOptions(
        name="prefeval", summary="PrefEval", data=str(tmp_path / "data"), distractors=str(tmp_path / "log.jsonl"),
        distances=(2, 10, 30), subjects=THREE, partial=True, resamples=100,
    )  # fmt: skip
    evaluate(PrefEval(options), Answering(), tmp_path / "out")
    return {*USUAL, "h-groups"}


def _prefers_brilliance(request):
    """AlpacaEval's judge: one token, nine to one for the brilliant output."""
    text = request.last_user_text
    ours, base = text.find("brilliant"), text.index("base text")
    said, other = ("m", "M") if (ours < base) == (ours >= 0) else ("M", "m")
    return Answer(said, top_logprobs=((said, math.log(0.9)), (other, math.log(0.1))), finish_reason="length")


def alpaca_eval(tmp_path, labeller):
    del labeller
    rows = [
        {"instruction": f"Explain thing {i}.", "dataset": f"part {i % 2}", "output_gpt4_1106_preview": f"base text {i}"}
        for i in range(24)
    ]
    write_rows(tmp_path / "data/eval_set_805.jsonl", rows)
    hardness = "".join(f"{i},{i / 24}\n" for i in range(24))
    (tmp_path / "data/instruction_difficulty.csv").write_text(f"index,instruction_difficulty\n{hardness}")
    options = AlpacaEvalOptions(
        name="alpaca_eval", summary="AlpacaEval 2.0", data=str(tmp_path / "data"), partial=True, resamples=100,
        subjects=("base", "adapter"),
    )  # fmt: skip
    with FakeProvider(_prefers_brilliance) as provider, pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPENAI_API_KEY", "any")
        judge = OpenAIChatClient("gpt-4-1106-preview", base_url=provider.base_url)
        evaluate(AlpacaEval(options), Answering(), tmp_path / "out", judges=[judge])
    return {*USUAL, *HEALTH, "h-groups", "h-judges", "h-table-1"}


def _labels(request):
    text = request.messages[-1].content
    if "Question 9?" in text:
        return "Both are fine, I would say."
    ours = text.find("brilliant")
    if ours < 0:
        return "So: [[A=B]]"
    return "So: [[A>>B]]" if ours < text.index("base text") else "So: [[B>A]]"


def arena_hard(tmp_path, labeller):
    del labeller
    write_arena_hard(tmp_path / "data")
    options = ArenaHardOptions(
        name="arena_hard_v2", summary="Arena-Hard v2.0", data=str(tmp_path / "data"), partial=True, resamples=100,
        subjects=("base", "adapter"),
    )  # fmt: skip
    judge = ScriptedClient(_labels, model="a-judge")
    evaluate(ArenaHard(options), Answering(), tmp_path / "out", judges=[judge])
    return {*USUAL, *HEALTH, "h-groups", "h-judges", "h-table-1", "h-table-2"}


def reasoning(tmp_path, labeller):
    del labeller
    subjects = ("biology", "business", "chemistry", "computer science", "economics", "law", "math")
    rows = [
        {
            "question_id": i, "question": f"Which is right, {i}?", "options": ["one", "two", "three"], "answer": "B",
            "answer_index": 1, "category": subjects[i % 7], "src": "s", "cot_content": "",
        }
        for i in range(28)
    ]  # fmt: skip
    write_rows(tmp_path / "data/mmlu_pro.jsonl", rows)
    chosen = {"data": tmp_path / "data", "items_file": "mmlu_pro.jsonl", "subjects": json.dumps(["base", "adapter"])}
    settings = {**chosen, "few_shot": 0, "partial": "true", "resamples": 100}
    suite = load_suite("mmlu_pro", overrides=[f"{name}={value}" for name, value in settings.items()], environ={})

    def said(request):
        number = int(re.search(r"right, (\d+)", request.messages[-1].content)[1])
        return "I cannot tell." if number == 3 else f"The answer is ({'B' if number % 4 else 'A'})."

    # Its checks have time limits that work in the main thread only: the test scores.
    answer_suite(Reasoning(suite), Answering(base=lambda _: "The answer is (C).", adapted=said), tmp_path / "out")
    return {*USUAL, *HEALTH, "h-groups", "h-table-1", "h-table-2"}


def _shot(page, name, tmp_path):
    file = Path(os.environ.get("RLHI_SCREENSHOTS", tmp_path)) / f"{name}.png"
    page.screenshot(path=file, full_page=True)
    return file


@pytest.mark.parametrize("suite", [usereval, human, prefeval, alpaca_eval, arena_hard, reasoning])
def test_the_report_of_a_suite_opens_offline_and_shows_all_it_has(  # noqa: PLR0917 - fixtures and cases
    suite, opened, fits, apart, labeller, tmp_path
):
    sections = apart(lambda: suite(tmp_path, labeller))
    if suite is reasoning:
        score_again(tmp_path / "out")
    html = (tmp_path / "out/report.html").read_text()
    report = json.loads((tmp_path / "out/report.json").read_text())
    for width in ("desktop", "phone"):
        page = opened(html, width)
        assert {each.get_attribute("id") for each in page.query_selector_all("main section > h2")} == sections
        assert fits(page)
        if width == "desktop":
            assert page.evaluate(SEEN_AT_ONCE)
        assert page.evaluate(CUT_OFF) == []
        assert not re.search(r"\b(nan|None|undefined|null)\b", page.inner_text("main").partition("Side by side")[0])
        assert page.inner_text("h1") == report["findings"][0]
        assert _shot(page, f"{suite.__name__}-{width}", tmp_path).stat().st_size > 20_000
    items = len({sample["sample_id"].rpartition("/")[0] for sample in report["samples"]})
    assert page.inner_text("#f-count") == f"{items} of {items} prompts"
    subjects = {sample["subject"] for sample in report["samples"]}
    heads = page.locator("#h-ranking ~ .scroll").first.locator("tbody th").all_inner_texts()
    assert {head.split("\n")[0] for head in heads} == subjects
    card = page.locator("article.sample").first
    assert card.locator(".answer").count() == len(subjects)
    page.select_option("#f-diff", "base")
    assert page.locator(".answer ins").count() > 0 or suite is prefeval, "differences are marked"
    asked = report["config"]["answering"]
    assert all(taken["prompts"] == taken["answered"] == items for taken in asked.values())


def test_a_comparison_opens_offline(make_report, opened, fits, tmp_path):
    def gain(share):
        return {"gain": lambda user, item: float((7 * user + item) % 10 < 10 * share), "leak": lambda user, item: 0.0}

    before = make_report("before", {"base": gain(0.9), "base+persona": gain(0.2)}, users=24)
    after = make_report("after", {"base": gain(0.2), "base+persona": gain(0.9)}, users=24)
    words = ["compare", str(before), str(after), "--by-group", "--margin", "0.02", "--html", str(tmp_path / "c.html")]
    assert CliRunner().invoke(cli.app, words, catch_exceptions=False).exit_code == 0
    for width in ("desktop", "phone"):
        page = opened((tmp_path / "c.html").read_text(), width)
        assert page.inner_text("h1").startswith("3 regressions; the first is gain of base.")
        assert fits(page)
        assert page.evaluate(CUT_OFF) == []
        assert page.locator("tr.bad").count() == page.locator("tr.good").count() == 3
        assert page.locator("table.items tbody tr").count() == 6, "what did not change is left out"
        assert page.locator("tr.bad td:last-child").first.inner_text() == "regression"
        _shot(page, f"compare-{width}", tmp_path)
