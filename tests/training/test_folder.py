"""The run folder: one writer, nothing half written, metrics that end where the last checkpoint does."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from likelier.errors import UsageError, WorkError
from likelier.training.checkpoint import (
    Identity,
    Position,
    latest_checkpoint,
    load_checkpoint,
    read_state,
    save_checkpoint,
)
from likelier.training.folder import RunFolder
from likelier.training.optimizer import make_optimizer
from tests.training.support import contents, model_of, pairs, train

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


def test_a_start_that_failed_leaves_nothing_in_the_way(tmp_path: Path, tokenizer: Any) -> None:
    """A wrong path, a mistyped column: the next try needs no --overwrite."""
    with pytest.raises(Exception, match=r"none\.jsonl"):
        train(model_of(tokenizer), str(tmp_path / "none.jsonl"), tokenizer, out=tmp_path / "run")
    run = train(model_of(tokenizer), pairs(3), tokenizer, out=tmp_path / "run")
    assert len(run.metrics) == 1


def test_a_dry_run_leaves_nothing_in_the_way(tmp_path: Path, tokenizer: Any) -> None:
    run = train(model_of(tokenizer), pairs(3), tokenizer, out=tmp_path / "run", dry_run=True)
    assert (run.stopped, run.metrics) == ("dry run", [])
    assert len(train(model_of(tokenizer), pairs(3), tokenizer, out=tmp_path / "run").metrics) == 1


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


def small_run(tmp_path: Path) -> tuple[Any, Any, Path]:
    model = torch.nn.Linear(3, 2)
    return model, make_optimizer("adamw", model.parameters(), learning_rate=0.1), tmp_path / "checkpoints"


def save(folder: Path, model: Any, optimizer: Any, step: int, *, keep: int = 2) -> Path:
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    return save_checkpoint(folder, model, optimizer, Position(step=step), Identity("d", "s"), keep=keep)


def test_a_checkpoint_comes_back_bit_for_bit(tmp_path: Path) -> None:
    for name in ("adamw", "rmsprop"):
        model = torch.nn.Linear(3, 2)
        optimizer = make_optimizer(name, model.parameters(), learning_rate=0.1)  # type: ignore[arg-type]
        place = save(tmp_path / name, model, optimizer, 1)
        other = torch.nn.Linear(3, 2)
        again = make_optimizer(name, other.parameters(), learning_rate=0.1)  # type: ignore[arg-type]
        load_checkpoint(place, other, again)
        for one, two in ((model, optimizer), (other, again)):
            two.zero_grad()
            one(torch.full((1, 3), 0.3)).square().sum().backward()
            two.step()
        assert torch.equal(model.weight, other.weight)
        assert torch.equal(model.bias, other.bias)


def test_the_latest_checkpoint_is_by_number_and_the_oldest_go(tmp_path: Path) -> None:
    model, optimizer, folder = small_run(tmp_path)
    assert latest_checkpoint(folder) is None
    for step in (8, 9, 10):
        save(folder, model, optimizer, step)
    assert sorted(path.name for path in folder.iterdir()) == ["step-10", "step-9"]
    assert latest_checkpoint(folder) == folder / "step-10"
    assert read_state(folder / "step-10") == (Position(step=10), Identity("d", "s"))


@pytest.mark.parametrize("file", ["weights.safetensors", "optimizer.safetensors", "state.json"])
@pytest.mark.parametrize("how", ["half", "empty"])
def test_a_damaged_checkpoint_is_named(file: str, how: str, tmp_path: Path) -> None:
    model, optimizer, folder = small_run(tmp_path)
    place = save(folder, model, optimizer, 1)
    whole = (place / file).read_bytes()
    (place / file).write_bytes(b"" if how == "empty" else whole[: len(whole) // 2])

    def come_back() -> None:
        read_state(place)
        load_checkpoint(place, model, optimizer)

    with pytest.raises(UsageError, match=r"step-1 is damaged.*delete it and --resume from the one before"):
        come_back()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EIO])
@pytest.mark.parametrize("call", ["save_file", "fsync"])
def test_a_full_disk_leaves_the_last_checkpoint_as_it_was(
    number: int, call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from likelier.models import folders
    from likelier.training import checkpoint

    model, optimizer, folder = small_run(tmp_path)
    save(folder, model, optimizer, 1)
    before = contents(folder)

    def fail(*_: Any, **__: Any) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(*((checkpoint, "save_file") if call == "save_file" else (folders.os, "fsync")), fail)
        with pytest.raises(WorkError, match="step-2") as caught:
            save(folder, model, optimizer, 2)
    words = {
        errno.ENOSPC: "disk is full",
        errno.EROFS: "cannot be written",
        errno.EIO: "could not be written",
    }
    assert words[number] in str(caught.value)
    assert contents(folder) == before
    load_checkpoint(folder / "step-1", model, optimizer)


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
    from tests.training.support import write_rows

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
