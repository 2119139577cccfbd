"""The LiteLLM client against a real HTTP server that speaks OpenAI's protocol."""

import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from rlhi_plugin.chat import ChatClient, ChatRequest
from rlhi_plugin.errors import ConfigError, InvalidReplyError, MissingExtraError, ProviderSetupError
from rlhi_plugin.litellm_client import LiteLLMClient
from rlhi_plugin.records import ChatMessage


class Handler(BaseHTTPRequestHandler):
    seen: list = []  # noqa: RUF012 - one server, one test process
    status = 200

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.seen.append(body)
        # Like some providers, this one gives at most two replies a call.
        choices = [
            {"index": i, "message": {"role": "assistant", "content": f"reply {i}"}, "finish_reason": reason}
            for i, reason in list(enumerate(["stop", "length"]))[: body.get("n", 1)]
        ]
        reply = {
            "id": "1",
            "object": "chat.completion",
            "created": 1,
            "model": body["model"],
            "choices": choices,
            "usage": {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12},
        }
        if self.status != 200:
            reply = {"error": {"message": "no such key", "type": "auth", "code": None, "param": None}}
        data = json.dumps(reply).encode()
        self.send_response(self.status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args):
        pass


@pytest.fixture
def address(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "test")
    monkeypatch.setattr(Handler, "seen", [])
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def request(**more):
    return ChatRequest(messages=(ChatMessage(role="user", content="hi"),), **more)


@pytest.mark.slow
async def test_replies_and_errors(address, monkeypatch):
    client = LiteLLMClient("openai/some-model", api_base=address)
    assert isinstance(client, ChatClient)
    replies = await client.complete(request(n=3, seed=4, max_tokens=9, temperature=0.5))
    assert [reply.text for reply in replies] == ["reply 0", "reply 1", "reply 0"]
    assert [reply.finish_reason for reply in replies] == ["stop", "length", "stop"]
    assert [reply.prompt_tokens for reply in replies] == [7, 0, 7]
    first, second = Handler.seen[:2]
    assert (first["n"], first["seed"], first["max_tokens"], first["temperature"]) == (3, 4, 9, 0.5)
    assert second["seed"] != first["seed"], "the rest must not be the first replies again"
    schema = {"type": "object", "properties": {}}
    with pytest.raises(InvalidReplyError, match="no JSON") as wrong:
        await client.complete(request(json_schema=schema))
    assert wrong.value.text == "reply 0"
    assert Handler.seen[-1]["response_format"]["json_schema"]["schema"]["type"] == "object"
    assert "n" not in second
    monkeypatch.setattr(Handler, "status", 401)
    with pytest.raises(ProviderSetupError, match=r"AuthenticationError.*Set the provider's API key"):
        await client.complete(request())


def test_a_missing_litellm_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "litellm", None)
    with pytest.raises(MissingExtraError, match=r"rlhi\[llm\]"):
        LiteLLMClient("openai/gpt-4o")


@pytest.mark.parametrize("arguments", [{"model": ""}, {"timeout_s": 0}, {"max_concurrency": 0}])
def test_wrong_arguments_are_refused(arguments):
    with pytest.raises(ConfigError, match="Give"):
        LiteLLMClient(**{"model": "openai/gpt-4o"} | arguments)
