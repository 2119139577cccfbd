"""`rlhi-eval human` in a real browser: two people at the keyboard, a reload, a restart, and what is on disk then."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from rlhi_eval_harness.human.verdict_file import read_lines, standing

pytest.importorskip("gradio", reason="needs the extra human")
sync_api = pytest.importorskip("playwright.sync_api", reason="needs: pip install playwright")

pytestmark = [pytest.mark.browser, pytest.mark.slow]

START_S, ANSWER_MS = 120, 30_000
"""Generous: a machine that runs other tests at the same time is no reason to fail."""
ORIGINS = ("zebra", "quokka", "likes it short")
"""What would tell whose answer is whose: names, and the system prompt of one of the two."""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def command(folder, *options):
    return [Path(sys.executable).with_name("rlhi-eval"), "human", str(folder), *map(str, options)]


@contextmanager
def running(folder, port, *options):
    log = folder.parent / "log"
    with log.open("w") as out:
        process = subprocess.Popen(command(folder, "--port", port, *options), stdout=out, stderr=out)
    try:
        end = time.monotonic() + START_S
        while "open http" not in log.read_text():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < end, "it did not start in time"
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.send_signal(signal.SIGINT)
        code = process.wait(30)
    said = log.read_text()
    assert "Traceback" not in said
    assert code == 0, said
    assert f"into the report: rlhi-eval score {folder}" in said


class Rater:
    """Somebody in front of the page, with a browser of their own."""

    def __init__(self, browser, url, shots):
        self.shots = shots
        self.page = browser.new_context(viewport={"width": 1280, "height": 900}).new_page()
        self.received, self.requests, self.wrong = [], [], []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on("response", self._keep)
        self.page.goto(url)

    def _keep(self, response):
        if "/assets/" not in response.url:
            self.received.append(response)

    def begin(self, name):
        self.page.locator("#rater").fill(name)
        self.page.keyboard.press("Enter")
        self.pair()

    def pair(self):
        """The token of the pair that is shown."""
        self.page.locator("[data-token]").wait_for(timeout=ANSWER_MS)
        return self.page.locator("[data-token]").get_attribute("data-token")

    def see(self, text):
        sync_api.expect(self.page.locator("#stage")).to_contain_text(text, timeout=ANSWER_MS)

    def press(self, *keys):
        """Press keys, then wait for another page."""
        before = self.page.locator("[data-nonce]").get_attribute("data-nonce")
        for key in keys:
            self.page.keyboard.press(key)
        sync_api.expect(self.page.locator("[data-nonce]")).not_to_have_attribute(
            "data-nonce", before, timeout=ANSWER_MS
        )

    def texts(self):
        return [each.inner_text() for each in self.page.locator("article .text").all()]

    def shot(self, name):
        self.page.screenshot(path=self.shots / f"{name}.png")

    def source(self):
        """All that the browser has, and all that it was sent."""
        sent = []
        for response in self.received:
            try:
                sent.append(response.text())
            except sync_api.Error:  # a stream that was cut by leaving the page
                continue
        return "\n".join([self.page.content(), *sent])


def lines(folder):
    return read_lines(folder / "human/main/verdicts.jsonl")


def test_two_people_judge_at_the_keyboard_reload_and_come_back(browser, make_folder, tmp_path):
    folder, port = make_folder(users=3, each=2).path, free_port()
    shots = Path(os.environ.get("RLHI_SCREENSHOTS", tmp_path))
    with running(folder, port, "--check-every", "0", "--seed", "3") as url:
        ann = Rater(browser, url, shots)
        ann.page.locator("#rater").wait_for(timeout=ANSWER_MS)
        ann.shot("human_start")
        ann.begin("Ann <i>")
        keys_make_a_verdict(ann, folder)
        undo_and_skip(ann, folder)
        a_reload_goes_on(ann, folder)
        ben = somebody_else_overlaps(browser, url, shots, folder)
        nobody_is_told_whose_answer_is_whose(ann, ben)
    with running(folder, port) as url:
        they_come_back_after_a_restart(ann, ben, url, folder)
        narrow(ben)


def keys_make_a_verdict(ann, folder):
    ann.see("Ann <i>: 0 pairs judged")
    texts = ann.texts()
    ann.page.keyboard.press("1")
    ann.page.keyboard.press("ArrowRight")
    assert lines(folder) == [], "two of three questions are no verdict"
    ann.shot("human_judging")
    ann.press("2")
    (told,) = lines(folder)
    assert told.answers == {"personalization": "left", "instruction_following": "right", "overall": "tie"}
    assert (told.rater, told.check, told.skipped) == ("Ann <i>", None, None)
    short_is_left = texts[0].startswith("In short")
    assert told.left == ("quokka+persona" if short_is_left else "zebra")
    assert "likes it short" not in ann.page.content()


def undo_and_skip(ann, folder):
    ann.see("1 pair judged")
    ann.page.keyboard.press("3")
    ann.page.keyboard.press("u")  # takes the choice back, not the verdict
    assert len(standing(lines(folder))) == 1
    ann.press("u")
    ann.see("Taken back")
    assert standing(lines(folder)) == []
    ann.page.keyboard.press("n")
    ann.page.keyboard.type("3 is a number, not a verdict")
    ann.page.keyboard.press("Escape")
    ann.press("3", "3", "3")
    (told,) = standing(lines(folder))
    assert (told.note, set(told.answers.values())) == ("3 is a number, not a verdict", {"right"})
    ann.page.keyboard.press("s")
    ann.shot("human_skip")
    ann.press("2")
    skipped = lines(folder)[-1]
    assert (skipped.skipped, skipped.answers) == ("language", {})


def a_reload_goes_on(ann, folder):
    ann.page.keyboard.press("1")  # one of three: nothing to keep
    before, texts = ann.pair(), ann.texts()
    ann.page.reload()
    assert ann.pair() == before
    assert ann.texts() == texts
    assert ann.page.locator('[aria-checked="true"]').count() == 0
    ann.page.locator('[data-dimension="personalization"] [data-side="left"]').click()
    ann.page.locator('[data-dimension="instruction_following"] [data-side="tie"]').click()
    ann.page.locator('[data-dimension="overall"] [data-side="right"]').click()
    ann.see("2 pairs judged")
    assert list(lines(folder)[-1].answers.values()) == ["left", "tie", "right"]


def somebody_else_overlaps(browser, url, shots, folder):
    ben = Rater(browser, url, shots)
    ben.begin("Ben")
    begun = {each.item_id for each in standing(lines(folder)) if each.skipped is None}
    ben.press("1", "1", "1")
    ben.press("t", "t", "t")
    his = [each for each in standing(lines(folder)) if each.rater == "Ben"]
    assert {each.item_id for each in his} == begun, "what Ann began is finished first"
    return ben


def nobody_is_told_whose_answer_is_whose(*raters):
    for rater in raters:
        source = rater.source()
        assert "In short: yes" in source, "what was sent has to be in what is searched"
        assert [origin for origin in ORIGINS if origin in source] == []
        assert rater.wrong == []
        assert [url for url in rater.requests if urlsplit(url).hostname not in (None, "127.0.0.1")] == []


def they_come_back_after_a_restart(ann, ben, url, folder):
    count = len(lines(folder))
    ben.page.goto(url)
    ben.see("Ben: 2 pairs judged")
    for _ in range(4):
        ben.press("1", "2", "3")
    ben.see("Nothing is left to judge")
    ann.page.goto(url)
    ann.see("Ann <i>: 2 pairs judged")
    for _ in range(3):
        ann.press("1", "2", "3")
    ann.see("You have seen every pair")
    ann.shot("human_done")
    assert len(lines(folder)) == count + 7
    ann.page.get_by_role("button", name="Not you?").click()
    sync_api.expect(ann.page.locator("#rater")).to_be_visible(timeout=ANSWER_MS)
    ann.begin("Cyn")
    ann.see("Cyn: 0 pairs judged")


def narrow(ben):
    ben.page.set_viewport_size({"width": 390, "height": 844})
    ben.press("u")
    ben.see("Taken back")
    wide = "document.documentElement.scrollWidth > document.documentElement.clientWidth"
    assert ben.page.evaluate(wide) is False
    ben.page.screenshot(path=ben.shots / "human_narrow.png", full_page=True)


def test_a_second_start_and_a_port_in_use_are_refused(make_folder):
    folder, port = make_folder().path, free_port()
    with running(folder, port):
        second = subprocess.run(command(folder, "--port", free_port()), capture_output=True, text=True, check=False)
        assert second.returncode == 2
        assert "another rlhi-eval human serves" in second.stderr
        other = subprocess.run(
            command(folder, "--port", port, "--study", "other"), capture_output=True, text=True, check=False
        )
        assert other.returncode == 2
        assert f"port {port} cannot be used" in other.stderr
        assert "--port" in other.stderr
