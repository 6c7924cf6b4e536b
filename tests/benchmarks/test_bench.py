"""What every row of the benchmark begins with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.bench import Place, run_row
from benchmarks.rows import likelier


def test_a_row_begins_with_an_empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also in a folder that an earlier run has used."""
    row = likelier("hh", 8, 8)
    (tmp_path / "hh.jsonl").write_text("".join(json.dumps({"row": i}) + "\n" for i in range(9)))
    place = Place(work=tmp_path, trl_python=Path("python"), threads=1, rate_rows=8)
    kept = Path(place.environment(f"{row.key}-0")["LIKELIER_CACHE"]) / "reference.db"
    kept.parent.mkdir(parents=True)
    kept.write_text("of an earlier run")
    met: list[bool] = []

    def run(self: Place, *words: Any, **more: Any) -> dict[str, Any]:
        met.append(kept.exists())
        return {}

    monkeypatch.setattr(Place, "run", run)
    run_row(place, row, 0)
    assert met == [False]
    assert len((tmp_path / f"{row.key}-0.jsonl").read_text().splitlines()) == 8
