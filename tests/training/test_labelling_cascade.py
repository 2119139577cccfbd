"""The cascade, hindsight, and signals without words."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest

from rlhi_plugin.chat import ScriptedClient
from rlhi_plugin.errors import ConfigError, ModelCallError
from rlhi_plugin.labelling import Exchange
from rlhi_plugin.labelling.labeller import label_each
from rlhi_plugin.labelling.llm import LLMLabeller
from rlhi_plugin.records import Conversation, FeedbackEvent, FeedbackKind, FollowUp, FollowUpLabel, Message
from rlhi_training.labelling.cascade import CascadeLabeller
from rlhi_training.labelling.fast import FastLabeller
from rlhi_training.labelling.hindsight import inherit
from rlhi_training.labelling.signals import signals
from rlhi_training.labelling.tiers import make_labeller

NEW, WITH, WITHOUT, POSITIVE = FollowUpLabel


class Tier:
    """Says one label with a given probability, and remembers whom it was asked about."""

    def __init__(self, name: str, sure: dict[str, float], label: FollowUpLabel = NEW) -> None:
        self.name, self._sure, self._label = name, sure, label
        self.asked: list[str] = []

    async def label(self, exchanges: Sequence[Exchange]) -> list[FollowUp]:
        self.asked += [one.follow_up for one in exchanges]
        return [self._one(one) for one in exchanges]

    def _one(self, exchange: Exchange) -> FollowUp:
        sure = self._sure.get(exchange.follow_up, 0.5)
        others = [name for name in FollowUpLabel if name is not self._label]
        return FollowUp(
            conversation_id=exchange.conversation_id,
            turn=exchange.turn,
            message_id=exchange.message_id,
            label=self._label,
            probabilities={self._label: sure, **dict.fromkeys(others, (1 - sure) / 3)},
            labeller=self.name,
        )


def exchange(text: str, turn: int = 1) -> Exchange:
    return Exchange(conversation_id="c", turn=turn, message_id=text, request="Q", reply="A", follow_up=text)


async def test_each_tier_decides_what_it_is_sure_of_and_order_is_kept():
    first = Tier("first", {"a": 0.95, "d": 0.9})
    second = Tier("second", {"b": 0.8}, WITH)
    third = Tier("third", {}, POSITIVE)
    cascade = CascadeLabeller(tiers=[first, second, third], keeps=[0.9, 0.7])
    found = await cascade.label([exchange(text) for text in "abcd"])
    assert [one.labeller for one in found] == ["first", "second", "third", "first"]
    assert [one.label for one in found] == [NEW, WITH, POSITIVE, NEW]
    assert (second.asked, third.asked) == (["b", "c"], ["c"])
    assert cascade.decided == [2, 1, 1]
    assert cascade.name == "cascade(first<0.9, second<0.7, third)"
    assert await cascade.label([]) == []


async def test_a_threshold_of_zero_stays_with_the_first_tier_and_above_one_leaves_it():
    first, second = Tier("first", {"a": 1.0}), Tier("second", {})
    assert (await CascadeLabeller(tiers=[first, second], keeps=[0.0]).label([exchange("x")]))[0].labeller == "first"
    (found,) = await CascadeLabeller(tiers=[first, second], keeps=[1.0]).label([exchange("x")])
    assert found.labeller == "second"


@pytest.mark.parametrize("keeps", [[], [1.5], [-0.1]])
def test_thresholds_that_do_not_fit_are_refused(keeps):
    with pytest.raises(ConfigError):
        CascadeLabeller(tiers=[Tier("a", {}), Tier("b", {})], keeps=keeps)


async def test_the_last_tier_may_be_a_language_model_and_its_failure_is_told():
    model = LLMLabeller(ScriptedClient(['{"label": "reattempt_with_feedback", "subtype": "shorter"}']))
    cascade = CascadeLabeller(tiers=[Tier("a", {}), model], keeps=[0.9])
    (found,) = await cascade.label([exchange("x")])
    assert (found.label, found.subtype) == (WITH, "shorter")
    broken = CascadeLabeller(tiers=[Tier("a", {}), LLMLabeller(ScriptedClient(["no"]))], keeps=[0.9])
    with pytest.raises(ModelCallError):
        await broken.label([exchange("x")])


async def test_a_tier_that_fails_on_one_follow_up_labels_the_others():
    said = {"b": "no", "c": '{"label": "positive_feedback"}'}
    model = LLMLabeller(ScriptedClient(lambda request: said[json.loads(request.messages[1].content)["follow_up"]]))
    cascade = CascadeLabeller(tiers=[Tier("a", {"a": 0.95}), model], keeps=[0.9])
    first, failed, last = await label_each(cascade, [exchange(text) for text in "abc"])
    assert (first.label, last.label) == (NEW, POSITIVE)
    assert isinstance(failed, ModelCallError)
    assert cascade.decided == [1, 1]


@pytest.mark.parametrize(
    ("name", "more", "remedy"),
    [
        ("fast", {"llm": "m"}, "cascade"),
        ("encoder", {"votes": 3}, "only a labeller that asks a model"),
        ("llm", {}, "needs a model"),
        ("absent", {}, "no labeller"),
    ],
)
def test_what_does_not_go_together_is_refused(name, more, remedy):
    with pytest.raises(ConfigError, match=remedy):
        make_labeller(name, **more)


def test_a_labeller_needs_a_worker():
    with pytest.raises(ConfigError, match="workers"):
        FastLabeller(workers=0)


# Hindsight.


def follow_up(turn: int, label: FollowUpLabel, subtype: str, sure: float = 0.95) -> FollowUp:
    return FollowUp(
        conversation_id="c",
        turn=turn,
        message_id=f"m{turn}",
        label=label,
        subtype=subtype,
        probabilities={label: sure},
        labeller="t",
    )


def test_a_neutral_turn_inherits_a_clear_signal_and_keeps_its_label():
    said = [
        follow_up(1, NEW, "question_about_answer"),
        follow_up(2, NEW, "next_step"),
        follow_up(3, WITH, "correction"),
    ]
    found = inherit(said)
    assert [one and (one.label, one.from_turn, one.from_message_id) for one in found] == [
        (WITH, 3, "m3"),
        (WITH, 3, "m3"),
        None,
    ]
    assert said[0].label is NEW


@pytest.mark.parametrize(
    "later",
    [
        [follow_up(2, WITH, "correction", 0.6)],
        [follow_up(2, NEW, "new_topic"), follow_up(3, WITH, "correction")],
        [follow_up(2, NEW, "next_step"), follow_up(3, NEW, "next_step"), follow_up(4, WITH, "correction")],
        [],
    ],
    ids=["unclear", "past a new topic", "too far", "nothing"],
)
def test_nothing_is_inherited_from_what_is_unclear_or_far(later):
    assert inherit([follow_up(1, NEW, "next_step"), *later])[0] is None


def test_a_turn_that_says_something_itself_or_begins_a_topic_inherits_nothing():
    later = follow_up(2, POSITIVE, "thanks")
    assert inherit([follow_up(1, WITH, "shorter"), later]) == [None, None]
    assert inherit([follow_up(1, NEW, "new_topic"), later]) == [None, None]
    with pytest.raises(ConfigError):
        inherit([later], reach=0)


# Signals.


def test_events_become_signals_with_their_origin():
    kinds = list(FeedbackKind)
    events = [FeedbackEvent(event_id=str(i), conversation_id="c", message_id="a", kind=k) for i, k in enumerate(kinds)]
    found = {one.kind: one for one in signals(events)}
    assert set(kinds) - set(found) == {FeedbackKind.DO_NOT_LEARN}
    assert {one.origin for one in found.values()} == {"event"}
    assert found[FeedbackKind.COPY].label is POSITIVE
    assert found[FeedbackKind.EDIT].label is WITH
    assert found[FeedbackKind.REGENERATE].label is WITHOUT
    assert (found[FeedbackKind.THUMBS_DOWN].label, found[FeedbackKind.THUMBS_DOWN].polarity) == (None, "negative")
    assert (found[FeedbackKind.ABANDON].label, found[FeedbackKind.ABANDON].polarity) == (None, "unclear")


def test_regenerated_answers_and_abandoned_threads_are_seen():
    messages = (
        Message(id="u", role="user", content="Basil?"),
        Message(id="a1", role="assistant", content="Water."),
        Message(id="a2", role="assistant", content="Water it daily.", parent_id="u"),
        Message(id="a3", role="assistant", content="Indoors or outdoors?", parent_id="u"),
    )
    found = list(signals([Conversation(conversation_id="c", messages=messages)]))
    assert [(one.kind.value, one.message_id, one.origin) for one in found] == [
        ("regenerate", "a1", "branch"),
        ("regenerate", "a2", "branch"),
        ("abandon", "a3", "thread"),
    ]
    answered = Conversation(conversation_id="d", messages=messages[:2])
    assert list(signals([answered])) == []
