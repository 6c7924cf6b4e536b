"""A hub on loopback: the few requests that `huggingface_hub` makes to list and fetch a model."""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = "c0ffee" + "0" * 34
REFUSALS = {
    "missing/model": (401, "RepoNotFound"),
    "gated/model": (401, "GatedRepo"),
    "gone/model": (404, "RepoNotFound"),
}
"""Status and `X-Error-Code` of repositories that are not handed out."""


class Hub(ThreadingHTTPServer):
    """Serves the files of `folder` as the repository `tiny/llama`, and remembers what was asked."""

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder = folder
        self.asked: list[str] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hub

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def _answer(self, *, body: bool) -> None:
        path = self.path.split("?")[0]
        self.server.asked.append(f"{self.command} {path}")
        for name, (status, code) in REFUSALS.items():
            if name in path:
                return self._send(status, b'{"error": "no"}', {"X-Error-Code": code}, body=body)
        if path.startswith("/api/models/tiny/llama"):
            return self._list(path, body=body)
        if path.startswith("/tiny/llama/resolve/"):
            return self._file(path.split("/", 5)[5], body=body)
        return self._send(404, b"{}", {"X-Error-Code": "RepoNotFound"}, body=body)

    def _list(self, path: str, *, body: bool) -> None:
        if "/tree/" in path:
            return self._tree(body=body)
        revision = path.rpartition("/revision/")[2] if "/revision/" in path else "main"
        if revision not in ("main", COMMIT):
            return self._send(404, b"{}", {"X-Error-Code": "RevisionNotFound"}, body=body)
        files = [{"rfilename": file.name} for file in sorted(self.server.folder.iterdir())]
        listing = {"id": "tiny/llama", "sha": COMMIT, "siblings": files, "private": False}
        return self._send(200, json.dumps(listing).encode(), {"Content-Type": "application/json"}, body=body)

    def _tree(self, *, body: bool) -> None:
        """Newer clients ask for sizes before they fetch a snapshot."""
        files = [
            {"type": "file", "path": file.name, "size": file.stat().st_size, "oid": "0" * 40}
            for file in sorted(self.server.folder.iterdir())
        ]
        return self._send(200, json.dumps(files).encode(), {"Content-Type": "application/json"}, body=body)

    def _file(self, name: str, *, body: bool) -> None:
        path = self.server.folder / name
        if not path.is_file():
            return self._send(404, b"", {"X-Error-Code": "EntryNotFound"}, body=body)
        content = path.read_bytes()
        etag = hashlib.sha256(content).hexdigest()
        return self._send(200, content, {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT}, body=body)

    def _send(self, status: int, content: bytes, headers: dict[str, str], *, body: bool) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(content)


@contextlib.contextmanager
def running_hub(folder: Path) -> Iterator[Hub]:
    """A hub in a thread, stopped at the end."""
    hub = Hub(folder)
    thread = threading.Thread(target=hub.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
        thread.join()
