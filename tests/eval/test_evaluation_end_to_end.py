"""The whole suite with scripted models: real middleware, store, personas, scoring and report."""

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest

from rlhi_eval_harness.evaluate import evaluate as evaluate_suite
from rlhi_eval_harness.evaluate import score_again
from rlhi_eval_harness.records import EvalReport
from rlhi_eval_harness.report.page import render_page
from rlhi_eval_harness.simulation import load_phrases, population, requests_for
from rlhi_eval_harness.suites.simulated_users import SimulatedUsers, held_out_users, others
from rlhi_plugin.errors import ArtefactError, ConfigError
from rlhi_plugin.persona import ExtractivePersonaBuilder
from rlhi_plugin.persona.render import FRAME_HEAD


@pytest.fixture(scope="module")
def evaluate(tiny_suite, labeller):
    def run(assistants, out: Path, **changes) -> EvalReport:
        suite = tiny_suite.model_copy(update=changes)
        kind = SimulatedUsers(suite, labeller=labeller, builder=ExtractivePersonaBuilder())
        return evaluate_suite(kind, assistants, out)

    return run


@pytest.fixture(scope="module")
def helped(evaluate, make_assistants, tmp_path_factory):
    """A finished evaluation of an adapter that reads personas, to be read only: its folder, assistants, report."""
    out, assistants = tmp_path_factory.mktemp("helped") / "out", make_assistants()
    return out, assistants, evaluate(assistants, out)


def _difference(report: EvalReport, subject: str, versus: str, metric: str = "preference_kept"):
    (found,) = [
        each
        for each in report.differences
        if (each.metric, each.subject, each.versus, each.group) == (metric, subject, versus, "all")
    ]
    return found


def test_an_adapter_that_reads_personas_is_found_to_help(helped):
    _, _, report = helped
    assert report.findings[0].startswith("The adapter helps")
    assert any(finding.startswith("The adapter reads the persona") for finding in report.findings)
    assert _difference(report, "adapter", "base").value == 0.0
    history = report.config["history"]
    assert history["empty_personas"] == 0
    assert history["complaints"] == history["said"]["complaint"] == sum(history["follow_ups"]["complaint"].values())
    assert history["complaints_found"] == history["follow_ups"]["complaint"]["reattempt_with_feedback"] > 0
    assert 0 < history["wishes_in_persona"] <= history["wishes_complained_about"] <= history["wishes"] == 12
    assert len(report.samples) == 6 * 2 * 5


def test_what_is_scored_by_several_preferences_is_paired_preference_by_preference(helped):
    report = helped[2]
    rows = [row for row in report.config["tests"]["rows"] if row["metric"] == "preference_kept"]
    kept = {(s.sample_id, s.metric): s.value for s in report.scores if s.metric.startswith("kept.")}
    for row in rows:
        found = row["binary"]
        assert (row["test"], found["unit"]) == ("sign flips", "single preferences")
        pairs = [
            (value, kept[f"{name.removesuffix(row['subject'])}{row['versus']}", metric])
            for (name, metric), value in kept.items()
            if name.endswith(f"/{row['subject']}")
        ]
        assert found["items"] == len(pairs) == 6 * 2 * 2
        assert found["only_first"] == sum(pair == (1.0, 0.0) for pair in pairs)
        assert found["over_users"]["p_value"] == row["p_value"]


def test_an_adapter_that_does_nothing_is_found_not_to_help(evaluate, make_assistants, plain, tmp_path):
    report = evaluate(make_assistants(lambda _: plain), tmp_path / "out")
    assert report.findings[0].startswith("The adapter did not measurably help")


def test_an_adapter_that_ignores_whose_persona_it_is_fails_the_shuffled_control(evaluate, make_assistants, tmp_path):
    everything = "Hello!\n- It takes 20 minutes.\n- Use 3 cups."
    report = evaluate(make_assistants(lambda system: everything), tmp_path / "out")
    assert report.findings[0].startswith("The adapter helps")
    assert any("Another user's persona does as well" in finding for finding in report.findings)


def test_no_prompt_holds_a_hidden_preference_or_a_held_out_request_in_its_history(helped):
    out, assistants, _ = helped
    said = {
        text
        for utterance in map(json.loads, (out / "utterances.jsonl").read_text().splitlines())
        for text in [utterance["text"]]
    }
    held_out = set(requests_for("held-out"))
    assert not said & held_out
    quoted = 0
    for request in (*assistants.base.requests, *assistants.adapted.requests):
        assert request.messages[-1].content in held_out
        if len(request.messages) > 1:
            head, *quotes, _ = request.messages[0].content.split("\n")
            assert head == FRAME_HEAD
            for quote in quotes:
                words = re.fullmatch(r'\d\. "(.+)"', quote).group(1)
                assert any(words in text.replace('"', "'") for text in said)
                quoted += 1
    assert quoted > 20


def test_equal_prompts_are_answered_once_and_seeds_belong_to_requests(helped):
    _, assistants, _ = helped
    without_persona = [r for r in assistants.base.requests if len(r.messages) == 1]
    assert len(without_persona) == len({r.messages[0].content for r in without_persona})
    seeds: dict[str, set[int]] = {}
    for request in (*assistants.base.requests, *assistants.adapted.requests):
        seeds.setdefault(request.messages[-1].content, set()).add(request.seed)
    assert all(len(each) == 1 for each in seeds.values())
    assert len(set().union(*seeds.values())) == len(seeds)


def test_a_killed_run_goes_on_and_ends_as_an_undisturbed_one(evaluate, make_assistants, helped, tmp_path):
    class KillError(Exception):
        pass

    _, _, whole = helped
    dying = make_assistants()
    reply, answered = dying.adapted.complete, 0

    async def complete(request):
        nonlocal answered
        answered += 1
        if answered > 7:
            raise KillError
        return await reply(request)

    dying.adapted.complete = complete
    with pytest.raises(KillError):
        evaluate(dying, tmp_path / "out")
    outputs = tmp_path / "out/outputs.jsonl"
    kept = len(outputs.read_text().splitlines())
    assert kept > 0
    with outputs.open("a") as file:
        file.write('{"sample_id": "held-out-01/0')
    again = make_assistants()
    resumed = evaluate(again, tmp_path / "out")
    assert not again.base.requests
    assert len(again.adapted.requests) == len(set(map(str, again.adapted.requests)))
    assert len(resumed.samples) == len(whole.samples)
    assert [(s.sample_id, s.output) for s in resumed.samples] == [(s.sample_id, s.output) for s in whole.samples]
    assert resumed.estimates == whole.estimates
    assert resumed.findings == whole.findings


def test_a_finished_run_asks_nothing_again_and_another_run_is_refused(
    evaluate, make_assistants, helped, tmp_path, capsys
):
    finished, _, first = helped
    shutil.copytree(finished, tmp_path / "out")
    again = make_assistants()
    assert evaluate(again, tmp_path / "out").estimates == first.estimates
    assert not again.base.requests
    assert not again.adapted.requests
    assert "holds this evaluation already" in capsys.readouterr().err
    with pytest.raises(ConfigError, match=r"holds another evaluation \(it differs in suite\)"):
        evaluate(again, tmp_path / "out", seed=7)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("precious")
    with pytest.raises(ConfigError, match="not empty and holds no evaluation"):
        evaluate(again, tmp_path / "mine")


def test_scoring_again_needs_no_model_and_sees_what_is_missing(helped, tmp_path):
    finished, _, report = helped
    out = tmp_path / "out"
    shutil.copytree(finished, out)
    before = {name: (out / name).read_bytes() for name in ("report.json", "report.md", "report.html")}
    assert score_again(out).estimates == report.estimates
    assert {name: (out / name).read_bytes() for name in before} == before
    lines = (out / "outputs.jsonl").read_text().splitlines(keepends=True)
    (out / "outputs.jsonl").write_text("".join(line for line in lines if "/adapter+persona" not in line))
    poorer = score_again(out)
    (kept,) = [
        each
        for each in poorer.estimates
        if (each.metric, each.subject, each.group) == ("preference_kept", "adapter+persona", "all")
    ]
    assert (kept.value, kept.n, kept.unscored) == (None, 0, 12)
    assert any("Not to be used" in finding and "adapter+persona 100 %" in finding for finding in poorer.findings)
    assert "no value" in (out / "report.md").read_text()
    (out / "outputs.jsonl").write_text("".join(lines[:3]) + "{broken}\n")
    with pytest.raises(ArtefactError, match=r"outputs\.jsonl:4: damaged line"):
        score_again(out)
    with pytest.raises(ConfigError, match="holds no evaluation"):
        score_again(tmp_path)


def test_shuffled_personas_come_from_users_who_want_other_things():
    users = population("held-out", 16, preferences=["short", "bullets", "numbers", "closing_question", "greeting"])
    wants = {user.name: set(user.preferences) for user in users}
    lent = others(users, seed=0)
    assert lent == others(users, seed=0)
    assert all(name != stranger and not wants[name] & wants[stranger] for name, stranger in lent.items())


def test_held_out_users_are_nobody_that_training_knows(tiny_suite):
    training = population("train", 50, seed=tiny_suite.seed)
    held_out = held_out_users(tiny_suite)
    assert not {user.name for user in training} & {user.name for user in held_out}
    assert {user.wording for user in held_out} == {"seen", "new"}
    new = {text for pools in load_phrases().complaints.values() for text in pools["new"]}
    seen = {text for pools in load_phrases().complaints.values() for text in pools["seen"]}
    assert {user.wording for user in training} == {"seen"}
    assert not new & seen


class _Page(HTMLParser):
    """Collects what a browser would act on."""

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.labels = 0
        self.scripts: dict[str, str] = {}
        self.text: list[str] = []
        self._script: str | None = None
        self.open: list[str] = []

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        for name in ("src", "href", "data", "action", "poster", "srcset"):
            if name in given and not given[name].startswith("#"):
                self.fetched.append(given[name])
        if given.get("role") == "img":
            assert len(given["aria-label"]) > 20
            self.labels += 1
        if tag == "script":
            self._script = given.get("id", "code")
        self.open.append(tag)

    def handle_data(self, data):
        if self._script:
            self.scripts[self._script] = self.scripts.get(self._script, "") + data
        else:
            self.text.append(data)

    def handle_endtag(self, tag):
        if tag == "script":
            self._script = None


def test_the_page_is_one_file_that_asks_nobody(evaluate, make_assistants, tmp_path):
    nasty = "</script><script>alert(1)</script><img src=x onerror=alert(2)> \u2028 5"
    evaluate(make_assistants(lambda _: nasty), tmp_path / "out")
    html = (tmp_path / "out/report.html").read_text()
    page = _Page()
    page.feed(html)
    assert page.fetched == []
    assert not re.search(r"@import|url\(\s*['\"]?(?!#)|fetch\(|XMLHttpRequest|WebSocket|https?://", html)
    assert page.labels == html.count("<svg") == 3
    assert "alert" not in "".join(page.text) + page.scripts["code"]
    data = json.loads(page.scripts["data"])
    assert len(data["items"]) == 12
    assert {len(item["answers"]) for item in data["items"]} == {5}
    assert data["items"][0]["answers"]["adapter+persona"]["text"] == nasty


def test_the_page_says_what_the_report_says(helped):
    out, _, report = helped
    page = _Page()
    page.feed((out / "report.html").read_text())
    text = " ".join("".join(page.text).split())
    for finding in report.findings:
        assert finding in text
    markdown = (out / "report.md").read_text()
    assert all(f"- {finding}" in markdown for finding in report.findings)
    stored = EvalReport.model_validate_json((out / "report.json").read_text())
    assert render_page(stored) == (out / "report.html").read_text()


def test_the_training_run_beside_the_adapter_is_shown(evaluate, assistants, tmp_path):
    (tmp_path / "run/adapter").mkdir(parents=True)
    rows = [{"step": i, "loss": 0.69 - i / 100, "rewards/margins": i / 10, "note": "text"} for i in range(1, 6)]
    (tmp_path / "run/training_log.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n{torn")
    table = {"overall": {"initial": 0.5, "new_request": 0.5}, "paper": {"initial": 0.2707, "new_request": 0.4040}}
    (tmp_path / "run/follow_ups.json").write_text(json.dumps(table))
    stage = {"inputs": 9, "passed": 7, "dropped": 2, "reasons": {"too_short": 2}, "seconds": 1.2}
    (tmp_path / "run/manifest.json").write_text(json.dumps({"stages": {"ingest": stage}}))
    assistants.identity["adapter"] = str(tmp_path / "run/adapter")
    report = evaluate(assistants, tmp_path / "out")
    assert [row["step"] for row in report.config["training_curve"]] == [1, 2, 3, 4, 5]
    html = (tmp_path / "out/report.html").read_text()
    assert html.count("<svg") == 4
    assert "too short 2" in html
    assert "27.1 %" in html
