"""What the processes of the benchmark share. Runs in both environments: standard library only."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any


def parser(description: str | None, *, model: bool = True) -> argparse.ArgumentParser:
    """A parser with what every measured process takes."""
    made = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    if model:
        made.add_argument("--model", required=True, help="a Hugging Face folder")
    made.add_argument("--out", required=True, type=Path, help="where the result goes")
    made.add_argument("--threads", type=int, default=2)
    return made


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a JSONL file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def peak_bytes() -> int:
    """The most memory that this process has held so far (Linux; 0 elsewhere)."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")), 0)
