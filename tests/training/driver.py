"""Runs command lines of likelier, each in a process of its own, and kills some of them at a chosen call.

    echo '[{"words": ["dpo", …], "cache": "…", "at": "step", "nth": 3}, …]' | python -m tests.training.driver

torch is imported once and every command line runs in a fork of that, so that a dozen killed processes cost
seconds. The hooks are put in here, in the process that is to die: nothing in the package knows of them. One JSON
line per command line: what became of the process (minus the number of the signal that ended it) and its stderr.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import likelier
from likelier import cli
from likelier.engines import drawing
from likelier.scoring.scorer import Scorer
from likelier.training import best, checkpoint, folder, loop, opening, outcome, updates


def die(number: int) -> None:
    os.kill(os.getpid(), number)


def before(function: Callable[..., Any], nth: int, action: Callable[..., None]) -> Callable[..., Any]:
    """`function`, with `action(*arguments)` before its n-th call."""
    calls = 0

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == nth:
            action(*args, **kwargs)
        return function(*args, **kwargs)

    return wrapped


def half_a_file(tensors: dict[str, Any], path: Path) -> None:
    """A weights file that ends in the middle, then the end of the process."""
    whole(tensors, path)
    Path(path).write_bytes(Path(path).read_bytes()[: Path(path).stat().st_size // 2])
    die(signal.SIGKILL)


whole = checkpoint.save_file


def half_a_line(self: folder.RunFolder, line: dict[str, Any], **_: Any) -> None:
    with (self.path / "metrics.jsonl").open("a") as out:
        out.write(json.dumps(line)[:25])
        out.flush()
        die(signal.SIGKILL)


def arm(at: str, nth: int, number: int) -> None:
    """Put the hook in place."""

    def kill(*_: Any, **__: Any) -> None:
        die(number)

    if at == "step":
        loop.Training._step = before(loop.Training._step, nth, kill)  # type: ignore[method-assign]
    elif at in ("second forward", "second backward"):
        # Inside the accumulation of the n-th step: one pack's gradient is there, the next one's is not.
        def inside(*_: Any, **__: Any) -> None:
            if at == "second forward":
                Scorer.branch_logps = before(Scorer.branch_logps, 2, kill)  # type: ignore[method-assign]
            else:
                torch.Tensor.backward = before(torch.Tensor.backward, 2, kill)  # type: ignore[method-assign]

        loop.Training._step = before(loop.Training._step, nth, inside)  # type: ignore[method-assign]
    elif at == "drawing":
        drawing.Sampler.draw = before(drawing.Sampler.draw, nth, kill)  # type: ignore[method-assign]
    elif at == "updates":
        updates.Updates.make = before(updates.Updates.make, nth, kill)  # type: ignore[method-assign]
    elif at == "update":
        updates.Updates._update = before(updates.Updates._update, nth, kill)  # type: ignore[method-assign]
    elif at == "reference":
        Scorer.token_logps = before(Scorer.token_logps, nth, kill)  # type: ignore[method-assign]
    elif at == "checkpoint":
        checkpoint.save_checkpoint = before(checkpoint.save_checkpoint, nth, kill)
    elif at == "weights":
        checkpoint.save_file = before(checkpoint.save_file, nth, kill)
    elif at == "half a file":
        checkpoint.save_file = before(checkpoint.save_file, nth, half_a_file)
    elif at == "half of the best":
        best.save_file = before(best.save_file, nth, half_a_file)
    elif at == "rename":
        from likelier.models import folders

        folders._take_place = before(folders._take_place, nth, kill)
    elif at == "prune":
        checkpoint.shutil.rmtree = before(checkpoint.shutil.rmtree, nth, kill)  # type: ignore[attr-defined]
    elif at == "half a line":
        folder.RunFolder.log = before(folder.RunFolder.log, nth, half_a_line)  # type: ignore[method-assign]
    elif at == "model":
        outcome.save_model = before(outcome.save_model, nth, kill)
    elif at == "manifest":
        folder.RunFolder.write_json = before(folder.RunFolder.write_json, nth, kill)  # type: ignore[method-assign]
    elif at == "forget the optimiser":
        checkpoint._load_optimizer = lambda *_: None
    else:
        raise ValueError(at)


def run(job: dict[str, Any], errors: Any) -> int:
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    os.environ["LIKELIER_CACHE"] = job["cache"]
    opening.product_rate = lambda *_, **__: 1e9  # type: ignore[assignment]
    os.dup2(errors.fileno(), 2)
    os.dup2(errors.fileno(), 1)
    if "at" in job:
        arm(job["at"], job.get("nth", 1), job.get("signal", signal.SIGKILL))
    return cli.main(job["words"])


def main() -> None:
    # Imported before the forks.
    assert likelier.dpo
    assert likelier.ppo
    # No operation of torch before the forks: a pool of threads does not survive one.
    for job in json.load(sys.stdin):
        with tempfile.TemporaryFile("w+") as errors:
            process = os.fork()
            if process == 0:
                code = 70
                try:
                    code = run(job, errors)
                except BaseException:
                    traceback.print_exc()
                finally:
                    sys.stdout.flush()
                    sys.stderr.flush()
                    os._exit(code)
            _, status = os.waitpid(process, 0)
            errors.seek(0)
            ended = os.waitstatus_to_exitcode(status)
            print(json.dumps({"process": process, "ended": ended, "errors": errors.read()}), flush=True)


if __name__ == "__main__":
    main()
