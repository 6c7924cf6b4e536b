"""How much faster a rollout of PPO is drawn in bfloat16 than in float32, by turns in one process.

    python -m benchmarks.rollouts --rounds 8

SmolLM2-135M-Instruct with an adapter of rank 16, the demo's first prompts. Rounding the weights anew is part of the
time, as it is part of every step. `--merged` adds the same without an adapter: what merging it beforehand would save.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import nn

from likelier.engines.decoding import lowered
from likelier.engines.drawing import Sampler
from likelier.engines.prompts import Prompt
from likelier.engines.sampling import sample
from likelier.models.adapters import add_lora
from likelier.models.loading import load_model
from likelier.stages.demo_prompts import read_demo_prompts

PROMPTS, ANSWERS, TOKENS = 12, 4, 24


def compare(
    first: tuple[str, Callable[[], float]], second: tuple[str, Callable[[], float]], rounds: int
) -> None:
    """Seconds of both, by turns, and the median of their ratios."""
    ratios = []
    for _ in range(rounds):
        ours, theirs = first[1](), second[1]()
        ratios.append(ours / theirs)
        print(f"{first[0]} {ours:.2f} s, {second[0]} {theirs:.2f} s, ratio {ours / theirs:.2f}", flush=True)
    print(f"median ratio of {rounds}: {statistics.median(ratios):.2f}")


def main() -> None:
    """Loads the model once and draws the same answers over and over."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--rounds", type=int, default=4)
    made.add_argument("--threads", type=int, default=1)
    made.add_argument("--merged", action="store_true")
    options = made.parse_args()
    torch.set_num_threads(options.threads)
    loaded, plain = load_model("smollm2"), load_model("smollm2").model
    adapted = add_lora(loaded.model, rank=16, seed=0)
    shipped = read_demo_prompts(None)["train"][:PROMPTS]
    prompts = [Prompt(id=one.id, content=one.prompt) for one in shipped]

    def seconds(model: nn.Module, *, low: bool) -> Callable[[], float]:
        def drawn() -> float:
            started = time.perf_counter()
            drawing = lowered(model, torch.bfloat16, copied=True) if low else model
            sampler = Sampler(seed=1)
            sample(drawing, loaded.tokenizer, prompts, n=ANSWERS, max_new_tokens=TOKENS, sampler=sampler)
            return time.perf_counter() - started

        drawn()  # what is done once, before the clock
        return drawn

    low = ("bfloat16", seconds(adapted, low=True))
    compare(("float32", seconds(adapted, low=False)), low, options.rounds)
    if options.merged:
        compare(low, ("without adapter", seconds(plain, low=True)), options.rounds)


if __name__ == "__main__":
    main()
