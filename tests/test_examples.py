"""What is shipped as an example runs as it stands."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from likelier.cli import parse

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.stem)
def test_settings_are_read_by_their_stage(path: Path) -> None:
    flag = "--prompts" if path.stem == "ppo" else "--data"
    config = parse(path.stem, ["--config", str(path), flag, "rows.jsonl"])
    assert config.model_fields_set > {flag.removeprefix("--")}


def test_every_example_is_listed() -> None:
    readme = (EXAMPLES / "README.md").read_text()
    assert all(f"]({path.name})" in readme for path in EXAMPLES.iterdir() if path.name != "README.md")


def test_the_way(patient_llama: Path, tmp_path: Path) -> None:
    """Every command of it, on a tiny model."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"MODEL": str(patient_llama), "REWARD": "length", "OUT": str(tmp_path / "way")}
    done = subprocess.run(
        ["sh", str(EXAMPLES / "way.sh")],
        env=environment | {"PATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    left = {found.name for found in (tmp_path / "way").iterdir()}
    assert {"by-judge.jsonl", "reward", "dpo-2", "rewards-2.jsonl"} <= left
