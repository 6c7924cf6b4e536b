"""Every loss against arithmetic by hand, a second implementation in 50 digits, and equation (9)."""

import itertools
import math

import mpmath
import pytest
import torch

from likelier.objectives import OBJECTIVES, plackett_luce_log_probability
from tests.objectives.examples import example


@pytest.fixture(autouse=True)
def fifty_digits():
    with mpmath.workdps(50):
        yield


def log_sigmoid(x):
    return -mpmath.log(1 + mpmath.exp(-x))


def sigmoid(c, r, p, n, beta, label_smoothing=0.0, margin=0.0):
    u = beta * (c - r) - margin
    return -(1 - label_smoothing) * log_sigmoid(u) - label_smoothing * log_sigmoid(-u)


def robust(c, r, p, n, beta, label_smoothing=0.0):
    u = beta * (c - r)
    terms = -(1 - label_smoothing) * log_sigmoid(u) + label_smoothing * log_sigmoid(-u)
    return terms / (1 - 2 * label_smoothing)


def hinge(c, r, p, n, beta):
    return max(mpmath.mpf(0), 1 - beta * (c - r))


def ipo(c, r, p, n, beta):
    return (c / n[0] - r / n[1] - 1 / (2 * beta)) ** 2


def ipo_sum(c, r, p, n, beta):
    return (c - r - 1 / (2 * beta)) ** 2


def simpo(c, r, p, n, beta, gamma=0.5):
    return -log_sigmoid(beta * (p[0] / n[0] - p[1] / n[1]) - gamma)


def orpo(c, r, p, n, beta, odds_weight=0.1):
    chosen, rejected = mpmath.exp(p[0] / n[0]), mpmath.exp(p[1] / n[1])
    odds_ratio = chosen / (1 - chosen) / (rejected / (1 - rejected))
    return -mpmath.log(chosen) - odds_weight * mpmath.log(odds_ratio / (1 + odds_ratio))


def unlikelihood(c, r, p, n, beta, unlikelihood_weight=0.1):
    return -p[0] + unlikelihood_weight * p[1]


PAIR_TRUTHS = {f.__name__: f for f in (sigmoid, robust, hinge, ipo, ipo_sum, simpo, orpo, unlikelihood)}
OPTIONS = {
    "sigmoid": [{}, {"label_smoothing": 0.1}, {"margin": 0.75}, {"label_smoothing": 0.5, "margin": -2.0}],
    "robust": [{}, {"label_smoothing": 0.1}, {"label_smoothing": 0.49}],
    "simpo": [{}, {"gamma": 0.0}, {"gamma": 1.6}],
    "orpo": [{}, {"odds_weight": 1.0}],
    "unlikelihood": [{}, {"unlikelihood_weight": 0.0}, {"unlikelihood_weight": 1.0}],
}


def test_every_pair_loss_has_a_second_implementation():
    assert set(PAIR_TRUTHS) == {name for name, entry in OBJECTIVES.items() if entry.kind == "pair"}


@pytest.mark.parametrize("beta", [0.01, 0.1, 2.0])
@pytest.mark.parametrize("name", PAIR_TRUTHS)
def test_pair_losses_in_fifty_digits(name, beta):
    objective = OBJECTIVES[name]
    policy, reference, lengths, _ = example(objective, 40)
    for options in OPTIONS.get(name, [{}]):
        losses = objective(policy, reference, lengths, beta, **options)
        for row, loss in enumerate(losses.tolist()):
            p = [mpmath.mpf(x) for x in policy[row].tolist()]
            c, r = (a - mpmath.mpf(b) for a, b in zip(p, reference[row].tolist(), strict=True))
            truth = PAIR_TRUTHS[name](c, r, p, lengths[row].tolist(), mpmath.mpf(beta), **options)
            assert loss == pytest.approx(float(truth), rel=1e-11, abs=1e-13)


POLICY = torch.tensor([[-4.0, -6.0], [-4.0, -6.0]], dtype=torch.float64)
REFERENCE = torch.tensor([[-6.0, -4.0], [-3.0, -9.0]], dtype=torch.float64)
LENGTHS = torch.tensor([[2, 4], [2, 4]])


@pytest.mark.parametrize(
    ("name", "beta", "options", "by_hand"),
    [
        ("sigmoid", 0.5, {}, [math.log1p(math.exp(-2)), math.log1p(math.exp(2))]),
        ("sigmoid", 0.5, {"margin": torch.tensor([2.0, -2.0])}, [math.log(2), math.log(2)]),
        ("sigmoid", 0.5, {"label_smoothing": 0.25}, [0.626928011042973, 1.626928011042973]),
        ("robust", 0.5, {"label_smoothing": 0.25}, [-0.873071988957027, 3.126928011042973]),
        ("hinge", 0.5, {}, [0.0, 3.0]),
        ("hinge", 0.125, {}, [0.5, 1.5]),
        ("ipo", 0.5, {}, [0.25, 5.0625]),
        ("ipo_sum", 0.5, {}, [9.0, 25.0]),
        ("simpo", 2.0, {"gamma": -1.0}, [math.log(2), math.log(2)]),
    ],
)
def test_by_hand(name, beta, options, by_hand):
    """Two pairs with log-ratios (2, −2) and (−1, 3), lengths (2, 4).

    d = 4 and −4, so βd = ±2 at β = 1/2, and log(1 + e⁻²) = 0.126928011042973.
    sigmoid, ε = 1/4: 0.1269 + ε·2 = 0.6269 and 2.1269 − ε·2 = 1.6269.
    robust, ε = 1/4: 2 (3/4 · 0.1269 − 1/4 · 2.1269) = −0.8731 and 2 (3/4 · 2.1269 − 1/4 · 0.1269) = 3.1269.
    ipo: per token (1, −1/2) and (−1/2, 3/4), differences 3/2 and −5/4, less 1: squares 1/4 and 81/16.
    ipo_sum: (4 − 1)² = 9, (−4 − 1)² = 25.
    simpo: means −2 and −3/2, so β(−1/2) + 1 = 0.
    """
    losses = OBJECTIVES[name](POLICY, REFERENCE, LENGTHS, beta, **options)
    assert losses.tolist() == pytest.approx(by_hand, abs=1e-12)


def test_orpo_by_hand():
    """p̄_w = 1/2 over 3 tokens, p̄_l = 1/4 over 2: odds 1 and 1/3, σ(log 3) = 3/4, −log p̄_w = log 2."""
    policy = torch.tensor([[3 * math.log(0.5), 2 * math.log(0.25)]], dtype=torch.float64)
    loss = OBJECTIVES["orpo"](policy, None, torch.tensor([[3, 2]]), 0.1, odds_weight=0.5)
    assert loss.item() == pytest.approx(math.log(2) - 0.5 * math.log(0.75), abs=1e-14)


def test_sft_by_hand_is_a_mean_over_tokens_not_over_rows():
    """−4 over 2 tokens and −1 over 8: 5/10 = 0.5, where a mean of means would be (2 + 1/8)/2 = 1.0625."""
    sft = OBJECTIVES["sft"]
    policy, lengths = torch.tensor([-4.0, -1.0]), torch.tensor([2, 8])
    weights = torch.ones(2)
    step = (weights * sft(policy, None, lengths, 0.1)).sum() / sft.denominators(weights, lengths).sum()
    assert step.item() == 0.5
    weights = torch.tensor([1.0, 0.5])
    step = (weights * sft(policy, None, lengths, 0.1)).sum() / sft.denominators(weights, lengths).sum()
    assert step.item() == 0.75


def test_pairs_divide_by_their_weights():
    assert OBJECTIVES["ipo"].denominators(torch.tensor([0.5, 2.0]), LENGTHS).tolist() == [0.5, 2.0]


@pytest.mark.parametrize("label_smoothing", [0.0, 0.2])
def test_equation_nine(label_smoothing):
    """∇L = −β σ(−u) (∇log π_w − ∇log π_l) for a softmax policy, whose ∇log π(y) is onehot(y) − π by hand.

    With label smoothing the weight is (1−ε) σ(−u) − ε σ(u).
    """
    draw = torch.Generator().manual_seed(5)
    theta = torch.randn(7, generator=draw, dtype=torch.float64, requires_grad=True)
    reference = torch.randn(7, generator=draw, dtype=torch.float64).log_softmax(0)
    beta = 0.7
    for chosen, rejected in itertools.permutations(range(7), 2):
        both = torch.tensor([chosen, rejected])
        log_policy = theta.log_softmax(0)[both].unsqueeze(0)
        loss = OBJECTIVES["sigmoid"](
            log_policy,
            reference[both].unsqueeze(0),
            torch.ones(1, 2),
            beta,
            label_smoothing=label_smoothing,
        )
        (slope,) = torch.autograd.grad(loss.sum(), theta)
        probabilities = theta.detach().softmax(0)
        ratio = (probabilities.log() - reference)[both]
        u = beta * (ratio[0] - ratio[1]).item()
        weight = (1 - label_smoothing) / (1 + math.exp(u)) - label_smoothing / (1 + math.exp(-u))
        basis = torch.eye(7, dtype=torch.float64)
        grad_chosen, grad_rejected = basis[chosen] - probabilities, basis[rejected] - probabilities
        assert torch.allclose(slope, -beta * weight * (grad_chosen - grad_rejected), rtol=0, atol=1e-14)


def ranking_probability(rewards, order):
    """math.md (2), term by term: `order` lists answers best first."""
    probability = mpmath.mpf(1)
    for place in range(len(order)):
        left = [mpmath.exp(mpmath.mpf(rewards[j])) for j in order[place:]]
        probability *= left[0] / sum(left)
    return probability


def ranks_of(order):
    return [order.index(answer) for answer in range(len(order))]


@pytest.mark.parametrize("answers", [1, 2, 3, 4, 5])
def test_plackett_luce_over_all_rankings(answers):
    """Each of the K! rankings has its probability by explicit product, and together they make 1."""
    rewards = torch.randn(answers, generator=torch.Generator().manual_seed(answers), dtype=torch.float64) * 2
    orders = list(itertools.permutations(range(answers)))
    ranks = torch.tensor([ranks_of(order) for order in orders])
    mask = torch.ones_like(ranks, dtype=torch.bool)
    log_probability = plackett_luce_log_probability(rewards.expand(len(orders), -1), mask=mask, ranks=ranks)
    for found, order in zip(log_probability.exp().tolist(), orders, strict=True):
        assert found == pytest.approx(float(ranking_probability(rewards.tolist(), order)), rel=1e-12)
    assert log_probability.exp().sum().item() == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("ranks", [[0, 0, 1], [1, 0, 1], [0, 0, 0], [2, 0, 0, 1, 1], [0, 3, 3, 7]])
def test_ties_are_scored_against_themselves_and_all_lower_groups(ranks):
    """losses.md, as a loop: never against another of the same group. Ranks may have gaps."""
    rewards = torch.randn(len(ranks), generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    truth = mpmath.mpf(0)
    for own, rank in zip(rewards.tolist(), ranks, strict=True):
        lower = [r for r, other in zip(rewards.tolist(), ranks, strict=True) if other > rank]
        truth += own - mpmath.log(mpmath.exp(own) + sum(mpmath.exp(r) for r in lower))
    found = plackett_luce_log_probability(
        rewards.unsqueeze(0), mask=torch.ones(1, len(ranks), dtype=torch.bool), ranks=torch.tensor([ranks])
    )
    assert found.item() == pytest.approx(float(truth), abs=1e-13)


def test_plackett_luce_of_two_is_the_sigmoid_loss():
    policy, reference, lengths, _ = example(OBJECTIVES["sigmoid"], 50)
    flat = {"mask": torch.ones(50, 2, dtype=torch.bool), "ranks": torch.tensor([0, 1]).expand(50, 2)}
    policy.requires_grad_()
    for beta in (0.05, 1.0):
        two = OBJECTIVES["plackett_luce"](policy, reference, lengths, beta, **flat)
        pair = OBJECTIVES["sigmoid"](policy, reference, lengths, beta)
        assert torch.allclose(two, pair, rtol=1e-13, atol=1e-15)
        slopes = [torch.autograd.grad(loss.sum(), policy)[0] for loss in (two, pair)]
        assert torch.allclose(*slopes, rtol=1e-12, atol=1e-16)


def test_plackett_luce_at_the_reference_counts_the_answers_left():
    value = OBJECTIVES["plackett_luce"].at_reference
    assert value(0.1, ranks=[0, 1, 2, 3]) == pytest.approx(math.log(24))
    assert value(0.1, ranks=[0, 0, 1]) == pytest.approx(2 * math.log(2))
    assert value(0.1, ranks=[0, 0]) == value(0.1, ranks=[]) == 0.0
    assert value(0.1) is None


def test_listwise_in_fifty_digits():
    objective = OBJECTIVES["listwise"]
    policy, reference, lengths, labels = example(objective, 12)
    for beta in (0.05, 1.0):
        losses = objective(policy, reference, lengths, beta, **labels)
        for row, loss in enumerate(losses.tolist()):
            kept = labels["mask"][row].nonzero().flatten().tolist()
            scores = [mpmath.exp(mpmath.mpf(labels["scores"][row, k].item()) / beta) for k in kept]
            ratios = [mpmath.mpf(policy[row, k].item()) - mpmath.mpf(reference[row, k].item()) for k in kept]
            total = sum(mpmath.exp(ratio) for ratio in ratios)
            truth = -sum(
                s / sum(scores) * mpmath.log(mpmath.exp(ratio) / total)
                for s, ratio in zip(scores, ratios, strict=True)
            )
            assert loss == pytest.approx(float(truth), rel=1e-11)


def test_the_optimum_of_listwise_is_the_optimal_policy_of_the_tree():
    """π* ∝ π_ref exp(score/β): there the slope is 0, and the loss is the entropy of its target."""
    beta, reference = 0.5, torch.tensor([[0.1, 0.2, 0.3, 0.4]], dtype=torch.float64).log()
    scores = torch.tensor([[1.0, -1.0, 0.0, 0.5]], dtype=torch.float64)
    best = (reference + scores / beta).log_softmax(dim=1).requires_grad_()
    given = {"mask": torch.ones(1, 4, dtype=torch.bool), "scores": scores}
    loss = OBJECTIVES["listwise"](best, reference, torch.ones(1, 4), beta, **given)
    (slope,) = torch.autograd.grad(loss.sum(), best)
    target = (scores / beta).softmax(dim=1)
    assert slope.abs().max() < 1e-15
    assert loss.item() == pytest.approx(-(target * target.log()).sum().item(), abs=1e-14)


@pytest.mark.parametrize("name", ["sigmoid", "robust"])
@pytest.mark.parametrize("wrong", [-0.1, 0.6, math.nan])
def test_label_smoothing_outside_its_range_is_refused(name, wrong):
    with pytest.raises(ValueError, match="label_smoothing must lie"):
        OBJECTIVES[name](POLICY, REFERENCE, LENGTHS, 0.1, label_smoothing=wrong)


def test_robust_at_one_half_would_divide_by_zero_and_is_refused():
    with pytest.raises(ValueError, match=r"\[0, 0.5\)"):
        OBJECTIVES["robust"](POLICY, REFERENCE, LENGTHS, 0.1, label_smoothing=0.5)
