"""Promise 4: what a step's loss and gradient are, and what they do not depend on."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from likelier.errors import DataError, UsageError, WorkError
from likelier.models.noise import silence_noise
from likelier.objectives import resolve
from likelier.objectives.lookup import kway, stepwise
from likelier.scoring.equality import Choice, choose_way
from likelier.training.step import Loss, StepResult, step_gradient
from tests.models.families import FAMILIES
from tests.scoring.truth import gradient_error, plain_row
from tests.training.support import gradients, model_of, pairs, rankings, scorer_of, train, trees_of

LAYER_NORM = ("gpt2", "gpt_neox", "bloom")
BETA = 0.3


def loss_of(name: Any = "sigmoid", **options: float) -> Loss:
    return Loss(resolve(name), BETA, options)


def one_step(
    model: Any,
    trees: list[Any],
    loss: Loss,
    *,
    precision: str = "float64",
    max_tokens: int = 100_000,
    reference: list[Tensor] | None = None,
    choice: Choice | None = None,
) -> tuple[StepResult, list[Tensor | None]]:
    """The figures and the gradient of one step, from a scorer made for it."""
    choice = choice or choose_way(model)
    model.zero_grad(set_to_none=True)
    with scorer_of(
        model, precision, way=choice.way, own_head=choice.own_head, max_tokens=max_tokens
    ) as scorer:
        if reference is None and loss.objective.needs_reference:
            reference = fake_reference(trees)
        result = step_gradient(scorer, trees, reference, loss)
    return result, gradients(model)


def fake_reference(trees: list[Any]) -> list[Tensor]:
    """Log-probs that no model gave: margins are far from 0, so every slope differs."""
    rng = torch.Generator().manual_seed(1)
    return [-10 - 20 * torch.rand(len(t.branches), generator=rng, dtype=torch.float64) for t in trees]


def plain_logps(model: Any, trees: list[Any]) -> list[Tensor]:
    """Per tree `[branches]`, each branch an ordinary row through plain transformers, with its gradient."""
    return [
        torch.stack([plain_row(model, tree, branch).double().sum() for branch in range(len(tree.branches))])
        for tree in trees
    ]


@pytest.mark.parametrize("need", ["pairs", "ranking"])
@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox", "gemma2", "mixtral", "bloom"])
def test_max_tokens_does_not_enter_the_gradient(family: str, need: str, tokenizer: Any) -> None:
    """One pack, several packs, and trees cut in parts that repeat the trunk (a second forward)."""
    model = model_of(tokenizer, family)
    trees = trees_of(rankings(4, answers=4), tokenizer, need=need)
    loss = loss_of("sigmoid" if need == "pairs" else "plackett_luce")
    whole, expected = one_step(model, trees, loss)
    longest = max(tree.num_tokens for tree in trees)
    bound = 1e-12 if family in LAYER_NORM else 1e-6
    assert not loss.objective.stepwise
    for max_tokens in (2 * longest, longest, longest * 2 // 3):
        result, found = one_step(model, trees, loss, max_tokens=max_tokens)
        assert gradient_error(found, expected) < bound
        assert result.loss == pytest.approx(whole.loss, rel=1e-12)
        assert result.metrics() == pytest.approx(whole.metrics(), rel=1e-12)


@pytest.mark.parametrize("family", ["llama", "gpt2", "mixtral"])
def test_max_tokens_in_float32(family: str, tokenizer: Any) -> None:
    model = model_of(tokenizer, family, "float32")
    trees = trees_of(rankings(4, answers=4), tokenizer)
    longest = max(tree.num_tokens for tree in trees)
    whole, expected = one_step(model, trees, loss_of(), precision="float32")
    for max_tokens in (longest, longest * 2 // 3):
        result, found = one_step(model, trees, loss_of(), precision="float32", max_tokens=max_tokens)
        assert gradient_error(found, expected) < 1e-5
        # On a CPU the log-probs are the same bits in every pack, and so is the loss but for its sum's order.
        assert result.loss == pytest.approx(whole.loss, rel=1e-14)


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2"])
def test_gradient_checkpointing_does_not_enter_the_gradient(family: str, tokenizer: Any) -> None:
    model = model_of(tokenizer, family)
    trees = trees_of(rankings(3, answers=3) + pairs(2), tokenizer)
    choice = choose_way(model)
    _, expected = one_step(model, trees, loss_of(), choice=choice)
    calls: list[str] = []
    # A layer that is recomputed begins twice a step; a new scorer's look at the model keeps no graph.
    first = next(m for m in model.modules() if type(m).__name__.endswith("MLP"))
    first.register_forward_pre_hook(lambda *_: calls.append("forward") if torch.is_grad_enabled() else None)
    model.activation_checkpointing_enable({"use_reentrant": False})
    model.train()
    silence_noise(model)
    calls.clear()
    _, found = one_step(model, trees, loss_of(), choice=choice)
    assert len(calls) == 2
    assert gradient_error(found, expected) < (1e-12 if family in LAYER_NORM else 1e-6)


def test_the_gradient_is_equation_9(tokenizer: Any) -> None:
    """`−β E[ w(x) (∇log π(y_w) − ∇log π(y_l)) ]` with `w = σ(r̂_l − r̂_w)`, over separate plain rows."""
    model = model_of(tokenizer, "gpt2")
    trees = trees_of(pairs(5), tokenizer)
    reference = fake_reference(trees)
    model.zero_grad(set_to_none=True)
    logps = plain_logps(model, trees)
    for own, ref in zip(logps, reference, strict=True):
        r = BETA * (own.detach() - ref)
        weight = torch.sigmoid(r[1] - r[0])
        (-BETA * weight * (own[0] - own[1]) / len(trees)).backward()
    expected = gradients(model)
    _, found = one_step(model, trees, loss_of(), reference=reference)
    assert gradient_error(found, expected) < 1e-12


def test_the_loss_is_the_weighted_mean_over_pairs_with_their_margins(tokenizer: Any) -> None:
    rows = pairs(4)
    for index, row in enumerate(rows):
        row |= {"weight": 0.5 + index, "margin": 0.25 * index}
    model = model_of(tokenizer)
    trees = trees_of(rows, tokenizer)
    reference = fake_reference(trees)
    with torch.no_grad():
        logps = plain_logps(model, trees)
    total = 0.0
    for index, (own, ref) in enumerate(zip(logps, reference, strict=True)):
        u = BETA * float((own[0] - ref[0]) - (own[1] - ref[1])) - 0.25 * index
        total += (0.5 + index) * math.log1p(math.exp(-u))
    result, _ = one_step(model, trees, loss_of(), reference=reference)
    assert result.loss == pytest.approx(total / (0.5 + 1.5 + 2.5 + 3.5), rel=1e-12)
    result, _ = one_step(model, trees, loss_of(), reference=reference, max_tokens=40)
    assert result.loss == pytest.approx(total / 8.0, rel=1e-12)


def test_margins_are_refused_by_a_loss_that_does_not_read_them(tokenizer: Any) -> None:
    trees = trees_of(pairs(2, margin=0.5), tokenizer)
    with pytest.raises(DataError, match=r"margin.*hinge.*sigmoid"):
        one_step(model_of(tokenizer), trees, loss_of("hinge"))


def test_a_ranking_is_all_its_strict_pairs(tokenizer: Any) -> None:
    """Four answers with a tie: five of the six pairs, each with the weight of one."""
    row = rankings(1, answers=4)[0] | {"ranking": [[2], [0, 3], [1]]}
    model = model_of(tokenizer)
    (tree,) = trees_of([row], tokenizer)
    expected = {(2, 0), (2, 3), (2, 1), (0, 1), (3, 1)}
    assert {(c.chosen, c.rejected) for c in tree.comparisons} == expected
    (reference,) = fake_reference([tree])
    with torch.no_grad():
        reward = BETA * (plain_logps(model, [tree])[0] - reference)
    losses = [math.log1p(math.exp(-float(reward[c] - reward[r]))) for c, r in expected]
    result, _ = one_step(model, [tree], loss_of(), reference=[reference])
    assert result.loss == pytest.approx(sum(losses) / 5, rel=1e-12)
    margins = [float(reward[c] - reward[r]) for c, r in expected]
    assert result.metrics()["rewards/margins"] == pytest.approx(sum(margins) / 5, rel=1e-12)
    assert result.metrics()["rewards/accuracies"] == sum(m > 0 for m in margins) / 5


def test_separate_rows_of_one_prompt_share_a_tree_and_give_the_same_step(tokenizer: Any) -> None:
    prompt = "what grows there?"
    answers = [f" {word} and rain" for word in ("rice", "garden", "cat")]
    rows = [
        {"prompt": prompt, "chosen": answers[a], "rejected": answers[b]} for a, b in ((0, 1), (0, 2), (2, 1))
    ]
    model = model_of(tokenizer, "gpt2")
    together, apart = trees_of(rows, tokenizer), trees_of(rows, tokenizer, group_prompts=False)
    assert [len(t.branches) for t in together] == [3]
    assert [len(t.branches) for t in apart] == [2, 2, 2]
    by_tokens = {t.nodes[n].tokens.tobytes(): -3.0 * n for t in together for n in t.branches}

    def reference(trees: list[Any]) -> list[Tensor]:
        return [
            torch.tensor([by_tokens[t.nodes[n].tokens.tobytes()] for n in t.branches]).double() for t in trees
        ]

    one, expected = one_step(model, apart, loss_of(), reference=reference(apart))
    two, found = one_step(model, together, loss_of(), reference=reference(together))
    assert gradient_error(found, expected) < 1e-12
    assert two.loss == pytest.approx(one.loss, rel=1e-12)


def test_plackett_luce_is_one_term_per_ranking(tokenizer: Any) -> None:
    rows = rankings(3, answers=3)
    rows[0]["weight"] = 2.0
    model = model_of(tokenizer)
    trees = trees_of(rows, tokenizer, need="ranking")
    reference = fake_reference(trees)
    with torch.no_grad():
        logps = plain_logps(model, trees)
    total = 0.0
    for tree, own, ref, weight in zip(trees, logps, reference, (2.0, 1.0, 1.0), strict=True):
        order = sorted(range(3), key=lambda k, tree=tree: tree.ranks[k])
        r = [float(BETA * (own[k] - ref[k])) for k in order]
        total += weight * sum(math.log(sum(map(math.exp, r[k:]))) - r[k] for k in range(3))
    result, _ = one_step(model, trees, loss_of("plackett_luce"), reference=reference)
    assert result.loss == pytest.approx(total / 4.0, rel=1e-12)


def test_trees_of_different_width_share_a_k_way_step(tokenizer: Any) -> None:
    """K = 2 beside K = 4: each as it is alone."""
    model = model_of(tokenizer, "gpt2")
    trees = trees_of(rankings(2, answers=4) + rankings(1, answers=2, seed=5), tokenizer, need="ranking")
    reference = fake_reference(trees)
    loss = loss_of("plackett_luce")
    alone = [one_step(model, [t], loss, reference=[r])[0].loss for t, r in zip(trees, reference, strict=True)]
    together, _ = one_step(model, trees, loss, reference=reference)
    assert together.loss == pytest.approx(sum(alone) / 3, rel=1e-12)


def test_listwise_reads_scores(tokenizer: Any) -> None:
    model = model_of(tokenizer)
    (tree,) = trees_of(rankings(1, answers=3, scores=True), tokenizer, need="scores")
    (reference,) = fake_reference([tree])
    with torch.no_grad():
        ratio = plain_logps(model, [tree])[0] - reference
    target = torch.softmax(torch.tensor(tree.scores, dtype=torch.float64) / BETA, 0)
    expected = -(target * ratio.log_softmax(0)).sum()
    result, _ = one_step(model, [tree], loss_of("listwise"), reference=[reference])
    assert result.loss == pytest.approx(float(expected), rel=1e-12)


def test_sft_is_over_scored_tokens_not_over_rows(tokenizer: Any) -> None:
    rows = [
        {"prompt": "a cat", "completion": " sat"},
        {"prompt": "a mat", "completion": " " + "rain garden " * 6},
    ]
    model = model_of(tokenizer, "gpt2")
    trees = trees_of(rows, tokenizer, need="completions")
    logps = plain_logps(model, trees)
    tokens = sum(t.branch_length(0) for t in trees)
    assert trees[0].branch_length(0) * 3 < trees[1].branch_length(0)
    model.zero_grad(set_to_none=True)
    (-torch.cat(logps).sum() / tokens).backward()
    expected = gradients(model)
    result, found = one_step(model, trees, loss_of("sft"))
    assert result.loss == pytest.approx(-float(torch.cat(logps).detach().sum()) / tokens, rel=1e-12)
    assert gradient_error(found, expected) < 1e-12
    _, found = one_step(model, trees, loss_of("sft"), max_tokens=max(t.num_tokens for t in trees))
    assert gradient_error(found, expected) < 1e-12


@stepwise
def against_the_mean(policy: Tensor, reference: Tensor, lengths: Tensor, beta: float) -> Tensor:
    """A loss whose value for a pair depends on the others: its margin against the step's mean margin."""
    margin = beta * ((policy - reference)[:, 0] - (policy - reference)[:, 1])
    return (margin - margin.mean() - 1.0) ** 2


@pytest.mark.parametrize("max_tokens", [100_000, 40])
def test_a_stepwise_loss_sees_the_whole_step(max_tokens: int, tokenizer: Any) -> None:
    model = model_of(tokenizer, "gpt2")
    trees = trees_of(pairs(5), tokenizer)
    reference = fake_reference(trees)
    logps = torch.stack(plain_logps(model, trees))
    expected_loss = against_the_mean(logps, torch.stack(reference), logps, BETA).mean()
    model.zero_grad(set_to_none=True)
    expected_loss.backward()
    expected = gradients(model)
    result, found = one_step(
        model, trees, loss_of(against_the_mean), reference=reference, max_tokens=max_tokens
    )
    assert result.loss == pytest.approx(float(expected_loss.detach()), rel=1e-12)
    assert gradient_error(found, expected) < 1e-12


def mine(policy: Tensor, reference: Tensor, lengths: Tensor, beta: float) -> Tensor:
    """The sigmoid loss, written by a user."""
    ratio = policy - reference
    return torch.nn.functional.softplus(-beta * (ratio[:, 0] - ratio[:, 1]))


def wrong_shape(policy: Tensor, reference: Tensor, lengths: Tensor, beta: float) -> Tensor:
    return policy.sum()


@kway
def mine_kway(
    policy: Tensor, reference: Tensor, lengths: Tensor, beta: float, *, mask: Tensor, ranks: Tensor
) -> Tensor:
    best = (ranks == 0) & mask
    return -(policy * best).sum(1) / lengths.mul(best).sum(1)


@pytest.mark.parametrize("loss", [mine, "tests.training.test_step:mine"])
def test_a_users_loss(loss: Any, tokenizer: Any) -> None:
    rows = pairs(5)
    model, other = model_of(tokenizer), model_of(tokenizer)
    expected = train(other, rows, tokenizer, beta=0.2)
    run = train(model, rows, tokenizer, loss=loss, beta=0.2)
    assert [m["loss"] for m in run.metrics] == pytest.approx([m["loss"] for m in expected.metrics], rel=1e-9)
    assert run.metrics[-1]["rewards/margins"] == pytest.approx(
        expected.metrics[-1]["rewards/margins"], rel=1e-6
    )


def test_a_users_k_way_loss(tokenizer: Any) -> None:
    run = train(model_of(tokenizer), rankings(4), tokenizer, loss=mine_kway, batch_size=12)
    assert len(run.metrics) == 2
    assert math.isfinite(run.metrics[-1]["loss"])


def test_a_users_loss_of_the_wrong_shape_is_named(tokenizer: Any) -> None:
    with pytest.raises(UsageError, match=r"loss.*wrong_shape.*shape \(3,\)"):
        train(model_of(tokenizer), pairs(4), tokenizer, loss=wrong_shape)


def test_the_last_step_of_an_epoch_is_short_and_never_dropped(tokenizer: Any) -> None:
    run = train(model_of(tokenizer), pairs(7), tokenizer, epochs=2)
    assert [m["pairs_seen"] for m in run.metrics] == [3, 6, 7, 10, 13, 14]
    assert [m["step"] for m in run.metrics] == [1, 2, 3, 4, 5, 6]
    assert [m["epoch"] for m in run.metrics] == pytest.approx([1 / 3, 2 / 3, 1, 4 / 3, 5 / 3, 2])


def test_weighing_prompts_gives_each_prompt_weight_one(tokenizer: Any) -> None:
    """One prompt with three rows, one with one: half of the loss each."""
    rows = pairs(2)
    rows += [rows[0] | {"id": f"more {n}", "chosen": f" {n} rice"} for n in range(2)]
    model = model_of(tokenizer)
    one = train(
        model,
        rows,
        tokenizer,
        weigh="prompts",
        batch_size=64,
        max_steps=1,
        reference=model_of(tokenizer, seed=3),
    )
    trees = trees_of(rows, tokenizer)
    reference = [r.detach() for r in plain_logps(model_of(tokenizer, seed=3), trees)]
    weighed = [
        replace(t, comparisons=tuple(replace(c, weight=1 / len(t.comparisons)) for c in t.comparisons))
        for t in trees
    ]
    assert sorted(len(t.comparisons) for t in weighed) == [1, 3]
    loss = Loss(resolve("sigmoid"), 0.1)
    result, _ = one_step(model_of(tokenizer), weighed, loss, reference=reference)
    assert one.metrics[0]["loss"] == pytest.approx(result.loss, rel=1e-9)
    plain, _ = one_step(model_of(tokenizer), trees, loss, reference=reference)
    assert plain.loss != pytest.approx(result.loss, rel=1e-3)


@pytest.mark.parametrize("family", ["gpt2", "gpt_neox", "mixtral"])
def test_dropout_is_off(family: str, tokenizer: Any) -> None:
    noise = {
        "gpt2": {"attn_pdrop": 0.5, "embd_pdrop": 0.5, "resid_pdrop": 0.5},
        "gpt_neox": {"hidden_dropout": 0.5, "attention_dropout": 0.5},
        "mixtral": {"attention_dropout": 0.5, "router_jitter_noise": 0.5},
    }[family]
    quiet = dict.fromkeys(noise, 0.0)
    runs = [
        train(model_of(tokenizer, family, **settings), pairs(5), tokenizer, gradient_checkpointing=True)
        for settings in (noise, noise, quiet)
    ]
    losses = [[m["loss"] for m in run.metrics] for run in runs]
    assert losses[0] == losses[1] == losses[2]
    assert set(noise) <= set(FAMILIES[family]) | set(noise)


@pytest.mark.parametrize("bad", ["loss", "gradient"])
def test_a_loss_or_gradient_that_is_not_finite_stops_before_the_update(bad: str, tokenizer: Any) -> None:
    model = model_of(tokenizer)
    rows = pairs(4)
    start = [p.detach().clone() for p in model.parameters()]

    def broken(policy: Tensor, reference: Tensor, lengths: Tensor, beta: float) -> Tensor:
        ratio = (policy - reference)[:, 0]
        if bad == "loss":
            return ratio * float("nan")
        return torch.sqrt(ratio.abs())  # at θ = ref: value 0, slope infinite

    with pytest.raises(WorkError, match=r"row 0\.\d.*--learning-rate"):
        train(model, rows, tokenizer, loss=broken)
    for before, parameter in zip(start, model.parameters(), strict=True):
        assert torch.equal(before, parameter)
