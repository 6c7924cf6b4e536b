"""Promise 6: figures over all rows, whatever the packs; ties count one half; n and an interval."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from likelier.objectives import resolve
from likelier.stats import accuracy_interval
from likelier.training.evaluation import evaluate
from likelier.training.step import Loss
from tests.training.support import model_of, pairs, rankings, scorer_of, train, trees_of
from tests.training.test_step import against_the_mean, fake_reference, plain_logps

SIGMOID = Loss(resolve("sigmoid"), 0.3)


def figures(
    model: Any, trees: Any, reference: Any, loss: Loss = SIGMOID, *, max_tokens: int = 100_000
) -> Any:
    with scorer_of(model, max_tokens=max_tokens) as scorer:
        return evaluate(scorer, trees, reference, loss)


@pytest.mark.parametrize("loss", ["sigmoid", "plackett_luce", against_the_mean])
def test_packs_do_not_enter(loss: Any, tokenizer: Any) -> None:
    """The same bits: TRL gave 0.75 or 0.60 on the same five rows, by the evaluation's batch size."""
    model = model_of(tokenizer)
    need: Any = "ranking" if loss == "plackett_luce" else "pairs"
    trees = trees_of(rankings(4), tokenizer, need=need)
    reference = fake_reference(trees)
    whole = figures(model, trees, reference, Loss(resolve(loss), 0.3))
    longest = max(tree.num_tokens for tree in trees)
    for max_tokens in (2 * longest, longest, longest * 2 // 3):
        assert figures(model, trees, reference, Loss(resolve(loss), 0.3), max_tokens=max_tokens) == whole


def test_figures_by_hand(tokenizer: Any) -> None:
    rows = pairs(5)
    rows[1]["weight"] = 3.0
    model = model_of(tokenizer)
    trees = trees_of(rows, tokenizer)
    reference = fake_reference(trees)
    with torch.no_grad():
        logps = plain_logps(model, trees)
    margins = [0.3 * float((o[0] - r[0]) - (o[1] - r[1])) for o, r in zip(logps, reference, strict=True)]
    found = figures(model, trees, reference)
    weights = [1.0, 3.0, 1.0, 1.0, 1.0]
    losses = [w * math.log1p(math.exp(-m)) for w, m in zip(weights, margins, strict=True)]
    assert found["eval/loss"] == pytest.approx(sum(losses) / 7, rel=1e-12)
    assert found["eval/rewards/margins"] == pytest.approx(sum(margins) / 5, rel=1e-12)
    assert found["eval/rewards/accuracies"] == sum(m > 0 for m in margins) / 5
    expected = accuracy_interval(margins, clusters=range(5))
    assert found["eval/rewards/accuracies/low"] == pytest.approx(expected.low)
    assert found["eval/rewards/accuracies/high"] == pytest.approx(expected.high)
    assert (found["eval/pairs"], found["eval/prompts"]) == (5, 5)
    assert found["eval/logps/chosen"] == pytest.approx(float(sum(o[0] for o in logps)) / 5, rel=1e-12)


def test_a_tie_counts_one_half(tokenizer: Any) -> None:
    model = model_of(tokenizer)
    trees = trees_of(pairs(4), tokenizer)
    with torch.no_grad():
        reference = [logps.detach() for logps in plain_logps(model, trees)]
    with scorer_of(model) as scorer:
        exact = [torch.stack([b.sum() for b in branches]) for branches in scorer.score(trees)]
        found = evaluate(scorer, trees, exact, SIGMOID)
    assert found["eval/rewards/accuracies"] == 0.5
    assert found["eval/rewards/margins"] == 0.0
    exact[0] = reference[0] + torch.tensor([-1.0, 0.0])
    assert figures(model, trees, exact)["eval/rewards/accuracies"] == (1 + 3 * 0.5) / 4


def test_one_pair_has_no_interval(tokenizer: Any) -> None:
    trees = trees_of(pairs(1), tokenizer)
    found = figures(model_of(tokenizer), trees, fake_reference(trees))
    assert found["eval/pairs"] == 1
    for name in ("accuracies/low", "accuracies/high", "margins/low", "margins/high"):
        assert found[f"eval/rewards/{name}"] is None


def test_intervals_are_clustered_by_prompt(tokenizer: Any) -> None:
    """Six pairs of one prompt are not six independent ones."""
    (tree,) = trees_of(rankings(1), tokenizer)
    assert len(tree.comparisons) == 6
    found = figures(model_of(tokenizer), [tree], fake_reference([tree]))
    assert (found["eval/pairs"], found["eval/prompts"]) == (6, 1)
    assert found["eval/rewards/accuracies/low"] is None


def test_evaluation_leaves_the_run_alone(tokenizer: Any) -> None:
    """The same steps with and without it."""
    plain = train(model_of(tokenizer), pairs(6), tokenizer, epochs=2)
    watched = train(
        model_of(tokenizer), pairs(6), tokenizer, epochs=2, eval_data=pairs(3, seed=8), eval_every=1
    )
    steps = [line for line in watched.metrics if "loss" in line]
    assert [line["loss"] for line in steps] == [line["loss"] for line in plain.metrics]
    lines = [line for line in watched.metrics if "eval/loss" in line]
    assert [line["step"] for line in lines] == [0, 1, 2, 3, 4]
    assert lines[0]["eval/rewards/accuracies"] == 0.5
    assert lines[0]["eval/loss"] == pytest.approx(math.log(2))


def test_a_share_is_held_out_by_prompt(tokenizer: Any) -> None:
    rows = pairs(10)
    rows += [row | {"id": f"{row['id']}b", "chosen": " rice and rain"} for row in rows]
    run = train(model_of(tokenizer), rows, tokenizer, eval_share=0.3, batch_size=64)
    (line,) = [line for line in run.metrics if "eval/loss" in line]
    assert (line["eval/prompts"], line["eval/pairs"]) == (3, 6)
    assert run.metrics[0]["pairs_seen"] == 14
