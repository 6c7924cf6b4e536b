"""The same numbers as TRL 1.16 (`make_trl_numbers.py` runs its code), and where the two differ on purpose.

They differ, and are not compared, in:
- sigmoid with label smoothing: TRL ignores it (a test holds that fact);
- the logged reward of ipo: TRL logs β × the summed log-ratio, we β × the per-token one that is compared;
- the logged reward of orpo: TRL logs λ × the mean log-prob, we the log-odds that are compared;
- orpo's token loss: TRL takes it over prompt and completion together; only the odds term is compared, which
  TRL computes in float32.
"""

import json
from pathlib import Path

import pytest
import torch

from likelier.objectives import OBJECTIVES, reward_metrics

TRL = json.loads((Path(__file__).parent / "trl_numbers.json").read_text(encoding="utf-8"))
CASES = TRL["cases"]


def totals(whose):
    sums = [[sum(side) for side in pair[whose]] for pair in TRL["pairs"]]
    return torch.tensor(sums, dtype=torch.float64)


LENGTHS = torch.tensor([[len(side) for side in pair["policy"]] for pair in TRL["pairs"]])


def ignored(case):
    return case["loss"] == "sigmoid" and bool(case["options"])


def name_of(case):
    return f"{case['loss']}-{case.get('beta')}-{case['options']}"


def test_the_numbers_are_of_the_version_compared_with():
    assert TRL["trl_version"].startswith("1.16.")
    assert {case["loss"] for case in CASES} == {"sigmoid", "hinge", "ipo", "robust", "simpo", "orpo"}


@pytest.mark.parametrize("case", [c for c in CASES if "losses" in c and not ignored(c)], ids=name_of)
def test_losses_slopes_and_margins_are_trls(case):
    objective = OBJECTIVES[case["loss"]]
    policy, reference = totals("policy").requires_grad_(), totals("reference")
    losses = objective(policy, reference, LENGTHS, case["beta"], **case["options"])
    assert losses.tolist() == pytest.approx(case["losses"], rel=1e-12, abs=1e-14)
    if "slopes" in case:
        (slopes,) = torch.autograd.grad(losses.sum(), policy)
        assert slopes.tolist() == [pytest.approx(row, rel=1e-11, abs=1e-15) for row in case["slopes"]]
    if case["loss"] != "ipo":
        margins = reward_metrics(objective.rewards(policy, reference, LENGTHS, case["beta"]))[
            "rewards/margins"
        ]
        assert margins.tolist() == pytest.approx(case["margins"], rel=1e-10, abs=1e-13)


@pytest.mark.parametrize("case", [c for c in CASES if ignored(c)], ids=name_of)
def test_trl_ignores_label_smoothing_in_its_sigmoid_loss(case):
    policy, reference = totals("policy"), totals("reference")
    plain = OBJECTIVES["sigmoid"](policy, reference, LENGTHS, case["beta"])
    smoothed = OBJECTIVES["sigmoid"](policy, reference, LENGTHS, case["beta"], **case["options"])
    assert plain.tolist() == pytest.approx(case["losses"], rel=1e-12)
    assert not torch.allclose(smoothed, plain, rtol=1e-3)


@pytest.mark.parametrize("case", [c for c in CASES if "odds_terms" in c], ids=name_of)
def test_the_odds_term_of_orpo_is_trls(case):
    policy = totals("policy")
    losses = OBJECTIVES["orpo"](policy, None, LENGTHS, 0.1, **case["options"])
    token_losses = -policy[:, 0] / LENGTHS[:, 0]
    # TRL returns λ log σ(…), which it subtracts.
    assert (token_losses - losses).tolist() == pytest.approx(case["odds_terms"], rel=2e-6)


def test_the_sft_loss_of_a_step_is_trls():
    sft, weights = OBJECTIVES["sft"], torch.ones(len(LENGTHS))
    nll = sft(totals("policy")[:, 0], None, LENGTHS[:, 0], 0.1)
    step = nll.sum() / sft.denominators(weights, LENGTHS[:, 0]).sum()
    assert step.item() == pytest.approx(TRL["sft_step_loss"], rel=1e-12)
