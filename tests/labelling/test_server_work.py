"""Many annotators at once, SIGKILL at any moment, Ctrl-C: no label is lost or doubled."""

from __future__ import annotations

import contextlib
import http.client
import json
import random
import signal
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.labelling.servers import Client, Server, prefer, reply, write_samples

NAMES = ("ann", "ben", "eve")


def choice(name: str, told: dict[str, Any]) -> int:
    """An annotator's opinion is a function of the item, wherever the answers stand."""
    texts = sorted(answer["text"] for answer in told["item"]["answers"])
    return prefer(told, texts[random.Random(f"{name} {texts[0]}").randrange(2)])


def work(server: Server, cookie: str, name: str, tab: str, faults: list[Any]) -> None:
    """Labels until nothing is left, never asking twice for one answer."""
    client = Client(server.port, cookie)
    try:
        told = client.next(name, tab)
        number = 0
        while told["item"] is not None or told["waiting"]:
            if told["item"] is None:
                time.sleep(0.02)  # another tab still has an item before it
                told = client.next(name, tab)
                continue
            number += 1
            body = reply(told, name, key=f"{name}-{tab}-{number}", tab=tab, first=choice(name, told))
            status, told = client.post("/api/answer", body)
            if status != 200:
                faults.append((name, tab, status, told))
                return
    except Exception as error:
        faults.append((name, tab, error))
    finally:
        client.close()


def test_a_thousand_items_and_three_annotators_at_once(tmp_path: Path) -> None:
    samples = write_samples(tmp_path / "samples.jsonl", 1000)
    faults: list[Any] = []
    with Server(samples, tmp_path / "out.jsonl", "--overlap", "3", "--disagreements", "all") as server:
        cookie = server.cookie()
        people = [
            threading.Thread(target=work, args=(server, cookie, name, f"tab{tab}", faults))
            for name in NAMES
            for tab in range(4)
        ]
        for person in people:
            person.start()
        for person in people:
            person.join()
        assert faults == []
        assert server.stop() == 0
    answers = [row for row in server.rows(".events.jsonl") if row["kind"] == "answer"]
    shown = {row["showing"]: row for row in server.rows(".events.jsonl") if row["kind"] == "shown"}
    labels = Counter(
        (row["annotator"], shown[row["showing"]]["item"])
        for row in answers
        if shown[row["showing"]]["role"] == "label"
    )
    assert len(labels) == 3000
    assert set(labels.values()) == {1}
    assert len(server.rows()) == 3000
    repeated = Counter(row["annotator"] for row in shown.values() if row["role"] == "repeat")
    assert all(20 <= repeated[name] <= 90 for name in NAMES)  # of 1,000 draws at 0.05: mean 50, sd 7
    text = {f"row{number}": [f"answer {index} to {number}" for index in (0, 1)] for number in range(1000)}
    for row in server.rows():
        name = row["labeller"].removeprefix("human ")
        wanted = random.Random(f"{name} {text[row['id']][0]}").randrange(2)
        assert row["chosen"]["text"] == text[row["id"]][wanted]
        assert row["chosen"]["tokens"] == [int(row["id"][3:]), wanted]


def without_times(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in row.items() if name not in ("time", "seconds")} for row in rows]


def label_through(server: Server, name: str, deaths: random.Random | None, number: int) -> None:
    """Labels everything; the server is killed before, during and after requests, and started again.

    The page sends what it has no answer to again, under the same key.
    """
    cookie = server.cookie()
    client = Client(server.port, cookie)
    told, asked = client.next(name), 0
    while told["item"] is not None:
        asked += 1
        body = reply(told, name, key=f"{name}-{asked}", first=choice(name, told), reason=f"because {asked}")
        while True:
            if deaths is not None and deaths.random() < 0.25 and number:
                number -= 1
                if deaths.random() < 0.7:
                    _send_and_kill(server, client, body, deaths)
                else:
                    server.kill()
                client.close()
                server.start()
                client = Client(server.port, cookie)
            try:
                status, answer = client.post("/api/answer", body)
            except (OSError, http.client.HTTPException):
                continue
            assert status == 200, answer
            told = answer
            break
    client.close()


def _send_and_kill(server: Server, client: Client, body: dict[str, Any], deaths: random.Random) -> None:
    """Kills the server while it has a request before it, at a moment of chance."""
    sent = threading.Thread(target=_ignore_faults, args=(client, body))
    sent.start()
    time.sleep(deaths.random() * 0.012)
    server.kill()
    sent.join()


def _ignore_faults(client: Client, body: dict[str, Any]) -> None:
    with contextlib.suppress(OSError, http.client.HTTPException, json.JSONDecodeError):
        client.post("/api/answer", body)


def test_a_killed_server_loses_and_doubles_nothing(tmp_path: Path) -> None:
    """The files equal those of a run that was never stopped, times apart; a browser needs no new link."""
    samples = write_samples(tmp_path / "samples.jsonl", 40)
    with Server(samples, tmp_path / "whole.jsonl", "--repeat-share", "0.2") as whole:
        label_through(whole, "ann", None, 0)
        whole.stop()
    with Server(samples, tmp_path / "killed.jsonl", "--repeat-share", "0.2") as killed:
        label_through(killed, "ann", random.Random(4), 5)
        killed.stop()
    assert without_times(killed.rows()) == without_times(whole.rows())
    assert without_times(killed.rows(".events.jsonl")) == without_times(whole.rows(".events.jsonl"))
    assert len(whole.rows()) == 40


def test_what_was_said_is_saved_when_it_is_said_so(tmp_path: Path) -> None:
    """SIGKILL right after the response: the label is in the file that `--export-only` writes."""
    samples = write_samples(tmp_path / "samples.jsonl", 3)
    with Server(samples, tmp_path / "out.jsonl") as server:
        client = server.client()
        assert client.post("/api/answer", reply(client.next("ann"), "ann", key="k"))[0] == 200
        server.kill()
        client.close()
    assert not (tmp_path / "out.jsonl").exists()
    again = Server(samples, tmp_path / "out.jsonl", "--export-only")
    assert run_to_end(again) == 0
    assert [row["labeller"] for row in again.rows()] == ["human ann"]
    assert any("not labelled: 2" in line for line in again.said)


def run_to_end(server: Server) -> int:
    """Runs the command without waiting for a link; its exit code."""
    with pytest.raises(AssertionError):
        server.start()
    code = server.process.wait(60)
    server._reader.join(10)
    server.process.stderr.close()  # type: ignore[union-attr]
    return code


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_writes_the_files_and_says_what_is_left(tmp_path: Path, number: signal.Signals) -> None:
    samples = write_samples(tmp_path / "samples.jsonl", 5)
    with Server(samples, tmp_path / "out.jsonl") as server:
        client = server.client()
        told = client.next("ann")
        client.post("/api/answer", reply(told, "ann", key="1", edit="A better one.", reason="why"))
        client.close()
        assert server.stop(number) == 0
    assert server.said[-1].startswith("1 preferences in ")
    assert "left out: not labelled: 4" in server.said[-1]
    (row,) = server.rows()
    assert (row["labeller"], row["reason"], row["labels"]) == ("human ann", "why", 1)
    assert row["chosen"]["finish"] == "stop"
    (better,) = server.rows(".sft.jsonl")
    assert (better["prompt"], better["completion"], better["labeller"]) == (
        "Prompt 0",
        "A better one.",
        "human ann",
    )
    manifest = json.loads((tmp_path / "out.manifest.json").read_text("utf-8"))
    assert manifest["left_out"] == {"not labelled": 4}
    assert (manifest["stage"], manifest["rows"], manifest["better_answers"]) == ("label", 1, 1)


def test_the_files_can_be_written_while_the_server_runs(tmp_path: Path) -> None:
    samples = write_samples(tmp_path / "samples.jsonl", 2)
    with Server(samples, tmp_path / "out.jsonl") as server:
        client = server.client()
        client.post("/api/answer", reply(client.next("ann"), "ann", key="1"))
        status, told = client.post("/api/export", {})
        assert (status, told["message"].split(" in ")[0]) == (200, "1 preferences")
        assert len(server.rows()) == 1
        second = Server(samples, tmp_path / "out.jsonl")
        assert run_to_end(second) == 2
        assert "open in another labelling server" in second.said[-1]
        client.close()


def test_rows_that_change_keep_the_labels_of_what_stays(tmp_path: Path) -> None:
    samples = write_samples(tmp_path / "samples.jsonl", 3)
    with Server(samples, tmp_path / "out.jsonl") as server:
        client = server.client()
        told = client.next("ann")
        for number in range(2):
            _, told = client.post("/api/answer", reply(told, "ann", key=str(number)))
        client.close()
        server.stop()
    lines = samples.read_text("utf-8").splitlines()
    samples.write_text("\n".join([lines[2], lines[1]]) + "\n", encoding="utf-8")
    with Server(samples, tmp_path / "out.jsonl") as server:
        client = server.client()
        assert client.next("ann")["progress"] == {"done": 2, "left": 1, "seconds": pytest.approx(0.0, abs=60)}
        client.close()
        server.stop()
    assert "labelled, but no longer among the items: 1" in server.said[-1]
    assert [row["id"] for row in server.rows()] == ["row1"]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--host", "0.0.0.0"], "--host 0.0.0.0: the labelling page is for this machine alone"),
        (["--host", "example.org"], "--host example.org: the labelling page is for this machine alone"),
        (["--guidelines", "nowhere.md"], "--guidelines nowhere.md cannot be read"),
        (["--export-only"], "nothing has been labelled"),
    ],
)
def test_settings_that_cannot_be(tmp_path: Path, flags: list[str], words: str) -> None:
    server = Server(write_samples(tmp_path / "samples.jsonl", 1), tmp_path / "out.jsonl", *flags)
    assert run_to_end(server) == 2
    assert words in server.said[-1]


def test_a_port_that_is_taken(tmp_path: Path) -> None:
    samples = write_samples(tmp_path / "samples.jsonl", 1)
    with Server(samples, tmp_path / "out.jsonl") as server:
        second = Server(samples, tmp_path / "other.jsonl", port=server.port)
        assert run_to_end(second) == 2
        assert f"--port {server.port} cannot be used" in second.said[-1]


def test_a_file_of_somebody_elses_is_kept(tmp_path: Path) -> None:
    (tmp_path / "out.jsonl").write_text("mine", encoding="utf-8")
    server = Server(write_samples(tmp_path / "samples.jsonl", 1), tmp_path / "out.jsonl")
    assert run_to_end(server) == 2
    assert "was not made by labelling" in server.said[-1]
    assert (tmp_path / "out.jsonl").read_text("utf-8") == "mine"


def test_bad_rows_are_counted_and_the_rest_is_asked_about(tmp_path: Path) -> None:
    samples = write_samples(tmp_path / "samples.jsonl", 2)
    more = [
        '{"prompt": "p", "completions": ["same", "same"]}',
        '{"prompt": "p", "completions": ["", "x"]}',
        "{",
    ]
    samples.write_text(samples.read_text("utf-8") + "\n".join(more) + "\n", encoding="utf-8")
    with Server(samples, tmp_path / "out.jsonl") as server:
        server.stop()
    said = "\n".join(server.said)
    assert "a row that cannot be used: 2" in said
    assert "fewer than two different answers: 1" in said
    assert f"{samples}, row 4: " in said
    assert "2 items" in said


def test_nothing_to_choose_between(tmp_path: Path) -> None:
    samples = tmp_path / "samples.jsonl"
    samples.write_text('{"prompt": "p", "completions": ["same", "same"]}\n', encoding="utf-8")
    server = Server(samples, tmp_path / "out.jsonl")
    assert run_to_end(server) == 2
    assert "nothing to choose between" in server.said[-1]
