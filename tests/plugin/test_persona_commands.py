"""Commands in the chat: answered without a model, never logged as the user's words, never read into a persona."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain.agents import create_agent
from langchain.agents.middleware import AgentMiddleware
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langgraph.checkpoint.memory import InMemorySaver

from rlhi_plugin.errors import StoreError
from rlhi_plugin.persona import ExtractivePersonaBuilder, phrases
from rlhi_plugin.persona.cache import PersonaCache
from rlhi_plugin.persona.command_messages import is_command_traffic, last_user_text, reply_message, without_commands
from rlhi_plugin.persona.commands import CommandHandler, ConversationExcluded, PersonaChanged
from rlhi_plugin.persona.edits import edit_statement, lock_statement
from rlhi_plugin.persona.phrases import is_command, read_command
from rlhi_plugin.persona.screen import is_safe
from rlhi_plugin.records import Conversation, Evidence, FollowUp, FollowUpLabel, Message, Persona, PersonaStatement
from rlhi_plugin.stores import open_store

NOW = datetime(2026, 5, 1, tzinfo=UTC)


def statement(text, conversation="c1", quote=None):
    cited = Evidence(conversation_id=conversation, message_id="m", quote=quote or text, said_at=NOW)
    return PersonaStatement(text=text, evidence=(cited,))


def persona(*statements):
    return Persona(user_id="u_1", statements=statements, builder="test")


@pytest.fixture
def store(tmp_path):
    with open_store(f"sqlite:///{tmp_path}/a.db") as opened:
        opened.put_persona(
            persona(statement("Prefers short answers.", "c1", "Shorter, please."), statement("No emojis.", "c2"))
        )
        yield opened


def give(store, text, user_id="u_1", conversation_id="c9", used=()):
    handler = CommandHandler(store, now=lambda: NOW)
    return handler.handle(text, user_id=user_id, conversation_id=conversation_id, used=used)


@pytest.mark.parametrize(
    "text",
    ["/what-do-you-know", " /WHY ", "/why 2", "/forget that", "/forget 12", "/do-not-learn.", "/Forget That!"],
)
def test_commands_are_recognised(text):
    assert read_command(text) is not None
    assert is_command(text)


@pytest.mark.parametrize(
    "text",
    ["why", "/whynot", "What does /why do?", "/forget", "/forget everything", "forget that", "/usr/bin/why",
     "/forget 1234",      "Please /do-not-learn", "/why\n\nAlso, how do plants grow?"],
)  # fmt: skip
def test_everything_else_goes_to_the_model(store, text):
    assert not is_command(text)
    assert give(store, text) is None


def test_what_do_you_know(store):
    result = give(store, "/what-do-you-know")
    assert result.reply == (
        f"{phrases.KNOWN_HEAD}\n"
        '1. Prefers short answers. (you said: "Shorter, please.", 2026-05-01)\n'
        "2. No emojis. (your words, 2026-05-01)\n\n"
        f"{phrases.KNOWN_TAIL}"
    )
    assert result.effects == ()
    assert give(store, "/what-do-you-know", user_id="u_2").reply == phrases.NOTHING_KNOWN
    assert store.get_persona("u_2") is None, "asking creates nothing"


def test_own_wording_and_locks_are_named(store):
    store.put_persona(lock_statement(edit_statement(store.get_persona("u_1"), 1, "Two sentences.", NOW), 1))
    assert "1. Two sentences. (locked) (you wrote this yourself, 2026-05-01)" in give(store, "/what-do-you-know").reply


def test_why_explains_what_was_used_in_this_thread(store):
    used = store.get_persona("u_1").statements[1:]
    assert give(store, "/why", used=used).reply == f"{phrases.WHY_HEAD}\n1. No emojis. (your words, 2026-05-01)"
    assert give(store, "/why 1", used=used).reply.endswith("1. No emojis. (your words, 2026-05-01)")
    assert give(store, "/why 2", used=used).reply == phrases.WHICH
    assert give(store, "/why").reply == phrases.NOTHING_USED


def test_forgetting_by_number(store):
    result = give(store, "/forget 2")
    assert result.reply == f"{phrases.FORGOTTEN}\nNo emojis."
    assert result.effects == (PersonaChanged("u_1"),)
    after = store.get_persona("u_1")
    assert [s.text for s in after.statements] == ["Prefers short answers."]
    assert len(after.removed) == 1


def test_that_is_what_this_conversation_taught_or_the_only_one(store):
    assert give(store, "/forget that", conversation_id="c9").reply == phrases.WHICH
    assert len(store.get_persona("u_1").statements) == 2, "no guess"
    assert give(store, "/forget that", conversation_id="c1").reply.endswith("Prefers short answers.")
    assert give(store, "/forget that", conversation_id="c9").reply.endswith("No emojis.")
    assert give(store, "/forget that").reply == phrases.NOTHING_KNOWN


def test_what_is_locked_is_not_forgotten_in_passing(store):
    store.put_persona(lock_statement(store.get_persona("u_1"), 1))
    result = give(store, "/forget 1")
    assert result.reply.startswith(phrases.LOCKED)
    assert result.effects == ()
    assert len(store.get_persona("u_1").statements) == 2


def test_do_not_learn(store):
    result = give(store, "/do-not-learn", conversation_id="c1")
    assert result.reply == phrases.NOT_LEARNING
    assert result.effects == (PersonaChanged("u_1"), ConversationExcluded("c1", "u_1", NOW))
    after = store.get_persona("u_1")
    assert [s.text for s in after.statements] == ["No emojis."]
    assert after.excluded == ("c1",)


def test_a_user_without_a_persona_can_still_refuse(store):
    give(store, "/do-not-learn", user_id="u_new", conversation_id="c5")
    assert store.get_persona("u_new").excluded == ("c5",)


def test_anonymous_users(store):
    assert give(store, "/what-do-you-know", user_id=None).reply == phrases.UNKNOWN_USER
    result = give(store, "/do-not-learn", user_id=None)
    assert result.effects == (ConversationExcluded("c9", None, NOW),)


class Broken:
    def get_persona(self, user_id):
        return persona(statement("No emojis."))

    def put_persona(self, persona):
        raise StoreError("the disk is full. Free some space.")


def test_a_failing_store_is_admitted(caplog):
    result = give(Broken(), "/forget 1")
    assert (result.reply, result.effects) == (phrases.FAILED, ())
    assert "could not be carried out" in caplog.text
    # That nothing may be learned is kept even so: the app can note it elsewhere.
    assert give(Broken(), "/do-not-learn").effects == (ConversationExcluded("c9", "u_1", NOW),)


def test_what_was_forgotten_leaves_the_running_thread(store):
    cache = PersonaCache(store)
    before = cache.get("c9", "u_1")
    assert "No emojis." in before.text
    cache.get("c9", "u_2")
    (effect,) = give(store, "/forget 2", used=before.statements).effects
    cache.drop(effect.user_id)
    assert "No emojis." not in cache.get("c9", "u_1").text
    assert cache.is_ready("c9", "u_2"), "other users' threads keep what they have"


# As messages


def test_messages(store):
    reply = reply_message(give(store, "/what-do-you-know"))
    history = [
        HumanMessage("How do plants grow?"),
        AIMessage("They do."),
        HumanMessage("/what-do-you-know"),
        reply,
        ToolMessage("x", tool_call_id="1"),
        HumanMessage("Shorter, please."),
    ]
    assert [m.text for m in without_commands(history)] == ["How do plants grow?", "They do.", "x", "Shorter, please."]
    assert is_command_traffic(AIMessage(reply.text)), "also where the mark was lost on the way"
    assert last_user_text(history) == "Shorter, please."
    assert last_user_text(history[:-1]) is None
    assert last_user_text([]) is None


async def test_neither_commands_nor_their_replies_enter_a_persona(store):
    """Even if they were logged, labelled as feedback, and pasted back by the user."""
    replies = [give(store, text).reply for text in ("/what-do-you-know", "/forget 1", "/do-not-learn", "/why")]
    said = ["/forget that", "/why 1", *replies, *(f"You told me: {reply}" for reply in replies), *phrases.REPLIES]
    messages, labels = [], []
    for number, text in enumerate(said):
        messages.append(Message(id=f"u{number}", role="user", content=text, created_at=NOW))
        labels.append(
            FollowUp(conversation_id="c", turn=number + 1, message_id=f"u{number}",
                     label=FollowUpLabel.WITH_FEEDBACK, labeller="test")
        )  # fmt: skip
    talk = Conversation(conversation_id="c", user_id="u_1", messages=tuple(messages))
    built = await ExtractivePersonaBuilder(50).build("u_1", [talk], labels)
    assert (built.statements, built.reserve) == ((), ())


@given(st.text(max_size=60))
def test_any_text_is_a_command_or_left_to_the_model(text):
    result = CommandHandler(Broken()).handle(text, user_id="u_1", conversation_id="c")
    assert (result is None) is (not is_command(text))


@pytest.mark.parametrize("phrase", phrases.REPLIES)
def test_our_phrases_are_screened(phrase):
    assert not is_safe(phrase)


class Commands(AgentMiddleware):
    """What a middleware has to do for commands, and no more."""

    def __init__(self, store):
        super().__init__()
        self._handler = CommandHandler(store, now=lambda: NOW)
        self.seen = []

    def wrap_model_call(self, request, handler):
        text = last_user_text(request.messages)
        result = text and self._handler.handle(text, user_id="u_1", conversation_id="c1")
        if result:
            return reply_message(result)
        self.seen.append([m.text for m in without_commands(request.messages)])
        return handler(request.override(messages=without_commands(request.messages)))


def test_a_real_agent_answers_commands_without_its_model(store):
    model = GenericFakeChatModel(messages=iter([AIMessage("They grow."), AIMessage("Shortly.")]))
    commands = Commands(store)
    agent = create_agent(model, tools=[], middleware=[commands], checkpointer=InMemorySaver())
    config = {"configurable": {"thread_id": "c1"}}

    def say(text):
        return agent.invoke({"messages": [("user", text)]}, config=config)["messages"][-1]

    assert say("How do plants grow?").text == "They grow."
    told = say("/what-do-you-know")
    assert told.text.startswith(phrases.KNOWN_HEAD)
    assert is_command_traffic(told)
    assert say("/forget 2").text == f"{phrases.FORGOTTEN}\nNo emojis."
    assert say("Shorter, please.").text == "Shortly."
    assert commands.seen == [["How do plants grow?"], ["How do plants grow?", "They grow.", "Shorter, please."]]
