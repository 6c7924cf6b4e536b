"""A run of a few steps against a plain PyTorch loop over separate, unpadded rows: the same weights.

Nothing of the package's scoring, objectives, optimiser or schedule is in the loop. GPT-2 computes its norms in the
precision of its weights, so that in float64 the two agree far below any update.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from likelier.training import preferences
from tests.training.support import model_of, pairs, train

PINNED = Path(__file__).parent / "pinned_losses.json"
BETA, RATE, CLIP, WARMUP = 0.2, 2e-3, 0.5, 2


def logp(model: Any, tokenizer: Any, prompt: str, answer: str) -> Tensor:
    """`log π(y | x)` of one row: the prompt's tokens, the answer's, and the end of turn."""
    before = tokenizer(prompt, add_special_tokens=False).input_ids
    scored = [*tokenizer(answer, add_special_tokens=False).input_ids, tokenizer.eos_token_id]
    logits = model(input_ids=torch.tensor([before + scored]), use_cache=False).logits[0]
    logps = logits.log_softmax(-1)
    places = range(len(before) - 1, len(before) + len(scored) - 1)
    return torch.stack([logps[place, token] for place, token in zip(places, scored, strict=True)]).sum()


class Sgd:
    """AdamW without decay and RMSprop as their papers have them, without any of torch's code."""

    def __init__(self, name: str, parameters: list[Tensor]) -> None:
        self.name, self.parameters, self.steps = name, parameters, 0
        self.first = [torch.zeros_like(p) for p in parameters]
        self.second = [torch.zeros_like(p) for p in parameters]

    @torch.no_grad()
    def update(self, gradients: list[Tensor], rate: float) -> None:
        self.steps += 1
        for p, g, m, v in zip(self.parameters, gradients, self.first, self.second, strict=True):
            if self.name == "rmsprop":
                v.mul_(0.99).add_(0.01 * g * g)
                p -= rate * g / (v.sqrt() + 1e-8)
                continue
            m.mul_(0.9).add_(0.1 * g)
            v.mul_(0.999).add_(0.001 * g * g)
            p -= rate * (m / (1 - 0.9**self.steps)) / ((v / (1 - 0.999**self.steps)).sqrt() + 1e-8)


def plain_run(
    model: Any, tokenizer: Any, rows: dict[str, Any], order: list[list[str]], *, optimizer: str
) -> tuple[list[float], list[float]]:
    """Losses and gradient norms (before clipping) of a linear schedule over `order`, the steps' row ids."""
    with torch.no_grad():
        reference = {
            (i, side): logp(model, tokenizer, row["prompt"], row[side])
            for i, row in rows.items()
            for side in ("chosen", "rejected")
        }
    parameters = list(model.parameters())
    updates = Sgd(optimizer, parameters)
    losses, norms = [], []
    for step, ids in enumerate(order):
        loss = torch.zeros((), dtype=torch.float64)
        for i in ids:
            ratio = {
                side: logp(model, tokenizer, rows[i]["prompt"], rows[i][side]) - reference[i, side]
                for side in ("chosen", "rejected")
            }
            loss = loss - torch.nn.functional.logsigmoid(BETA * (ratio["chosen"] - ratio["rejected"])) / len(
                ids
            )
        gradients = list(torch.autograd.grad(loss, parameters))
        norm = math.sqrt(sum(float(g.square().sum()) for g in gradients))
        if norm > CLIP:
            gradients = [g * (CLIP / norm) for g in gradients]
        rate = (
            RATE * (step + 1) / WARMUP
            if step < WARMUP
            else RATE * (1 - (step - WARMUP) / (len(order) - WARMUP))
        )
        updates.update(gradients, rate)
        losses.append(float(loss.detach()))
        norms.append(norm)
    return losses, norms


@pytest.mark.parametrize("optimizer", ["adamw", "rmsprop"])
def test_a_run_is_a_plain_loop(optimizer: str, tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = pairs(7)
    order: list[list[str]] = []
    step_gradient = preferences.step_gradient

    def noting(scorer: Any, trees: Any, reference: Any, loss: Any) -> Any:
        order.append([tree.id for tree in trees])
        return step_gradient(scorer, trees, reference, loss)

    monkeypatch.setattr(preferences, "step_gradient", noting)
    model = model_of(tokenizer, "gpt2")
    run = train(
        *(model, rows, tokenizer),
        optimizer=optimizer,
        beta=BETA,
        learning_rate=RATE,
        clip=CLIP,
        warmup_steps=WARMUP,
        schedule="linear",
        epochs=2,
        max_tokens=60,
    )
    assert [len(ids) for ids in order] == [3, 3, 1, 3, 3, 1]
    for epoch in (order[:3], order[3:]):
        assert sorted(i for ids in epoch for i in ids) == sorted(row["id"] for row in rows)
    assert order[:3] != order[3:]
    other = model_of(tokenizer, "gpt2")
    losses, norms = plain_run(other, tokenizer, {row["id"]: row for row in rows}, order, optimizer=optimizer)
    assert [m["loss"] for m in run.metrics] == pytest.approx(losses, rel=1e-8)
    assert [m["grad_norm"] for m in run.metrics] == pytest.approx(norms, rel=1e-8)
    assert max(norms) > CLIP
    moved = difference = 0.0
    start = model_of(tokenizer, "gpt2")
    for ours, theirs, before in zip(model.parameters(), other.parameters(), start.parameters(), strict=True):
        moved += float((theirs - before).detach().square().sum())
        difference += float((ours - theirs).detach().square().sum())
    # A parameter without a true gradient (the bias of GPT-2's keys) is moved by the noise of either.
    assert (difference / moved) ** 0.5 < 1e-9


def test_losses_of_a_pinned_run(tokenizer: Any) -> None:
    """Six steps on the tiny Llama; a refactor that moves these is no refactor."""
    run = train(model_of(tokenizer), pairs(9), tokenizer, epochs=2)
    losses = [m["loss"] for m in run.metrics]
    assert len(losses) == 6
    assert losses == pytest.approx(json.loads(PINNED.read_text()), rel=1e-6)
