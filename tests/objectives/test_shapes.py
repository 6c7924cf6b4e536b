"""Shapes are in the types, and the tests' import hook holds every call to them."""

import pytest
import torch
from jaxtyping import TypeCheckError

from likelier.objectives import OBJECTIVES
from likelier.objectives.pairs import sigmoid
from likelier.objectives.rankings import plackett_luce
from likelier.scoring.products import fixed_rows_linear
from likelier.scoring.scorer import sum_branches

PAIRS = torch.zeros(3, 2)


@pytest.mark.parametrize("wrong", [torch.zeros(4, 2), torch.zeros(3, 3), torch.zeros(3), PAIRS.long()])
def test_a_reference_of_another_shape_or_kind_is_caught(wrong):
    """Torch alone would spread a row over all pairs, or subtract whole numbers, without a word."""
    with pytest.raises(TypeCheckError, match="reference"):
        sigmoid(PAIRS, wrong, torch.ones(3, 2), 0.1)


def test_a_margin_is_one_per_pair():
    with pytest.raises(TypeCheckError, match="margin"):
        sigmoid(PAIRS, PAIRS, torch.ones(3, 2), 0.1, margin=torch.zeros(3, 1))


def test_ranks_are_whole_numbers():
    trees = torch.zeros(2, 4)
    with pytest.raises(TypeCheckError, match="ranks"):
        plackett_luce(trees, trees, trees, 0.1, mask=trees == 0, ranks=trees)


def test_scoring_is_held_to_its_shapes_too():
    with pytest.raises(TypeCheckError, match="matrix"):
        fixed_rows_linear(torch.zeros(3, 4), torch.zeros(4, 5))
    with pytest.raises(TypeCheckError, match="logps"):
        sum_branches(torch.zeros(3, 1), [3])


@pytest.mark.parametrize("objective", OBJECTIVES.values(), ids=list(OBJECTIVES))
def test_every_loss_of_the_table_is_checked(objective):
    """Called rightly but for the lengths, which belong to other rows."""
    labels = {"ranking": {"ranks": PAIRS.long()}, "scores": {"scores": PAIRS}}.get(objective.kind, {})
    if labels:
        labels["mask"] = PAIRS == 0
    objective.function(PAIRS, PAIRS, torch.ones(3, 2), 0.1, **labels)
    with pytest.raises(TypeCheckError, match="lengths"):
        objective.function(PAIRS, PAIRS, torch.ones(4, 2), 0.1, **labels)
