"""The HTTP server of the fake provider: standard library only, on loopback only."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

from rlhi_plugin.errors import ConfigError
from rlhi_plugin.fake_provider import wire
from rlhi_plugin.fake_provider.behaviours import (
    Answer,
    Behaviour,
    CutStream,
    Disconnect,
    Hang,
    HTTPFault,
    InvalidBody,
    ProviderRequest,
    RateLimit,
    Script,
    ScriptReader,
    echo,
    rate_limited,
)

ENDPOINTS = ("/v1/chat/completions", "/v1/responses")


class FakeProvider:
    """A provider on a free port of 127.0.0.1. A context manager: it listens inside, and is gone afterwards.

    Args:
        script: What to do with each request: a function of the request, or behaviours for one request after the other.
            A text is an `Answer`.
        then: What to do with requests after the last behaviour of a list.
        rate_limit: Requests above it are refused; they are in `refused`, not in `requests`.
        api_key: The only key that is let in; any, or none, unless given.
        most_choices: Choices in an answer, whatever the ``n`` of a request; 1 is a server that passes over ``n``.

    Raises:
        ConfigError: `script` is a text.
    """

    def __init__(
        self,
        script: Script | None = None,
        *,
        then: Callable[[ProviderRequest], Behaviour | str] = echo,
        rate_limit: RateLimit | None = None,
        api_key: str | None = None,
        most_choices: int | None = None,
    ) -> None:
        self._reader = ScriptReader(script, then)
        self._rate_limit = rate_limit
        self._api_key = api_key
        self._most_choices = most_choices
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._requests: list[ProviderRequest] = []
        self._in_flight = 0
        self.refused = 0
        """Requests that the rate limit did not let in."""
        self.closing = threading.Event()
        """Set when the provider is being closed, which ends whatever hangs."""

    @property
    def base_url(self) -> str:
        """Address for a client's ``base_url``, with ``/v1``.

        Raises:
            ConfigError: the provider is not open.
        """
        if self._server is None:
            raise ConfigError("the provider is not listening. Open it first: with FakeProvider(...) as provider: ...")
        return f"http://127.0.0.1:{self._server.server_port}/v1"

    @property
    def requests(self) -> tuple[ProviderRequest, ...]:
        """What came in so far, in order of arrival, faults included."""
        with self._lock:
            return tuple(self._requests)

    @property
    def peak_in_flight(self) -> int:
        """The most requests that were being answered at one moment."""
        return max((request.in_flight for request in self.requests), default=0)

    def __enter__(self) -> Self:
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.provider = self
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), name="fake-provider")
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.closing.set()
        if self._server is not None and self._thread is not None:
            self._server.shutdown()
            self._thread.join()
            self._server.close_connections()
            self._server.server_close()
            self._server = None

    def gate(self, headers: dict[str, str]) -> HTTPFault | None:
        """The fault for a request that is not let in: a wrong key, or too many."""
        if self._api_key is not None and headers.get("authorization") != f"Bearer {self._api_key}":
            return HTTPFault(401, "incorrect API key provided", code="invalid_api_key")
        wait_s = self._rate_limit.wait_s() if self._rate_limit else 0.0
        if wait_s:
            with self._lock:
                self.refused += 1
            return rate_limited(wait_s)
        return None

    def arrive(self, path: str, headers: dict[str, str], body: dict[str, Any]) -> ProviderRequest:
        """Log a request that is let in. `leave` must follow."""
        with self._lock:
            self._in_flight += 1
            request = ProviderRequest(
                len(self._requests), path, headers, body, received_at=time.monotonic(), in_flight=self._in_flight
            )
            self._requests.append(request)
            return request

    def heard(self, request: ProviderRequest) -> ProviderRequest:
        """The request as this provider understands it."""
        if self._most_choices is None:
            return request
        return replace(request, body={**request.body, "n": min(request.body.get("n") or 1, self._most_choices)})

    def leave(self) -> None:
        """A request has been answered."""
        with self._lock:
            self._in_flight -= 1

    def decide(self, request: ProviderRequest) -> Behaviour:
        """What the script says; an error in the script is an HTTP 500 that tells it."""
        try:
            return self._reader.behaviour(request)
        except Exception as error:  # noqa: BLE001 - the client, not the server's thread, must learn of it
            return HTTPFault(500, f"the script failed: {error!r}")


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256
    provider: FakeProvider

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._open: set[socket.socket] = set()

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def close_connections(self) -> None:
        """End connections that clients keep alive, so that their threads end too."""
        for connection in list(self._open):
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue  # the client was faster

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no event; the default prints a traceback."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002 - the name is the standard library's
        """Nothing on standard error; requests are in `FakeProvider.requests`."""

    def do_GET(self) -> None:
        found = self.path == "/v1/models"
        body = wire.models() if found else wire.error(HTTPFault(404, f"no such page: {self.path}"))
        self._send(200 if found else 404, json.dumps(body))

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers.get("content-length", 0)))
        headers = {name.lower(): value for name, value in self.headers.items()}
        path = self.path.partition("?")[0]
        provider = self.server.provider
        try:
            body = json.loads(raw)
        except ValueError:
            body = None
        if path not in ENDPOINTS or not isinstance(body, dict):
            self._fault(HTTPFault(404 if path not in ENDPOINTS else 400, f"POST one of {ENDPOINTS} a JSON object"))
            return
        refusal = provider.gate(headers)
        if refusal is not None:
            self._fault(refusal)
            return
        request = provider.arrive(path, headers, body)
        try:
            self._behave(provider.heard(request), provider.decide(request))
        finally:
            provider.leave()

    def _behave(self, request: ProviderRequest, behaviour: Behaviour) -> None:
        match behaviour:
            case Answer():
                self.server.provider.closing.wait(behaviour.delay_s)
                self._answer(request, behaviour)
            case CutStream(answer, chunks):
                self._cut(request, answer, chunks)
            case HTTPFault():
                self._fault(behaviour)
            case InvalidBody(body, content_type):
                self._send(200, body, {"content-type": content_type})
            case Hang(seconds):
                self.server.provider.closing.wait(seconds)
                self.close_connection = True
            case Disconnect():
                self.close_connection = True

    def _answer(self, request: ProviderRequest, answer: Answer) -> None:
        if not request.stream:
            self._send(200, json.dumps(wire.whole(request, answer)))
            return
        self._start_stream()
        for number, piece in enumerate(wire.pieces(request, answer)):
            if number and answer.chunk_delay_s:
                self.server.provider.closing.wait(answer.chunk_delay_s)
            self._chunk(piece)
        self._chunk("")

    def _cut(self, request: ProviderRequest, answer: Answer, chunks: int) -> None:
        self.close_connection = True
        if request.stream:
            self._start_stream()
            for _, piece in zip(range(chunks), wire.pieces(request, answer), strict=False):
                self._chunk(piece)
            return
        body = json.dumps(wire.whole(request, answer)).encode()
        self._head(200, "application/json", {"content-length": str(len(body))})
        self.wfile.write(body[: len(body) // 2])

    def _start_stream(self) -> None:
        self._head(200, "text/event-stream", {"transfer-encoding": "chunked"})

    def _chunk(self, text: str) -> None:
        data = text.encode()
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")

    def _fault(self, fault: HTTPFault) -> None:
        more = {} if fault.retry_after_s is None else {"retry-after": f"{fault.retry_after_s:g}"}
        self._send(fault.status, json.dumps(wire.error(fault)), more)

    def _send(self, status: int, body: str, more: dict[str, str] | None = None) -> None:
        data = body.encode()
        self._head(status, "application/json", {"content-length": str(len(data)), **(more or {})})
        self.wfile.write(data)

    def _head(self, status: int, content_type: str, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"content-type": content_type, **headers}.items():
            self.send_header(name, value)
        self.end_headers()
