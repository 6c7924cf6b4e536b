"""The run folder: one writer, nothing half written, metrics that end where the last checkpoint does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from likelier.errors import UsageError
from likelier.training.folder import RunFolder
from tests.training.support import model_of, pairs, train, write_rows

ROOT = Path(__file__).parents[2]


def opened(path: Path, *, resume: bool = False, overwrite: bool = False) -> RunFolder:
    return RunFolder(path, resume=resume, overwrite=overwrite)


def test_a_folder_with_a_run_in_it_is_refused(tmp_path: Path) -> None:
    with opened(tmp_path / "run") as folder:
        folder.log({"step": 1})
    with pytest.raises(
        UsageError, match=r"exists already; --resume goes on with it, --overwrite starts anew"
    ):
        opened(tmp_path / "run")
    with opened(tmp_path / "run", resume=True) as folder:
        assert folder.lines() == [{"step": 1}]
    with opened(tmp_path / "run", overwrite=True) as folder:
        assert folder.lines() == []


def test_a_folder_of_somebody_elses_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="exists already"):
        opened(tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_overwriting_deletes_a_run_and_nothing_else(tmp_path: Path, tokenizer: Any) -> None:
    """`--out ~ --overwrite` must not empty a home."""
    home = tmp_path / "home"
    (home / "checkpoints").mkdir(parents=True)
    (home / "checkpoints" / "mine").write_text("dear")
    with pytest.raises(UsageError, match="home is no run folder, and --overwrite deletes runs alone"):
        opened(home, overwrite=True)
    with pytest.raises(UsageError, match="home is no run folder, and --resume goes on with runs alone"):
        opened(home, resume=True)
    assert [path.name for path in home.iterdir()] == ["checkpoints"]
    assert (home / "checkpoints" / "mine").read_text() == "dear"
    run = tmp_path / "run"
    train(model_of(tokenizer), pairs(3), tokenizer, out=run, track="tensorboard")
    made = {entry.name for entry in run.iterdir() if not entry.name.startswith(".lock")}
    (run / "notes.txt").write_text("dear")
    with opened(run, overwrite=True):
        left = {entry.name for entry in run.iterdir() if not entry.name.startswith(".lock")}
    assert left == {"checkpoints", "notes.txt"}
    assert not list((run / "checkpoints").iterdir())
    assert made >= {"config.yaml", "manifest.json", "metrics.jsonl", "examples.txt", "model", "tensorboard"}


def test_a_start_that_failed_leaves_nothing_in_the_way(tmp_path: Path, tokenizer: Any) -> None:
    """A wrong path, a mistyped column: the next try needs no --overwrite."""
    with pytest.raises(Exception, match=r"none\.jsonl"):
        train(model_of(tokenizer), str(tmp_path / "none.jsonl"), tokenizer, out=tmp_path / "run")
    run = train(model_of(tokenizer), pairs(3), tokenizer, out=tmp_path / "run")
    assert len(run.metrics) == 1


def test_a_dry_run_leaves_nothing_in_the_way(tmp_path: Path, tokenizer: Any) -> None:
    run = train(model_of(tokenizer), pairs(3), tokenizer, out=tmp_path / "run", dry_run=True)
    assert (run.stopped, run.metrics, run.result["folder"]) == ("dry run", [], None)
    assert run.report().splitlines()[:2] == ["0 steps, 0 pairs", "stopped: dry run"]
    assert "run folder" not in run.report()
    run = train(model_of(tokenizer), pairs(3), tokenizer, out=tmp_path / "run")
    assert len(run.metrics) == 1
    assert run.report().startswith("1 step, 3 pairs, loss ")
    assert f"run folder {tmp_path / 'run'}" in run.report()


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="is a file; choose a folder"):
        opened(tmp_path / "file")


def test_a_second_process_is_refused_until_the_first_has_ended(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from likelier.training.folder import RunFolder\n"
        f"folder = RunFolder(Path({str(tmp_path)!r}), resume=False, overwrite=False)\n"
        "print('open', flush=True); sys.stdin.read()"
    )
    writer = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert writer.stdout is not None
    assert writer.stdout.readline() == "open\n"
    with pytest.raises(UsageError, match="another process is writing"):
        opened(tmp_path, resume=True)
    writer.kill()
    writer.communicate(timeout=60)
    opened(tmp_path, resume=True).__exit__()


def test_leavings_of_a_killed_process_are_removed(tmp_path: Path) -> None:
    opened(tmp_path).__exit__()
    for name in (
        "checkpoints/.step-4.0a1b.new",
        ".model.0a1b.new",
        ".model.0a1b.old",
        "checkpoints/.best.ff.old",
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "weights.safetensors").write_text("half")
    (tmp_path / ".metrics.jsonl.4242.partial").write_text("half")
    opened(tmp_path, resume=True).__exit__()
    left = [path.name for path in tmp_path.rglob("*") if not path.name.startswith(".lock")]
    assert left == ["checkpoints"]


def test_a_torn_last_line_is_cut_off(tmp_path: Path) -> None:
    with opened(tmp_path) as folder:
        for step in (1, 2, 3):
            folder.log({"step": step, "loss": 0.1 * step})
        with (tmp_path / "metrics.jsonl").open("a") as file:
            file.write('{"step": 4, "lo')
        assert [line["step"] for line in folder.lines()] == [1, 2, 3]
        assert [line["step"] for line in folder.cut_after(2)] == [1, 2]
        assert (tmp_path / "metrics.jsonl").read_text().count("\n") == 2
        assert folder.cut_after(-1) == []
        assert (tmp_path / "metrics.jsonl").read_text() == ""


def test_separators_inside_an_answer_do_not_cut_its_line(tmp_path: Path) -> None:
    line = {"step": 1, "completion": "a\u2028b\u2029c\x85d\x0be\x1cf\r\ng"}
    with opened(tmp_path) as folder:
        folder.log(line, file="samples.jsonl")
        folder.cut_after(1)
        assert folder.lines("samples.jsonl") == [line]


def test_lines_that_no_run_wrote_are_dropped(tmp_path: Path) -> None:
    """A damaged file costs its lines, not the run."""
    with opened(tmp_path) as folder:
        (tmp_path / "metrics.jsonl").write_bytes(b'\xff\xfe\x00\n[1]\n{}\n{"step": "x"}\n{"step": null}\n')
        folder.log({"step": 1})
        assert folder.lines() == [{"step": 1}]
        assert folder.cut_after(5) == [{"step": 1}]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("manifest.json", "{", r"manifest\.json is damaged; delete it, and --resume goes on"),
        ("manifest.json", "[]", r"manifest\.json is damaged"),
        (".lock", "no database" * 100, r"\.lock is damaged .*; delete it"),
        ("config.yaml", "{{{", r"config\.yaml is not valid YAML"),
    ],
)
def test_a_damaged_file_is_named(name: str, content: str, said: str, tmp_path: Path) -> None:
    opened(tmp_path).__exit__()
    (tmp_path / name).write_text(content)

    def look() -> None:
        with opened(tmp_path, resume=True) as folder:
            assert (folder.finished, folder.config) is not None

    with pytest.raises(UsageError, match=said):
        look()


def test_numbers_that_json_does_not_have_are_null(tmp_path: Path) -> None:
    with opened(tmp_path) as folder:
        folder.log({"step": 1, "loss": float("nan"), "margin": float("inf")})
    assert json.loads((tmp_path / "metrics.jsonl").read_text()) == {"step": 1, "loss": None, "margin": None}


AS_NOBODY = """
import os, sys
from pathlib import Path
from likelier.errors import LikelierError
from likelier.training.folder import RunFolder
os.setgid(65534); os.setuid(65534)
for path in sys.argv[1:]:
    try:
        RunFolder(Path(path), resume=True, overwrite=False)
    except LikelierError as error:
        print(type(error).__name__, error)
"""


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can become nobody")
def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    """Root may write anywhere, so a process of another user tries; the whole way there is opened for it."""
    import tempfile

    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        place.chmod(0o755)
        (place / "run").mkdir(mode=0o755)
        done = subprocess.run(
            [sys.executable, "-c", AS_NOBODY, str(place / "run"), str(place / "new")],
            capture_output=True,
            text=True,
            cwd=ROOT,
            timeout=120,
        )
    first, second = done.stdout.splitlines()
    assert first.startswith(f"WorkError {place / 'run'}")
    assert "cannot be written" in first
    assert "choose another" in first
    assert second.startswith(f"WorkError {place / 'new'}")


FULL = """
import subprocess, sys
from pathlib import Path
place = Path(sys.argv[1])
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=800k", "none", str(place)], check=True)
words = [*sys.argv[2:], "--out", str(place / "run")]
from likelier import cli
code = cli.main(words)
left = sorted(path.name for path in (place / "run" / "checkpoints").iterdir())
from safetensors.torch import load_file
for name in left:
    load_file(place / "run" / "checkpoints" / name / "optimizer.safetensors")
print("\\n" + repr((code, left)))
"""


def can_mount() -> bool:
    if sys.platform != "linux" or os.geteuid() != 0:
        return False
    code = "mount -t tmpfs none /mnt"
    return subprocess.run(["unshare", "-m", "sh", "-c", code], capture_output=True).returncode == 0


@pytest.mark.skipif(not can_mount(), reason="a small disk of our own needs root and Linux")
def test_a_disk_that_really_is_full(tmp_path: Path, tiny_llama: Path) -> None:
    """A disk of 800 kB holds one checkpoint of half a megabyte, and no second one."""
    data = write_rows(tmp_path / "data.jsonl", pairs(9))
    (tmp_path / "disk").mkdir()
    words = [str(tmp_path / "disk"), "dpo", "--model", str(tiny_llama), "--data", str(data)]
    words += ["--checkpoint-every", "1", "--batch-size", "3", "--precision", "float32"]
    done = subprocess.run(
        ["unshare", "-m", sys.executable, "-c", FULL, *words],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "(1, ['step-1'])"
    assert done.stderr.splitlines()[-1].startswith("likelier: the disk is full:")
    assert "free space" in done.stderr
    assert "Traceback" not in done.stderr
