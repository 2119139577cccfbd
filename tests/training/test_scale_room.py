"""Who may listen to others' requests, where there are too many of them for memory."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from rlhi_plugin.persona import ExtractivePersonaBuilder
from rlhi_plugin.records import Evidence, FollowUp, FollowUpLabel, Persona, PersonaStatement
from rlhi_training.asked_for import AskedFor
from rlhi_training.recipe import ContrastSection, Recipe
from rlhi_training.records import LabelledTurn
from rlhi_training.scale.layout import Layout
from rlhi_training.scale.lines import Lines
from rlhi_training.scale.room import PEOPLE, Room, RoomEntry, build_room, dated
from rlhi_training.stages.audience import Audience
from rlhi_training.stages.persona_history import History

START = datetime(2026, 1, 5, 9, tzinfo=UTC)
TEXTS = ("Shorter please.", "Use bullet points.", "No emojis please.", "Give numbers.")
WISHES = frozenset(("short", "bullets", "no_emojis", "numbers"))


def persona(user: str, day: int | None, *texts: str) -> Persona:
    evidence = (Evidence(conversation_id="c", message_id="m", quote="q"),)
    return Persona(
        user_id=user,
        statements=tuple(PersonaStatement(text=text, evidence=evidence) for text in texts),
        covers_until=None if day is None else START + timedelta(days=day),
        builder="t",
    )


@pytest.fixture
def people() -> dict[str, list[Persona]]:
    """Of each user the personas over time: two at one moment, one without a time."""
    return {
        f"u{n}": [
            persona(f"u{n}", n, TEXTS[n % 4]),
            persona(f"u{n}", n + 2, TEXTS[n % 4], TEXTS[(n + 1) % 4]),
            persona(f"u{n}", n + 2, TEXTS[(n + 2) % 4]),
            persona(f"u{n}", None, TEXTS[(n + 3) % 4], TEXTS[n % 4]),
        ]
        for n in range(12)
    }


@pytest.fixture
def room(tmp_path, people) -> Room:
    layout = Layout(tmp_path, Recipe(name="t", summary="-"), shards=2)
    for shard in range(2):
        with Lines(layout.shard(shard, "room.jsonl")) as entries, Lines(layout.shard(shard, PEOPLE)) as lines:
            for number, (user, known) in enumerate(people.items()):
                if number % 2 != shard:
                    continue
                places = {one.digest: lines.write(one.to_json().encode()) for one in known}
                asked = sorted({name for one in known for name in AskedFor().of_persona(one)})
                latest = places[known[2].digest]
                entry = RoomEntry(
                    user_id=user, shard=shard, asked=tuple(asked), known=dated(known, places), latest=latest
                )
                entries.write(entry.to_json().encode())
    build_room(layout, sorted(WISHES), tmp_path / "room.jsonl")
    return Room(tmp_path / "room.jsonl")


@pytest.fixture
def audience(people) -> Audience:
    found = Audience((), (), [known[2] for known in people.values()])
    found._snapshots = people
    return found


def test_the_room_knows_what_memory_would(room, audience, people):
    for user in (*people, "nobody"):
        assert room.latest_of(user) == audience.latest_of(user)
        for hours in range(0, 24 * 16, 6):
            moment = START + timedelta(hours=hours)
            assert room.persona_of(user, moment) == audience.persona_of(user, moment), (user, hours)
        assert room.persona_of(user, None) is None
    reader = AskedFor()
    for wishes in (WISHES, frozenset(("numbers",)), frozenset(("tables",)), None):
        assert set(room.users_asking(wishes, reader)) == set(audience.users_asking(wishes, reader))


def test_personas_are_read_one_by_one(room, people, monkeypatch):
    from rlhi_training.scale import room as module

    monkeypatch.setattr(module, "_AT_HAND", 3)
    for _ in range(2):
        for user, known in people.items():
            assert room.persona_of(user, START + timedelta(days=90)) in known
            assert len(room._at_hand) <= 3


def turn(number: int) -> LabelledTurn:
    return LabelledTurn(
        conversation_id=f"c{number}",
        user_id=None,
        turn=0,
        context=({"role": "user", "content": f"What is number {number}?"},),
        response="That.",
        request_id="a",
        response_id="b",
    )


@pytest.mark.parametrize("which", ["room", "audience"])
def test_everybody_is_looked_through_once_however_many_batches(which, request, monkeypatch):
    listening = request.getfixturevalue(which)
    looked: list[object] = []
    search = type(listening).users_asking
    monkeypatch.setattr(type(listening), "users_asking", lambda *args: looked.append(args) or search(*args))
    reader, section = AskedFor(), ContrastSection()
    found = []
    for number in range(20):
        here = listening.at({f"c{number}": START + timedelta(days=40)}, {})
        found.append(list(here.listeners(turn(number), WISHES, reader, section, seed=1)))
    assert len(looked) == 1
    assert all(found)


def test_both_seat_the_same(room, audience):
    reader, section = AskedFor(), ContrastSection()
    for number in range(20):
        started = {f"c{number}": START + timedelta(days=number)}
        here, there = (one.at(started, {}) for one in (room, audience))
        seated = list(here.listeners(turn(number), WISHES, reader, section, seed=1))
        assert seated == list(there.listeners(turn(number), WISHES, reader, section, seed=1))


async def test_training_keeps_nothing_in_reserve(conversation):
    """What a builder holds for later turns would be written with every conversation."""
    said = ["Shorter please.", "Use bullet points.", "Give some numbers please.", "No emojis please."]
    builder = ExtractivePersonaBuilder(max_statements=2)
    history = History("ann", builder)
    talks = [conversation(f"c{n}", ["What is tea?", "A drink.", text, "Yes."], day=n) for n, text in enumerate(said)]
    for talk in talks:
        follow_up = FollowUp(
            conversation_id=talk.conversation_id,
            turn=1,
            message_id=talk.messages[2].id,
            label=FollowUpLabel.WITH_FEEDBACK,
            labeller="t",
        )
        entry = await history.before(talk, [follow_up])
        assert entry.persona is None or not entry.persona.reserve
    latest = await history.latest()
    assert latest is not None
    assert len(latest.statements) == 2
    assert not latest.reserve
    assert len(history._persona.reserve) == 2, "or later turns could not bring them back"
