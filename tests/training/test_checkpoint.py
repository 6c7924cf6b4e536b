"""Checkpoints: whole or not at all, back bit for bit, and a damaged one is named before anything is changed."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from likelier.errors import UsageError, WorkError
from likelier.training.checkpoint import (
    Identity,
    Position,
    latest_checkpoint,
    load_checkpoint,
    read_state,
    save_checkpoint,
)
from likelier.training.optimizer import make_optimizer, state_tensors
from tests.training.support import contents

ROOT = Path(__file__).parents[2]


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


def rewrite(place: Path, file: str, change: Callable[[dict[str, Any]], None]) -> None:
    tensors = load_file(place / file)
    change(tensors)
    save_file(tensors, place / file)


DAMAGE: dict[str, Callable[[Path], None]] = {
    "weights of another shape": lambda place: rewrite(
        place, "weights.safetensors", lambda found: found.update(weight=torch.zeros(1, 3))
    ),
    "weights of another precision": lambda place: rewrite(
        place, "weights.safetensors", lambda found: found.update(weight=found["weight"].half())
    ),
    "a weight missing": lambda place: rewrite(place, "weights.safetensors", lambda found: found.pop("bias")),
    "state of a parameter missing": lambda place: rewrite(
        place, "optimizer.safetensors", lambda found: [found.pop(k) for k in list(found) if k[0] == "1"]
    ),
    "a state tensor missing": lambda place: rewrite(
        place, "optimizer.safetensors", lambda found: found.pop("0.exp_avg_sq")
    ),
    "state of another shape": lambda place: rewrite(
        place, "optimizer.safetensors", lambda found: found.update({"0.exp_avg": torch.zeros(7)})
    ),
    "no state at all": lambda place: rewrite(place, "optimizer.safetensors", lambda found: found.clear()),
    "weights in place of state": lambda place: (place / "optimizer.safetensors").write_bytes(
        (place / "weights.safetensors").read_bytes()
    ),
    "a step in words": lambda place: (place / "state.json").write_text(
        '{"position": {"step": "one"}, "identity": {"data": "d", "start": "s"}}'
    ),
    "the name of another step": lambda place: (place / "state.json").write_text(
        '{"position": {"step": 2}, "identity": {"data": "d", "start": "s"}}'
    ),
}


@pytest.mark.parametrize("damage", list(DAMAGE))
def test_what_is_no_checkpoint_of_this_run_is_refused_and_nothing_changed(
    damage: str, tmp_path: Path
) -> None:
    """torch would take an optimiser's state with parts missing, and go on with fresh moments."""
    model, optimizer, folder = small_run(tmp_path)
    place = save(folder, model, optimizer, 1)
    DAMAGE[damage](place)
    before = [parameter.detach().clone() for parameter in model.parameters()]

    def come_back() -> None:
        read_state(place)
        load_checkpoint(place, model, optimizer)

    with pytest.raises(UsageError, match=r"step-1 is damaged.*delete it and --resume from the one before"):
        come_back()
    assert all(torch.equal(b, p) for b, p in zip(before, model.parameters(), strict=True))


def test_a_folder_that_only_looks_like_a_checkpoint_is_passed_over(tmp_path: Path) -> None:
    model, optimizer, folder = small_run(tmp_path)
    save(folder, model, optimizer, 3)
    for name in ("step-x", "step-", "step-9"):
        (folder / name).mkdir()
    (folder / "step-x" / "state.json").write_text("{}")
    assert latest_checkpoint(folder) == folder / "step-3"


PEAK = """
import sys
from pathlib import Path
import torch
from likelier.training.checkpoint import Identity, Position, load_checkpoint, save_checkpoint
from likelier.training.optimizer import make_optimizer, reserve_state

def peak() -> int:
    # Not ru_maxrss, which begins at the peak of the process that started this one.
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) // 1024 for line in lines if line.startswith("VmHWM"))

def save(step: int) -> Path:
    return save_checkpoint(Path(sys.argv[1]), model, optimizer, Position(step=step), Identity("d", "s"), keep=2)

model = torch.nn.Sequential(*[torch.nn.Linear(1024, 1024) for _ in range(24)])
optimizer = make_optimizer("adamw", model.parameters(), learning_rate=0.1)
reserve_state(optimizer)
for parameter in model.parameters():
    parameter.grad = torch.ones_like(parameter)
optimizer.step()
before = peak()
place = save(1)
after = peak()
spare = torch.ones(1 << 24) if sys.argv[2] == "copy" else None
print(after - before, peak() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
@pytest.mark.parametrize(("how", "least", "most"), [("plain", 0, 12), ("copy", 50, 90)])
def test_a_checkpoint_takes_no_memory_of_its_own(how: str, least: int, most: int, tmp_path: Path) -> None:
    """192 MB of state: a run that fits must not be killed at its first checkpoint. A spare 64 MB would be seen."""
    done = subprocess.run(
        [sys.executable, "-c", PEAK, str(tmp_path), how],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    rise, with_spare = map(int, done.stdout.split())
    assert rise <= 12
    assert least <= with_spare <= most


def test_state_comes_back_into_the_memory_that_it_has(tmp_path: Path) -> None:
    for name in ("adamw", "rmsprop"):
        model = torch.nn.Linear(3, 2)
        optimizer = make_optimizer(name, model.parameters(), learning_rate=0.1)  # type: ignore[arg-type]
        place = save(tmp_path / name, model, optimizer, 1)
        before = {key: (tensor, tensor.clone()) for key, tensor in state_tensors(optimizer).items()}
        for tensor, _ in before.values():
            tensor.fill_(7)
        load_checkpoint(place, model, optimizer)
        for key, tensor in state_tensors(optimizer).items():
            assert tensor is before[key][0]
            assert torch.equal(tensor, before[key][1])
        assert len(before) == (6 if name == "adamw" else 4)
