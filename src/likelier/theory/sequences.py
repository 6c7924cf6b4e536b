"""Worlds of sequences: a small alphabet and a greatest length, so that everything a model can answer is a list.

An answer is a string of fewer than `length` letters, closed by the end token, or one of `length` letters, cut there.
The cut ones are outcomes like any other (math.md: samples cut at a length limit estimate the KL of the cut process), so
the probabilities of a model that writes letter by letter add up to 1.

A policy is a table of next-token log-probabilities, `[prompts, prefixes, tokens]`, or equally a table of whole answers,
`[prompts, completions]`: `sequence_policy` and `next_token_policy` lead from one to the other and back.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import TypeAlias

import torch
from torch import Tensor

from likelier.theory.shapes import Cells, NextTokens, PerPrompt
from likelier.theory.world import World, WorldError

END = "."
"""The end token, as it is written in the name of an answer."""
_MOST = 20_000
"""Answers that a world may have; more are a mistake, not a small world."""
_Reach: TypeAlias = list[Tensor]


@dataclass(frozen=True, kw_only=True)
class Sequences:
    """All answers over `letters` of at most `length` tokens, and all prefixes that a next token follows.

    Raises:
        WorldError: no letter, a letter twice or one that is no single character, no length, too many answers.

    >>> small = Sequences(letters="ab", length=2)
    >>> small.prefixes, small.completions
    (('', 'a', 'b'), ('.', 'a.', 'b.', 'aa', 'ab', 'ba', 'bb'))
    >>> small.tokens("a."), small.tokens("ab"), small.is_cut("ab")
    ([0, 2], [0, 1], True)
    """

    letters: str
    length: int
    """The most tokens of an answer, the end token among them."""

    def __post_init__(self) -> None:
        if not self.letters or len({*self.letters}) < len(self.letters) or END in self.letters:
            raise WorldError(f"letters `{self.letters}`: give different characters, none of them `{END}`")
        if self.length < 1:
            raise WorldError(f"answers of {self.length} tokens: an answer has one at least")
        count = sum(len(self.letters) ** size for size in range(self.length + 1))
        if count > _MOST:
            raise WorldError(
                f"{count} answers of {self.length} tokens: take fewer letters or a shorter length"
            )

    @cached_property
    def prefixes(self) -> tuple[str, ...]:
        """What a next token may follow, the shorter first, then in the order of the letters."""
        return tuple(text for size in range(self.length) for text in self._strings(size))

    @cached_property
    def completions(self) -> tuple[str, ...]:
        """Every answer: each prefix closed by the end token, then every cut one."""
        return (*(prefix + END for prefix in self.prefixes), *self._strings(self.length))

    @property
    def vocabulary(self) -> str:
        """The tokens in the order of their ids: the letters, then the end token."""
        return self.letters + END

    def tokens(self, text: str) -> list[int]:
        """The ids of an answer, a prefix or a prompt."""
        return [self.vocabulary.index(character) for character in text]

    def is_cut(self, completion: str) -> bool:
        """Whether the answer was cut at the limit rather than ended."""
        return not completion.endswith(END)

    def completion_of(self, text: str) -> str:
        """The answer that has this text, written with or without its end token.

        >>> [Sequences(letters="ab", length=2).completion_of(text) for text in ("", "a", "a.", "ab")]
        ['.', 'a.', 'a.', 'ab']
        """
        written = text.removesuffix(END)
        return written if len(written) == self.length else written + END

    def _strings(self, size: int) -> tuple[str, ...]:
        return tuple("".join(letters) for letters in product(self.letters, repeat=size))


def sequence_policy(sequences: Sequences, log_next: NextTokens) -> Cells:
    """`log π(y|x) = Σ_t log π(y_t | x, y_<t)`, the end token included and no term after the cut: math.md, notation.

    >>> small = Sequences(letters="a", length=2)
    >>> log_next = torch.tensor([[[0.5, 0.5], [0.25, 0.75]]], dtype=torch.float64).log()
    >>> {y: round(p, 12) for y, p in zip(small.completions, sequence_policy(small, log_next).exp().tolist()[0])}
    {'.': 0.5, 'a.': 0.375, 'aa': 0.125}
    """
    prompts = log_next.shape[0]
    reached = log_next.new_zeros(prompts, 1)
    ended = []
    for level in _levels(sequences, log_next):
        ended.append(reached + level[..., -1])
        reached = (reached[..., None] + level[..., :-1]).reshape(prompts, -1)
    return torch.cat([*ended, reached], dim=-1)


def next_token_policy(sequences: Sequences, log_policy: Cells) -> NextTokens:
    """`π(v | x, y_<t)`: the mass of all answers that begin with `y_<t v` over that of all that begin with `y_<t`.

    Where no answer with a prefix has any mass, what follows it is undetermined: uniform here, by convention.

    >>> small = Sequences(letters="a", length=2)
    >>> log_policy = torch.tensor([[0.5, 0.375, 0.125]], dtype=torch.float64).log()
    >>> [[round(p, 12) for p in row] for row in next_token_policy(small, log_policy).exp().tolist()[0]]
    [[0.5, 0.5], [0.25, 0.75]]
    """
    letters, sizes = len(sequences.letters), _sizes(sequences)
    *ended, mass = log_policy.split([*sizes, letters**sequences.length], dim=-1)
    levels: _Reach = []
    for closed in reversed(ended):
        following = torch.cat([mass.unflatten(-1, (closed.shape[-1], letters)), closed[..., None]], dim=-1)
        mass = following.logsumexp(dim=-1)
        levels.insert(0, following.log_softmax(dim=-1))
    log_next = torch.cat(levels, dim=-2)
    uniform = torch.full_like(log_next, 1.0 / (letters + 1)).log()
    return torch.where(log_next.isnan(), uniform, log_next)


def sequence_world(
    sequences: Sequences,
    log_next: NextTokens,
    reward: Cells,
    *,
    prompts: tuple[str, ...] | None = None,
    prompt_weights: PerPrompt | None = None,
) -> World:
    """The world whose reference writes token by token from `log_next`; prompts x1, x2, … of equal weight unless given.

    Raises:
        WorldError: tables whose shapes are not those of `sequences`, and what `World` refuses.
    """
    count = log_next.shape[0]
    wanted = (count, len(sequences.prefixes), len(sequences.vocabulary))
    if tuple(log_next.shape) != wanted or tuple(reward.shape) != (count, len(sequences.completions)):
        raise WorldError(
            f"next-token table {tuple(log_next.shape)} and rewards {tuple(reward.shape)}: "
            f"{wanted} and {(count, len(sequences.completions))} are those of the alphabet and length"
        )
    equal = log_next.new_full((count,), 1.0 / count)
    return World(
        log_reference=sequence_policy(sequences, log_next),
        reward=reward,
        prompt_weights=equal if prompt_weights is None else prompt_weights,
        prompts=tuple(f"x{index + 1}" for index in range(count)) if prompts is None else prompts,
        completions=(sequences.completions,) * count,
    )


def random_sequence_world(
    sequences: Sequences, seed: int, *, prompts: int = 2, scale: float = 1.0, spread: float = 1.0
) -> World:
    """Next-token logits of standard deviation `spread`, rewards of standard deviation `scale`, all normal.

    >>> small = Sequences(letters="ab", length=3)
    >>> abs(float(random_sequence_world(small, 0).log_reference.exp().sum()) - 2.0) < 1e-12
    True
    """
    generator = torch.Generator().manual_seed(seed)
    shape = (prompts, len(sequences.prefixes), len(sequences.vocabulary))
    logits = spread * torch.randn(shape, generator=generator, dtype=torch.float64)
    draw = torch.randn(prompts, len(sequences.completions), generator=generator, dtype=torch.float64)
    return sequence_world(sequences, logits.log_softmax(dim=-1), scale * draw)


def _sizes(sequences: Sequences) -> list[int]:
    """How many prefixes there are of each length."""
    return [len(sequences.letters) ** size for size in range(sequences.length)]


def _levels(sequences: Sequences, log_next: NextTokens) -> tuple[Tensor, ...]:
    """The rows of `log_next` by the length of their prefix."""
    return tuple(log_next.split(_sizes(sequences), dim=-2))
