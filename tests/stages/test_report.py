"""`likelier report`: from real runs to a page, and what it refuses."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import likelier
from likelier.cli import main
from likelier.errors import UsageError
from likelier.report.runs import RunsPage
from tests.report.run_folders import write_run, write_winrate


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, tiny_llama: Path) -> list[Path]:
    """Two real runs, one of them left as a kill leaves it."""
    folder = tmp_path_factory.mktemp("runs")
    rows = [
        {"prompt": f"the cat {n}", "chosen": " sat on the mat", "rejected": " was long, long"}
        for n in range(24)
    ]
    (folder / "prompts.jsonl").write_text('{"prompt": "the cat"}\n')
    made = []
    for beta in (0.1, 0.5):
        out = folder / f"beta-{beta}"
        likelier.dpo(
            str(tiny_llama),
            rows,
            out=out,
            beta=beta,
            batch_size=4,
            learning_rate=1e-4,
            eval_share=0.2,
            eval_every=2,
            sample_prompts=folder / "prompts.jsonl",
            sample_every=3,
            precision="float32",
        )
        made.append(out)
    (made[1] / "manifest.json").unlink()
    with (made[1] / "metrics.jsonl").open("a") as file:
        file.write('{"step": 6, "lo')
    return made


def test_a_page_of_real_runs(runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.stat().st_mtime_ns for run in runs for path in run.rglob("*")}
    assert main(["report", *map(str, runs), "--out", str(tmp_path / "page.html"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [(run["stage"], run["state"]) for run in told["runs"]] == [
        ("dpo", "finished"),
        ("dpo", "not finished"),
    ]
    assert told["samples"] == {"prompts": 1, "left_out": 0}
    said = [warning["text"] for warning in told["warnings"] if warning["runs"] == ["beta-0.5"]]
    assert any(text.startswith("the run has not finished") for text in said)
    assert any("half written" in text for text in said)
    page = (tmp_path / "page.html").read_text("utf-8")
    for words in ("≠ 0.5", "Held-out accuracy", "Held-out margin", "the cat", "likelier dpo --config"):
        assert words in page
    # Folders are read and nothing else: not even a lock is touched.
    assert {path: path.stat().st_mtime_ns for run in runs for path in run.rglob("*")} == before


def test_python_is_called_like_the_other_stages(runs: list[Path], tmp_path: Path) -> None:
    page = likelier.report(runs[0], out=tmp_path / "page.html")  # type: ignore[operator]
    assert isinstance(page, RunsPage)
    assert page.title == "beta-0.1: one run of dpo"
    assert (tmp_path / "page.html").is_file()


def test_nothing_loads_torch(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a")
    script = (
        "import sys\nfrom likelier.cli import main\n"
        f"assert main(['report', {str(run)!r}, '--out', {str(tmp_path / 'page.html')!r}]) == 0\n"
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)


def test_a_folder_of_results_alone(tmp_path: Path) -> None:
    write_winrate(tmp_path / "won", runs=["a"])
    page = likelier.report(tmp_path / "won", out=tmp_path / "page.html")  # type: ignore[operator]
    assert page.title == "1 evaluation"
    assert "5, 2, 1" in (tmp_path / "page.html").read_text("utf-8")


def test_runs_of_one_name_are_told_apart(tmp_path: Path) -> None:
    folders = [write_run(tmp_path / name / "run") for name in "ab"]
    page = likelier.report(folders, out=tmp_path / "page.html")  # type: ignore[operator]
    assert [run.name for run in page.runs] == ["a/run", "b/run"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["a", "--out", "p.html", "a/../a"], "a/../a is given twice (as a too); name each run once"),
        (["missing", "--out", "p.html"], "missing does not exist"),
        (
            ["a/config.yaml", "--out", "p.html"],
            "a/config.yaml is a file, not a run folder; its run folder is a",
        ),
        (["empty", "--out", "p.html"], "empty is no run folder (no config.yaml"),
        ([".", "--out", "p.html"], ". is no run folder but holds some: likelier report a"),
        (["a", "--out", "a/metrics.jsonl"], "--out a/metrics.jsonl is a page, and its name ends in .html"),
        (["a", "--out", "folder.html"], "--out folder.html is a folder"),
        (["--out", "p.html"], "--runs"),
        (["a"], "--out"),
    ],
)
def test_what_is_refused_in_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    message: str,
) -> None:
    write_run(tmp_path / "a")
    (tmp_path / "empty").mkdir()
    (tmp_path / "folder.html").mkdir()
    monkeypatch.chdir(tmp_path)
    assert main(["report", *words]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "p.html").exists()


def test_a_page_that_cannot_be_written(tmp_path: Path) -> None:
    write_run(tmp_path / "a")
    (tmp_path / "file").write_text("")
    assert main(["report", str(tmp_path / "a"), "--out", str(tmp_path / "file" / "page.html")]) == 1


def test_a_page_is_written_anew_whole(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a")
    (tmp_path / "page.html").write_text("an older page")
    likelier.report(run, out=tmp_path / "page.html")  # type: ignore[operator]
    first = (tmp_path / "page.html").read_bytes()
    likelier.report(run, out=tmp_path / "page.html")  # type: ignore[operator]
    assert (tmp_path / "page.html").read_bytes() == first
    shutil.rmtree(run)
    with pytest.raises(UsageError, match="does not exist"):
        likelier.report(run, out=tmp_path / "page.html")  # type: ignore[operator]
    assert (tmp_path / "page.html").read_bytes() == first
