"""The callback in the real LiteLLM proxy, started on loopback from the config of the example, asked over HTTP."""

import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import openai
import pytest
from openai import OpenAI

from rlhi_plugin.fake_provider import Answer, FakeProvider, HTTPFault, ToolCall
from rlhi_plugin.identity import pseudonym
from rlhi_plugin.persona import phrases, render_persona
from rlhi_plugin.privacy import exclusions_in

pytestmark = pytest.mark.slow
# `litellm[proxy]` pins rich and websockets elsewhere than the rest of this environment; these are what it runs on.
NEEDED = [
    "fastapi",
    "uvicorn",
    "backoff",
    "apscheduler",
    "multipart",
    "jwt",
    "fastapi_sso",
    "mcp",
    "redis",
    "expression",
    "nacl",
]
EXAMPLE = Path(__file__).parents[3] / "examples" / "litellm_proxy"
MASTER_KEY = "sk-8f1c0a6e5d7b43219a0c4e6f8b2d1357"
SECRET = "Bearer something-that-nobody-may-see"  # noqa: S105 - made up here
HI = [{"role": "user", "content": "hi"}]


def script(request):
    match request.last_user_text:
        case "fail":
            return HTTPFault(400, "no such thing")
        case "call":
            return Answer(tool_calls=(ToolCall("f", "{}", id="c1"),))
        case "slow":
            return Answer(" ".join(f"w{number}" for number in range(40)), chunk_delay_s=0.05)
    return f"You said: {request.last_user_text}"


@pytest.fixture(scope="module")
def provider():
    with FakeProvider(script) as opened:
        yield opened


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    return tmp_path_factory.mktemp("proxy") / "rlhi.db"


@pytest.fixture(scope="module")
def proxy(provider, database):
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"the LiteLLM proxy needs {', '.join(missing)}: pip install --group proxy")
    folder = database.parent
    for name in ("config.yaml", "rlhi_handler.py"):
        shutil.copy(EXAMPLE / name, folder)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    start = "from litellm.proxy.proxy_cli import run_server; run_server()"
    command = [sys.executable, "-c", start, "--config", "config.yaml", "--host", "127.0.0.1", "--port", str(port)]
    environ = {
        **os.environ,
        "RLHI_KEY": "0123456789abcdef",
        "RLHI_STORE": f"sqlite:///{database}",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "LITELLM_MASTER_KEY": MASTER_KEY,
        "PROVIDER_URL": provider.base_url,
        "PROVIDER_KEY": "k",
    }
    with (folder / "proxy.log").open("w") as log:
        process = subprocess.Popen(command, cwd=folder, env=environ, stdout=log, stderr=subprocess.STDOUT)
        try:
            base = f"http://127.0.0.1:{port}"
            wait_for(process, base, folder / "proxy.log")
            yield base
        finally:
            process.terminate()
            process.wait(30)


def wait_for(process, base, log):
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert process.poll() is None, log.read_text()[-3000:]
        try:
            if httpx.get(f"{base}/health/liveliness", timeout=2).status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.2)
    raise AssertionError(log.read_text()[-3000:])


@pytest.fixture
def store(database, proxy):
    from rlhi_plugin import open_store

    with open_store(f"sqlite:///{database}") as opened:
        yield opened


@pytest.fixture
def client(proxy):
    with OpenAI(base_url=f"{proxy}/v1", api_key=MASTER_KEY, max_retries=0) as opened:
        yield opened


def conversation(store, name, messages):
    """The conversation of this name once it holds as many messages: the proxy logs in the background."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        found = next((c for c in store.conversations() if c.conversation_id == name), None)
        if found is not None and len(found.messages) >= messages:
            return found
        time.sleep(0.05)
    raise AssertionError(f"{name} holds {found and found.messages}")


def said(conversation):
    return [(m.role, m.content) for m in conversation.messages]


def test_a_call_and_a_stream_of_one_thread(client, store):
    call = {"model": "assistant", "user": "u1", "extra_body": {"metadata": {"thread_id": "t1"}}}
    first = client.chat.completions.create(messages=HI, **call).choices[0].message
    conversation(store, "t1", 2)
    messages = [*HI, {"role": "assistant", "content": first.content}, {"role": "user", "content": "again"}]
    assert len(list(client.chat.completions.create(messages=messages, stream=True, **call))) > 1
    time.sleep(0.5)  # a stream that was logged twice would show
    found = conversation(store, "t1", 4)
    assert found.user_id == pseudonym("u1")
    assert said(found) == [
        ("user", "hi"),
        ("assistant", "You said: hi"),
        ("user", "again"),
        ("assistant", "You said: again"),
    ]


def test_the_persona_goes_in_and_not_into_the_log(client, store, provider, put_persona):
    persona = put_persona(user="u2")
    seen = len(provider.requests)
    messages = [{"role": "system", "content": "Be kind."}, *HI]
    for thread, stream in (("p1", False), ("p2", True)):
        reply = client.chat.completions.create(
            model="assistant",
            messages=messages,
            user="u2",
            stream=stream,
            extra_headers={"x-litellm-session-id": thread},
        )
        if stream:
            list(reply)
        found = conversation(store, thread, 3)
        assert said(found) == [("system", "Be kind."), ("user", "hi"), ("assistant", "You said: hi")]
        assert found.messages[-1].persona_digest == persona.digest
    for request in provider.requests[seen:]:
        assert request.system_text == f"Be kind.\n\n{render_persona(persona)}"


@pytest.mark.parametrize("stream", [False, True])
def test_commands_are_answered_by_the_proxy_itself(client, store, provider, put_persona, stream):
    put_persona(user="u5")
    thread = f"c{stream}"
    call = {"model": "assistant", "user": "u5", "extra_body": {"metadata": {"thread_id": thread}}, "stream": stream}

    def say(messages):
        reply = client.chat.completions.create(messages=messages, **call)
        if not stream:
            return reply.choices[0].message.content
        return "".join(chunk.choices[0].delta.content or "" for chunk in reply if chunk.choices)

    def then(messages, text):
        return [*messages, {"role": "assistant", "content": say(messages)}, {"role": "user", "content": text}]

    messages = then(HI, "/what-do-you-know")
    seen = len(provider.requests)
    messages = then(messages, "/do-not-learn")
    assert messages[3]["content"].startswith(phrases.KNOWN_HEAD)
    messages = then(messages, "again")
    assert messages[5]["content"] == phrases.NOT_LEARNING
    assert len(provider.requests) == seen
    assert say(messages) == "You said: again"
    assert [m["content"] for m in provider.requests[-1].body["messages"] if m["role"] != "system"] == [
        "hi", "You said: hi", "again",
    ]  # fmt: skip
    found = conversation(store, thread, 4)
    time.sleep(0.5)  # what was logged too late would show
    found = conversation(store, thread, 4)
    assert [text for _, text in said(found)] == ["hi", "You said: hi", "again", "You said: again"]
    assert exclusions_in(store).of(found) is not None


def test_responses(client, store, provider, put_persona):
    persona = put_persona(user="u3")
    client.responses.create(model="assistant", input="hi", user="u3", extra_body={"litellm_session_id": "r1"})
    found = conversation(store, "r1", 2)
    assert said(found) == [("user", "hi"), ("assistant", "You said: hi")]
    assert provider.requests[-1].body["instructions"] == render_persona(persona)
    assert found.messages[-1].persona_digest == persona.digest


def test_a_failed_call_and_tool_traffic(client, store):
    call = {"model": "assistant", "extra_headers": {"x-litellm-session-id": "f1"}}
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(messages=[{"role": "user", "content": "fail"}], **call)
    assert said(conversation(store, "f1", 1)) == [("user", "fail")]
    client.chat.completions.create(messages=[{"role": "user", "content": "call"}], **call)
    assert said(conversation(store, "f1", 3))[1:] == [
        ("user", "call"),
        ("tool", '{"calls": [{"args": {}, "name": "f"}], "text": ""}'),
    ]


def test_the_master_key_is_nobody(client, store):
    client.chat.completions.create(model="assistant", messages=HI, extra_headers={"x-litellm-session-id": "m1"})
    assert conversation(store, "m1", 2).user_id is None


def test_headers_and_keys_are_not_logged(client, store, database):
    client.chat.completions.create(
        model="assistant", messages=HI, extra_headers={"x-litellm-session-id": "h1", "x-private": SECRET}
    )
    conversation(store, "h1", 2)
    files = b"".join(path.read_bytes() for path in database.parent.glob("rlhi.db*"))
    assert b"You said: hi" in files
    assert SECRET.encode() not in files
    assert MASTER_KEY.encode() not in files
    assert b"requester" not in files


def test_any_language_may_ask(proxy, store):
    answer = httpx.post(
        f"{proxy}/v1/chat/completions",
        headers={"authorization": f"Bearer {MASTER_KEY}"},
        json={"model": "assistant", "messages": HI, "user": "u9", "metadata": {"session_id": "any"}},
        timeout=30,
    )
    assert answer.json()["choices"][0]["message"]["content"] == "You said: hi"
    found = conversation(store, "any", 2)
    assert found.user_id == pseudonym("u9")
    assert found.messages[-1].model


def test_of_a_stream_that_its_client_left_the_part_is_kept_as_one(client, store):
    stream = client.chat.completions.create(
        model="assistant",
        messages=[{"role": "user", "content": "slow"}],
        stream=True,
        extra_headers={"x-litellm-session-id": "left"},
    )
    for _, chunk in zip(range(4), stream, strict=False):
        assert chunk
    stream.close()
    asked, answer = conversation(store, "left", 2).messages
    assert (asked.content, asked.finish, answer.finish) == ("slow", None, "incomplete")
    assert answer.content.startswith("w0")
    assert "w39" not in answer.content
