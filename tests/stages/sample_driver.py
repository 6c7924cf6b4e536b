"""Runs commands that sample in processes of their own and kills them at a chosen moment.

    echo '[{"words": ["sample", …], "at": "add", "nth": 2}, …]' | python -m tests.stages.sample_driver

torch is imported once; every command line runs in a fork of that. `at` is where the process dies: before a part is
kept (`add`), in the middle of its line (`half`), right after it (`added`), before the file is renamed into its place
(`rename`), before its manifest (`manifest`), before the parts are deleted (`delete`), in the middle of an answer
(`token`), or before an answer is kept by content (`put`). One JSON line per command line: what became of the process.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from likelier import cli, manifest
from likelier.data import unfinished
from likelier.engines import drawing, sampling  # noqa: F401
from likelier.engines.reply_cache import ReplyCache
from likelier.engines.server import Server
from likelier.stages import sample, sample_work  # noqa: F401


def die(*_: Any, **__: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def before(owner: Any, name: str, nth: int, action: Callable[..., None]) -> None:
    """Does `action` before the n-th call."""
    function, calls = getattr(owner, name), 0

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == nth:
            action(*args, **kwargs)
        return function(*args, **kwargs)

    setattr(owner, name, wrapped)


def half_a_line(self: unfinished.Unfinished, index: int, part: Any) -> None:
    self._file.write(json.dumps({"index": index, **part})[:30].encode())
    self._file.flush()
    die()


def whole_line(self: unfinished.Unfinished, index: int, part: Any) -> None:
    self._append({"index": index, **part})
    die()


def hook(at: str, nth: int) -> None:
    if at == "add":
        before(unfinished.Unfinished, "add", nth, die)
    elif at == "half":
        before(unfinished.Unfinished, "add", nth, half_a_line)
    elif at == "added":
        before(unfinished.Unfinished, "add", nth, whole_line)
    elif at == "rename":
        before(Path, "replace", nth, die)
    elif at == "manifest":
        before(sample_work, "write_manifest", nth, die)
    elif at == "delete":
        before(unfinished.Unfinished, "delete", nth, die)
    elif at == "token":
        before(drawing.Sampler, "draw", nth, die)
    elif at == "put":
        before(ReplyCache, "put", nth, die)
    elif at == "request":
        before(Server, "_post", nth, die)


def run(order: dict[str, Any]) -> dict[str, Any]:
    child = os.fork()
    if child == 0:
        sink = os.open(os.devnull, os.O_WRONLY)
        os.dup2(sink, 1)
        error = os.open(order["stderr"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(error, 2)
        if "at" in order:
            hook(order["at"], order["nth"])
        os._exit(cli.main(order["words"]))
    _, status = os.waitpid(child, 0)
    return {"code": os.waitstatus_to_exitcode(status), "stderr": Path(order["stderr"]).read_text()}


def main() -> None:
    assert manifest
    orders = json.load(sys.stdin)
    if any("frontier" in order["words"] for order in orders):
        importlib.import_module("likelier.stages.evaluate_frontier")
    for order in orders:
        print(json.dumps(run(order)), flush=True)


if __name__ == "__main__":
    main()
