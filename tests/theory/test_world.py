"""What a world is, and what cannot be one."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given

from likelier.theory.world import World, WorldError
from tests.theory.worlds import worlds


def parts(**other: Any) -> dict[str, Any]:
    """A world of two prompts, the second with one completion less."""
    given: dict[str, Any] = {
        "log_reference": torch.tensor([[0.5, 0.25, 0.25], [0.5, 0.5, 0.0]]).double().log(),
        "reward": torch.zeros(2, 3).double(),
        "prompt_weights": torch.tensor([0.25, 0.75]).double(),
        "prompts": ("p", "q"),
        "completions": (("a", "b", "c"), ("a", "b")),
    }
    return given | other


def test_rows_may_be_of_different_length() -> None:
    world = World(**parts())
    assert world.exists.tolist() == [[True, True, True], [True, True, False]]
    assert world.support.tolist() == [[True, True, True], [True, True, False]]


def unchecked(**given: Any) -> World:
    """Not looked at yet: the tests' check of annotations would speak before `__post_init__` does."""
    world = object.__new__(World)
    for name, value in given.items():
        object.__setattr__(world, name, value)
    return world


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"reward": torch.zeros(2, 2).double()}, "rewards of shape"),
        ({"log_reference": torch.zeros(0, 3).double(), "reward": torch.zeros(0, 3).double()}, "of shape"),
        ({"prompts": ("p",)}, "1 prompts for a reference over 2"),
        ({"prompt_weights": torch.tensor([1.0]).double()}, "prompts for a reference over 2"),
        ({"prompt_weights": torch.tensor([1.5, -0.5]).double()}, "weights of the prompts"),
        ({"prompt_weights": torch.tensor([0.5, 0.6]).double()}, "add up to 1.1"),
        ({"prompt_weights": torch.tensor([0.5, torch.nan]).double()}, "weights of the prompts"),
        ({"completions": (("a", "b", "c"),)}, "completions are named"),
        ({"completions": (("a", "b", "c"), ())}, "completions are named"),
        ({"completions": (("a", "b", "c"), ("a",))}, "prompt `q`: it has 1 completions"),
        ({"completions": (("a", "b", "c"), ("a", "b", "c", "d"))}, "completions are named"),
        ({"log_reference": torch.full((2, 3), 0.3).double().log()}, "prompt `p`: .* add up to 0.9, not to 1"),
        ({"log_reference": torch.full((2, 3), torch.nan).double()}, "prompt `p`: .* add up to nan"),
        ({"reward": torch.tensor([[0.0, 0.0, 0.0], [0.0, torch.nan, 0.0]]).double()}, "prompt `q`: a reward"),
        ({"reward": torch.tensor([[0.0, torch.inf, 0.0], [0.0, 0.0, 0.0]]).double()}, "prompt `p`: a reward"),
    ],
)
def test_what_cannot_be_a_world(other: dict[str, Any], message: str) -> None:
    with pytest.raises(WorldError, match=message):
        unchecked(**parts(**other)).__post_init__()


def test_another_precision_is_refused() -> None:
    with pytest.raises(WorldError, match=r"float64, not torch\.float32"):
        unchecked(**parts(reward=torch.zeros(2, 3))).__post_init__()


@given(world=worlds(full_support=False))
def test_what_is_left_of_a_world_on_its_support(world: World) -> None:
    left = world.on_support()
    for row in range(len(world.prompts)):
        kept = world.support[row]
        names = [name for name, keep in zip(world.completions[row], kept, strict=False) if keep]
        assert left.completions[row] == tuple(names)
        count = len(names)
        assert torch.equal(left.log_reference[row, :count], world.log_reference[row, kept])
        assert torch.equal(left.reward[row, :count], world.reward[row, kept])
    assert torch.equal(left.support, left.exists)
    assert torch.equal(left.prompt_weights, world.prompt_weights)
