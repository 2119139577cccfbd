"""Persona contrast: what crosses between users as a property, pools of three sources, rankings by any reward model."""

from __future__ import annotations

import asyncio
import random
import re
from datetime import UTC, datetime, timedelta
from types import MappingProxyType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlhi_plugin.chat import ChatRequest, ScriptedClient
from rlhi_plugin.records import ChatMessage, Conversation, Evidence, FollowUpLabel, Message, Persona, PersonaStatement
from rlhi_training.asked_for import AskedFor
from rlhi_training.contrasting.quoting import private_grams, quotes
from rlhi_training.generation import Sampling
from rlhi_training.recipe import ContrastSection
from rlhi_training.records import Candidate, LabelledTurn, PersonaBefore
from rlhi_training.reward_models import Verdict
from rlhi_training.run_directory import check_conservation
from rlhi_training.stages.audience import Audience
from rlhi_training.stages.contrast import CONTRASTS, Material, contrast

START = datetime(2026, 1, 1, tzinfo=UTC)
SAMPLING = Sampling(0.7, 64, 0)
WISHES = ("Use bullet points please.", "Keep it in prose please.", "Add some numbers please.", "Use emojis please.")
_WORD = re.compile(r"\w+")


def persona(user: str, *wishes: str, secret: str = "") -> Persona:
    texts = [*wishes, *([secret] if secret else [])]
    statements = tuple(
        PersonaStatement(
            text=text, evidence=(Evidence(conversation_id="old", message_id=f"{user}{i}", quote=text, said_at=START),)
        )
        for i, text in enumerate(texts)
    )
    return Persona(user_id=user, statements=statements, covers_until=START, builder="test")


def turn(user: str, request: str, follow_up: str | None = None) -> LabelledTurn:
    return LabelledTurn(
        conversation_id=f"of-{user}",
        user_id=user,
        turn=0,
        context=(ChatMessage(role="user", content=request),),
        response=f"logged answer to {user} that somebody else's model wrote long ago",
        follow_up=follow_up,
        label=FollowUpLabel.WITH_FEEDBACK if follow_up else None,
        request_id="q",
        response_id="a",
        follow_up_id="f" if follow_up else None,
    )


def audience(people: list[Persona], turns: list[LabelledTurn]) -> Audience:
    later = START + timedelta(days=9)
    talks = [
        Conversation(
            conversation_id=t.conversation_id,
            user_id=t.user_id,
            started_at=later,
            messages=(Message(id="q", role="user", content=t.context[-1].content),),
        )
        for t in turns
    ]
    known = {p.user_id: p for p in people}
    before = [
        PersonaBefore(conversation_id=t.conversation_id, user_id=t.user_id, persona=known[t.user_id])
        if t.user_id in known
        else PersonaBefore(conversation_id=t.conversation_id, user_id=t.user_id, why_none="nothing_said")
        for t in turns
    ]
    return Audience(talks, before, people)


def obedient(request: ChatRequest, echo: str = "") -> str:
    """Does what the instruction at the end of the request says."""
    said = request.messages[-1].content
    text = "Look at the soil before you water, and turn the pot so that it grows straight on all sides"
    if "two concrete numbers" in said:
        text += ", every 3 days or every 10"
    if "emojis" in said and "not" not in said:
        text += " \U0001f33f"
    if "bullet points" in said:
        text = f"- {text}\n- Feed it in spring"
    return f"{text}. {echo}".strip()


def run(turns, people, client, more=None, model=None, **section):
    options = {"min_users_per_property": 1, "max_length_ratio": 3.0, "other_personas": "latest", **section}
    material = Material(audience(people, turns), AskedFor(), more or {}, model)
    result = asyncio.run(contrast(turns, material, client, (ContrastSection(**options), SAMPLING)))
    check_conservation("contrast", result)
    return result


_SECRETS = st.lists(st.text("bcdfghjklmnpqrstvwxz", min_size=4, max_size=8), min_size=6, max_size=9, unique=True)


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_no_users_texts_cross(data):
    """A pair of A's request and B's persona holds nothing that A, or anybody but B, wrote elsewhere.

    The model is a leaky one: sometimes it repeats a follow-up or a persona that it has seen, whole or in part.
    """
    users = ["ann", "bob", "cyd"]
    secrets = {user: " ".join(data.draw(_SECRETS)) for user in users}
    said = {user: f"no {' '.join(data.draw(_SECRETS))} please" for user in users}
    wishes = st.sampled_from([*WISHES, "That was rude."])
    people = [persona(user, data.draw(wishes), secret=secrets[user]) for user in users]
    turns = [turn(user, f"{user} asks how to keep a plant alive", said[user]) for user in users]
    order = random.Random(data.draw(st.integers(0, 999)))
    everything = [*secrets.values(), *said.values()]
    client = ScriptedClient(lambda request: obedient(request, order.choice(["", "", *everything])))
    more = {}
    for t in turns:
        texts = [
            obedient(ChatRequest(messages=t.context), order.choice(["Oh.", said[t.user_id], secrets[t.user_id]])),
            "- one line here\n- two lines are here",
        ]
        more[t.key] = [
            Candidate(conversation_id=t.conversation_id, turn=0, text=text, origin="rewrite", model="m")
            for text in texts
        ]
        more[t.key].append(
            Candidate(conversation_id=t.conversation_id, turn=0, text=t.response, origin="logged", model="logged")
        )
    result = run(turns, people, client, more, plain_samples=2)
    for pair in result.files[CONTRASTS]:
        author = pair.conversation_id.removeprefix("of-")
        owner = pair.persona.user_id if pair.persona else None
        for candidate in (pair.chosen, pair.rejected):
            assert candidate.origin != "logged"
            assert candidate.conversation_id == pair.conversation_id
            for user in users:
                assert not _shares(candidate.text, said[user]) or user != author, "the author's follow-up crossed"
                in_the_room = user in (author, owner)
                assert not (in_the_room and _shares(candidate.text, secrets[user])), "words of a persona crossed"
    off = run(turns, people, client, more, cross_user=False)
    assert off.files[CONTRASTS] == []


def _shares(text: str, private: str) -> bool:
    """Whether five consecutive words of a private text stand in a text."""
    words, own = _WORD.findall(text.lower()), _WORD.findall(private.lower())
    grams = {tuple(own[i : i + 5]) for i in range(len(own) - 4)}
    return any(tuple(words[i : i + 5]) in grams for i in range(len(words) - 4))


def test_quotations_are_five_words_or_a_whole_short_text():
    private = private_grams(["Never mention my sister Ada again", "call me captain"], ["never mention it"])
    assert quotes("As you said: never mention my sister ADA, please.", private)
    assert not quotes("never mention my brother Ada again", private)
    assert quotes("Aye, call me captain!", private)
    assert not quotes("", private)
    assert private_grams(["shorter please"], []) == frozenset()
    assert not quotes("call me captain", private_grams(["call me captain"], ["Please call me captain."]))


def test_scripts_without_spaces_are_quoted_by_their_characters():
    private = private_grams(["我住在柏林的一个小公寓里", "太短了"], ["柏林的天气怎么样?"])
    assert quotes("既然你住在柏林的一个小公寓里,就少浇水。", private)
    assert quotes("你说太短了,这里是更长的回答。", private)
    assert not quotes("柏林的天气很好。", private)
    assert not quotes("每天给植物六个小时的光。", private)


def test_an_author_who_has_no_say_is_not_quoted_to_others_either():
    """Samples were written under their persona, which need not ask for anything that counts for the request."""
    home = "I nurse my brother Tom at home"
    turns = [turn("ann", "How do I keep a plant alive?")]
    people = [persona("ann", secret=home), persona("bob", WISHES[0]), persona("cyd", WISHES[1])]
    leak = f"- Since you said that {home}, look at the soil\n- Turn the pot so that it grows straight"
    sample = Candidate(conversation_id="of-ann", turn=0, text=leak, origin="sample", model="m")
    result = run(turns, people, ScriptedClient(obedient), {turns[0].key: [sample]}, guided_samples=0)
    assert result.notes["left_out"] == {"quotes_a_user": 1}
    assert not [p for p in result.files[CONTRASTS] if home in p.chosen.text + p.rejected.text]


def test_rewrites_and_samples_join_the_pool_and_logged_answers_do_not():
    turns = [turn("ann", "How do I keep a plant alive?", "Too dry, please!")]
    people = [persona("ann", WISHES[0]), persona("bob", WISHES[1])]
    listed = "- Look at the soil before you water\n- Turn the pot so that it grows straight"

    def candidate(text: str, origin: str) -> Candidate:
        return Candidate(conversation_id="of-ann", turn=0, text=text, origin=origin, model="m")

    more = {turns[0].key: [candidate(listed, "rewrite"), candidate(turns[0].response, "logged")]}
    client = ScriptedClient(["Look at the soil before you water, and turn the pot so that it grows straight."])
    result = run(turns, people, client, more, guided_samples=0, neutral_share=0.0, irrelevant_share=0.0)
    assert {p.persona.user_id: p.chosen.text for p in result.files[CONTRASTS]}["ann"] == listed
    assert result.notes["candidates"] == {"rewrite": 1, "sample": 1}
    assert result.notes["left_out"] == {"logged": 1}
    assert result.notes["turned"] == 2
    assert result.notes["mean_words"]["chosen"] > 0


def test_a_persona_that_does_not_matter_loses_to_the_plain_answer():
    turns = [
        turn("ann", "Translate into French: the plant is alive and well."),
        turn("bob", "How do I keep a plant alive?"),
    ]
    people = [persona("ann", WISHES[0]), persona("bob", WISHES[0]), persona("cyd", WISHES[1])]
    result = run(turns, people, ScriptedClient(obedient), irrelevant_share=1.0, neutral_share=0.0)
    odd = [p for p in result.files[CONTRASTS] if p.persona and not p.asked]
    assert result.notes["irrelevant"] == len(odd) == 1
    (pair,) = odd
    assert pair.conversation_id == "of-ann"
    assert pair.chosen.guidance is None
    assert pair.rejected.text.startswith("- ")
    assert not any("bullets" in p.asked for p in result.files[CONTRASTS] if p.conversation_id == "of-ann")
    ungated = run(turns, people, ScriptedClient(obedient), gate=False, neutral_share=0.0)
    assert any("bullets" in p.asked for p in ungated.files[CONTRASTS] if p.conversation_id == "of-ann")


class _LikesWordsOfThePersona:
    """Scores an answer by how many words of the persona it holds; without persona, the shorter the better."""

    name = "words/1"

    def unscorable(self, persona):
        return None

    async def score(self, turn, candidates, persona):
        if persona is None:
            return [Verdict(-float(len(c.text))) for c in candidates]
        liked = set(_WORD.findall(persona.statements[0].text.lower()))
        return [Verdict(float(len(liked & set(_WORD.findall(c.text.lower()))))) for c in candidates]

    seen = MappingProxyType({})

    def notes(self, seen):
        return {"seen": "words"}


def test_any_reward_model_can_rank_the_pool():
    turns = [turn("ann", "What shall I read on a long journey?")]
    people = [persona("ann", "I love ships and harbours"), persona("bob", "I love forests and mountains")]
    texts = [
        "Read a story of ships and of harbours far away.",
        "Read a story of forests and of mountains far away.",
        "Read whatever you like, it is a long way.",
    ]
    client = ScriptedClient(texts)
    by_words = {"model": _LikesWordsOfThePersona(), "rank_by": "reward_model", "only_turning": True, "plain_samples": 3}
    result = run(turns, people, client, **by_words)
    chosen = {p.persona.user_id: p.chosen.text for p in result.files[CONTRASTS] if p.persona}
    assert chosen == {"ann": texts[0], "bob": texts[1]}
    assert result.notes["turned"] == 2
    assert result.notes["reward_model"] == "words/1"
    assert result.notes["seen"] == "words"
    assert all(p.margin > 0 for p in result.files[CONTRASTS] if p.persona)
    strict = run(turns, people[:1], client, **by_words)
    assert strict.files[CONTRASTS] == [], "with one persona in the room nothing turns"


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_neutral_pairs_are_a_share_of_the_others(share):
    turns = [turn(user, f"{user}: how do I keep a plant alive?") for user in ("ann", "bob", "cyd", "dan")]
    people = [persona(t.user_id, WISHES[i % 2], WISHES[2]) for i, t in enumerate(turns)]
    result = run(turns, people, ScriptedClient(obedient), neutral_share=share, irrelevant_share=0.0)
    neutral = [p for p in result.files[CONTRASTS] if p.persona is None]
    assert len(neutral) == result.notes["neutral"] <= share * result.notes["pairs"]
    assert bool(neutral) == bool(share)
