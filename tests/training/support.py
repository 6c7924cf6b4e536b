"""What the tests of the training room share: rows, trees, models, and how two runs are compared."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

import likelier
from likelier.data.encoding import encode
from likelier.data.reading import load_records
from likelier.scoring.precision import DTYPES, master_dtype
from likelier.scoring.scorer import Scorer
from tests.models.families import tiny

_TEXT = "the cat sat on a mat and looked at rain rice garden kind good bad long short help please wash"
WORDS = _TEXT.split(" ")
TIMES = (
    *("tokens_per_second", "pairs_per_second", "examples_per_second", "answers_per_second"),
    *("mfu", "seconds_left"),
)
"""The figures of a step that no two runs share."""


def phrase(rng: np.random.Generator, least: int, most: int) -> str:
    return " ".join(rng.choice(WORDS, int(rng.integers(least, most + 1))))


def pairs(count: int = 10, *, seed: int = 0, **more: Any) -> list[dict[str, Any]]:
    """Pairs of different prompts and lengths; `more` goes into every row."""
    rng = np.random.default_rng(seed)
    return [
        {
            "id": f"row {seed}.{index}",
            "prompt": f"{index}: {phrase(rng, 2, 9)}?",
            "chosen": f" {phrase(rng, 1, 8)}.",
            "rejected": f" {phrase(rng, 1, 8)}!",
            **more,
        }
        for index in range(count)
    ]


def rankings(
    count: int = 6, *, answers: int = 4, seed: int = 0, scores: bool = False
) -> list[dict[str, Any]]:
    """Prompts with `answers` answers in a strict order, or with scores."""
    rng = np.random.default_rng(seed)
    rows = []
    for index in range(count):
        completions = [f" {k} {phrase(rng, 1, 7)}." for k in range(answers)]
        row: dict[str, Any] = {
            "id": f"rank {seed}.{index}",
            "prompt": f"{index}: {phrase(rng, 2, 9)}?",
            "completions": completions,
        }
        if scores:
            row["scores"] = [float(s) for s in rng.normal(size=answers).round(3)]
        else:
            row["ranking"] = [[int(k)] for k in rng.permutation(answers)]
        rows.append(row)
    return rows


def model_of(tokenizer: Any, family: str = "llama", precision: str = "float64", **changes: Any) -> Any:
    """A tiny random model over the tiny tokenizer, in the precision's master weights."""
    return tiny(family, dtype=master_dtype(precision), vocab_size=len(tokenizer), **changes)  # type: ignore[arg-type]


def scorer_of(model: Any, precision: str = "float64", **settings: Any) -> Scorer:
    return Scorer(model, dtype=DTYPES[precision], **settings)  # type: ignore[index]


def trees_of(
    rows: list[dict[str, Any]], tokenizer: Any, *, need: Any = "pairs", **settings: Any
) -> list[Any]:
    records, _ = load_records(rows)
    encoded = encode(records, tokenizer, need=need, **settings)
    assert not encoded.refused
    return encoded.trees


def gradients(model: Any) -> list[Any]:
    return [None if p.grad is None else p.grad.detach().clone() for p in model.parameters()]


def train(model: Any, rows: Any, tokenizer: Any = None, **config: Any) -> likelier.Run:
    """`likelier.dpo` in float64 at a rate that moves a tiny model, unless told."""
    settings = {"precision": "float64", "learning_rate": 1e-3, "batch_size": 3, **config}
    return likelier.dpo(model, rows, tokenizer=tokenizer, **settings)


def timeless(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Metrics lines without times and rates."""
    return [{k: v for k, v in line.items() if k not in TIMES} for line in lines]


def metrics_of(folder: Path) -> list[dict[str, Any]]:
    text = (folder / "metrics.jsonl").read_text(encoding="utf-8")
    assert text.endswith("\n")
    return timeless([json.loads(line) for line in text.splitlines()])


def weights_of(model: Any) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below `folder`, by its relative name."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path
