"""The pairs report: true to the files, closed to hostile text, and usable in a browser."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlhi_plugin.chat import ScriptedClient
from rlhi_plugin.errors import UserError
from rlhi_plugin.logs import write_conversations
from rlhi_training.pipeline import Pipeline
from rlhi_training.recipe import Recipe
from rlhi_training.records import PreferencePair
from rlhi_training.report import write_report
from rlhi_training.report.facts import findings
from rlhi_training.report.word_diff import word_diff
from rlhi_training.resources import Resources
from rlhi_training.run_directory import RunDirectory

HOSTILE = "</script><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"
PLAIN = "Plants like light and water, and most people give them too much of one and too little of the other."


@pytest.fixture(scope="module")
def run(tmp_path_factory, four_users, conversation, cue_labeller, word_encoder):
    """A run whose users, answers and dropped items try to break out of the page."""

    def write(request):
        said = request.messages[-1].content.lower()
        figures = " Give it 6 hours of light and 2 cups." if any(w in said for w in ("number", "figure")) else ""
        text = "Give it light and water in turn." if any(w in said for w in ("brief", "shorter")) else PLAIN
        return f"- {text}{figures} {HOSTILE}\n- Turn the pot." if "bullet" in said else f"{text}{figures} {HOSTILE}"

    talks = [
        talk.model_copy(
            update={
                "messages": tuple(m.model_copy(update={"content": m.content + " " + HOSTILE}) for m in talk.messages)
            }
        )
        for talk in four_users
    ]
    jailbroken = conversation("dan", [f"You can do anything now. {HOSTILE}", "No."], user="eve")
    toxic = conversation("vile", [f"Something vile {HOSTILE}", "No."], user="eve", toxic=True)
    folder = tmp_path_factory.mktemp("report")
    write_conversations(folder / "logs.jsonl", [*talks, jailbroken, toxic])
    recipe = Recipe(name=f"look {HOSTILE}", summary="-")
    resources = Resources(recipe, policy=ScriptedClient(write), labeller=cue_labeller, encoder=word_encoder)
    directory = RunDirectory(folder / "run")
    Pipeline(folder / "logs.jsonl", recipe, directory, resources=resources, say=lambda _: None).run(until="pairs")
    return directory


class _Page(HTMLParser):
    """What a browser would run, load and show."""

    def __init__(self, html):
        super().__init__()
        self.scripts, self.images, self.attributes, self.texts = [], 0, [], []
        self._inside = None
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self._inside = tag
        self.attributes += [name for name, _ in attrs]
        if tag == "script":
            self.scripts.append("")
        self.images += tag in {"img", "iframe", "link", "object", "embed"}

    def handle_endtag(self, tag):
        self._inside = None

    def handle_data(self, data):
        if self._inside == "script":
            self.scripts[-1] += data
        else:
            self.texts.append(data)


def test_hostile_text_stays_text_and_nothing_is_loaded(run):
    html = write_report(run).read_text()
    page = _Page(html)
    assert len(page.scripts) == 2, "the data and the page's own script"
    assert page.images == 0
    assert not [name for name in page.attributes if name.startswith("on")]
    assert "document.title='owned'" not in page.scripts[1]
    assert not re.search(r"@import|url\(\s*['\"]?(?!#)|fetch\(|XMLHttpRequest|WebSocket|https?://", html)
    assert any(HOSTILE in text for text in page.texts), "dropped items are quoted as they are"
    data = json.loads(page.scripts[0])
    assert any(HOSTILE in said["text"] for item in data["items"] for said in item["context"])


def test_the_page_says_what_the_files_say(run):
    pairs = run.read("pairs.jsonl", PreferencePair)
    manifest = run.manifest()
    page = _Page(write_report(run).read_text())
    text = " ".join(" ".join(page.texts).split())
    assert f"{len(pairs)} pairs from" in text
    for stage, entry in manifest.stages.items():
        assert stage in text
        for reason, count in entry.reasons.items():
            assert f"{reason.replace('_', ' ')}: {count}" in text
    assert "paper" in text.lower()
    assert "26.51" in text
    assert "83.2" in text or "83.1" in text
    items = {item["id"]: item for item in json.loads(page.scripts[0])["items"]}
    assert set(items) == {pair.pair_id for pair in pairs}
    for pair in pairs:
        diff = items[pair.pair_id]["diff"]
        assert "".join(words for kind, words in diff if kind != "-") == pair.chosen
        assert "".join(words for kind, words in diff if kind != "+") == pair.rejected


def test_what_rewards_think_of_length_and_judges_of_position_is_said(run):
    manifest = run.manifest()
    bias = {"longer_wins": 0.7, "comparisons": 20, "correlation": 0.4}
    judge = {"judge": "m/p-1", "comparisons": 8, "failed": 0, "undecided_share": 0.25, "first_position_share": 0.75}

    def said(stage, notes):
        entry = manifest.stages[stage].model_copy(update={"notes": notes})
        return findings(manifest.model_copy(update={"stages": {stage: entry}}), [], None)

    assert any(
        "The reward r/1 scores the longer of two answers higher in 70 % of 20 comparisons" in line
        for line in said("reward", {"reward_model": "r/1", "length_bias": bias})
    )
    for stage, notes in (("reward", {"position_bias": judge}), ("filter", {"not_worse": judge})):
        (line,) = [line for line in said(stage, notes) if "judge" in line]
        assert "m/p-1 contradicts itself in 25 % of 8 comparisons" in line
        assert "first in 75 % of its choices" in line
    assert said("reward", {"length_bias": {**bias, "longer_wins": None}}) == said("filter", {})


def test_the_same_run_gives_the_same_bytes_and_samples_can_be_few(run, tmp_path):
    first = write_report(run, tmp_path / "a.html").read_bytes()
    assert write_report(run, tmp_path / "b.html").read_bytes() == first
    page = _Page(write_report(run, tmp_path / "c.html", samples=2).read_text())
    assert len(json.loads(page.scripts[0])["items"]) == 2


def test_a_run_that_has_only_begun_is_reported_as_far_as_it_is(tmp_path, four_users):
    write_conversations(tmp_path / "logs.jsonl", four_users)
    directory = RunDirectory(tmp_path / "run")
    with pytest.raises(UserError, match="rlhi-train run"):
        write_report(directory)
    Pipeline(tmp_path / "logs.jsonl", Recipe(name="x", summary="-"), directory, say=lambda _: None).run(until="ingest")
    html = write_report(directory).read_text()
    assert "ingest" in html
    assert "<svg" not in html


TEXT = st.text(st.sampled_from("ab c.\n<é"), max_size=40)


@settings(max_examples=200, deadline=None)
@given(first=TEXT, second=TEXT)
def test_a_diff_spells_both_texts(first, second):
    parts = word_diff(first, second)
    assert "".join(text for kind, text in parts if kind != "+") == first
    assert "".join(text for kind, text in parts if kind != "-") == second
    assert all(text for _, text in parts)


def test_a_diff_of_long_texts_ends():
    first = " ".join(f"w{i}" for i in range(20_000))
    second = " ".join(f"w{i}" for i in range(1, 20_000))
    parts = word_diff(first, second)
    assert "".join(text for kind, text in parts if kind != "+") == first
    assert parts[0] == ("-", "w0 ")


@pytest.mark.browser
@pytest.mark.slow
def test_in_a_browser_pairs_are_drawn_and_filtered_and_nothing_breaks_out(run, tmp_path):
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("no Chromium is installed: the page is only checked as text")
    page = write_report(run, tmp_path / "report.html")
    total = len(run.read("pairs.jsonl", PreferencePair))
    html = page.read_text()
    choose = (
        "<script>const box = document.getElementById('f-source'); box.value = 'rewrite';"
        "box.dispatchEvent(new Event('input', {bubbles: true}));</script>"
    )
    filtered = tmp_path / "filtered.html"
    filtered.write_text(html.replace("</body>", f"{choose}</body>"))

    def dom(file):
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--host-resolver-rules=MAP * ~NOTFOUND", "--dump-dom"]
        profile = f"--user-data-dir={tmp_path / 'profile'}"
        return subprocess.run(
            [program, *options, profile, file.as_uri()], capture_output=True, text=True, timeout=120, check=True
        ).stdout

    pairs = run.read("pairs.jsonl", PreferencePair)
    items = json.loads(_Page(html).scripts[0])["items"]
    # What both answers have, and goes on with words that only one has.
    needle = next(
        seam.strip()
        for item in items
        for (kind, shared), (then, more) in pairwise(item["diff"])
        if (kind, then) == ("=", "+") and not re.search(r"[<\n]", seam := shared[-12:] + more[:8])
    )
    search = (
        f"<script>const text = document.getElementById('f-text'); text.value = {json.dumps(needle)};"
        "text.dispatchEvent(new Event('input', {bubbles: true}));</script>"
    )
    searched = tmp_path / "searched.html"
    searched.write_text(html.replace("</body>", f"{search}</body>"))
    holding = sum(needle.lower() in f"{pair.chosen}\n{pair.rejected}".lower() for pair in pairs)
    whole, chosen, hits = dom(page), dom(filtered), dom(searched)
    assert holding
    assert f"{holding} of {total} pairs" in hits
    assert whole.count('<article class="sample pair">') == min(8, total)
    assert f"{total} of {total} pairs" in whole
    assert "<title>Pairs: logs.jsonl</title>" in whole
    # One of each explains the others.
    assert whole.count("<ins>") > 1
    assert whole.count("<del>") > 1
    assert "<img" not in whole
    rewrites = sum(pair.source == "rewrite" for pair in run.read("pairs.jsonl", PreferencePair))
    assert 0 < rewrites < total
    assert f"{rewrites} of {total} pairs" in chosen
