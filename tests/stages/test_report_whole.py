"""`likelier report` on what the commands themselves leave: four stages and two evaluations of tiny models, one page."""

from __future__ import annotations

import json
import re
from html import unescape
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from likelier.cli import main
from likelier.report.page import number
from tests.browser import browser
from tests.training.support import pairs, write_rows

__all__ = ["browser"]

PROMPTS = [{"id": name, "prompt": text} for name, text in (("a", "The cat"), ("b", "Rain"), ("c", "A dog"))]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, tiny_llama: Path) -> SimpleNamespace:
    """The way from rows to a page, command by command."""
    root = tmp_path_factory.mktemp("whole")
    data = write_rows(root / "data.jsonl", pairs(12))
    prompts = write_rows(root / "prompts.jsonl", PROMPTS)
    rows = f"--model {tiny_llama} --data {data} --batch-size 4 --max-steps 3 --precision float32 --eval-share 0.25"
    said = f"--sample-prompts {prompts} --sample-every 3"
    asked = f"--prompts {prompts} --max-new-tokens 4 --precision float32"
    ppo = f"ppo --model {tiny_llama} {asked} --batch-size 6 --n 2 --max-steps 2 --checkpoint-every 1 --seed 0"
    commands = [
        f"sft {rows} {said} --on chosen --learning-rate 1e-3 --out {root / 'sft'}",
        f"dpo {rows} {said} --beta 0.1 --learning-rate 1e-2 --out {root / 'dpo'}",
        f"reward {rows} --learning-rate 1e-3 --out {root / 'reward'}",
        f"{ppo} --reward {root / 'reward' / 'model'} --learning-rate 1e-2 --out {root / 'ppo'}",
        f"evaluate frontier {root / 'dpo'} {root / 'ppo'} {asked} --reward length --n 2 --out {root / 'frontier'}",
        f"evaluate winrate {root / 'dpo'} {root / 'ppo'} {asked} --reward length --out {root / 'won'}",
    ]
    runs = [root / name for name in ("sft", "dpo", "reward", "ppo")]
    commands.append(f"report {' '.join(map(str, runs))} --out {root / 'page.html'}")
    for command in commands:
        # A process's own words stand in its manifest.
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("sys.argv", ["likelier", *command.split()])
            assert main(command.split()) == 0, command
    return SimpleNamespace(root=root, runs=runs, commands=commands, page=root / "page.html")


@pytest.fixture(scope="module")
def text(made: SimpleNamespace) -> str:
    return unescape(made.page.read_text("utf-8"))


def lines_of(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def table_after(text: str, title: str) -> list[list[str]]:
    """The cells of the first table behind a heading, without their marks."""
    body = text[text.index(title) :]
    body = body[: body.index("</table>")]
    rows = re.findall(r"<tr.*?</tr>", body, flags=re.S)
    return [
        [
            " ".join(re.sub(r"<svg.*?</svg>|<[^>]+>", " ", one, flags=re.S).split())
            for one in re.findall(r"<t[hd].*?</t[hd]>", row, flags=re.S)
        ]
        for row in rows
    ]


def test_the_table_of_runs_has_their_last_figures(made: SimpleNamespace, text: str) -> None:
    header, *rows = table_after(text, 'id="runs-title"')
    found = {row[0]: dict(zip(header, row, strict=True)) for row in rows}
    assert {name: (row["stage"], row["state"]) for name, row in found.items()} == {
        name: (name, "finished") for name in ("sft", "dpo", "reward", "ppo")
    }
    for run in made.runs:
        last = [line for line in lines_of(run) if "loss" in line][-1]
        assert found[run.name]["step"] == str(last["step"])
        assert float(found[run.name]["loss"].replace("−", "-")) == pytest.approx(last["loss"], rel=6e-3)
    last = lines_of(made.runs[3])[-1]
    value, low, high = (
        float(one) for one in re.findall(r"-?[\d.]+(?:e-?\d+)?", found["ppo"]["KL"].replace("−", "-"))
    )
    assert (value, low, high) == pytest.approx((last["kl"], last["kl/low"], last["kl/high"]), rel=6e-3)


def test_settings_side_by_side_are_those_that_were_resolved(made: SimpleNamespace, text: str) -> None:
    header, *rows = table_after(text, 'id="settings-title"')
    assert header == ["setting", "sft", "dpo", "reward", "ppo"]
    found = {row[0]: row[1:] for row in rows}
    assert found["stage"] == ["sft", "dpo", "reward", "ppo"]
    for name, cells in found.items():
        if name == "stage":
            continue
        for run, cell in zip(made.runs, cells, strict=True):
            settings = yaml.safe_load((run / "config.yaml").read_text())
            shown = cell.removeprefix("≠ ")
            if name not in settings:
                assert shown == "—"
            elif isinstance(settings[name], float):
                assert float(shown) == settings[name]
    assert found["learning_rate"] == ["0.001", "0.01", "0.001", "0.01"]
    assert "target_kl" not in found  # of one stage alone, beside the point


def test_curves_of_every_stage(made: SimpleNamespace, text: str) -> None:
    titles = re.findall(r"<figure><h3>([^<]+)</h3>", text)
    for title in (
        "Loss (sft)",
        "Loss (dpo, sigmoid)",
        "Loss (ppo)",
        "Margin (losses with reference)",
        "Margin (reward models)",
        "KL to the reference",
        "Clipped tokens",
    ):
        assert title in titles, titles


def test_evaluations_that_lie_beside_the_runs(made: SimpleNamespace, text: str) -> None:
    frontier = json.loads((made.root / "frontier" / "frontier.json").read_text())
    _, *rows = table_after(text, 'aria-label="Table of frontier"')
    names = [point["name"].removeprefix(f"{made.root}/") for point in frontier["points"]]
    assert [row[0] for row in rows] == names
    assert [float(row[1].split()[0]) for row in rows] == [
        pytest.approx(point["reward"]["value"], rel=6e-3) for point in frontier["points"]
    ]
    won = json.loads((made.root / "won" / "winrate.json").read_text())
    ((name, rate, *_),) = table_after(text, 'aria-label="Table of winrate"')[1:]
    assert name == "dpo against ppo"
    value = won["comparisons"][0]["win_rate"]["value"]
    assert rate.split()[0] == number(value, 3)
    for words in (frontier["words"][0], won["words"][0]):
        assert words in text
    assert text.count("data:image/svg+xml;base64,") == 2


def test_answers_are_those_of_the_runs_and_of_the_evaluations(made: SimpleNamespace, text: str) -> None:
    body = text[text.index('id="answers-title"') : text.index('id="data-title"')]
    asked = re.findall(r'class="prompt">(.*?)</h3>', body)
    assert asked == [row["prompt"] for row in PROMPTS]
    for run in made.runs[:2]:
        said = [json.loads(line) for line in (run / "samples.jsonl").read_text().splitlines()]
        last = max(line["step"] for line in said)
        for line in said:
            if line["step"] in (0, last) and line["completion"].strip():
                assert line["completion"] in body
    for line in (made.root / "won" / "winrate.answers.jsonl").read_text().splitlines():
        row = json.loads(line)
        assert (row["completions"][0]["text"] or "(nothing)") in body


def test_data_warnings_and_commands(made: SimpleNamespace, text: str) -> None:
    _, *rows = table_after(text, 'id="data-title"')
    hashes = {
        (run.name, use): digest
        for run in made.runs
        for use, digest in json.loads((run / "manifest.json").read_text())["inputs"].items()
    }
    assert {(row[0], row[1]): row[3] for row in rows} == {key: digest[:12] for key, digest in hashes.items()}
    letters = {(row[0], row[1]): row[2] for row in rows}
    assert letters["dpo", "train"] == letters["reward", "train"]
    assert letters["ppo", "train"] not in {letters["dpo", "train"], letters["sft", "train"]}
    warned = (
        text[text.index('id="warnings-title"') : text.index('id="settings-title"')]
        if 'id="warnings-title"' in text
        else ""
    )
    for run in made.runs:
        for note in json.loads((run / "manifest.json").read_text())["notes"]:
            assert note in text
            if note.startswith(("noticed", "left out", "centred")):
                assert note not in warned
    assert "different prompts" not in warned
    for command in made.commands:
        assert f"likelier {command}" in text


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_it_reads_at_both_widths_by_day_and_night(
    browser: Any, made: SimpleNamespace, width: int, scheme: str
) -> None:
    errors: list[str] = []
    page = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme).new_page()
    page.on("console", lambda said: errors.append(said.text) if said.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(made.page.as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert page.locator(".panels figure:visible").count() > 10
    assert page.locator(".drawn img").count() == 2
    assert page.evaluate("[...document.images].every(one => one.complete && one.naturalWidth > 0)")
    page.fill("#words", "rain")
    assert page.locator(".asked:visible").count() == 1
    assert errors == []
