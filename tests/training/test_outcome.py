"""The last write of a run meets a disk that really is full: the run's work is kept, and it is said where."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.training.support import pairs, write_rows
from tests.training.test_folder import ROOT, can_mount

FULL = """
import contextlib, io, json, subprocess, sys, tempfile
from pathlib import Path
import torch
from safetensors.torch import load_file
from likelier import cli
from likelier.training import opening

opening.product_rate = lambda *_, **__: 1e9
place, words = Path(sys.argv[1]), sys.argv[2:]

def mount(path, size):
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}k", "none", str(path)], check=True)

def run(*more):
    errors = io.StringIO()
    with contextlib.redirect_stderr(errors):
        code = cli.main([*words, *more])
    return code, errors.getvalue().splitlines()

def weights(folder):
    return load_file(folder / "model.safetensors")

def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)

def size(folder):
    return sum(-(-file.stat().st_size // 4096) * 4 for file in folder.iterdir())

run("--out", str(place / "whole"), "--checkpoint-every", "9")
whole = weights(place / "whole" / "model")
found = {}
model, checkpoint = size(place / "whole" / "model"), size(place / "whole" / "checkpoints" / "step-3")
for name in ("neither", "checkpoint", "model", "temporary"):
    (place / name).mkdir()

# The model has no room, and no checkpoint was asked for.
mount(place / "neither", model // 2)
tempfile.tempdir = str(place / "temporary")
code, errors = run("--out", str(place / "neither" / "run"))
(kept,) = (place / "temporary").iterdir()
found["neither"] = [code, errors[-1].replace(kept.name, "kept"), same(weights(kept / "model"), whole)]

# The last step's checkpoint had room, the model has not; then somebody makes room.
mount(place / "checkpoint", checkpoint + model // 2)
flags = ("--out", str(place / "checkpoint" / "run"), "--checkpoint-every", "9")
code, errors = run(*flags)
lines = (place / "checkpoint" / "run" / "metrics.jsonl").read_text()
subprocess.run(["mount", "-o", "remount,size=9m", str(place / "checkpoint")], check=True)
again, _ = run(*flags, "--resume")
after = (place / "checkpoint" / "run" / "metrics.jsonl").read_text()
written = weights(place / "checkpoint" / "run" / "model")
found["checkpoint"] = [code, errors[-1], again, after == lines, same(written, whole)]

# The model has room, the checkpoint of the last step has not.
mount(place / "model", model + 80)
code, errors = run("--out", str(place / "model" / "run"), "--checkpoint-every", "9")
said = [line for line in errors if "no checkpoint of the last step: the disk is full" in line]
found["model"] = [code, len(said), same(weights(place / "model" / "run" / "model"), whole)]
print("\\n" + json.dumps(found))
"""


@pytest.mark.skipif(not can_mount(), reason="a small disk of our own needs root and Linux")
def test_what_a_full_disk_leaves_of_a_run(tmp_path: Path, tiny_llama: Path) -> None:
    data = write_rows(tmp_path / "data.jsonl", pairs(9))
    words = ["dpo", "--model", str(tiny_llama), "--data", str(data), "--batch-size", "3"]
    done = subprocess.run(
        ["unshare", "-m", sys.executable, "-c", FULL, str(tmp_path), *words, "--precision", "float32"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    code, said, kept = found["neither"]
    assert (code, kept) == (1, True)
    assert said.startswith(f"likelier: the disk is full: {tmp_path}/neither/run/model could not be written;")
    assert said.endswith(f"; the trained model is in {tmp_path}/temporary/kept/model instead")
    code, said, again, untouched, same = found["checkpoint"]
    assert (code, again, untouched, same) == (1, 0, True, True)
    assert said.endswith("; step-3 is kept, and --resume writes the model without another step")
    assert found["model"] == [0, 1, True]


def test_an_older_checkpoint_does_not_pass_for_the_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tempfile

    from likelier.training.outcome import _kept
    from tests.training.test_checkpoint import save, small_run

    model, optimizer, checkpoints = small_run(tmp_path)
    save(checkpoints, model, optimizer, 2)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert _kept(checkpoints, lambda place: place.mkdir(), 3).startswith("the trained model is in ")
    assert _kept(checkpoints, lambda place: place.mkdir(), 2).startswith("step-2 is kept")


def test_where_no_place_takes_the_model_it_says_so(
    tmp_path: Path, tiny_llama: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import tempfile

    from likelier import cli
    from likelier.training import outcome

    def full(model: object, tokenizer: object, folder: Path, **_: object) -> None:
        raise outcome.WorkError(f"the disk is full: {folder}")

    data = write_rows(tmp_path / "data.jsonl", pairs(2))
    (tmp_path / "other").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "other"))
    monkeypatch.setattr(outcome, "save_model", full)
    words = f"dpo --model {tiny_llama} --data {data} --out {tmp_path / 'run'} --precision float32"
    assert cli.main(words.split()) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.endswith(f"run/model; {tmp_path / 'other'} does not take the model either, and it is lost")
    assert list((tmp_path / "other").iterdir()) == []
    assert not (tmp_path / "run" / "manifest.json").exists()
