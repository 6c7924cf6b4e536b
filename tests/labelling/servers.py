"""Real labelling servers in processes of their own, and a plain HTTP client for them."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from likelier.labelling.safety import cookie_name

Answer = tuple[int, dict[str, Any]]


def write_samples(path: Path, count: int, *, answers: int = 2) -> Path:
    rows = [
        {
            "id": f"row{number}",
            "prompt": f"Prompt {number}",
            "completions": [
                {"text": f"answer {index} to {number}", "tokens": [number, index], "finish": "stop"}
                for index in range(answers)
            ],
            "model": "secret-model",
        }
        for number in range(count)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


class Server:
    """`likelier label … --with human`, started with `start` and stopped with `stop` or `kill`."""

    def __init__(self, samples: Path, out: Path, *flags: str, port: int = 0) -> None:
        self.out = out
        self.port = port
        self._words = [
            "label",
            str(samples),
            "--with",
            "human",
            "--out",
            str(out),
            "--browser",
            "false",
            *flags,
        ]
        self.links: list[str] = []
        self.said: list[str] = []

    def start(self) -> Self:
        command = [sys.executable, "-m", "likelier", *self._words, "--port", str(self.port)]
        self.process = subprocess.Popen(
            command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, encoding="utf-8"
        )
        self.links.clear()
        self._listening = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        assert self._listening.wait(240), "the server does not start"
        assert self.links, self.said
        self.port = int(re.findall(r":(\d+)/", self.links[0])[0])
        return self

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.said.append(line.rstrip())
            self.links += re.findall(r"http://\S+", line)
            if self.links:
                self._listening.set()
        self._listening.set()

    def stop(self, number: signal.Signals = signal.SIGINT) -> int:
        """Ctrl-C, or another signal; its exit code."""
        if self.process.poll() is None:
            os.kill(self.process.pid, number)
        code = self.process.wait(60)
        self._reader.join(10)
        self.process.stderr.close()  # type: ignore[union-attr]
        return code

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(60)
        self._reader.join(10)
        self.process.stderr.close()  # type: ignore[union-attr]

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.kill()

    def cookie(self) -> str:
        """A cookie, by the link that is good now."""
        return cookie_of(self, self.links[-1].partition("token=")[2])

    def client(self, cookie: str | None = None) -> Client:
        return Client(self.port, self.cookie() if cookie is None else cookie)

    def rows(self, ending: str = ".jsonl") -> list[dict[str, Any]]:
        path = self.out.with_name(self.out.stem + ending)
        return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def cookie_of(server: Server, token: str) -> str:
    status, headers, _ = raw(server.port, "GET", f"/enter?token={token}")
    assert status == 200
    name, _, value = headers["set-cookie"].partition("=")
    assert name == cookie_name(server.port)
    for _ in range(500):  # the next link is printed before the response, but read by another thread
        if token not in server.links[-1]:
            return value.partition(";")[0]
        time.sleep(0.01)
    raise AssertionError("the next link is not printed")


def raw(
    port: int, method: str, path: str, *, headers: dict[str, str] | None = None, body: Any = None
) -> tuple[int, dict[str, str], bytes]:
    """One request on a connection of its own: status, headers by their names in small letters, body."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    try:
        connection.request(method, path, body=body, headers=headers or {})
        response = connection.getresponse()
        return (
            response.status,
            {name.lower(): value for name, value in response.getheaders()},
            response.read(),
        )
    finally:
        connection.close()


class Client:
    """An annotator's page, without a page."""

    def __init__(self, port: int, cookie: str) -> None:
        self.port = port
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        self.headers = {
            "Content-Type": "application/json",
            "Origin": f"http://127.0.0.1:{port}",
            "Cookie": f"{cookie_name(port)}={cookie}",
        }

    def post(self, path: str, body: Any, **headers: str | None) -> Answer:
        """Status and JSON; a header given as None is left out."""
        changed = {name.replace("_", "-"): value for name, value in headers.items()}
        sent = {name: value for name, value in (self.headers | changed).items() if value is not None}
        data = body if isinstance(body, (bytes, str)) else json.dumps(body)
        self._connection.request("POST", path, body=data, headers=sent)
        response = self._connection.getresponse()
        return response.status, json.loads(response.read())

    def get(self, path: str) -> tuple[int, str]:
        self._connection.request("GET", path, headers={"Cookie": self.headers["Cookie"]})
        response = self._connection.getresponse()
        return response.status, response.read().decode()

    def next(self, name: str, tab: str = "tab", **more: Any) -> dict[str, Any]:
        status, told = self.post("/api/next", {"annotator": name, "tab": tab, **more})
        assert status == 200, told
        return told

    def close(self) -> None:
        self._connection.close()


def reply(
    told: dict[str, Any], name: str, *, key: str, tab: str = "tab", first: int = 0, **more: Any
) -> dict[str, Any]:
    """A body that prefers the answer at place `first`."""
    item = told["item"]
    count = len(item["answers"])
    ranking = [[first], *([at] for at in range(count) if at != first)]
    body = {"annotator": name, "tab": tab, "key": key, "showing": item["showing"], "version": item["version"]}
    return {**body, "verdict": "preference", "ranking": ranking, **more}


def prefer(told: dict[str, Any], text: str) -> int:
    """At which place the answer with this in it stands."""
    return next(at for at, answer in enumerate(told["item"]["answers"]) if text in answer["text"])
