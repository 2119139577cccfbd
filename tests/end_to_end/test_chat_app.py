"""`examples/chat_app.py` in a real browser: what a person clicks, what they see of it, and what is on disk then."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from rlhi_plugin import open_store
from rlhi_plugin.identity import pseudonym
from rlhi_plugin.persona import phrases
from rlhi_plugin.privacy import exclusions_in
from rlhi_plugin.records import FeedbackKind

pytest.importorskip("gradio", reason="needs: pip install --group examples")
pytest.importorskip("sklearn", reason="needs the extra train, which labels what people say")
sync_api = pytest.importorskip("playwright.sync_api", reason="needs: pip install playwright")

pytestmark = [pytest.mark.browser, pytest.mark.slow]

APP = Path(__file__).parents[2] / "examples" / "chat_app.py"
KEY = "0123456789abcdef" * 2
START_S, ANSWER_MS, LEARNING_MS = 120, 60_000, 120_000
"""Generous: a machine that runs other tests at the same time is no reason to fail."""


def chromium():
    """The browser of the system: Playwright's own is downloaded from a host that may be out of reach."""
    for name in ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable"):
        if found := shutil.which(name):
            return found
    pytest.skip("there is no Chromium; install one: apt-get install chromium")
    return None


@pytest.fixture(scope="module")
def browser():
    program = chromium()
    with sync_api.sync_playwright() as playwright:
        # Chromium refuses its sandbox to root, as whom containers run tests.
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


@contextmanager
def running(store, log):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, APP, "--scripted", "--store", store, "--port", str(port)]
    with log.open("w") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, env={**os.environ, "RLHI_KEY": KEY})
    try:
        end = time.monotonic() + START_S
        while "open http" not in log.read_text():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < end, "the app did not start in time"
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(30)


class Person:
    """Somebody in front of the page."""

    def __init__(self, browser, url, shots):
        self.shots = shots
        self.page = browser.new_page(viewport={"width": 1280, "height": 900})
        self.requests, self.failed = [], []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("requestfailed", lambda request: self.failed.append((request.url, request.failure)))
        self.page.goto(url)
        self.box = self.page.locator("#say textarea")
        self.answers = self.page.locator("#chat .bot.message")
        self.cards = self.page.locator(".card")
        self.box.wait_for()

    def see(self, locator):
        return sync_api.expect(locator)

    def say(self, text):
        count = self.answers.count()
        self.box.fill(text)
        self.box.press("Enter")
        self.see(self.answers).to_have_count(count + 1, timeout=ANSWER_MS)
        return self.answered()

    def answered(self):
        self.see(self.box).to_be_enabled(timeout=ANSWER_MS)
        self.see(self.answers.last).not_to_have_text("writing ...", timeout=ANSWER_MS)
        return self.answers.last.inner_text()

    def shot(self, name):
        self.page.screenshot(path=self.shots / f"{name}.png", full_page=True)

    def click(self, name, within=None):
        (within or self.page).get_by_role("button", name=name, exact=True).last.click()


def test_a_person_talks_sees_what_is_learned_and_takes_it_back(browser, tmp_path, monkeypatch):
    monkeypatch.setenv("RLHI_KEY", KEY)
    store_url = f"sqlite:///{tmp_path}/chat.db"
    with running(store_url, tmp_path / "log") as url, open_store(store_url) as store:
        ada = Person(browser, url, Path(os.environ.get("RLHI_SCREENSHOTS", tmp_path)))
        answers = talk_and_rate(ada, store)
        correct_what_was_learned(ada)
        begin_anew(ada)
        check_what_is_stored(store, answers)
        become_somebody_else(ada)
        assert outside(ada.requests) == []
        look_at_a_picture(ada)
        forget_everything(ada, store)


def talk_and_rate(ada, store):
    first = ada.say("How do plants grow?")
    assert "sunlight" in first
    ada.click("Dislike")
    until(lambda: len(list(store.feedback())) == 1)
    second = ada.say("Shorter, please.")
    ada.click("Like")
    until(lambda: len(list(store.feedback())) == 2)
    ada.click("Retry")
    ada.see(ada.answers.last).to_have_text("They drink, they breathe, and the sun does the rest.", timeout=ANSWER_MS)
    third = ada.answered()
    ada.see(ada.answers).to_have_count(2)
    ada.say("No emojis, please.")
    return [first, second, third]


def correct_what_was_learned(ada):
    see, cards = ada.see, ada.cards
    see(cards).to_have_count(2, timeout=LEARNING_MS)
    shorter = cards.filter(has_text="Shorter, please.")
    see(shorter).to_contain_text(re.compile(r"length · confidence \d+% · said on \d\d \w+ \d{4}"))
    see(shorter.locator("blockquote")).to_have_text("“Shorter, please.”")
    ada.shot("chat_app")
    shorter.get_by_role("textbox").fill("At most two sentences.")
    ada.click("Save wording", shorter)
    edited = cards.filter(has_text="At most two sentences.")
    see(edited).to_have_count(1)
    ada.click("Lock", edited)
    see(edited).to_contain_text("locked")
    see(edited).to_contain_text("Because you wrote, here")
    ada.click("Forget", cards.filter(has_text="No emojis"))
    see(cards).to_have_count(1)
    assert "At most two sentences. (locked) (you wrote this yourself" in ada.say("/what-do-you-know")


def begin_anew(ada):
    ada.click("New conversation")
    ada.see(ada.answers).to_have_count(0)
    ada.say("How do stars shine?")
    assert "At most two sentences." in ada.say("/why")
    assert ada.say("/do-not-learn") == phrases.NOT_LEARNING


def become_somebody_else(ada):
    ada.page.get_by_label("Ben").check()
    ada.see(ada.cards).to_have_count(0)
    ada.see(ada.answers).to_have_count(0)
    assert ada.say("/what-do-you-know") == phrases.NOTHING_KNOWN


def look_at_a_picture(ada):
    """It stands in a message, and is not fetched."""
    ada.say("Look: ![x](http://203.0.113.7/pixel.png)")
    until(lambda: any("203.0.113.7" in address for address, _ in ada.failed), ada.page)
    assert dict(ada.failed)["http://203.0.113.7/pixel.png"] == "csp"


def forget_everything(ada, store):
    ada.page.get_by_label("Ada").check()
    ada.see(ada.cards).to_have_count(1, timeout=ANSWER_MS)
    ada.page.get_by_text("What is logged").click()
    ada.see(ada.page.get_by_text("in 2 conversations")).to_be_visible()
    ada.page.get_by_text("Forget everything about me").click()
    ada.see(ada.page.get_by_role("button", name="Delete all of it")).to_be_visible()
    ada.shot("chat_app_forget")
    ada.click("Delete all of it")
    ada.see(ada.cards).to_have_count(0)
    until(lambda: list(store.conversations(user_id=pseudonym("Ada"))) == [])
    assert store.get_persona(pseudonym("Ada")) is None
    assert [stone.user_id for stone in store.tombstones()] == [pseudonym("Ada")]


def until(condition, page=None):
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        if page is None:
            time.sleep(0.05)
        else:
            page.wait_for_timeout(50)


def outside(requests):
    return [url for url in requests if urlsplit(url).scheme in ("http", "https", "ws") and "//127.0.0.1:" not in url]


def check_what_is_stored(store, answers):
    ada = pseudonym("Ada")
    talk, stars = store.conversations(user_id=ada)
    said = [(m.role, m.content) for m in talk.messages]
    assert [text for role, text in said if role == "user"] == [
        "How do plants grow?", "Shorter, please.", "No emojis, please.",
    ]  # fmt: skip
    logged = [m for m in talk.messages if m.role == "assistant"]
    assert [m.content for m in logged[:3]] == answers, "a regenerated answer stands beside the one it replaces"
    assert logged[2].parent_id == talk.messages[2].id
    assert [(event.kind, event.message_id) for event in store.feedback(user_id=ada)][:3] == [
        (FeedbackKind.THUMBS_DOWN, logged[0].id),
        (FeedbackKind.THUMBS_UP, logged[1].id),
        (FeedbackKind.REGENERATE, logged[1].id),
    ]
    assert [m.content for m in stars.messages if m.role == "user"] == ["How do stars shine?"], "commands are not logged"
    exclusions = exclusions_in(store)
    assert (exclusions.of(talk), exclusions.of(stars) is not None) == (None, True)
    persona = store.get_persona(ada)
    assert [(s.text, s.locked) for s in persona.statements] == [("At most two sentences.", True)]
    assert len(persona.removed) == 2, "the old wording, and what was forgotten"
    assert stars.messages[-1].persona_digest == persona.digest
    assert list(store.conversations(user_id=pseudonym("Ben"))) == []
