"""A hub on loopback: the requests that `huggingface_hub` and `datasets` make to list and fetch models and data sets."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

COMMIT = "c0ffee" + "0" * 34
REFUSALS = {
    "missing/model": (401, "RepoNotFound"),
    "gated/model": (401, "GatedRepo"),
    "gone/model": (404, "RepoNotFound"),
}
"""Status and `X-Error-Code` of repositories that are not handed out."""
PARQUET = "refs/convert/parquet"
_PATHS = re.compile(
    r"/(api/)?(?:(models|datasets)/)?([\w.-]+/[\w.-]+)(?:/(resolve|tree|paths-info|revision)/(.+))?"
)


class Hub(ThreadingHTTPServer):
    """Serves folders as repositories, and remembers what was asked.

    A name is `owner/model`, `datasets/owner/name`, or the latter with `@refs/convert/parquet`, the hub's own copy.
    """

    def __init__(self, repositories: Mapping[str, Path]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories = repositories
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

    def do_POST(self) -> None:
        self._answer(body=True)

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def _answer(self, *, body: bool) -> None:
        path = unquote(urlsplit(self.path).path)
        self.server.asked.append(f"{self.command} {path}")
        given = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
        for name, (status, code) in REFUSALS.items():
            if name in path:
                return self._send(status, b'{"error": "no"}', {"X-Error-Code": code}, body=body)
        found = _PATHS.fullmatch(path)
        if found is None:
            return self._send(404, b"{}", {"X-Error-Code": "RepoNotFound"}, body=body)
        _, kind, repository, action, rest = found.groups()
        name = f"datasets/{repository}" if kind == "datasets" else repository
        revision, inside = _revision(rest or "main")
        # A commit of the copy is none of the branch that it is made from.
        copied = revision == PARQUET or revision == COMMIT[::-1]
        folder = self.server.repositories.get(f"{name}@{PARQUET}" if copied else name)
        if folder is None:
            return self._send(404, b"{}", {"X-Error-Code": "RepoNotFound"}, body=body)
        commit = COMMIT[::-1] if copied else COMMIT
        if revision not in ("main", PARQUET, commit):
            return self._send(404, b"{}", {"X-Error-Code": "RevisionNotFound"}, body=body)
        if action == "resolve":
            return self._file(folder / inside, commit, body=body)
        if action == "tree":
            recursive = "recursive=true" in self.path.lower()
            return self._json(_entries(folder, folder / inside, recursive=recursive), body=body)
        if action == "paths-info":
            asked = _paths_of(given)
            there = [folder / one for one in asked if (folder / one).exists()]
            return self._json([_entry(folder, one) for one in there], body=body)
        files = [{"rfilename": entry["path"]} for entry in _entries(folder, folder, recursive=True)]
        listing = {"id": repository, "sha": commit, "siblings": files, "private": False}
        return self._json(listing, body=body)

    def _json(self, value: Any, *, body: bool) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"}, body=body)

    def _file(self, path: Path, commit: str, *, body: bool) -> None:
        if not path.is_file():
            headers = {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit}
            return self._send(404, b"", headers, body=body)
        content = path.read_bytes()
        etag = hashlib.sha256(content).hexdigest()
        headers = {"ETag": f'"{etag}"', "X-Repo-Commit": commit}
        return self._send(200, content, headers, body=body)

    def _send(self, status: int, content: bytes, headers: dict[str, str], *, body: bool) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(content)


def _revision(rest: str) -> tuple[str, str]:
    """The revision and the path after it; one revision has slashes of its own."""
    if rest.startswith(PARQUET):
        return PARQUET, rest.removeprefix(PARQUET).lstrip("/")
    revision, _, inside = rest.partition("/")
    return revision, inside


def _paths_of(given: str) -> list[str]:
    if given.startswith("{"):
        paths = json.loads(given)["paths"]
        return [paths] if isinstance(paths, str) else list(paths)
    return parse_qs(given).get("paths", [])


def _entries(root: Path, folder: Path, *, recursive: bool) -> list[dict[str, Any]]:
    """As newer clients ask for them before they fetch a snapshot."""
    if not folder.is_dir():
        return []
    found = sorted(folder.rglob("*") if recursive else folder.iterdir())
    return [_entry(root, one) for one in found if one.is_file() or not recursive]


def _entry(root: Path, path: Path) -> dict[str, Any]:
    place = {"path": path.relative_to(root).as_posix(), "oid": "0" * 40}
    if path.is_dir():
        return {"type": "directory", "size": 0, **place}
    return {"type": "file", "size": path.stat().st_size, **place}


@contextlib.contextmanager
def running_hub(repositories: Mapping[str, Path]) -> Iterator[Hub]:
    """A hub in a thread, stopped at the end."""
    hub = Hub(repositories)
    thread = threading.Thread(target=hub.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
        thread.join()
