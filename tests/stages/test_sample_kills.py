"""SIGKILL during `likelier sample`, with both engines: the file is that of a run never stopped."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from likelier.data.unfinished import partial_path
from tests.engines.stub_server import HANG, StubServer, answers
from tests.source_tree import ROOT

PROMPTS = [{"id": f"p{i}", "prompt": "The cat sat " * (1 + 3 * (i % 3)) + str(i)} for i in range(7)]
POINTS = [
    ("add", 1),
    ("half", 1),
    ("added", 1),
    ("half", 4),
    ("added", 7),
    ("rename", 1),
    ("manifest", 1),
    ("rename", 2),
    ("delete", 1),
]


def drive(orders: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What became of each command line, one after another."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.stages.sample_driver"],
        input=json.dumps(orders),
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"},
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def whole_and_killed(
    here: Path, words: Sequence[str], points: Sequence[Mapping[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """An evaluation never stopped, in `here/whole`; another, in `here/killed`, killed at each point and then ended."""

    def order(name: str, **more: Any) -> dict[str, Any]:
        return {"words": [*words, "--out", name], "stderr": str(here / "err"), **more}

    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(ROOT / "src")]))
    monkeypatch.setenv("LIKELIER_CACHE", str(here / "first"))
    (whole,) = drive([order("whole")])
    assert whole["code"] == 0, whole
    monkeypatch.setenv("LIKELIER_CACHE", str(here / "second"))
    return whole, drive([*(order("killed", **point) for point in points), order("killed")])


def words(folder: Path, name: str, *more: str) -> list[str]:
    prompts = folder / "prompts.jsonl"
    prompts.write_text("".join(json.dumps(row) + "\n" for row in PROMPTS))
    return ["sample", "--prompts", str(prompts), "--out", str(folder / f"{name}.jsonl"), "--n", "2", *more]


def orders(folder: Path, more: list[str], points: list[tuple[str, int]]) -> list[dict[str, Any]]:
    """A run never stopped; then for each point a run that is killed there, and one that goes on."""
    made = [{"words": words(folder, "whole", *more), "stderr": str(folder / "whole.err")}]
    for number, (at, nth) in enumerate(points):
        own = words(folder, f"killed{number}", *more)
        stderr = str(folder / f"{number}.err")
        made.append({"words": own, "at": at, "nth": nth, "stderr": stderr})
        made.append({"words": [*own, "--resume"], "stderr": stderr})
    return made


def check(folder: Path, results: list[dict[str, Any]], points: list[tuple[str, int]]) -> None:
    assert results[0]["code"] == 0, results[0]["stderr"]
    whole = (folder / "whole.jsonl").read_bytes()
    assert len(whole.splitlines()) == len(PROMPTS)
    for number, point in enumerate(points):
        killed, resumed = results[1 + 2 * number : 3 + 2 * number]
        assert killed["code"] == -9, (point, killed)
        assert resumed["code"] == 0, (point, resumed)
        out = folder / f"killed{number}.jsonl"
        assert out.read_bytes() == whole, point
        assert out.with_name(f"killed{number}.manifest.json").exists()
        assert not partial_path(out).exists()


def test_killed_with_a_model_here(tiny_llama: Path, tmp_path: Path) -> None:
    """Also in the middle of an answer; and killed three times in one file."""
    more = ["--model", str(tiny_llama), "--max-new-tokens", "5", "--precision", "float32"]
    points = [*POINTS, ("token", 3), ("token", 9)]
    given = orders(tmp_path, more, points)
    own = words(tmp_path, "thrice", *more)
    for at, nth in (("added", 2), ("half", 1), ("add", 2)):
        resumed = ["--resume"] if at != "added" else []
        given.append({"words": [*own, *resumed], "at": at, "nth": nth, "stderr": str(tmp_path / "t.err")})
    given.append({"words": [*own, "--resume"], "stderr": str(tmp_path / "t.err")})
    results = drive(given)
    check(tmp_path, results, points)
    assert [result["code"] for result in results[-4:]] == [-9, -9, -9, 0]
    assert "3 of 7 prompts were answered before" in results[-1]["stderr"]
    assert (tmp_path / "thrice.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


def test_killed_with_a_server(tmp_path: Path) -> None:
    """A prompt whose answers were kept is never asked for again."""
    points = [*POINTS, ("request", 3)]
    asked: list[str] = []

    def behaviour(number: int, body: dict[str, Any]) -> Any:
        asked.append(body["prompt"])
        return answers(body, *(f"{body['seed'] + index}" for index in range(body.get("n", 1))))

    with StubServer(behaviour) as stub:
        more = ["--engine", "openai", "--model", "m", "--base-url", stub.url, "--concurrency", "1"]
        results = drive(orders(tmp_path, more, points))
    check(tmp_path, results, points)
    kept = {"add": lambda nth: nth - 1, "half": lambda nth: nth - 1, "added": lambda nth: nth}
    again = sum(7 - (kept[at](nth) if at in kept else 7) for at, nth in POINTS)
    # Each killed run had up to one more answer under way than it kept.
    most = 7 * (1 + len(POINTS)) + again + 7 + 2
    assert len(asked) <= most
    assert set(Counter(asked)) == {row["prompt"] for row in PROMPTS}


@pytest.mark.parametrize("name", ["INT", "KILL"])
def test_a_real_process_that_hangs_on_a_server(name: str, tmp_path: Path) -> None:
    """Ctrl-C says how to go on and leaves at once; a killed one has kept what it had."""
    import signal

    calm = False

    def behaviour(number: int, body: dict[str, Any]) -> Any:
        if "sat 3" in body["prompt"] and not calm:
            return HANG
        return answers(body, "yes", "no")

    with StubServer(behaviour) as stub:
        more = ["--engine", "openai", "--model", "m", "--base-url", stub.url, "--concurrency", "2"]
        command = [sys.executable, "-m", "likelier", *words(tmp_path, "samples", *more)]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        partial = partial_path(tmp_path / "samples.jsonl")
        for _ in range(2400):
            if partial.exists() and len(partial.read_bytes().splitlines()) == 7:
                break
            time.sleep(0.05)
        process.send_signal(getattr(signal, f"SIG{name}"))
        _, said = process.communicate(timeout=60)
        if name == "INT":
            assert process.returncode == 1
            assert "6 of 7 prompts are answered" in said
            assert "--resume" in said
        asked = len(stub.bodies)
        calm = True
        (resumed,) = drive(
            [{"words": [*words(tmp_path, "samples", *more), "--resume"], "stderr": str(tmp_path / "e")}]
        )
        assert resumed["code"] == 0, resumed
        assert len(stub.bodies) == asked + 1
    rows = [json.loads(line) for line in (tmp_path / "samples.jsonl").read_text().splitlines()]
    assert [row["id"] for row in rows] == [row["id"] for row in PROMPTS]
