"""Preferences by a judge: both orders, strict verdicts, failures that cost only time, kills that cost nothing."""

from __future__ import annotations

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import likelier
from likelier import cli
from likelier.data.reading import load_records, read
from likelier.data.records import Record
from likelier.engines.judge_figures import figures_of
from likelier.engines.judges import Said
from likelier.engines.protocol import Failure
from likelier.engines.verdicts import Judged, decided, mean_gap, why_not
from likelier.errors import DataError, UsageError, WorkError
from likelier.stages.label_outcome import Labelled
from likelier.stages.label_pairs import cases_of
from likelier.stats.intervals import wilson
from tests.engines.stub_server import DROP, HALF, HANG, Status, StubServer, Text, answers
from tests.engines.test_rubric import blocks
from tests.source_tree import ROOT
from tests.stages.test_sample_kills import drive

RUBRIC = "{prompt}\n{answer_a}\n{answer_b}\n{verdict}"


def opinion(body: dict[str, Any]) -> str:
    """A judge that likes words; it cannot make up its mind about riddles, always takes the first of coins, and
    never says which of mumbles."""
    shown = blocks(body["messages"][0]["content"])
    first, second = (len(shown[f"answer {letter}"].split()) for letter in "AB")
    if "mumble" in shown["prompt"]:
        return "Both have their merits."
    letter = "A" if "coin" in shown["prompt"] or first > second else "B" if second > first else "tie"
    return f"It has more words.\nVerdict: {letter}"


def well(number: int, body: dict[str, Any]) -> Any:
    return answers(body, opinion(body))


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LIKELIER_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def label(rows: Any, server: StubServer, **config: Any) -> Labelled:
    values = {
        "with_": "judge",
        "judge": "openai",
        "base_url": server.url,
        "judge_model": "wise",
        "timeout": 5,
    }
    return likelier.label(rows, **(values | config))


def lines(path: Path | str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path).read_text("utf-8").splitlines()]


def sampled(id: str, prompt: str, *texts: str) -> dict[str, Any]:
    completions = [{"text": text, "tokens": [5, index], "finish": "stop"} for index, text in enumerate(texts)]
    return {"id": id, "prompt": prompt, "completions": completions}


# Verdicts


def test_both_orders_are_asked_and_disagreement_is_a_tie() -> None:
    rows = [sampled("p", "say", "a b", "a b c", "x y"), sampled("q", "coin", "h", "t t")]
    with StubServer(well) as server:
        labelled = label(rows, server, out="p.jsonl")
    by_id = {row["id"]: row for row in labelled.rows}
    assert by_id.keys() == {"p:1-2", "p:1-3", "p:2-3", "q"}
    assert (by_id["p:1-2"]["chosen"]["text"], by_id["p:1-2"]["rejected"]["text"]) == ("a b c", "a b")
    assert by_id["p:2-3"]["chosen"]["tokens"] == [5, 1]
    assert by_id["p:1-3"]["winner"] == "tie"
    assert (by_id["q"]["winner"], by_id["q"]["a"]["text"]) == ("tie", "h")
    assert by_id["q"]["reason"].startswith("the two orders disagree (A, then A)")
    assert {row["labeller"] for row in labelled.rows} == {"judge wise"}
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", row["time"]) for row in labelled.rows)
    assert (labelled.pairs, labelled.prompts, labelled.figures["ties"]) == (2, 2, 2)
    asked = Counter(tuple(blocks(body["messages"][0]["content"]).values()) for body in server.bodies)
    assert set(asked.values()) == {1}
    assert {(p, b, a) for p, a, b in asked} == set(asked)
    assert {body["temperature"] for body in server.bodies} == {0.0}
    records, faults = load_records("p.jsonl")
    assert (len(records), faults) == (4, [])
    manifest = json.loads(Path("p.manifest.json").read_text())
    assert "verdicts that differ are a tie" in manifest["labels"]
    assert manifest["rubric"].startswith("You compare two answers")


@pytest.mark.parametrize(("design", "count"), [("all", 6), ("ring", 4), ("adjacent", 3)])
def test_designs(design: str, count: int) -> None:
    with StubServer(well) as server:
        labelled = label([sampled("p", "say", "a", "a b", "a b c", "a b c d")], server, pairs=design)
    assert (len(labelled.rows), len(server.bodies)) == (count, 2 * count)


def test_rows_that_are_pairs_already_and_the_same_answer_twice() -> None:
    rows = [
        {"id": "a", "prompt": "say", "chosen": "x y", "rejected": "x"},
        {"id": "b", "prompt": "say", "a": "x", "b": "x y z", "winner": "a"},
        {"id": "c", "prompt": "say", "a": "q", "b": "q r", "winner": "tie"},
        {"id": "d", "prompt": "say", "completions": ["u", "u", "v w"]},
    ]
    with StubServer(well) as server:
        labelled = label(rows, server)
    assert [row["id"] for row in labelled.rows] == ["a", "b", "c", "d:1-3", "d:2-3"]
    assert labelled.left_out == {"the same answer twice": 1}
    assert len(server.bodies) == 2 * 4  # the last two pairs are one question
    accuracy = labelled.figures["accuracy"]
    assert (accuracy["value"], accuracy["n"]) == (0.5, 2)


def test_the_unparsable_is_counted_kept_and_not_asked_again(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [sampled("p", "say", "a", "a b"), sampled("m", "mumble", "a", "a b")]
    with StubServer(well) as server:
        for _ in range(2):
            labelled = label(rows, server, out="p.jsonl")
            assert labelled.figures["unparsable"] == 2
            assert labelled.left_out == {"no verdict in the answer": 1}
            (row,) = lines("p.unjudged.jsonl")
            assert (row["id"], row["reason"]) == ("m", "no verdict in the answer")
            assert [reply["text"] for reply in row["replies"]] == ["Both have their merits."] * 2
            assert row["completions"][1] == {"text": "a b", "tokens": [5, 1], "finish": "stop"}
        assert len(server.bodies) == 4
        assert labelled.figures["questions"] == {"asked": 0, "answered_before": 4}
        # It can be given to another labeller as it is, but is not replaced while it is read.
        with pytest.raises(UsageError, match=r"would replace p\.unjudged\.jsonl, which is read"):
            label("p.unjudged.jsonl", server, out="p.jsonl")
        assert likelier.label("p.unjudged.jsonl", with_="reward", reward="length").pairs == 1
        with pytest.raises(WorkError, match=r"no verdict on any of 1 pairs .*what it said is in q\.unjudged"):
            label(rows[1:], server, out="q.jsonl")
        assert not Path("q.jsonl").exists()
        label(rows[:1], server, out="p.jsonl")
    assert not Path("p.unjudged.jsonl").exists()


def test_keys_are_content() -> None:
    """Another model, rubric, length, prompt, answer or order is another question; another file or id is not."""
    row = sampled("p", "say", "a", "a b")
    Path("r.txt").write_text(RUBRIC)
    with StubServer(well) as server:

        def asked(rows: list[dict[str, Any]], **config: Any) -> int:
            before = len(server.bodies)
            label(rows, server, **config)
            return len(server.bodies) - before

        assert asked([row]) == 2
        assert asked([row]) == asked([row | {"id": "other"}], out="o.jsonl") == 0
        assert asked([{"prompt": "say", "chosen": "a b", "rejected": "a"}]) == 0
        assert asked([row], judge_model="wiser") == 2
        assert asked([row], rubric="r.txt") == 2
        assert asked([row], judge_max_tokens=100) == 2
        assert asked([sampled("p", "say!", "a", "a b")]) == 2
        assert asked([sampled("p", "say", "a", "a b c")]) == 2


def test_a_damaged_cache_is_asked_anew(own_cache: Path) -> None:
    row = sampled("p", "say", "a", "a b")
    with StubServer(well) as server:
        first = label([row], server).rows
        cache = own_cache / "cache" / "judged-1.sqlite"
        with sqlite3.connect(cache) as connection:
            connection.execute("UPDATE replies SET reply = replace(reply, 'Verdict: A', 'Verdict: B')")
        connection.close()
        assert [row["chosen"] for row in label([row], server).rows] == [row["chosen"] for row in first]
        assert len(server.bodies) == 3
        cache.write_bytes(b"no database" * 100)
        assert label([row], server).pairs == 1
    assert len(server.bodies) == 5
    assert list(cache.parent.glob("judged-1.sqlite.damaged-*"))


# Failures


def test_a_server_that_fails_costs_nothing_but_time(capsys: pytest.CaptureFixture[str]) -> None:
    """500, hang, half an answer, a closed connection and nonsense, each once: the same file as of a good one."""
    rows = [sampled(f"p{n}", "say", *(" ".join("abcdef"[:k]) for k in range(1, 4))) for n in range(4)]
    rows = [row | {"prompt": f"say {number}"} for number, row in enumerate(rows)]
    ways = [
        Status(500),
        HANG,
        HALF,
        DROP,
        Text("<html>"),
        Status(429, headers={"Retry-After": "0"}),
        Text('{"x": 1}'),
    ]

    def badly(number: int, body: dict[str, Any]) -> Any:
        return ways[number // 2] if number % 2 == 0 and number // 2 < len(ways) else well(number, body)

    with StubServer(well) as server:
        good = label(rows, server).rows
    with StubServer(badly) as server:
        bad = label(rows, server, timeout=1, concurrency=4)
    assert [row | {"time": ""} for row in bad.rows] == [row | {"time": ""} for row in good]
    assert bad.figures["failures"] == {}


def test_failures_are_counted_kept_and_asked_again(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [sampled("p", "say", "a", "a b"), sampled("q", "broken", "a", "a b")]
    Path("s.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    mended = False

    def behaviour(number: int, body: dict[str, Any]) -> Any:
        broken = "broken" in body["messages"][0]["content"] and not mended
        return Status(503, {"error": {"message": "no room"}}) if broken else well(number, body)

    with StubServer(behaviour) as server:
        words = f"label s.jsonl --with judge --judge openai --base-url {server.url} --judge-model wise"
        words += " --retries 0 --concurrency 1 --out p.jsonl"
        assert cli.main(words.split()) == 1
        err = capsys.readouterr().err
        assert "without a label: HTTP 503: 1" in err
        assert "the judge failed (HTTP 503: 2); the next run asks these again" in err
        (row,) = lines("p.unjudged.jsonl")
        assert (row["id"], row["reason"]) == ("q", "HTTP 503")
        assert "no room" in row["replies"][0]["detail"]
        assert [row["id"] for row in lines("p.jsonl")] == ["p"]
        mended = True
        before = len(server.bodies)
        assert cli.main(words.split()) == 0
        assert len(server.bodies) - before == 2
    assert [row["id"] for row in lines("p.jsonl")] == ["p", "q"]
    assert not Path("p.unjudged.jsonl").exists()
    assert "the answer shown first wins (one half is no bias): 0.5" in capsys.readouterr().err


@pytest.mark.parametrize(("status", "said"), [(401, "access refused"), (404, "no such model or address")])
def test_what_no_retry_mends_stops_at_once(status: int, said: str) -> None:
    with StubServer(lambda number, body: Status(status)) as server, pytest.raises(UsageError, match=said):
        label([sampled("p", "say", "a", "b")], server)


# SIGKILL


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL there")
def test_killed_and_run_again_is_as_never_stopped(own_cache: Path) -> None:
    rows = [sampled(f"p{n}", f"say {n}", "a", "a b", f"{n} " * (n + 1)) for n in range(8)]
    rows += [sampled("m", "mumble", "a", "b")]
    Path("s.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    slow = 0.0

    def behaviour(number: int, body: dict[str, Any]) -> Callable[[], Any]:
        def act() -> Any:
            time.sleep(slow)
            return well(number, body)

        return act

    with StubServer(behaviour) as server:
        asked = f"label s.jsonl --with judge --judge openai --base-url {server.url} --judge-model wise"
        words = [sys.executable, "-m", "likelier", *asked.split(), "--concurrency", "2", "--out"]

        def start(out: str, cache: str) -> subprocess.Popen[bytes]:
            environment = os.environ | {"LIKELIER_CACHE": str(own_cache / cache)}
            return subprocess.Popen([*words, out], env=environment, stderr=subprocess.DEVNULL)

        assert start("whole.jsonl", "one").wait(timeout=120) == 0
        total = len(server.bodies)
        assert total == 2 * (8 * 3 + 1)
        slow = 0.05
        kept = 0
        for answered in (9, 25):
            running = start("killed.jsonl", "two")
            while len(server.bodies) - total < answered:
                assert running.poll() is None
                time.sleep(0.01)
            running.send_signal(signal.SIGKILL)
            assert running.wait(timeout=60) == -signal.SIGKILL
            assert not Path("killed.jsonl").exists()
            before, kept = kept, in_cache(own_cache / "two")
            assert before < kept < total
        slow, before = 0.0, len(server.bodies)
        assert start("killed.jsonl", "two").wait(timeout=120) == 0
        assert len(server.bodies) - before == total - kept  # what was answered is never asked again
    whole, killed = lines("whole.jsonl"), lines("killed.jsonl")
    assert [row | {"time": ""} for row in killed] == [row | {"time": ""} for row in whole]
    assert len(whole) == 24
    assert [unjudged("whole.unjudged.jsonl"), unjudged("killed.unjudged.jsonl")] == [1, 1]


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL there")
def test_a_model_here_that_is_killed_is_as_never_stopped(
    own_cache: Path, patient_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Real processes: killed twice before an answer is kept, once before the file takes its name."""
    rows = [sampled(f"p{n}", f"say {n}", "a", "a b", f"{n} " * (n + 1)) for n in range(3)]
    Path("s.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ["label", "s.jsonl", "--with", "judge", "--judge", "local", "--judge-model", str(patient_llama)]
    words += ["--verdict", "log-odds", "--precision", "float32", "--out"]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(ROOT / "src")]))

    def order(out: str, **more: Any) -> dict[str, Any]:
        return {"words": [*words, out], "stderr": "err", **more}

    monkeypatch.setenv("LIKELIER_CACHE", str(own_cache / "one"))
    (whole,) = drive([order("whole.jsonl")])
    assert whole["code"] == 0, whole
    total = in_cache(own_cache / "one")
    assert total == 2 * 3 * 3  # both orders of every pair
    monkeypatch.setenv("LIKELIER_CACHE", str(own_cache / "two"))
    # The third has 7 answers left to ask for before it writes; the last would die if it asked for one again.
    points = [("put", 5), ("put", 8), ("rename", 1), ("put", 1)]
    results = drive([order("killed.jsonl", at=at, nth=nth) for at, nth in points])
    assert [result["code"] for result in results] == [*[-signal.SIGKILL] * 3, 0], results
    assert in_cache(own_cache / "two") == total
    found, expected = lines("killed.jsonl"), lines("whole.jsonl")
    assert [row | {"time": ""} for row in found] == [row | {"time": ""} for row in expected]
    assert len(found) > 0


def in_cache(folder: Path) -> int:
    connection = sqlite3.connect(folder / "judged-1.sqlite")
    (count,) = connection.execute("SELECT count(*) FROM replies").fetchone()
    connection.close()
    return int(count)


def unjudged(path: str) -> int:
    return sum(
        [reply["text"] for reply in row["replies"]] == ["Both have their merits."] * 2 for row in lines(path)
    )


def test_a_second_run_writes_the_same_bytes() -> None:
    rows = [sampled(f"p{n}", "say", "a", f"a b {n}") for n in range(5)]
    with StubServer(well) as server:
        label(rows, server, out="p.jsonl")
        before = Path("p.jsonl").read_bytes()
        time.sleep(1.1)
        label(rows, server, out="p.jsonl")
    assert Path("p.jsonl").read_bytes() == before


# Figures and decisions, by hand


def said(logps: tuple[float, float] | None = None, text: str = "") -> Said:
    return Said(text=text, logps=logps, time="2026-01-01T00:00:00Z")


def case(prompt: str = "p", **row: Any) -> Any:
    (record,) = read([{"prompt": prompt, "chosen": "x", "rejected": "y"} | row])
    assert isinstance(record, Record)
    return cases_of([record], "all")[0][0]


VERDICTS = {
    ("A", "B"): 0,
    ("B", "A"): 1,
    **dict.fromkeys([("A", "A"), ("B", "B"), ("tie", "tie"), ("A", "tie"), ("tie", "B"), ("B", "tie")]),
}


@pytest.mark.parametrize(("sides", "winner"), VERDICTS.items())
def test_every_two_verdicts(sides: tuple[str, str], winner: int | None) -> None:
    one = decided(case(), (said(text=f"Verdict: {sides[0]}"), said(text=f"Verdict: {sides[1]}")))
    assert (one.labelled, one.winner) == (True, winner)


def test_a_verdict_that_was_cut_is_none() -> None:
    cut = Said(text="Verdict: A", finish="length")
    one = decided(case(), (cut, said(text="Verdict: B")))
    assert (one.labelled, why_not(one)) == (False, "cut at --judge-max-tokens")


def test_no_verdict_is_no_tie() -> None:
    failure = Failure(reason="HTTP 500", detail="", attempts=1)
    for replies in ((said(text="Verdict: A"), said(text="?")), (failure, said(text="Verdict: A"))):
        one = decided(case(), replies)
        assert (one.labelled, one.winner) == (False, None)


@settings(max_examples=200)
@given(*[st.floats(-20, 0) for _ in range(4)])
def test_by_log_odds_a_bias_for_a_place_cancels(a: float, b: float, c: float, d: float) -> None:
    one = decided(case(), (said((a, b)), said((c, d))))
    odds = (a - b) + (d - c)
    if abs(odds) > 1e-9 and max(abs(a - b), abs(c - d)) < 15:
        assert one.winner == (0 if odds > 0 else 1)
    assert decided(case(), (said((a, b)), said((a, b)))).winner is None


def test_log_odds_by_hand() -> None:
    one = decided(case(), (said((-1.0, -2.0)), said((-1.5, -1.5))))
    assert mean_gap(one) == pytest.approx((0.4621171572600098 + 0.0) / 2, abs=1e-12)
    assert one.winner == 0
    assert decided(case(), one.replies, min_gap=0.3).winner is None  # type: ignore[arg-type]


def test_figures_by_hand() -> None:
    """Four pairs of four prompts: two decided alike, one by place, one tie; one more that cannot be read."""
    texts = [("A", "B"), ("B", "A"), ("A", "A"), ("tie", "tie"), ("A", "?")]
    judged: list[Judged] = [
        decided(case(f"p{n}"), (said(text=f"Verdict: {x}"), said(text=f"Verdict: {y}")))
        for n, (x, y) in enumerate(texts)
    ]
    figures = figures_of(judged, asked=10, known=0)
    assert (figures["judged"], figures["ties"], figures["unparsable"], figures["failures"]) == (4, 2, 1, {})
    # Verdicts with a side: A B, B A, A A, A: five of seven for the first shown.
    assert (figures["first_shown_wins"]["value"], figures["first_shown_wins"]["n"]) == (
        pytest.approx(5 / 7),
        7,
    )
    agree = figures["orders_agree"]
    assert (agree["value"], agree["n"]) == (0.75, 4)
    low, high = wilson(3, 4).interval or (0, 0)
    assert agree["low"] < low
    assert high < agree["high"] or agree["high"] == 1.0
    # Chosen is the first: right, wrong, tie, tie.
    assert figures["accuracy"]["value"] == 0.5


@settings(max_examples=100)
@given(
    st.lists(st.lists(st.sampled_from("abcd"), min_size=1, max_size=5), min_size=1, max_size=4),
    st.sampled_from(["all", "ring", "adjacent"]),
)
def test_no_pair_is_lost(prompts: list[list[str]], design: Any) -> None:
    records = list(read([{"prompt": "p", "completions": texts} for texts in prompts]))
    cases, left_out = cases_of(records, design)  # type: ignore[arg-type]
    counts = {
        "all": lambda n: n * (n - 1) // 2,
        "ring": lambda n: n if n > 2 else n - 1,
        "adjacent": lambda n: n - 1,
    }
    assert len(cases) + left_out.total() == sum(counts[design](len(texts)) for texts in prompts)
    assert len({(one.prompt, one.record.id) for one in cases}) == len(cases)


# Bad input


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("", "--with judge needs --judge-model"),
        ("--judge openai --judge-model m", "--judge openai and --base-url belong together"),
        ("--base-url http://x/v1 --judge-model m", "--judge openai and --base-url belong together"),
        ("--judge openai --base-url x --judge-model m", "--base-url x is no address"),
        ("--judge-model m --pairs best-worst", "--pairs best-worst needs scores"),
        ("--judge-model m --min-gap 1", "--min-gap says nothing to --verdict text"),
        ("--judge-model m --retries 1", "--retries says nothing to --judge local"),
        (
            "--judge-model m --verdict log-odds --judge-max-tokens 3",
            "--judge-max-tokens says nothing to --verdict log",
        ),
        (
            "--judge openai --base-url http://x/v1 --judge-model m --verdict log-odds",
            "it needs --judge local",
        ),
        (
            "--judge openai --base-url http://x/v1 --judge-model m --precision float32",
            "--precision says nothing to",
        ),
        ("--judge-model ./none", "none"),
        ("--judge-model m --seed 3", "--seed is for --with reward or human, not --with judge"),
        ("--judge-model m --rubric none.txt", "--rubric none.txt cannot be read"),
    ],
)
def test_what_cannot_be_is_refused(words: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("s.jsonl").write_text(json.dumps(sampled("p", "say", "a", "b")) + "\n")
    assert cli.main(["label", "s.jsonl", "--with", "judge", *words.split()]) == 2
    err = capsys.readouterr().err
    assert said in err
    assert err.count("\n") == 1


def test_bad_rows_are_counted_and_rows_without_two_answers_named() -> None:
    with StubServer(well) as server:
        rows = [
            sampled("p", "say", "a", "a b"),
            {"prompt": "say", "completions": ["", "b"]},
            {"prompt": "x", "completions": ["b"]},
        ]
        labelled = label(rows, server, out="p.jsonl")
        assert (labelled.skipped, labelled.undecided, labelled.pairs) == (1, 1, 1)
        assert "<rows>, row 2" in json.loads(Path("p.manifest.json").read_text())["skipped"][0]
        with pytest.raises(DataError, match="no prompt has two answers"):
            label(rows[2:], server)


# Local judges


@pytest.mark.parametrize("verdict", ["text", "log-odds"])
def test_a_model_loaded_here(verdict: str, tiny_llama: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [sampled(f"p{n}", "say", "a", f"b {n}") for n in range(3)]
    Path("r.txt").write_text("{prompt}{answer_a}{answer_b}{verdict}")
    Path("s.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = f"label s.jsonl --with judge --judge-model {tiny_llama} --verdict {verdict} --rubric r.txt --out p.jsonl"
    words += " --precision float32" + (" --judge-max-tokens 4" if verdict == "text" else "")
    code = cli.main(words.split())
    err = capsys.readouterr().err
    if verdict == "text":  # a random model says nothing of sense
        assert code == 1
        assert re.search(r"no verdict on any of 3 pairs \((cut at|no verdict in)", err)
        assert len(lines("p.unjudged.jsonl")) == 3
        return
    assert code == 0
    before = Path("p.jsonl").read_bytes()
    assert len(lines("p.jsonl")) == 3
    assert "orders say the same" in err
    assert cli.main(words.split()) == 0
    assert ": 0; answered before: 6 of 6" in capsys.readouterr().err
    assert Path("p.jsonl").read_bytes() == before


def test_a_model_in_memory_judges_as_its_folder_does(tiny_llama: Path) -> None:
    from likelier.models.loading import load_model

    rows = [sampled(f"p{n}", "say", "a", f"b {n}") for n in range(3)]
    Path("r.txt").write_text("{prompt}{answer_a}{answer_b}{verdict}")
    config = {"with_": "judge", "verdict": "log-odds", "rubric": "r.txt", "precision": "float32"}
    by_name = likelier.label(rows, judge_model=str(tiny_llama), **config)
    loaded = load_model(tiny_llama)
    in_memory = likelier.label(rows, judge_model=loaded.model, tokenizer=loaded.tokenizer, **config)
    # The same content has the same key.
    assert in_memory.figures["questions"] == {"asked": 0, "answered_before": 6}
    assert [row["reason"] for row in in_memory.rows] == [row["reason"] for row in by_name.rows]
