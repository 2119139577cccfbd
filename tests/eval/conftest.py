"""Assistants without weights: what the suite needs of a model, scripted, so that results are known beforehand."""

from __future__ import annotations

import asyncio
import re
import shutil

import pytest
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage
from langchain_core.outputs import ChatGeneration, ChatResult

from rlhi_eval_harness.suites.simulated_users import SimulatedUsersOptions
from rlhi_plugin.chat import ChatRequest, ScriptedClient
from rlhi_plugin.labelling import Exchange
from rlhi_plugin.records import FollowUp, FollowUpLabel

PLAIN = (
    "Well, that depends on what you have at hand, on the weather outside and on the mood of everybody in the house, "
    "and so it is best to begin slowly, to look around with open eyes, and to ask someone who has done it before."
)
"""Breaks every preference that the tiny suite knows: 44 words, no list, no figure, no greeting."""


def obey(system: str) -> str:
    """What a model would answer that reads the persona's quotations as a person does."""
    wishes = system.lower()
    answer = (
        "Begin slowly."
        if re.search(r"brief|short|concise|gist|essay|long|text|wordy|point\.|tl;dr|read", wishes)
        else PLAIN
    )
    if re.search(r"number|figure|how m|amount|statistic|quantit|data", wishes):
        answer += " It takes 20 minutes and 3 cups."
    if re.search(r"bullet|dash|points", wishes):
        answer = f"- {answer}\n- That is all."
    if re.search(r"hello|greet|hi |say hi|friendl", wishes):
        answer = f"Hello!\n{answer}"
    return answer


class FakeChatModel(BaseChatModel):
    """A LangChain chat model that never adapts."""

    @property
    def _llm_type(self) -> str:
        return "fake"

    def _generate(self, messages, stop=None, run_manager=None, **kwargs):
        return ChatResult(generations=[ChatGeneration(message=AIMessage(PLAIN))])


class FakeAssistants:
    """The base answers the same to everything; the adapter does as its function says."""

    def __init__(self, adapted=obey) -> None:
        def system(request: ChatRequest) -> str:
            return next((m.content for m in request.messages if m.role == "system"), "")

        self.identity = {"base": "fake", "base_digest": "0", "adapter": "nowhere"}
        self.base = ScriptedClient(lambda _: PLAIN, model="fake")
        self.adapted = ScriptedClient(lambda request: adapted(system(request)), model="fake+adapter")

    def client(self, source: str) -> ScriptedClient:
        return self.base if source == "base" else self.adapted

    def weigh(self, source: str, prompts):
        return None

    def chat_model(self, *, max_tokens: int, temperature: float, seed: int) -> BaseChatModel:
        return FakeChatModel()


class EverythingIsFeedback:
    """A labeller that needs no model and errs on thanks and on new requests."""

    name = "everything-is-feedback"

    async def label(self, exchanges: list[Exchange]) -> list[FollowUp]:
        await asyncio.sleep(0)
        return [
            FollowUp(
                conversation_id=each.conversation_id,
                turn=each.turn,
                message_id=each.message_id,
                label=FollowUpLabel.NEW_REQUEST if each.follow_up.endswith("?") else FollowUpLabel.WITH_FEEDBACK,
                labeller=self.name,
            )
            for each in exchanges
        ]


@pytest.fixture(scope="session", autouse=True)
def _identity_key():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RLHI_KEY", "a key for the tests only")
        yield


@pytest.fixture
def assistants() -> FakeAssistants:
    return FakeAssistants()


@pytest.fixture(scope="session")
def make_assistants():
    return FakeAssistants


@pytest.fixture(scope="session")
def labeller() -> EverythingIsFeedback:
    return EverythingIsFeedback()


@pytest.fixture(scope="session")
def tiny_suite() -> SimulatedUsersOptions:
    return SimulatedUsersOptions.model_validate(
        {
            "name": "tiny",
            "summary": "for tests",
            "users": 6,
            "requests": 2,
            "preferences": ["short", "bullets", "numbers", "greeting"],
            "habits": {"threads_per_user": 2, "requests_per_thread": 2},
            "resamples": 200,
        }
    )


@pytest.fixture
def plain() -> str:
    return PLAIN


@pytest.fixture(scope="module")
def browser():
    """The system's Chromium: Playwright's own is downloaded from a host that may be out of reach."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs: pip install playwright")
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    program = next((found for name in names if (found := shutil.which(name))), None)
    if program is None:
        pytest.skip("there is no Chromium; install one: apt-get install chromium")
    with sync_api.sync_playwright() as playwright:
        # Chromium refuses its sandbox to root, as whom containers run tests.
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()
