"""SIGTERM and Ctrl-C: the step is finished, a checkpoint written, exit code 1; --resume goes on bit for bit."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from likelier.training.processes import StopRequest, deterministic, require_single_process
from tests.training.support import metrics_of, pairs, write_rows
from tests.training.test_resume import ROOT, Case, run_all

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no such signals there")


def test_stopped_and_resumed(tmp_path: Path, tiny_llama: Path) -> None:
    case = Case(tmp_path, tiny_llama, pairs(10), "--batch-size", "3")
    jobs = [case.job("whole")]
    for name, number in (("term", signal.SIGTERM), ("interrupt", signal.SIGINT)):
        # In the middle of the run's third step, where no checkpoint is due.
        jobs.append(case.job(name, at="second forward", nth=3, signal=number))
        jobs.append(case.job(name, "--resume", cache="another"))
    # The last step is done: writing the result comes first.
    jobs.append(case.job("late", at="model", signal=signal.SIGTERM))
    results = run_all(jobs)
    assert [result["ended"] for result in results] == [0, 1, 0, 1, 0, 0], results
    for name, result in (("SIGTERM", results[1]), ("Ctrl-C", results[3])):
        assert f"stopped by {name} after step" in result["errors"]
        assert "--resume goes on from there" in result["errors"]
        assert "Traceback" not in result["errors"]
    assert metrics_of(tmp_path / "term") == metrics_of(tmp_path / "whole")
    assert json.loads((tmp_path / "late" / "manifest.json").read_text())["result"]["stopped"] is None
    for name in ("term", "interrupt", "late"):
        for file in ("model/model.safetensors", "checkpoints/step-8/optimizer.safetensors", "samples.jsonl"):
            assert (tmp_path / name / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()


def test_stopped_in_the_reference_pass(tmp_path: Path, tiny_llama: Path) -> None:
    """One sentence; what was scored is in the cache, and the next run scores the rest alone."""
    case = Case(tmp_path, tiny_llama, pairs(10), "--batch-size", "3")
    jobs = []
    for name, number in (("term", signal.SIGTERM), ("interrupt", signal.SIGINT)):
        jobs.append(case.job(name, at="reference", nth=7, signal=number))
        jobs.append(case.job(name, "--resume"))
    results = run_all(jobs)
    assert [result["ended"] for result in results] == [1, 0, 1, 0], results
    for name, stopped, again in (("SIGTERM", *results[:2]), ("Ctrl-C", *results[2:])):
        found = re.fullmatch(
            rf"likelier: stopped by {name} during the reference pass, (\d+) of 14 prompts done; they are kept,"
            " and --resume goes on from there",
            stopped["errors"].splitlines()[-1],
        )
        assert found, stopped["errors"]
        left = 14 - int(found[1])
        assert 0 < left < 14
        assert f"reference: {left} of {left} prompts scored" in again["errors"]
    assert metrics_of(tmp_path / "term") == metrics_of(tmp_path / "interrupt")


def test_the_command_itself(tmp_path: Path, tiny_llama: Path) -> None:
    """From outside, as a terminal does it: the checkpoint is that of the last line of metrics; nothing is left."""
    data = write_rows(tmp_path / "data.jsonl", pairs(10))
    out = tmp_path / "run"
    words = [
        "dpo",
        "--model",
        str(tiny_llama),
        "--data",
        str(data),
        "--out",
        str(out),
        "--precision",
        "float32",
    ]
    process = subprocess.Popen(
        [sys.executable, "-m", "likelier", *words, "--batch-size", "1", "--epochs", "500"],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        start_new_session=True,
    )
    metrics = out / "metrics.jsonl"
    deadline = time.monotonic() + 240
    while not (metrics.exists() and metrics.read_text().count("\n") >= 3):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=240)
    assert process.returncode == 1
    steps = len(metrics_of(out))
    assert f"stopped by SIGTERM after step {steps}; --resume goes on from there" in errors
    assert [path.name for path in (out / "checkpoints").iterdir()] == [f"step-{steps}"]
    assert not (out / "manifest.json").exists()
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)


def test_the_first_signal_asks_and_a_second_ctrl_c_interrupts() -> None:
    before = [signal.getsignal(name) for name in (signal.SIGINT, signal.SIGTERM)]
    request = StopRequest()
    with request.listening():
        os.kill(os.getpid(), signal.SIGTERM)
        assert (request.reason, request.by_signal) == ("SIGTERM", True)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert [signal.getsignal(name) for name in (signal.SIGINT, signal.SIGTERM)] == before


def test_in_another_thread_signals_stay_as_they_are() -> None:
    seen = []

    def work() -> None:
        with StopRequest().listening() as request:
            seen.append(request.requested())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [False]


def test_deterministic_operations_end_with_the_run() -> None:
    import torch

    assert not torch.are_deterministic_algorithms_enabled()
    with deterministic():
        assert torch.are_deterministic_algorithms_enabled()
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.utils.deterministic.fill_uninitialized_memory


def test_several_processes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from likelier.errors import UsageError

    monkeypatch.setenv("WORLD_SIZE", "1")
    require_single_process("dpo")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UsageError, match="WORLD_SIZE is 2; start it without torchrun"):
        require_single_process("dpo")
