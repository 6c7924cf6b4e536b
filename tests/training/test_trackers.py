"""TensorBoard for real, wandb through a stand-in, and neither unless asked."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import pytest

from likelier.errors import UsageError
from likelier.training.trackers import open_tracker

LINE = {"step": 3, "loss": 0.5, "eval/rewards/accuracies/low": None, "name": "x", "bad": float("nan")}


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    return {
        tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]
    }


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard_gets_the_finite_numbers(tmp_path: Path) -> None:
    tracker = open_tracker("tensorboard", tmp_path, {"beta": 0.1})
    tracker.log(LINE, 3)
    tracker.log({"loss": 0.25}, 4)
    tracker.close()
    assert scalars(tmp_path) == {"loss": [(3, 0.5), (4, 0.25)]}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_resumed_run_hides_what_was_logged_after_its_checkpoint(tmp_path: Path) -> None:
    for start, values in ((0, {1: 1.0, 2: 2.0, 3: 3.0}), (2, {3: 30.0})):
        tracker = open_tracker("tensorboard", tmp_path, {}, start=start)
        for step, value in values.items():
            tracker.log({"loss": value}, step)
        tracker.close()
    assert scalars(tmp_path) == {"loss": [(1, 1.0), (2, 2.0), (3, 30.0)]}


@pytest.mark.parametrize("name", ["tensorboard", "wandb"])
def test_a_missing_package_is_named_with_its_remedy(
    name: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UsageError, match=rf"needs the package {name}: pip install 'likelier\[{name}\]'"):
        open_tracker(name, tmp_path, {})


class FakeRun:
    def __init__(self) -> None:
        self.lines: list[tuple[dict[str, float], int]] = []
        self.finished = False

    def log(self, numbers: dict[str, float], *, step: int) -> None:
        self.lines.append((numbers, step))

    def finish(self) -> None:
        self.finished = True


def fake_wandb(
    monkeypatch: pytest.MonkeyPatch, *, error: str | None = None
) -> tuple[FakeRun, dict[str, Any]]:
    module: Any = types.ModuleType("wandb")
    run, given = FakeRun(), {}

    def init(**settings: Any) -> FakeRun:
        if error:
            raise module.Error(error)
        given.update(settings)
        return run

    module.Error = type("Error", (Exception,), {})
    module.init = init
    monkeypatch.setitem(sys.modules, "wandb", module)
    return run, given


def test_wandb_gets_the_same_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, given = fake_wandb(monkeypatch)
    tracker = open_tracker("wandb", tmp_path / "first", {"beta": 0.1})
    tracker.log(LINE, 3)
    tracker.close()
    assert run.lines == [({"loss": 0.5}, 3)]
    assert run.finished
    assert (given["name"], given["config"], given["save_code"]) == ("first", {"beta": 0.1}, False)


def test_wandb_without_a_login_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_wandb(monkeypatch, error="api_key not\n configured")
    with pytest.raises(UsageError, match="api_key not configured; log in with `wandb login`"):
        open_tracker("wandb", tmp_path, {})


def test_wandb_is_not_imported_unless_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_wandb(monkeypatch)
    del sys.modules["wandb"]
    open_tracker("tensorboard", tmp_path, {}).close()
    assert "wandb" not in sys.modules
