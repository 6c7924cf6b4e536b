"""The expected time against runs that were recorded: SmolLM2-135M, two cores, nothing beside them."""

from __future__ import annotations

import pytest
import torch

from likelier.training.expectation import expected_seconds

PARAMETERS = 134.5e6

RUNS = {
    # what: GFLOP/s of products, GFLOP and updates of the run, its share of the rate, how far off is allowed.
    # benchmarks/results/benchmark.md of 2026-11-25, AMD EPYC without AMX; reference pass included.
    "HH, 8 pairs a step": (388, 5092, 3, 0.513, 1.3),
    "6 pairs of 4 answers, prompts of 125": (388, 598, 1, 0.56, 1.3),
    "6 pairs of 4 answers, prompts of 6": (388, 396, 1, 0.57, 1.3),
    # docs/log.md, 2026-11-25, "the share of the products' rate", the same processor; training steps alone.
    "17 tokens a step": (426, 13.05, 1, 0.065, 1.4),
    "62 tokens a step": (426, 47.11, 1, 0.20, 1.3),
    "68 tokens a step": (426, 51.73, 1, 0.20, 1.3),
    "217 tokens a step": (426, 158.5, 1, 0.39, 1.3),
    "248 tokens a step": (426, 187.9, 1, 0.378, 1.3),
    "868 tokens a step": (426, 633.5, 1, 0.50, 1.3),
    "993 tokens a step": (426, 751.9, 1, 0.45, 1.3),
    "1,204 tokens a step": (426, 906.9, 1, 0.455, 1.3),
    "1,736 tokens a step": (426, 1267, 1, 0.475, 1.3),
    "float32, 868 tokens a step": (190, 633.5, 1, 0.58, 1.3),
    "float32, 62 tokens a step": (190, 47.11, 1, 0.23, 1.7),
    # benchmarks/results/benchmark.md of 2026-11-23 (commit ce92043), Xeon with AMX: slower code of then.
    "AMX, HH, 8 pairs a step": (1458, 5092, 3, 0.18, 1.5),
    "AMX, 6 pairs of 4 answers, prompts of 125": (1458, 598, 1, 0.11, 2.0),
    "AMX, 6 pairs of 4 answers, prompts of 6": (1458, 396, 1, 0.15, 1.5),
}


@pytest.mark.parametrize("name", list(RUNS))
def test_recorded_runs(name: str) -> None:
    rate, work, updates, share, factor = RUNS[name]
    expected = expected_seconds(
        work * 1e9,
        rate=rate * 1e9,
        updated=updates * PARAMETERS,
        device=torch.device("cpu"),
        threads=2,
    )
    measured = work / (rate * share)
    assert measured / factor < expected < measured * factor
