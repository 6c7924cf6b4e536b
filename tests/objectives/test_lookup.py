"""What a user may write as `loss`, and what they are told when it cannot be."""

import sys

import pytest
import torch

from likelier.objectives import (
    OBJECTIVES,
    Objective,
    UnknownLossError,
    UnknownOptionError,
    check_options,
    kway,
    resolve,
    stepwise,
    with_sft,
)
from tests.objectives.examples import example


def squared(policy, reference, lengths, beta):
    """The squared gap of the chosen."""
    return (policy[:, 0] - reference[:, 0]).square() * beta


@pytest.mark.parametrize("name", OBJECTIVES)
def test_names_of_the_table(name):
    assert resolve(name) is OBJECTIVES[name]


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [("sigmod", "sigmoid"), ("IPO", "ipo"), ("plackett-luce", "plackett_luce"), ("simp", "simpo")],
)
def test_a_misspelt_name_is_told_the_nearest(wrong, meant):
    with pytest.raises(UnknownLossError, match=f"did you mean `{meant}`"):
        resolve(wrong)


def test_a_name_like_no_other_is_told_all():
    with pytest.raises(UnknownLossError, match=r"known are sigmoid, robust,.* or `module:function`"):
        resolve("zzz")


def test_a_callable_is_a_pair_loss_with_the_implicit_reward():
    objective = resolve(squared)
    policy, reference, lengths, _ = example(objective, 4)
    assert (objective.name, objective.kind, objective.stepwise) == ("squared", "pair", False)
    assert objective.formula == "The squared gap of the chosen."
    assert torch.equal(objective(policy, reference, lengths, 0.5), squared(policy, reference, lengths, 0.5))
    assert torch.equal(objective.rewards(policy, reference, lengths, 0.5), 0.5 * (policy - reference))
    assert objective.at_reference(0.5) is None
    assert objective.options == ()


def test_a_callable_may_take_an_sft_term():
    objective = resolve(squared)
    policy, reference, lengths, _ = example(objective, 4)
    added = with_sft(objective, weight=2.0)(policy, reference, lengths, 0.5) - squared(
        policy, reference, lengths, 0.5
    )
    assert torch.allclose(added, -2.0 * policy[:, 0] / lengths[:, 0])


def test_a_declared_kway_loss_gets_mask_and_ranks():
    @kway
    def best_first(policy, reference, lengths, beta, *, mask, ranks):
        return -(policy * (mask & (ranks == 0))).sum(dim=1)

    objective = resolve(best_first)
    policy, reference, lengths, labels = example(objective, 5)
    assert objective.kind == "ranking"
    assert objective(policy, reference, lengths, 0.1, **labels).shape == (5,)


def test_a_declared_stepwise_loss_is_so_also_when_kway():
    @stepwise
    @kway
    def mine(policy, reference, lengths, beta, *, mask, ranks):
        return policy.sum(dim=1)

    assert (resolve(mine).stepwise, resolve(mine).kind) == (True, "ranking")
    assert not resolve(squared).stepwise


def test_an_objective_is_itself():
    mine = Objective(name="mine", function=squared, needs_reference=False)
    assert resolve(mine) is mine


@pytest.mark.parametrize(
    "result", [lambda p: p.mean(), lambda p: p, lambda p: p[:1, 0], lambda p: 0.5, lambda p: p[:, :1]]
)
def test_a_loss_that_is_not_one_value_per_pair_is_refused(result):
    objective = resolve(lambda policy, reference, lengths, beta: result(policy))
    policy, reference, lengths, _ = example(objective, 4)
    with pytest.raises(ValueError, match=r"it must return shape \(4,\)"):
        objective(policy, reference, lengths, 0.1)


@pytest.fixture
def own_losses(tmp_path, monkeypatch):
    """A user's module in the current folder, as a console script would see it: not on Python's path."""
    (tmp_path / "my_own_losses.py").write_text(
        "def gap(policy, reference, lengths, beta):\n    return policy[:, 1] - policy[:, 0]\n"
        "number = 3\n"
        "from likelier.objectives import OBJECTIVES\nhinge = OBJECTIVES['hinge']\n"
    )
    monkeypatch.chdir(tmp_path)
    yield "my_own_losses"
    for name in ("my_own_losses", "my_broken_losses"):
        sys.modules.pop(name, None)


def test_module_and_function(own_losses):
    before = list(sys.path)
    objective = resolve(f"{own_losses}:gap")
    assert objective.name == "my_own_losses:gap"
    assert objective(torch.tensor([[-1.0, -3.0]]), None, torch.ones(1, 2), 0.1).tolist() == [-2.0]
    assert resolve(f"{own_losses}:hinge") is OBJECTIVES["hinge"]
    assert sys.path == before


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("no_such_module_here:gap", "no module `no_such_module_here`"),
        ("my_own_losses.deeper:gap", "no module `my_own_losses.deeper`"),
        ("my_own_losses:gaps", "has no `gaps`; did you mean `gap`"),
        ("my_own_losses:", "has no ``"),
        ("my_own_losses:number", "is a int, not a function"),
        (":gap", "no module ``"),
        ("..:gap", "no module `..`"),
    ],
)
def test_an_address_that_leads_nowhere(own_losses, address, message):
    with pytest.raises(UnknownLossError, match=message):
        resolve(address)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "import a_module_that_is_not_there",
            "ModuleNotFoundError: No module named 'a_module_that_is_not_there'",
        ),
        ("def gap(:", "SyntaxError: invalid syntax"),
        ("raise ValueError('no licence')", "ValueError: no licence"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("import sys; sys.exit('bye')", "SystemExit: bye"),
    ],
)
def test_a_fault_inside_the_users_module_is_named_and_kept(own_losses, tmp_path, text, message):
    (tmp_path / "my_broken_losses.py").write_text(text + "\n")
    with pytest.raises(UnknownLossError) as caught:
        resolve("my_broken_losses:gap")
    assert f"`import my_broken_losses` failed with {message}" in str(caught.value)
    assert type(caught.value.__cause__).__name__ == message.partition(":")[0]


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        ("math:sin", r"cannot be called as f\(policy, reference, lengths, beta\): too many positional"),
        (lambda policy, reference, lengths, beta, *, tau: policy[:, 0], "missing a required .*'tau'"),
        (lambda policy, reference: policy[:, 0], "too many positional arguments"),
        (
            kway(lambda policy, reference, lengths, beta: policy[:, 0]),
            r"mask=…, ranks=…\): got an unexpected",
        ),
    ],
)
def test_a_function_that_no_loss_is_called_like_is_refused_at_once(loss, message):
    with pytest.raises(UnknownLossError, match=message):
        resolve(loss)


def test_options_that_a_loss_does_not_read_are_refused():
    check_options(resolve("sigmoid"), ["label_smoothing", "margin"])
    with pytest.raises(UnknownOptionError, match="`hinge` does not read `margin`; sigmoid does"):
        check_options(resolve("hinge"), ["margin"])
    with pytest.raises(UnknownOptionError, match="sigmoid and robust do"):
        check_options(resolve("ipo"), ["label_smoothing"])
    with pytest.raises(UnknownOptionError, match="did you mean `label_smoothing`"):
        check_options(resolve("sigmoid"), ["label_smooth"])
