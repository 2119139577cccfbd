"""Every part of a message is redacted, its id and the rest stay, and the same goes in as comes out twice."""

import json

import pytest
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, SystemMessage, ToolMessage

from rlhi_plugin.errors import ConfigError
from rlhi_plugin.privacy.messages import MessageRedactor, open_redactor
from rlhi_plugin.privacy.placeholders import PLACEHOLDER, Placeholders, Scope
from rlhi_plugin.privacy.redaction import Redacted
from rlhi_plugin.records import Conversation, Message

MAIL = "bob@example.com"
SCOPE = Scope("t1", "u_1")


@pytest.fixture
def redaction():
    return MessageRedactor(open_redactor("default"))


def test_plain_content_of_every_role(redaction):
    for kind in (HumanMessage, AIMessage, SystemMessage):
        said = kind(content=f"mail {MAIL}", id="m1")
        clean = redaction.message(said, SCOPE)
        assert MAIL not in clean.content
        assert (clean.id, type(clean)) == ("m1", kind)
        assert MAIL in said.content, "the app's own message was changed"
    assert redaction.counts == {"email": 3}


def test_what_holds_nothing_is_the_same_object(redaction):
    said = AIMessage(
        content=[{"type": "text", "text": "hello"}], tool_calls=[{"name": "f", "args": {"n": 1}, "id": "c"}]
    )
    assert redaction.message(said, SCOPE) is said


def test_every_content_block(redaction):
    blocks = [
        f"string {MAIL}",
        {"type": "text", "text": f"text {MAIL}", "annotations": [{"title": f"of {MAIL}"}], "id": "b1"},
        {"type": "reasoning", "reasoning": f"they said {MAIL}"},
        {"type": "thinking", "thinking": f"they said {MAIL}", "signature": "c2lnbmVk"},
        {"type": "tool_use", "name": "send", "id": "c1", "input": {"to": MAIL, "deep": [{"cc": [MAIL]}]}},
        {"type": "image_url", "image_url": {"url": f"https://x.org/{MAIL}.jpeg?to={MAIL}"}},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}},
        {"type": "file", "filename": MAIL, "base64": "aGVsbG8="},
        {"type": "non_standard", "value": {"anything": f"<{MAIL}>"}},
    ]
    clean = redaction.message(HumanMessage(content=blocks), SCOPE).content
    assert MAIL not in json.dumps(clean)
    assert [b if isinstance(b, str) else b["type"] for b in clean][1:] == [b["type"] for b in blocks[1:]]
    assert clean[1]["id"] == "b1"
    assert clean[6] == blocks[6]
    assert (clean[3]["signature"], clean[7]["base64"]) == ("c2lnbmVk", "aGVsbG8=")


def test_a_secret_over_the_seam_of_two_blocks(redaction):
    blocks = [{"type": "text", "text": "key: sk-proj-1abcdefghij"}, {"type": "text", "text": "klmnopqrstuvw and more"}]
    clean = redaction.message(HumanMessage(content=blocks), SCOPE).content
    assert [block["type"] for block in clean] == ["text", "text"]
    assert PLACEHOLDER.fullmatch(clean[0]["text"].removeprefix("key: "))
    assert clean[1]["text"] == " and more"


def test_tool_arguments_keep_their_names(redaction):
    args = {
        "to": MAIL,
        "card": 4111111111111111,
        "count": 3,
        "ok": True,
        "nothing": None,
        "ratio": 0.5,
        "password": "open sesame",
        "max_tokens": 10,
        "auth": {"api_key": "tiny", "list": [MAIL, 1]},
    }
    said = AIMessage(content="", tool_calls=[{"name": "send", "args": args, "id": "c1"}])
    clean = redaction.message(said, SCOPE).tool_calls[0]
    assert (clean["name"], clean["id"]) == ("send", "c1")
    assert list(clean["args"]) == list(args)
    assert PLACEHOLDER.fullmatch(clean["args"]["card"])
    assert PLACEHOLDER.fullmatch(clean["args"]["password"])
    assert PLACEHOLDER.fullmatch(clean["args"]["auth"]["api_key"])
    assert clean["args"]["auth"]["list"] == [clean["args"]["to"], 1]
    assert {k: clean["args"][k] for k in ("count", "ok", "nothing", "ratio", "max_tokens")} == {
        "count": 3, "ok": True, "nothing": None, "ratio": 0.5, "max_tokens": 10,
    }  # fmt: skip


def test_arguments_named_like_bytes_are_read(redaction):
    """A content block's bytes are never stored; a tool's arguments are, whatever their names."""
    args = {"data": f"to {MAIL}", "signature": MAIL, "file": {"base64": MAIL}, "note": f"data: of {MAIL}"}
    said = AIMessage(content="", tool_calls=[{"name": "save", "args": args, "id": "c1"}])
    assert MAIL not in json.dumps(redaction.message(said, SCOPE).tool_calls)


@pytest.mark.parametrize(
    "name",
    [
        *("dbPassword", "clientSecret", "X-Api-Key", "accessToken", "passwords", "Authorization", "user.password"),
        *("Kennwort", "contraseña", "mot_de_passe", "senha", "пароль", "密码", "パスワード"),
    ],
)
@pytest.mark.parametrize("value", ["open sesame", 24681357, ["open sesame", 24681357], {"is": ["open sesame"]}])
def test_secret_names_in_every_spelling_and_values_of_every_type(redaction, name, value):
    if isinstance(value, dict):
        value, name = {name: value["is"]}, "outer"
    said = AIMessage(content="", tool_calls=[{"name": "log_in", "args": {name: value}, "id": "c1"}])
    clean = json.dumps(redaction.message(said, SCOPE).tool_calls)
    assert "sesame" not in clean
    assert "24681357" not in clean


@pytest.mark.parametrize("args", [{"secret": True, "password": None}, {"passenger": "Bob", "monkey": "x", "pwd": ""}])
def test_what_is_no_secret_stays(redaction, args):
    said = AIMessage(content="", tool_calls=[{"name": "f", "args": args, "id": "c1"}])
    assert redaction.message(said, SCOPE) is said


def test_tool_results_also_as_json(redaction):
    result = ToolMessage(content=json.dumps({"user": {"password": "hunter two", "mail": MAIL}}), tool_call_id="c1")
    clean = redaction.message(result, SCOPE)
    body = json.loads(clean.content)
    assert clean.tool_call_id == "c1"
    assert PLACEHOLDER.fullmatch(body["user"]["password"])
    assert PLACEHOLDER.fullmatch(body["user"]["mail"])


def test_a_streamed_text_is_read_as_a_whole(redaction):
    chunks = [AIMessageChunk(content=piece, id="r1") for piece in ("write to bo", "b@exam", "ple.com", " now")]
    whole = chunks[0]
    for chunk in chunks[1:]:
        whole += chunk
    assert MAIL not in redaction.message(whole, SCOPE).content


def test_a_value_has_one_placeholder_in_its_conversation_and_another_elsewhere(redaction):
    once = redaction.text(f"I am {MAIL}", SCOPE)
    again = redaction.text(f"{MAIL.upper()} is me", SCOPE)
    assert PLACEHOLDER.findall(once) == PLACEHOLDER.findall(again)
    for other in (Scope("t2", "u_1"), Scope("t1", "u_2"), Scope("t1", None)):
        assert PLACEHOLDER.findall(redaction.text(f"I am {MAIL}", other)) != PLACEHOLDER.findall(once)


def test_the_same_text_redacts_to_the_same_in_another_process(redaction):
    # Ids of messages are digests of redacted text, and a thread's history comes back with every turn.
    text = f"I am {MAIL}, card 4111 1111 1111 1111. " + "word " * 60
    fresh = MessageRedactor(open_redactor("default"))
    assert fresh.text(text, SCOPE) == redaction.text(text, SCOPE) == redaction.text(text, SCOPE)
    assert redaction.counts == {"email": 1, "credit_card": 1}


def test_another_key_gives_another_placeholder():
    names = {Placeholders(key=key).of("email", MAIL, SCOPE) for key in (b"k" * 16, b"l" * 16)}
    assert len(names) == 2
    assert all(PLACEHOLDER.fullmatch(name) for name in names)


def test_a_recorded_conversation(redaction):
    said = (Message(id="1", role="user", content=f"I am {MAIL}"), Message(id="2", role="assistant", content="Hello"))
    clean = redaction.conversation(Conversation(conversation_id="t1", user_id="u_1", messages=said))
    assert [m.id for m in clean.messages] == ["1", "2"]
    assert clean.messages[0].content == redaction.text(f"I am {MAIL}", SCOPE)
    assert clean.messages[1] is said[1]


@pytest.mark.parametrize("wrong", ["emails", ["emails"], [], 3, None, ["email", 3]])
def test_an_option_that_is_none(wrong):
    with pytest.raises(ConfigError, match=r"email"):
        open_redactor(wrong)


def test_some_kinds_only():
    redaction = MessageRedactor(open_redactor(["email"]))
    assert redaction.text("555-12-3456", SCOPE) == "555-12-3456"
    assert MAIL not in redaction.text(MAIL, SCOPE)
    assert "[url_" in MessageRedactor(open_redactor(["url"])).text("see https://x.org/a now", SCOPE)


def test_off_and_a_redactor_of_ones_own():
    class Shouting:
        def redact(self, text, *, scope):
            return Redacted(text.upper(), {"case": 1})

    assert open_redactor("off") is None
    own = open_redactor(Shouting())
    assert MessageRedactor(own).message(HumanMessage(content=["a", "b"]), SCOPE).content == ["A", "B"]


def test_what_cannot_be_redacted_is_not_passed_on():
    class Broken:
        def redact(self, text, *, scope):
            raise RuntimeError("no model")

    with pytest.raises(RuntimeError, match="no model"):
        MessageRedactor(Broken()).message(HumanMessage(content="x"), SCOPE)
