"""The report in a real browser: every section, filters, search, differences, phone width, and nobody is asked."""

from __future__ import annotations

import time

import pytest

from rlhi_eval_harness.evaluate import evaluate
from rlhi_eval_harness.harm.kind import Harm, HarmOptions
from rlhi_eval_harness.records import EvalReport
from rlhi_eval_harness.report.page import render_page
from rlhi_eval_harness.suites.simulated_users import SimulatedUsers
from rlhi_plugin.chat import ScriptedClient
from rlhi_plugin.persona import ExtractivePersonaBuilder

pytestmark = [pytest.mark.browser, pytest.mark.slow]

GIVEN = {
    "base": {"gain": lambda user, item: 0.5, "leak": lambda user, item: 0.0},
    "base+persona": {"gain": lambda user, item: float(item % 2), "leak": lambda user, item: float(user % 2)},
    "adapter+persona": {"gain": lambda user, item: 1.0, "leak": lambda user, item: 0.25},
    "sft:adapter=x+persona": {"gain": lambda user, item: float(user % 3 > 0), "leak": lambda user, item: 0.0},
    "adapter+shuffled-persona": {"gain": lambda user, item: float(user % 2), "leak": lambda user, item: 0.5},
}
JUDGING = [
    {
        "judge": "a-judge", "questions": 4, "answered": 3, "unscored": {"judge_prose": 1}, "prompts": ["compare-0"],
        "prompt_tokens": 400, "completion_tokens": 40, "median_seconds": 0.4, "cost_usd": 0.0123,
        "first_position_wins": 0.5, "ties": 0.1, "order_consistency": 0.9, "agreement_with_first_judge": None,
    }
]  # fmt: skip
USUAL = {"h-findings", "h-ranking", "h-health", "h-cost", "h-samples", "h-method"}


@pytest.fixture
def report(make_report, answered, read):
    def answer(sample):
        texts = {"base": "One two three four.", "base+persona": "One two five four, and a <b>mark</b>."}
        output = answered(sample)
        if sample.sample_id == "user-0/0/base":
            return output.model_copy(update={"output": "", "failed": "call_failed: no such model"})
        return output.model_copy(update={"output": texts.get(sample.subject, f"Other words to {sample.request}.")})

    given = {**GIVEN, "sft+persona": GIVEN["sft:adapter=x+persona"]}
    del given["sft:adapter=x+persona"]
    found = read(make_report("r", given, subjects=list(GIVEN), users=12, items=4, answer=answer, judging=JUDGING))
    tables = [{"title": "A table of its own", "columns": ["a", "b"], "rows": [["x", "1"]], "note": "What it is."}]
    return found.model_copy(update={"config": {**found.config, "tables": tables}})


def _sections(page) -> set[str]:
    return {each.get_attribute("id") for each in page.query_selector_all("main section > h2")}


@pytest.mark.parametrize("width", ["desktop", "phone"])
def test_every_section_of_a_judged_report_is_there_at_any_width(  # noqa: PLR0917 - fixtures and cases
    report, opened, fits, widths, width, tmp_path
):
    page = opened(render_page(report), width)
    assert _sections(page) == {*USUAL, "h-harm", "h-groups", "h-judges", "h-table-1"}
    assert fits(page)
    assert page.locator("svg").count() >= 4
    assert page.locator("#h-judges ~ .scroll").inner_text().count("$\u00a00.0123") == 1
    captions = page.locator("caption").all()
    assert all(each.bounding_box()["width"] <= widths[width][0] for each in captions), "a caption is cut off"
    page.screenshot(path=tmp_path / f"report-{width}.png", full_page=True)
    assert (tmp_path / f"report-{width}.png").stat().st_size > 20_000


def test_controls_are_named_in_the_ranking(report, opened):
    page = opened(render_page(report))
    heads = page.locator("#h-ranking ~ .scroll").first.locator("tbody th").all_inner_texts()
    named = dict(head.split("\n") for head in heads if "\n" in head)
    assert named == {
        "base": "base, no persona",
        "base+persona": "control: persona only",
        "sft+persona": "control: SFT adapter",
        "adapter+shuffled-persona": "control: shuffled persona",
    }


def test_search_and_filters_narrow_the_samples_and_the_list_grows(report, opened):
    page = opened(render_page(report))
    assert page.inner_text("#f-count") == "48 of 48 prompts"
    assert page.locator("article.sample").count() == 12
    page.click("#more")
    assert page.locator("article.sample").count() == 24
    page.fill("#f-text", "question 3.")
    assert page.inner_text("#f-count") == "4 of 48 prompts"
    assert page.is_hidden("#more")
    page.select_option("#f-group", "initial")
    assert page.inner_text("#f-count") == "2 of 48 prompts"
    page.fill("#f-text", "nothing like this")
    assert page.inner_text("#f-count") == "0 of 48 prompts"
    page.fill("#f-text", "")
    page.select_option("#f-group", "")
    page.select_option("#f-outcome", "gained")
    assert page.inner_text("#f-count") == "24 of 48 prompts", "base+persona has 0 on even items, adapter+persona 1"
    assert page.is_hidden("#l-wants")


def test_differences_are_marked_word_by_word_and_answers_are_text(report, opened):
    page = opened(render_page(report))
    assert page.locator(".answer ins, .answer del").count() == 0
    page.select_option("#f-diff", "base")
    card = page.locator("article.sample").nth(1)
    answer = card.locator(".answer", has=page.locator("h4", has_text="base+persona")).first
    assert answer.locator("del").all_inner_texts() == ["three", "four."]
    assert "".join(answer.locator("ins").all_inner_texts()).replace(" ", "") == "fivefour,anda<b>mark</b>."
    assert answer.locator("p b").count() == 0, "what an answer holds is never markup"
    assert card.locator(".answer").first.locator("ins, del").count() == 0, "the one that is compared with is plain"
    assert "(no answer: call_failed" in page.locator("article.sample").first.inner_text()
    page.select_option("#f-diff", "")
    assert page.locator(".answer ins, .answer del").count() == 0


def test_keyboard_users_reach_the_samples(report, opened):
    page = opened(render_page(report))
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the samples"
    page.focus("#f-text")
    page.keyboard.type("question 3.1")
    assert page.inner_text("#f-count") == "1 of 48 prompts"


def test_the_report_of_simulated_users_has_its_sections(  # noqa: PLR0917 - fixtures
    tiny_suite, labeller, make_assistants, opened, fits, apart, tmp_path
):
    kind = SimulatedUsers(tiny_suite, labeller=labeller, builder=ExtractivePersonaBuilder())
    apart(lambda: evaluate(kind, make_assistants(), tmp_path / "out"))
    page = opened((tmp_path / "out/report.html").read_text(), "phone")
    assert _sections(page) == {*USUAL, "h-preferences", "h-history"}
    assert fits(page)
    wants = page.locator("#f-wants option").all_inner_texts()
    page.select_option("#f-wants", index=1)
    count = int(page.inner_text("#f-count").split()[0])
    assert 0 < count < 12
    assert all(wants[1] in each for each in page.locator("article .who").all_inner_texts())


def test_the_report_of_harm_shows_gain_against_harm(make_assistants, opened, fits, apart, tmp_path):
    suite = HarmOptions(
        name="harm", summary="s", subjects=("base", "base+persona", "adapter+persona"), max_new_tokens=32, resamples=100
    )
    judge = ScriptedClient(lambda _: '{"verdict": "refused", "quality": "tie"}', model="judge")
    apart(lambda: evaluate(Harm(suite), make_assistants(), tmp_path / "out", judges=[judge]))
    page = opened((tmp_path / "out/report.html").read_text())
    assert _sections(page) == {*USUAL, "h-harm", "h-groups", "h-judges"}
    assert fits(page)


def test_a_report_of_20_000_samples_opens(report, opened, tmp_path):
    """4,000 prompts of five subjects, a hundred words each."""
    samples, scores = [], []
    filler = " ".join(f"word{i}" for i in range(100))
    for copy in range(84):
        for sample in report.samples:
            name = f"{copy}-{sample.sample_id}"
            samples.append(sample.model_copy(update={"sample_id": name, "output": f"{sample.output} {filler}"}))
        scores += [score.model_copy(update={"sample_id": f"{copy}-{score.sample_id}"}) for score in report.scores]
    large = EvalReport.model_validate({**dict(report), "samples": tuple(samples), "scores": tuple(scores)})
    assert len(samples) >= 20_000
    started = time.perf_counter()
    html = render_page(large)
    rendered = time.perf_counter() - started
    started = time.perf_counter()
    page = opened(html)
    assert page.inner_text("#f-count") == "4032 of 4032 prompts"
    loaded = time.perf_counter() - started
    started = time.perf_counter()
    page.fill("#f-text", "question 3.1")
    assert page.inner_text("#f-count") == "84 of 4032 prompts"
    searched = time.perf_counter() - started
    print(f"{len(samples)} samples: {len(html) / 1e6:.1f} MB, rendered {rendered:.1f} s, opened {loaded:.1f} s, "
          f"searched {searched:.2f} s")  # fmt: skip
    assert loaded < 30
    assert searched < 10
