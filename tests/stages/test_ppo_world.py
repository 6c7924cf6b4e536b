"""PPO solves small worlds whose optimum is known: math.md (4) and (5), every answer listed (`theory/export.py`).

J is computed by enumeration from plain forwards; nothing of the training's own figures enters. `python -m
tests.stages.test_ppo_world gae,rloo,grpo 0,1,2,3,4` prints the share of the gap that each closes, and its CPU time.
"""

from __future__ import annotations

import sys
import time
from typing import Any

import pytest

import likelier
from likelier.theory.export import ModelWorld, model_world
from likelier.theory.optimum import objective, optimum_value
from tests.training.conftest import no_timing, own_cache

__all__ = ["no_timing", "own_cache"]

BETA = 0.5
SETTINGS: dict[str, Any] = {
    "beta": BETA,
    "precision": "float64",
    "max_new_tokens": 3,
    "n": 64,
    "batch_size": 128,
    "epochs": 50,
    "normalize_advantages": False,
    "rollout_epochs": 4,
    "learning_rate": 2e-3,
    "schedule": "linear",
    "warmup_steps": 2,
}
OWN: dict[str, dict[str, Any]] = {"gae": {"gae_lambda": 1.0, "value_weight": 0.5}, "rloo": {}, "grpo": {}}


def world_of(seed: int) -> ModelWorld:
    """Two prompts, 15 answers to each: of up to three letters, ended or cut."""
    return model_world(seed)


def gap_closed(world: ModelWorld, model: Any) -> float:
    """`(J − J_ref) / (J* − J_ref)`."""
    start = objective(world.world, world.world.log_reference, BETA)
    reached = objective(world.world, world.policy_of(model), BETA)
    return float((reached - start) / (optimum_value(world.world, BETA) - start))


def solved(advantage: str, seed: int, **changes: Any) -> float:
    """The share of the gap that a run closes."""
    world = world_of(seed)
    settings = {**SETTINGS, **OWN[advantage], **changes}
    run = likelier.ppo(
        *(world_of(seed).model, world.prompts(), world.reward),
        tokenizer=world.tokenizer,
        advantage=advantage,
        seed=seed,
        **settings,
    )
    return gap_closed(world, run.model)


@pytest.mark.parametrize("advantage", ["gae", "rloo", "grpo"])
def test_it_closes_the_gap_to_the_optimum(advantage: str) -> None:
    """One seed, and fewer steps than the recorded runs over five (docs/log.md)."""
    assert solved(advantage, 0, n=32, batch_size=64, epochs=25) >= 0.95


def test_nothing_is_closed_at_the_start() -> None:
    world = world_of(0)
    assert gap_closed(world, world.model) == pytest.approx(0.0, abs=1e-12)


def main(advantages: str, seeds: str) -> None:
    """One line a run."""
    for advantage in advantages.split(","):
        for seed in map(int, seeds.split(",")):
            begun = time.process_time()
            share = solved(advantage, seed)
            took = time.process_time() - begun
            print(f"{advantage} seed {seed}: {share:.4f} of the gap, {took:.0f} s of CPU", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
