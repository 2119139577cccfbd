"""Held-out users get a history the way real users do: they talk with the base assistant, and the plugin logs it.

From there on everything is the product's own path: stored conversations -> labelled follow-ups -> persona. Nothing here
reads a hidden preference; a user whom the labeller misunderstands gets a poor persona, as would happen in life.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rlhi_eval_harness.models import Assistants
from rlhi_eval_harness.run_folder import RunFolder, read_records, write_records
from rlhi_eval_harness.simulation import SimulatedUser, Utterance, converse, requests_for
from rlhi_plugin.errors import StoreError
from rlhi_plugin.labelling import Labeller, exchanges
from rlhi_plugin.persona import PersonaBuilder
from rlhi_plugin.records import Conversation, FollowUp, Persona
from rlhi_plugin.terminal import progress

if TYPE_CHECKING:
    from rlhi_eval_harness.suites.simulated_users import SimulatedUsersOptions


def talk(
    suite: SimulatedUsersOptions, users: Sequence[SimulatedUser], assistants: Assistants, folder: RunFolder
) -> list[Utterance]:
    """Let the users talk with the base assistant; the conversations are then in the folder's store.

    A history that was cut off is made again from its start: half a history would be another one.
    """
    from langchain.agents import create_agent
    from langgraph.checkpoint.memory import InMemorySaver

    from rlhi_plugin import RLHIMiddleware, open_store

    if folder.utterances.exists():
        return read_records(folder.utterances, Utterance)
    for suffix in ("", "-wal", "-shm"):
        folder.history.with_name(folder.history.name + suffix).unlink(missing_ok=True)
    store = open_store(_url(folder))
    middleware = RLHIMiddleware(store=store, persona="off")
    agent = create_agent(
        assistants.chat_model(max_tokens=suite.max_new_tokens, temperature=suite.temperature, seed=suite.seed),
        tools=[],
        system_prompt=suite.system_prompt,
        middleware=[middleware],
        checkpointer=InMemorySaver(),
    )
    try:
        with progress("held-out users talk", len(users) * suite.habits.requests_per_user) as advance:
            summary = converse(
                agent, users, requests_for("training"), habits=suite.habits, seed=suite.seed, on_progress=advance
            )
    finally:
        store.close()
    if middleware.dropped:
        raise StoreError(f"{middleware.dropped} messages could not be logged. Check disk space at {folder.path}.")
    write_records(folder.utterances, summary.utterances)
    return list(summary.utterances)


def learn_personas(
    utterances: Sequence[Utterance], folder: RunFolder, *, labeller: Labeller, builder: PersonaBuilder
) -> dict[str, Persona]:
    """Label the stored conversations and build every user's persona from them.

    Returns:
        Personas by the simulated user's name. The store knows users by pseudonym only; what the users themselves said
        in a conversation tells whose it is.
    """
    names = sorted({utterance.user for utterance in utterances})
    if folder.personas.exists():
        return dict(zip(names, read_records(folder.personas, Persona), strict=True))
    histories = _histories(utterances, folder)
    follow_ups, personas = asyncio.run(_learn([histories[name] for name in names], labeller, builder))
    write_records(folder.follow_ups, follow_ups)
    write_records(folder.personas, personas)
    return dict(zip(names, personas, strict=True))


async def _learn(
    histories: Sequence[Sequence[Conversation]], labeller: Labeller, builder: PersonaBuilder
) -> tuple[list[FollowUp], list[Persona]]:
    all_exchanges = [each for history in histories for conversation in history for each in exchanges(conversation)]
    follow_ups = await labeller.label(all_exchanges)
    personas = []
    for history in histories:
        ids = {conversation.conversation_id for conversation in history}
        mine = [follow_up for follow_up in follow_ups if follow_up.conversation_id in ids]
        user_id = history[0].user_id
        if user_id is None:
            raise StoreError("a logged conversation has no user. Check RLHIMiddleware's user_id option.")
        personas.append(await builder.build(user_id, history, mine))
    return follow_ups, personas


def _histories(utterances: Sequence[Utterance], folder: RunFolder) -> dict[str, list[Conversation]]:
    from rlhi_plugin import open_store

    by_message = {utterance.message_id: utterance.user for utterance in utterances}
    histories: dict[str, list[Conversation]] = {}
    store = open_store(_url(folder))
    try:
        for conversation in store.conversations():
            spoken = next(message.id for message in conversation.messages if message.role == "user")
            if spoken in by_message:
                histories.setdefault(by_message[spoken], []).append(conversation)
    finally:
        store.close()
    missing = sorted({utterance.user for utterance in utterances} - histories.keys())
    if missing:
        raise StoreError(
            f"the store holds no conversation of {', '.join(missing)}. Remove the folder {folder.path} and run again."
        )
    return histories


def _url(folder: RunFolder) -> str:
    return f"sqlite:///{folder.history}"
