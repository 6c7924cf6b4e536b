"""A real HTTP server on loopback that speaks the OpenAI protocol as well, or as badly, as a test wants.

    with StubServer(lambda number, body: Status(500) if number == 0 else answers(body, "yes")) as server: ...

A behaviour gets the number of the request and its body, and says what happens: a dictionary is sent as JSON, or one
of the misfortunes below. It is called in the order of arrival, never twice at a time; what takes time belongs into
a function that it returns.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self


@dataclass(frozen=True)
class Status:
    """An answer with this status."""

    code: int
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Text:
    """A successful answer whose body is this, whatever it is."""

    body: str | bytes
    content_type: str = "application/json"


HANG = "hang"
"""No answer until the server is closed."""
HALF = "half"
"""An answer announced whole, half sent, and the connection closed."""
DROP = "drop"
"""The connection closed without a word."""

Behaviour = Callable[[int, dict[str, Any]], Any]


def answers(body: dict[str, Any], *texts: str, finish: str = "stop", **more: Any) -> dict[str, Any]:
    """A well-formed answer with these texts, for the kind of request that `body` is."""
    choices = []
    for index, text in enumerate(texts):
        said = {"message": {"role": "assistant", "content": text}} if "messages" in body else {"text": text}
        choices.append({"index": index, "finish_reason": finish, **said, **more})
    usage = {"prompt_tokens": 5, "completion_tokens": 2 * len(texts)}
    return {"id": "x", "model": body.get("model"), "choices": choices, "usage": usage}


class StubServer:
    """Runs while its `with` block lasts; remembers what it was asked."""

    def __init__(self, behaviour: Behaviour) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.paths: list[str] = []
        self.keys: list[str | None] = []
        self.most_at_once = 0
        self._behaviour = behaviour
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._at_once = 0
        self._http = _Http(("127.0.0.1", 0), self._handler())
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02})

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_address[1]}/v1"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def _handler(stub) -> type[BaseHTTPRequestHandler]:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with stub._lock:
                    stub._at_once += 1
                    stub.most_at_once = max(stub.most_at_once, stub._at_once)
                    number = len(stub.bodies)
                    stub.bodies.append(body)
                    stub.paths.append(self.path)
                    stub.keys.append(self.headers.get("Authorization"))
                    act = stub._behaviour(number, body)
                try:
                    self._act(act() if callable(act) else act)
                except (BrokenPipeError, ConnectionResetError):
                    pass  # the client has gone
                finally:
                    with stub._lock:
                        stub._at_once -= 1

            def _act(self, act: Any) -> None:
                if act == HANG:
                    stub._closing.wait()
                elif act == HALF:
                    self._send(200, b'{"choices": [{"text": "hal', length=1000)
                elif isinstance(act, Status):
                    self._send(act.code, json.dumps(act.body).encode(), headers=act.headers)
                elif isinstance(act, Text):
                    raw = act.body if isinstance(act.body, bytes) else act.body.encode()
                    self._send(200, raw, content_type=act.content_type)
                elif act != DROP:
                    self._send(200, json.dumps(act).encode())
                if act in (HANG, HALF, DROP):
                    self.close_connection = True

            def _send(
                self,
                code: int,
                raw: bytes,
                *,
                length: int | None = None,
                headers: dict[str, str] | None = None,
                content_type: str = "application/json",
            ) -> None:
                self.send_response(code)
                self.send_header("Content-Type", content_type)
                self.send_header("Content-Length", str(length or len(raw)))
                for name, value in (headers or {}).items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(raw)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        return Handler


class _Http(ThreadingHTTPServer):
    request_queue_size = 64
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # a client that hung up is no fault here
