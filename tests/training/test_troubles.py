"""What may go wrong with a run, met through the command: one line with the remedy, and nothing lost."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from likelier import cli
from likelier.errors import WorkError
from likelier.training import checkpoint, preferences
from tests.training.support import metrics_of, model_of, pairs, train, write_rows


@pytest.fixture
def words(tmp_path: Path, tiny_llama: Path) -> list[str]:
    data = write_rows(tmp_path / "data.jsonl", pairs(6))
    start = ["dpo", "--model", str(tiny_llama), "--data", str(data), "--precision", "float32"]
    return [*start, "--batch-size", "2"]


def fault(capsys: pytest.CaptureFixture[str], words: list[str]) -> tuple[int, str]:
    """Exit code, and the one line that begins with our name."""
    code = cli.main(words)
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    (line,) = [line for line in captured.err.splitlines() if line.startswith("likelier: ")]
    assert captured.err.endswith(line + "\n")
    return code, line


def at_step(nth: int, action: Callable[[], object]) -> Callable[..., Any]:
    """`step_gradient`, with `action` before its n-th call."""
    whole, calls = preferences.step_gradient, iter(range(1, 100))

    def wrapped(*given: Any) -> Any:
        if next(calls) == nth:
            action()
        return whole(*given)

    return wrapped


def cuda_shortage() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


SHORTAGES: dict[str, Callable[[], object]] = {
    # More than any machine has: torch's own refusal, not ours.
    "cpu": lambda: torch.empty(1 << 58, dtype=torch.uint8),
    "cuda": cuda_shortage,
    "python": lambda: bytearray(1 << 62),
}


@pytest.mark.parametrize("device", list(SHORTAGES))
def test_out_of_memory_is_named_and_the_run_goes_on_from_its_checkpoint(
    device: str,
    tmp_path: Path,
    words: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli.main([*words, "--out", str(tmp_path / "whole")]) == 0
    capsys.readouterr()
    words += ["--out", str(tmp_path / "run"), "--checkpoint-every", "1"]
    with monkeypatch.context() as patch:
        patch.setattr(preferences, "step_gradient", at_step(3, SHORTAGES[device]))
        code, line = fault(capsys, words)
    assert code == 1
    for part in ("out of memory; the last checkpoint is intact", "--max-tokens", "--lora-rank", "--resume"):
        assert part in line
    assert cli.main([*words, "--resume", "--gradient-checkpointing"]) == 0
    found, expected = metrics_of(tmp_path / "run"), metrics_of(tmp_path / "whole")
    assert [m["step"] for m in found] == [m["step"] for m in expected] == [1, 2, 3]
    assert found[:2] == expected[:2]
    assert found[2]["loss"] == pytest.approx(expected[2]["loss"], rel=1e-5)


def test_the_function_names_it_too_and_other_faults_stay_what_they_are(
    tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preferences, "step_gradient", at_step(1, SHORTAGES["cpu"]))
    with pytest.raises(WorkError, match="out of memory"):
        train(model_of(tokenizer), pairs(2), tokenizer)

    def bug() -> None:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr(preferences, "step_gradient", at_step(1, bug))
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        train(model_of(tokenizer), pairs(2), tokenizer)


def test_a_disk_that_is_full_at_the_checkpoint(
    tmp_path: Path,
    words: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The one before is whole, and the run goes on from it once there is room."""
    words += ["--out", str(tmp_path / "run"), "--checkpoint-every", "1"]
    whole, calls = checkpoint.save_file, iter(range(100))

    def full(*given: Any) -> None:
        if next(calls) == 3:
            raise OSError(28, "No space left on device")
        whole(*given)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save_file", full)
        code, line = fault(capsys, words)
    assert code == 1
    assert "the disk is full" in line
    assert "step-2" in line
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["step-1"]
    assert cli.main([*words, "--resume"]) == 0
    assert [line["step"] for line in metrics_of(tmp_path / "run")] == [1, 2, 3]


@pytest.mark.skipif(sys.platform == "win32", reason="no such signal there")
def test_a_disk_that_is_full_when_a_signal_stops_the_run(
    tmp_path: Path, words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """No model follows, so the checkpoint is all there would be: its failure is said, not warned of."""

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", full)
    monkeypatch.setattr(
        preferences, "step_gradient", at_step(3, lambda: os.kill(os.getpid(), signal.SIGTERM))
    )
    code, line = fault(capsys, [*words, "--out", str(tmp_path / "run")])
    assert code == 1
    assert line.startswith("likelier: the disk is full: ")
    assert "step-3" in line


def test_a_prompt_longer_than_the_context(
    tmp_path: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [*pairs(2), {"id": "endless", "prompt": "rain " * 600, "chosen": " a", "rejected": " b"}]
    write_rows(tmp_path / "data.jsonl", rows)
    code, line = fault(capsys, words)
    assert code == 2
    for part in ("512 tokens", "endless", "--max-length 512"):
        assert part in line
    assert cli.main([*words, "--max-length", "512"]) == 0


FAULTS = {
    "--sample-prompts none.jsonl --sample-every 1": "none.jsonl",
    "--sample-prompts pairs.jsonl --sample-every 1 --track wandb --out run": "--track wandb needs the package",
    "--sample-prompts long.jsonl --sample-every 1": "prompt '1' has 602 tokens, and 64 more of an answer exceed",
    "--revision main": "--revision is of a hub model",
    "--merge --out run": "has no adapter to merge; add --lora-rank, or leave it out",
    "--quantize 4bit --lora-rank 2": "--quantize 4bit needs bitsandbytes on an NVIDIA device",
    "--quantize 4bit": "--quantize needs --lora-rank",
    "--lora-rank 2 --lora-targets nope": "LoRA cannot be added",
    "--keep-best eval/los --eval-every 1 --eval-share 0.4 --out run": "did you mean `eval/loss`?",
    "--reference nowhere": "nowhere",
    "--resume --out absent --beta nan": "--beta: input should be a finite number",
    "--seed 99999999999999999999": "--seed: input should be less than",
}


@pytest.mark.skipif(torch.cuda.is_available(), reason="4 bits can be had there")
@pytest.mark.parametrize("flags", list(FAULTS))
def test_settings_that_cannot_work_are_named(
    flags: str,
    tmp_path: Path,
    words: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "wandb", None)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pairs.jsonl").write_text(json.dumps({"prompt": "the cat"}) + "\n")
    (tmp_path / "long.jsonl").write_text(json.dumps({"prompt": "rain " * 600}) + "\n")
    code, line = fault(capsys, [*words, *flags.split()])
    assert code == 2
    assert FAULTS[flags] in line


@pytest.mark.parametrize("flags", list(FAULTS)[:2])
def test_what_can_be_known_at_once_is_refused_before_the_model_is_read(
    flags: str, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    from likelier.training import session

    monkeypatch.setitem(sys.modules, "wandb", None)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pairs.jsonl").write_text(json.dumps({"prompt": "the cat"}) + "\n")
    monkeypatch.setattr(session, "load_policy", lambda *_, **__: pytest.fail("the model is read"))
    assert cli.main([*words, *flags.split()]) == 2
    assert not (tmp_path / "run").exists()


def test_a_damaged_checkpoint_is_named_and_the_one_before_taken_once_it_is_gone(
    tmp_path: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    import shutil

    out = tmp_path / "run"
    words += ["--out", str(out), "--checkpoint-every", "1"]
    assert cli.main(words) == 0
    whole = metrics_of(out)
    (out / "manifest.json").unlink()
    capsys.readouterr()
    file = out / "checkpoints" / "step-3" / "weights.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    code, line = fault(capsys, [*words, "--resume"])
    assert code == 2
    assert f"the checkpoint {file.parent} is damaged" in line
    assert "delete it and --resume from the one before" in line
    assert metrics_of(out) == whole
    shutil.rmtree(file.parent)
    assert cli.main([*words, "--resume"]) == 0
    assert metrics_of(out) == whole


def test_a_damaged_cache_costs_a_pass_and_says_so(
    words: list[str], own_cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main([*words, "--json"]) == 0
    first = json.loads(capsys.readouterr().out)
    (file,) = own_cache.glob("*.sqlite")
    file.write_bytes(b"garbage" * 1000)
    assert cli.main([*words, "--json"]) == 0
    captured = capsys.readouterr()
    assert "was damaged" in captured.err
    assert "reference: 6 of 6 prompts scored" in captured.err
    assert json.loads(captured.out)["loss"] == first["loss"]
