"""Exchanges, labellers by name, and the labeller that asks a model."""

import json
from importlib.metadata import EntryPoint

import pytest

from rlhi_plugin.calls import opening
from rlhi_plugin.chat import ScriptedClient
from rlhi_plugin.errors import ConfigError, MissingExtraError, ModelCallError
from rlhi_plugin.labelling import Exchange, Labeller, exchanges, labeller, load_labeller
from rlhi_plugin.labelling.llm import LLMLabeller
from rlhi_plugin.records import Conversation, FollowUpLabel, Message


def conversation(script):
    """From a script such as ``u a u``: messages named by role and position."""
    roles = {"u": "user", "a": "assistant", "s": "system", "t": "tool"}
    messages = [Message(id=f"{r}{i}", role=roles[r], content=f"{r}{i}") for i, r in enumerate(script.split())]
    return Conversation(conversation_id="c", messages=tuple(messages))


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("", []),
        ("u a", []),
        ("u a u", [(1, "u0", "a1", "u2")]),
        ("s u t a u a u", [(1, "u1", "a3", "u4"), (2, "u4", "a5", "u6")]),
        ("u a a u", [(1, "u0", "a2", "u3")]),
        ("u u a u", [(2, "u1", "a2", "u3")]),
        ("u a u u", [(1, "u0", "a1", "u2"), (2, "u0", "a1", "u3")]),
        ("a u", []),
        ("u t u", []),
    ],
)
def test_exchanges(script, expected):
    found = exchanges(conversation(script))
    assert [(e.turn, e.request, e.reply, e.follow_up) for e in found] == expected
    assert [e.message_id for e in found] == [e.follow_up for e in found]


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("u a u", [(1, "u0", "a1", "u2")]),
        ("u u a u", [(1, "u0", "", "u1"), (2, "u1", "a2", "u3")]),
        ("u a u u", [(1, "u0", "a1", "u2"), (2, "u2", "", "u3")]),
        ("u a u u a u", [(1, "u0", "a1", "u2"), (2, "u2", "", "u3"), (3, "u3", "a4", "u5")]),
        ("a u u", [(1, "u1", "", "u2")]),
        ("u t u", [(1, "u0", "", "u2")]),
        ("a u", []),
    ],
)
def test_every_user_message_after_the_first_where_asked_for(script, expected):
    found = exchanges(conversation(script), unanswered=True)
    assert [(e.turn, e.request, e.reply, e.follow_up) for e in found] == expected


def test_what_was_said_before_the_request_goes_along():
    found = exchanges(conversation("u a u a u"))
    assert [e.earlier for e in found] == [(), ("u0",)]


def exchange(follow_up="Shorter, please.", turn=1, reply="Cats are nice."):
    return Exchange(
        conversation_id="c", turn=turn, message_id=f"m{turn}", request="Cats?", reply=reply, follow_up=follow_up
    )


def answer(**fields):
    return json.dumps({"label": "reattempt_with_feedback", "confidence": "high"} | fields)


async def test_llm_labeller_labels_in_order():
    def by_text(request):
        asked = json.loads(request.messages[1].content)
        feedback = "horter" in asked["follow_up"]
        return answer(label="reattempt_with_feedback" if feedback else "new_request")

    texts = ["Shorter!", "And dogs?", "Even shorter."] * 5
    asked = [exchange(text, turn) for turn, text in enumerate(texts, start=1)]
    made = LLMLabeller(ScriptedClient(by_text))
    found = await made.label(asked)
    assert [f.message_id for f in found] == [e.message_id for e in asked]
    assert [f.label is FollowUpLabel.WITH_FEEDBACK for f in found] == ["horter" in text for text in texts]
    assert {f.labeller for f in found} == {made.name}
    assert made.name.startswith("llm:scripted:follow_up-")


async def test_probabilities_sum_to_one_and_follow_the_confidence():
    made = LLMLabeller(ScriptedClient([answer(confidence=c) for c in ("low", "high")]))
    low, high = [(await made.label([exchange()]))[0] for _ in range(2)]
    for found in (low, high):
        assert sum(found.probabilities.values()) == pytest.approx(1)
        assert max(found.probabilities, key=found.probabilities.get) is found.label
    assert low.probabilities[low.label] < high.probabilities[high.label]


async def test_several_votes_elect_a_label_and_share_the_probability():
    said = [
        answer(label="new_request", subtype="next_step", confidence="low"),
        answer(subtype="shorter", evidence="Shorter"),
        answer(subtype="shorter", evidence="not there"),
    ]
    client = ScriptedClient(said)
    (found,) = await LLMLabeller(client, votes=3).label([exchange()])
    assert (found.label, found.subtype, found.evidence) == (FollowUpLabel.WITH_FEEDBACK, "shorter", "Shorter")
    assert sum(found.probabilities.values()) == pytest.approx(1)
    assert 0.6 < found.probabilities[FollowUpLabel.WITH_FEEDBACK] < 0.95
    assert len({request.seed for request in client.requests}) == 3
    assert all(request.temperature > 0 for request in client.requests)
    assert found.labeller.endswith(":3-votes")


@pytest.mark.parametrize("votes", [0, 16])
def test_an_odd_number_of_votes_is_refused(votes):
    with pytest.raises(ConfigError, match="votes"):
        LLMLabeller(ScriptedClient([answer()]), votes=votes)


@pytest.mark.parametrize(("evidence", "kept"), [("Shorter", "Shorter"), ("shorter", None), ("", None), (None, None)])
async def test_evidence_is_verbatim_or_none(evidence, kept):
    (found,) = await LLMLabeller(ScriptedClient([answer(evidence=evidence)])).label([exchange()])
    assert found.evidence == kept


@pytest.mark.parametrize("bad", ["no", "{}", answer(label="praise")])
async def test_bad_json_is_asked_for_once_more(bad):
    client = ScriptedClient([bad, answer()])
    (found,) = await LLMLabeller(client).label([exchange()])
    assert found.label is FollowUpLabel.WITH_FEEDBACK
    assert [request.temperature > 0 for request in client.requests] == [False, True]
    with pytest.raises(ModelCallError, match="2 times"):
        await LLMLabeller(ScriptedClient([bad])).label([exchange()])


async def test_long_texts_keep_their_beginning_and_end():
    client = ScriptedClient([answer()])
    await LLMLabeller(client).label([exchange(reply="first " + "x" * 50_000 + " last")])
    shown = json.loads(client.requests[0].messages[1].content)["reply"]
    assert shown.startswith("first")
    assert shown.endswith("last")
    assert len(shown) < 5_000


@pytest.fixture
def registered(monkeypatch):
    def register(value):
        entry = EntryPoint(name="mine", value=value, group=labeller.ENTRY_POINTS)
        monkeypatch.setattr(labeller, "entry_points", lambda group: [entry])

    return register


class Plain:
    name = "plain"

    async def label(self, exchanges):
        return []


def test_labellers_are_found_by_name(registered, monkeypatch):
    # Importing LiteLLM takes seconds, and its own test does that.
    monkeypatch.setattr(opening, "open_hosted", lambda spec: ScriptedClient([], model=spec))
    assert isinstance(load_labeller("llm", llm="openai/gpt-4o"), Labeller)
    registered("rlhi_plugin.labelling.llm:LLMLabeller")
    with pytest.raises(ConfigError, match="Choose one of: mine"):
        load_labeller("absent")
    with pytest.raises(ConfigError, match="--llm"):
        load_labeller("mine")


def test_a_labeller_without_a_model_refuses_one(monkeypatch):
    monkeypatch.setattr(
        labeller, "entry_points", lambda group: [type("E", (), {"name": "mine", "load": staticmethod(lambda: Plain)})]
    )
    assert load_labeller("mine").name == "plain"
    with pytest.raises(ConfigError, match="asks no model"):
        load_labeller("mine", llm="openai/gpt-4o")


def test_a_labeller_whose_packages_are_absent_names_the_extra(registered):
    registered("rlhi_no_such_package.labelling:Labeller")
    with pytest.raises(MissingExtraError, match=r"rlhi\[train\]"):
        load_labeller("mine")
