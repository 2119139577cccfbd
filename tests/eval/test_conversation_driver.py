"""Simulated users against a real agent with the real middleware and store."""

import pytest
from langchain.agents import create_agent
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langgraph.checkpoint.memory import InMemorySaver

from rlhi_eval_harness.simulation import Habits, converse, load_phrases, population, requests_for
from rlhi_plugin import RLHIMiddleware, open_store
from rlhi_plugin.errors import ConfigError, ModelCallError

HABITS = Habits(threads_per_user=2, requests_per_thread=2, patience=2, thanks_share=1.0)
GOOD = "Hello! Take 2 or 3."


class Answers(BaseChatModel):
    """Answers with a fixed text once someone has complained, and with another before."""

    first: str = "Well."
    later: str = "Well."
    broken: bool = False

    @property
    def _llm_type(self) -> str:
        return "answers"

    def _generate(self, messages, stop=None, run_manager=None, **kwargs):
        if self.broken:
            raise RuntimeError("out of memory")
        text = self.first if messages[-1].content in requests_for("training") else self.later
        return ChatResult(generations=[ChatGeneration(message=AIMessage(text))])


def _agent(model: Answers, store=None):
    middleware = [RLHIMiddleware(store=store, persona="off")] if store else []
    return create_agent(model, tools=[], middleware=middleware, checkpointer=InMemorySaver())


def _users(count: int = 3):
    return population("train", count, preferences=["greeting", "numbers"])


def test_a_user_who_is_never_pleased_complains_and_goes_on():
    ticks: list[int] = []
    summary = converse(_agent(Answers()), _users(), requests_for("training"), habits=HABITS, on_progress=ticks.append)
    assert (summary.users, summary.threads, summary.requests) == (3, 6, 12)
    assert sum(ticks) == 12
    assert 12 <= summary.complaints <= 24
    assert summary.thanks == summary.satisfied_at_once == summary.satisfied_later == 0
    assert sum(summary.complaints_by_preference.values()) == summary.complaints
    pools = load_phrases().complaints
    for utterance in summary.utterances:
        if utterance.kind == "complaint":
            assert utterance.text in pools[utterance.preference]["seen"]


def test_a_pleased_user_never_complains():
    summary = converse(_agent(Answers(first=GOOD, later=GOOD)), _users(), requests_for("training"), habits=HABITS)
    assert summary.complaints == 0
    assert summary.satisfied_at_once == summary.requests == summary.thanks == 12


def test_a_complaint_that_is_met_ends_the_matter():
    summary = converse(_agent(Answers(later=GOOD)), _users(), requests_for("training"), habits=HABITS)
    assert summary.complaints == summary.satisfied_later == summary.thanks == 12
    assert summary.satisfied_at_once == 0


def test_nothing_is_said_about_a_preference_before_an_answer_broke_it():
    users = {user.name: user for user in _users()}
    half = Answers(first="Hello there.", later="Hello there.")
    summary = converse(_agent(half), list(users.values()), requests_for("training"), habits=HABITS)
    assert set(summary.complaints_by_preference) == {"numbers"}
    for before, after in zip(summary.utterances, summary.utterances[1:], strict=False):
        if after.kind == "complaint":
            assert after.preference in users[after.user].broken(before.answer)
            assert after.thread_id == before.thread_id


def test_the_same_seed_gives_the_same_conversations():
    first, again, other = (
        converse(_agent(Answers()), _users(), requests_for("training"), habits=HABITS, seed=seed) for seed in (1, 1, 2)
    )
    assert first == again
    assert first != other


def test_users_repeat_neither_requests_nor_complaints_early():
    summary = converse(_agent(Answers()), _users(1), requests_for("training"), habits=HABITS)
    for kind in ("request", "complaint"):
        texts = [utterance.text for utterance in summary.utterances if utterance.kind == kind]
        assert len(set(texts)) == len(texts)


def test_the_store_holds_exactly_what_was_said(tmp_path):
    url = f"sqlite:///{tmp_path / 'log.db'}"
    summary = converse(_agent(Answers(), url), _users(), requests_for("training"), habits=HABITS)
    with open_store(url) as store:
        conversations = list(store.conversations())
    assert len(conversations) == summary.threads
    logged = {
        message.id: message.content
        for conversation in conversations
        for message in conversation.messages
        if message.role == "user"
    }
    assert logged == {utterance.message_id: utterance.text for utterance in summary.utterances}
    owners = {conversation.user_id for conversation in conversations}
    assert len(owners) == 3
    assert not owners & {user.name for user in _users()}


def test_a_failing_model_is_reported_with_its_thread():
    with pytest.raises(ModelCallError, match="thread train-01-thread-1: out of memory"):
        converse(_agent(Answers(broken=True)), _users(), requests_for("training"), habits=HABITS)


def test_doubled_names_and_too_few_requests_are_refused():
    with pytest.raises(ConfigError, match="same name"):
        converse(_agent(Answers()), [*_users(1), *_users(1)], requests_for("training"))
    with pytest.raises(ConfigError, match="only 3"):
        converse(_agent(Answers()), _users(1), requests_for("training")[:3], habits=HABITS)
