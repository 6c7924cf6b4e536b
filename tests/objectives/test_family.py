"""What every entry of the table must do. A new loss adds itself here by being in the table."""

import inspect
import math

import pytest
import torch

from likelier.objectives import OBJECTIVES, with_sft
from tests.objectives.examples import LABELS, example, take

BETA = 0.3
OTHER_OPTIONS = {
    "label_smoothing": 0.2,
    "margin": 0.7,
    "gamma": 1.5,
    "odds_weight": 0.9,
    "unlikelihood_weight": 0.9,
}
"""For every option that some entry reads, a value that is not its default."""

NOT_INVARIANT = {
    "ipo": "each log-ratio is divided by its own length",
    "simpo": "reads log-probs, divided by their own lengths",
    "orpo": "reads log-probs",
    "unlikelihood": "reads log-probs, each with its own weight",
    "sft": "reads one log-prob",
}
"""Entries that do change when f(x) is added to all log-ratios of a prompt, and why."""


@pytest.fixture(params=OBJECTIVES, ids=str)
def objective(request):
    return OBJECTIVES[request.param]


def test_the_entry_says_what_it_is(objective):
    assert OBJECTIVES[objective.name] is objective
    assert objective.formula
    assert objective.source


def test_the_entry_names_exactly_the_options_that_its_function_reads(objective):
    parameters = inspect.signature(objective.function).parameters.values()
    keywords = {p.name for p in parameters if p.kind is p.KEYWORD_ONLY}
    assert keywords == {*objective.options, *LABELS[objective.kind]}
    assert [p.name for p in parameters if p.kind is not p.KEYWORD_ONLY] == [
        "policy",
        "reference",
        "lengths",
        "beta",
    ]
    policy, reference, lengths, labels = example(objective)
    plain = objective(policy, reference, lengths, BETA, **labels)
    for option in objective.options:
        other = objective(policy, reference, lengths, BETA, **labels, **{option: OTHER_OPTIONS[option]})
        assert not torch.allclose(plain, other), option


def test_reference_and_beta_are_read_where_the_entry_says_so(objective):
    policy, reference, lengths, labels = example(objective)
    losses = objective(policy, reference, lengths, BETA, **labels)
    other_beta = objective(policy, reference, lengths, 2 * BETA, **labels)
    assert torch.equal(losses, other_beta) is not objective.reads_beta
    if objective.needs_reference:
        tilted = reference + torch.arange(policy.shape[1]) * 0.5
        assert not torch.allclose(losses, objective(policy, tilted, lengths, BETA, **labels))
    else:
        assert torch.equal(losses, objective(policy, None, lengths, BETA, **labels))
        assert objective.rewards(policy, None, lengths, BETA).shape == policy.shape


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("items", [0, 1, 7])
def test_shapes_and_dtypes(objective, items, dtype):
    policy, reference, lengths, labels = example(objective, items, dtype=dtype)
    policy.requires_grad_()
    losses = objective(policy, reference, lengths, BETA, **labels)
    assert losses.shape == ((items, 2) if objective.kind == "sft" else (items,))
    assert losses.dtype == dtype
    rewards = objective.rewards(policy, reference, lengths, BETA)
    assert (rewards.shape, rewards.dtype) == (policy.shape, dtype)
    (slope,) = torch.autograd.grad(losses.sum(), policy)
    assert slope.shape == policy.shape


def test_float32_is_float64_rounded(objective):
    policy, reference, lengths, labels = example(objective, 200)
    exact = objective(policy, reference, lengths, BETA, **labels)
    labels = {n: x.float() if n == "scores" else x for n, x in labels.items()}
    rounded = objective(policy.float(), reference.float(), lengths, BETA, **labels)
    assert torch.allclose(rounded.double(), exact, rtol=2e-5, atol=2e-5)


def test_gradient_is_that_of_finite_differences(objective):
    policy, reference, lengths, labels = example(objective, 6)
    policy.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda p: objective(p, reference, lengths, BETA, **labels), policy, eps=1e-6, atol=1e-7, rtol=1e-5
    )


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("changed", [{}, OTHER_OPTIONS], ids=["defaults", "options"])
def test_value_and_gradient_are_finite_at_extremes(objective, dtype, changed):
    """All combinations of log-probs from certainty to −1e4 in every slot: log-ratios up to ±1e4."""
    slots = example(objective)[0].shape[1]
    levels = torch.tensor([0.0, -1e-30, -1e-6, -1.0, -100.0, -1e4], dtype=dtype)
    policy = torch.cartesian_prod(*[levels] * slots).requires_grad_()
    labels = take(torch.arange(len(policy)) % 7, *example(objective, 7, dtype=dtype))[3]
    options = {name: value for name, value in changed.items() if name in objective.options}
    for reference in (policy.detach().flip(0), policy.detach(), policy.detach().flip(1)):
        for length in (1, 10):
            lengths = torch.full(policy.shape, length)
            losses = objective(policy, reference, lengths, 1.0, **labels, **options)
            (slope,) = torch.autograd.grad(losses.sum(), policy)
            assert losses.isfinite().all()
            assert slope.isfinite().all()


def test_an_answer_without_scored_tokens_is_finite(objective):
    """An empty prompt without BOS can leave a one-token answer with nothing scored: total 0, length 0."""
    policy, reference, lengths, labels = example(objective)
    policy[:, 0] = reference[:, 0] = lengths[:, 0] = 0
    policy.requires_grad_()
    losses = objective(policy, reference, lengths, BETA, **labels)
    (slope,) = torch.autograd.grad(losses.sum(), policy)
    assert losses.isfinite().all()
    assert slope.isfinite().all()
    assert objective.rewards(policy, reference, lengths, BETA).isfinite().all()


def test_the_value_at_the_reference_is_the_tables(objective):
    """math.md, "At θ = ref": with every option, with every tree's own labels."""
    _, reference, lengths, labels = example(objective, 9)
    for changed in [{}, *({name: OTHER_OPTIONS[name]} for name in objective.options)]:
        losses = objective(reference, reference, lengths, BETA, **labels, **changed)
        for item, loss in enumerate(losses.flatten().tolist()):
            own = {
                name: labels[name][item][labels["mask"][item]].tolist()
                for name in ("ranks", "scores")
                if name in labels
            }
            value = objective.at_reference(BETA, **changed, **own)
            if value is None:
                assert not objective.needs_reference
            else:
                assert loss == pytest.approx(value, abs=1e-12)


def test_the_order_of_items_only_orders_the_losses(objective):
    inputs = example(objective, 8)
    losses = objective(*inputs[:2], inputs[2], BETA, **inputs[3])
    order = torch.randperm(8, generator=torch.Generator().manual_seed(1))
    policy, reference, lengths, labels = take(order, *inputs)
    assert torch.equal(objective(policy, reference, lengths, BETA, **labels), losses[order])


def test_the_order_of_answers_means_nothing_where_labels_order_them(objective):
    if objective.kind not in ("ranking", "scores"):
        pytest.skip("columns have a meaning here")
    policy, reference, lengths, labels = example(objective, 8)
    losses = objective(policy, reference, lengths, BETA, **labels)
    order = torch.tensor([2, 0, 3, 1])
    mixed = {name: label[:, order] for name, label in labels.items()}
    again = objective(policy[:, order], reference[:, order], lengths[:, order], BETA, **mixed)
    assert torch.allclose(again, losses, rtol=0, atol=1e-13)


def test_a_step_is_linear_in_its_weights(objective):
    """Σ w ℓ has the gradient Σ w ∇ℓ with each ℓ taken alone: no item sees another, unless step-wide."""
    if objective.stepwise:
        pytest.skip("a statistic over the step")
    policy, reference, lengths, labels = example(objective, 6)
    weights = torch.tensor([0.0, 0.5, 1.0, 2.0, 1e-3, 7.0], dtype=torch.float64)
    policy.requires_grad_()
    losses = objective(policy, reference, lengths, BETA, **labels)
    (together,) = torch.autograd.grad((weights @ losses.reshape(6, -1)).sum(), policy)
    for item in range(6):
        one = take(slice(item, item + 1), policy.detach(), reference, lengths, labels)
        alone = one[0].clone().requires_grad_()
        loss = objective(alone, one[1], one[2], BETA, **one[3])
        assert torch.equal(loss, losses[item : item + 1])
        (slope,) = torch.autograd.grad(loss.sum(), alone)
        assert torch.allclose(together[item], weights[item] * slope[0], rtol=1e-13, atol=0)


def test_what_stands_in_masked_entries_is_never_read(objective):
    if "mask" not in LABELS[objective.kind]:
        pytest.skip("no mask")
    policy, reference, lengths, labels = example(objective, 6)
    losses = objective(policy, reference, lengths, BETA, **labels)
    absent = ~labels["mask"]
    assert absent.any()
    for rubbish in (math.nan, math.inf, -math.inf, 1e300):
        spoiled = {name: labels[name].clone() for name in labels}
        if "scores" in labels:
            spoiled["scores"][absent] = rubbish
        else:
            spoiled["ranks"][absent] = -7
        bad_policy = policy.masked_fill(absent, rubbish).requires_grad_()
        again = objective(bad_policy, reference.masked_fill(absent, rubbish), lengths, BETA, **spoiled)
        (slope,) = torch.autograd.grad(again.sum(), bad_policy)
        assert torch.equal(again, losses)
        assert (slope[absent] == 0.0).all()
        assert slope.isfinite().all()


def test_a_tree_of_one_or_no_answer_costs_nothing(objective):
    if "mask" not in LABELS[objective.kind]:
        pytest.skip("no mask")
    policy, reference, lengths, labels = example(objective, 2)
    labels["mask"] = torch.tensor([[True, False, False, False], [False] * 4])
    policy.requires_grad_()
    losses = objective(policy, reference, lengths, BETA, **labels)
    (slope,) = torch.autograd.grad(losses.sum(), policy)
    assert losses.tolist() == [0.0, 0.0]
    assert slope.abs().max() == 0.0


def test_a_function_of_the_prompt_alone_changes_nothing_where_it_should_not(objective):
    """Lemmas 1 and 2: r and r + f(x) are one. `NOT_INVARIANT` names the others."""
    policy, reference, lengths, labels = example(objective, 8)
    shift = torch.linspace(-5.0, -0.1, 8, dtype=torch.float64).unsqueeze(1)
    losses = objective(policy, reference, lengths, BETA, **labels)
    shifted = objective(policy + shift, reference, lengths, BETA, **labels)
    same = torch.allclose(shifted, losses, rtol=0, atol=1e-12)
    assert same is (objective.name not in NOT_INVARIANT)


def test_at_the_reference_the_gradient_raises_the_better_answer(objective):
    _, reference, lengths, labels = example(objective, 8, slots=2)
    if objective.kind == "ranking":
        labels["ranks"] = torch.tensor([0, 1]).expand(8, 2)
    if objective.kind == "scores":
        labels["scores"] = torch.tensor([1.0, 0.0], dtype=torch.float64).expand(8, 2)
    policy = reference.clone().requires_grad_()
    losses = objective(policy, reference, lengths, BETA, **labels)
    (slope,) = torch.autograd.grad(losses.sum(), policy)
    assert (slope[:, 0] < 0.0).all()
    assert (slope[:, 1] > 0.0).all() or objective.kind == "sft"


def test_an_sft_term_adds_the_best_answers_token_loss(objective):
    if objective.kind == "sft":
        with pytest.raises(ValueError, match="sft itself"):
            with_sft(objective, weight=0.5)
        return
    policy, reference, lengths, labels = example(objective, 9)
    both = with_sft(objective, weight=0.4)
    added = both(policy, reference, lengths, BETA, **labels) - objective(
        policy, reference, lengths, BETA, **labels
    )
    for item in range(9):
        best = [0]
        if objective.kind == "ranking":
            best = [k for k in range(4) if labels["mask"][item, k] and labels["ranks"][item, k] == 0]
        if objective.kind == "scores":
            present = [k for k in range(4) if labels["mask"][item, k]]
            top = max(labels["scores"][item, k].item() for k in present)
            best = [k for k in present if labels["scores"][item, k].item() == top]
        token_losses = [-policy[item, k].item() / lengths[item, k].item() for k in best]
        assert added[item].item() == pytest.approx(0.4 * sum(token_losses) / len(best), abs=1e-12)
    assert (both.options, both.kind, both.rewards) == (objective.options, objective.kind, objective.rewards)
    assert with_sft(objective, weight=0.0) is objective


def test_an_sft_term_knows_its_value_at_the_reference(objective):
    if objective.kind == "sft" or not objective.needs_reference:
        pytest.skip("no value at the reference")
    own = {"ranking": {"ranks": [0, 1]}, "scores": {"scores": [1.0, 0.0]}}.get(objective.kind, {})
    labels = {name: torch.tensor([value]) for name, value in own.items()}
    if own:
        labels["mask"] = torch.ones(1, 2, dtype=torch.bool)
    pair, lengths = torch.tensor([[-4.0, -9.0]], dtype=torch.float64), torch.tensor([[2, 3]])
    both = with_sft(objective, weight=0.5)
    value = both.at_reference(BETA, chosen_token_loss=2.0, **own)
    assert both(pair, pair, lengths, BETA, **labels).item() == pytest.approx(value, abs=1e-12)
    assert both.at_reference(BETA, **own) is None


@pytest.mark.parametrize("weight", [-0.1, math.nan])
def test_an_sft_term_of_no_weight_is_refused(weight):
    with pytest.raises(ValueError, match="0 or more"):
        with_sft(OBJECTIVES["sigmoid"], weight=weight)
