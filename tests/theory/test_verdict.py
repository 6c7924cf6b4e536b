"""Every built-in loss has the verdict that its paper, or a few lines of algebra, gives it."""

import pytest
import torch

from likelier.objectives import OBJECTIVES, UnknownLossError, resolve
from likelier.theory.verdict import Trial, verdict
from likelier.theory.world import World

EXPECTED = {
    #                recovers  shift  certain labels  noise
    "sigmoid": (True, True, False, False),  # the loss of (7)
    "robust": (True, True, False, False),  # at ε = 0 the same
    "plackett_luce": (True, True, False, False),  # K = 2 is (7)
    "hinge": (False, True, True, False),  # margins of 1, however likely
    "ipo_sum": (False, True, True, False),  # win rates in place of rewards
    "ipo": (False, False, True, False),  # and divided by lengths
    "simpo": (False, False, False, False),  # no reference, divided by lengths
    "orpo": (False, False, False, False),  # no reference, no β
    "unlikelihood": (
        False,
        False,
        False,
        False,
    ),  # the winners' distribution, and no end where somebody never wins
    "sft": (False, False, False, False),  # the distribution of winners
}


def where():
    return Trial.of(World.random(7, prompts=1, completions=4), beta=0.5)


def test_every_loss_that_can_be_asked_has_its_row():
    askable = {name for name, loss in OBJECTIVES.items() if loss.kind != "scores" and not loss.stepwise}
    assert askable <= set(EXPECTED), "a new loss: what does it recover? add its row"


@pytest.mark.parametrize("name", EXPECTED)
def test_the_verdict_on(name):
    found = verdict(name, where())
    asked = ("recovers", "shift", "deterministic", "noise")
    assert tuple(found[question].holds for question in asked) == EXPECTED[name]
    assert found["class"].holds
    assert found["own problem"].holds == (name == "ipo_sum")
    if not found["recovers"].holds:
        assert found["recovers"].measured > 0.01


@pytest.mark.parametrize(("name", "recovered", "finite"), [("sigmoid", False, True), ("robust", True, False)])
def test_what_it_helps_to_be_told_of_noise(name, recovered, finite):
    """cDPO stays finite where labels are certain and is biased where they are noisy; robust DPO the other way round."""
    found = verdict(name, where())
    assert found["noise, told"].holds == recovered
    assert found["deterministic, told"].holds == finite
    assert not found["deterministic"].holds


def test_cdpo_of_certain_labels_has_the_optimum_worked_out_by_hand():
    """Two completions, ε = 0.1: σ(βd) = 0.9, so d = log 9 / β."""
    world = World.uniform(torch.tensor([[1.0, 0.0]], dtype=torch.float64))
    found = verdict("sigmoid", Trial.of(world, beta=0.5))
    assert found["deterministic, told"].measured == pytest.approx(2 * 2.1972245773362196, abs=1e-9)


def mine(policy, reference, lengths, beta):
    """DPO by another formula."""
    u = beta * (policy - reference).diff(dim=1)[:, 0]
    return torch.nn.functional.softplus(u)


def squared(policy, reference, lengths, beta):
    """`(1 − σ(u))²`: a proper scoring rule, Brier's, so that it recovers π* too, by an argument of its own."""
    u = beta * (policy[:, 0] - policy[:, 1] - reference[:, 0] + reference[:, 1])
    return (1 - torch.sigmoid(u)) ** 2


def without_log(policy, reference, lengths, beta):
    """The slip of the note: `−σ(u)`."""
    u = beta * (policy[:, 0] - policy[:, 1] - reference[:, 0] + reference[:, 1])
    return -torch.sigmoid(u)


def reference_free(policy, reference, lengths, beta):
    """DPO that has forgotten its reference: it sees classes, and recovers nothing."""
    return -torch.nn.functional.logsigmoid(beta * (policy[:, 0] - policy[:, 1]))


@pytest.mark.parametrize(
    ("loss", "recovers"), [(mine, True), (squared, True), (without_log, False), (reference_free, False)]
)
def test_losses_of_ones_own(loss, recovers):
    found = verdict(loss, where())
    assert found["recovers"].holds == recovers
    assert found["shift"].holds
    assert found.loss == loss.__name__
    assert ("finds the optimal policy" in found.words) == recovers or "does not" in found.words


def test_words_go_with_numbers():
    found = verdict("ipo_sum", where())
    assert "solves IPO's" in found.words
    assert f"{found['recovers'].measured:.3f}" in found["recovers"].words
    assert "no finite optimum" in verdict("simpo", where())["deterministic"].words


def test_what_cannot_be_asked():
    with pytest.raises(UnknownLossError, match="did you mean `sigmoid`"):
        verdict("sigmoyd")
    with pytest.raises(ValueError, match="reads scores"):
        verdict(resolve("listwise"))
    with pytest.raises(KeyError):
        verdict("sigmoid", where())["no such finding"]
