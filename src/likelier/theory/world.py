"""A world: finite prompts, finite completions, a reference policy and a reward, all of them tables.

A policy is a table of log-probabilities, `[prompts, completions]`, whose rows sum to 1 in probability. Where prompts
have different numbers of completions the rows are filled up with −inf, as any completion of probability 0 is written.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from likelier.theory.shapes import Cells, Existing, PerPrompt

_SUM = 1e-11
"""How far from 1 the probabilities of a row may add up before they are taken for a mistake."""


class WorldError(ValueError):
    """A world that cannot be as it is given; the message names the prompt."""


@dataclass(frozen=True, kw_only=True)
class World:
    """Everything of which the statements of math.md speak.

    Raises:
        WorldError: shapes that differ, probabilities that do not add up to 1, a reward that is not finite.

    >>> world = World.uniform(torch.tensor([[1.0, 0.0, 0.0]], dtype=torch.float64))
    >>> world.log_reference.exp().tolist()[0][0], world.prompts, world.completions
    (0.3333333333333333, ('x1',), (('y1', 'y2', 'y3'),))
    """

    log_reference: Cells
    """log π_ref(y|x); −inf where π_ref(y|x) = 0."""
    reward: Cells
    """r(x, y), in the units of β."""
    prompt_weights: PerPrompt
    """The distribution of x, which adds up to 1."""
    prompts: tuple[str, ...]
    completions: tuple[tuple[str, ...], ...]

    def __post_init__(self) -> None:
        self._check_shapes()
        weights = self.prompt_weights
        if not bool((weights >= 0).all()) or not abs(float(weights.sum()) - 1.0) <= _SUM:
            raise WorldError(f"the weights of the prompts add up to {float(weights.sum()):g}, not to 1")
        for index, prompt in enumerate(self.prompts):
            total = float(self.log_reference[index].exp().sum())
            if not abs(total - 1.0) <= _SUM:
                raise WorldError(
                    f"prompt `{prompt}`: the reference's probabilities add up to {total:g}, not to 1"
                )
            if not bool(self.reward[index].isfinite().all()):
                raise WorldError(f"prompt `{prompt}`: a reward is not finite")
            if bool(self.support[index, len(self.completions[index]) :].any()):
                count = len(self.completions[index])
                raise WorldError(
                    f"prompt `{prompt}`: it has {count} completions, and the reference a probability for another"
                )

    def _check_shapes(self) -> None:
        shape = self.log_reference.shape
        if self.reward.shape != shape or len(shape) != 2 or 0 in shape:
            raise WorldError(f"rewards of shape {tuple(self.reward.shape)} for a reference of {tuple(shape)}")
        if len(self.prompts) != shape[0] or self.prompt_weights.shape != shape[:1]:
            raise WorldError(f"{len(self.prompts)} prompts for a reference over {shape[0]}")
        if len(self.completions) != shape[0] or not all(
            1 <= len(names) <= shape[1] for names in self.completions
        ):
            raise WorldError(f"completions are named for each of {shape[0]} prompts, 1 to {shape[1]} of them")
        for table in (self.log_reference, self.reward, self.prompt_weights):
            if table.dtype != torch.float64:
                raise WorldError(f"a world is of float64, not {table.dtype}")

    @classmethod
    def uniform(cls, reward: Cells) -> World:
        """A world with this reward, in which the reference and the prompts are uniform."""
        return cls.of(torch.zeros_like(reward), reward)

    @classmethod
    def of(cls, logits: Cells, reward: Cells, prompt_weights: PerPrompt | None = None) -> World:
        """A world whose reference is the softmax of `logits` (−inf: not in its support); prompts x1, x2, ….

        >>> World.of(torch.zeros(2, 3).double(), torch.zeros(2, 3).double()).prompt_weights.tolist()
        [0.5, 0.5]
        """
        count, size = logits.shape
        weights = logits.new_full((count,), 1.0 / count) if prompt_weights is None else prompt_weights
        return cls(
            log_reference=logits.log_softmax(dim=-1),
            reward=reward,
            prompt_weights=weights,
            prompts=tuple(f"x{index + 1}" for index in range(count)),
            completions=tuple(tuple(f"y{index + 1}" for index in range(size)) for _ in range(count)),
        )

    @classmethod
    def random(cls, seed: int, *, prompts: int = 3, completions: int = 5, scale: float = 1.0) -> World:
        """A world drawn at random: normal logits, and normal rewards of standard deviation `scale`.

        >>> world = World.random(0)
        >>> world.reward.shape, bool(torch.equal(world.reward, World.random(0).reward))
        (torch.Size([3, 5]), True)
        """
        generator = torch.Generator().manual_seed(seed)
        draw = torch.randn(2, prompts, completions, generator=generator, dtype=torch.float64)
        weights = torch.rand(prompts, generator=generator, dtype=torch.float64) + 0.1
        return cls.of(draw[0], scale * draw[1], weights / weights.sum())

    @property
    def exists(self) -> Existing:
        """Which completions each prompt has: those with a name."""
        numbers = torch.arange(self.reward.shape[1])
        counts = torch.tensor([len(names) for names in self.completions])
        return numbers < counts.unsqueeze(-1)

    @property
    def support(self) -> Existing:
        """Where π_ref(y|x) > 0."""
        return self.log_reference > -torch.inf

    def on_support(self) -> World:
        """The same world without the completions that the reference never gives.

        >>> world = World.of(torch.tensor([[-torch.inf, 0.0, 0.0]]).double(), torch.tensor([[1.0, 2.0, 3.0]]).double())
        >>> world.on_support().completions, world.on_support().reward.tolist()
        ((('y2', 'y3'),), [[2.0, 3.0]])
        """
        width = int(self.support.sum(dim=-1).max())
        # A stable sort brings what has a probability to the left, in its order.
        order = (~self.support).int().argsort(dim=-1, stable=True)[:, :width]
        names = tuple(
            tuple(name for name, kept in zip(row, support, strict=False) if kept)
            for row, support in zip(self.completions, self.support.tolist(), strict=True)
        )
        return replace(
            self,
            log_reference=self.log_reference.gather(-1, order),
            reward=self.reward.gather(-1, order),
            completions=names,
        )

    def with_reward(self, reward: Cells) -> World:
        """The same world with another reward."""
        return replace(self, reward=reward)
