"""`likelier check` on generated rows: rows a second, and the most memory that the process held.

    python -m benchmarks.check_rows                                # a million rows of text
    python -m benchmarks.check_rows --rows 100000 --model smollm2  # as tokens, too

Ends with exit code 1 where the memory reaches the bound of a gigabyte, which holds for any number of rows.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.memory import run_watched

BOUND = 10**9
WORDS = 5000


def write_rows(path: Path, count: int) -> None:
    """Pairs of made-up words: prompts of 60, answers of 5 to 45, one row in a hundred said before."""
    draw = random.Random(0)
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = ["".join(draw.choices(letters, k=draw.randint(2, 9))) for _ in range(WORDS)]

    def text(length: int) -> str:
        return " ".join(draw.choices(words, k=length))

    line = ""
    with path.open("w", encoding="utf-8") as file:
        for number in range(count):
            if number % 100 or not line:
                answers = {name: " " + text(draw.randint(5, 45)) for name in ("chosen", "rejected")}
                line = json.dumps({"prompt": f"{text(60)}?", **answers})
            file.write(line + "\n")


def main() -> int:
    """Measures once and prints one line; 1 where the bound is reached."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=10**6)
    parser.add_argument("--model", help="check tokens with this model's tokenizer, too")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows, log = Path(folder, "rows.jsonl"), Path(folder, "log")
        write_rows(rows, given.rows)
        command = [sys.executable, "-m", "likelier", "check", "--data", str(rows), "--json"]
        command += ["--model", given.model] if given.model else []
        start = time.perf_counter()
        peak = run_watched(command, env=os.environ, log=log, cwd=Path.cwd())
        seconds = time.perf_counter() - start
        found = json.loads(log.read_text().splitlines()[-1])
        size = rows.stat().st_size
    said = f"{found['rows']:,} rows ({size / 1e6:,.0f} MB), {found['warnings'].get('duplicate', 0):,} duplicates found"
    print(f"{said}: {seconds:.1f} s, {found['rows'] / seconds:,.0f} rows/s, peak {peak / 1e6:,.0f} MB")
    return int(peak >= BOUND or found["rows"] != given.rows)


if __name__ == "__main__":
    sys.exit(main())
