"""The one thing every stage asks of a model: a number for each branch of token trees. Of a causal model it is the
branch's log-probability, of a reward model the value at its end.

A `Scorer` holds a model in the form that scores fastest and exactly: `tree` (one flat row, tree attention),
`mask` (one flat row, the tree as a dense mask) or `rows` (each branch an ordinary row). Which one is decided
when the model is loaded, by comparing numbers (`equality.py`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor, nn

from likelier.data.trees import Tree
from likelier.models.heads import value_head
from likelier.scoring.distribution import TokenDistribution, TokenFigures, state_values, token_entropies
from likelier.scoring.forward import Forward, Way
from likelier.scoring.head import LogitShape, TokenLogps
from likelier.scoring.packing import Pack, make_pack, pack_trees, split_tree
from likelier.scoring.parts import decoder, read_states


class Scorer:
    """Scores token trees with `model`; restores the model on `close()`.

    Args:
        model: a causal language model of transformers, a sequence classifier of one output over a decoder (a reward
            model), or a PeftModel around either.
        dtype: of the inputs of matrix products; the parameters' own, or bfloat16 for float32 parameters.
        way: how trees reach the model; `equality.choose_way` finds it.
        own_head: the chunked head, where it equals the model's own logits.
        max_tokens: per forward.

    >>> from transformers import LlamaConfig, LlamaForCausalLM
    >>> from likelier.data.trees import tree_of
    >>> config = LlamaConfig(vocab_size=32, hidden_size=16, intermediate_size=16, num_hidden_layers=1,
    ...                      num_attention_heads=2)
    >>> with Scorer(LlamaForCausalLM(config), dtype=torch.float32) as scorer:
    ...     [len(logps) for logps in scorer.score([tree_of([1, 2], [[3, 4], [5]])])[0]]
    [2, 1]
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        dtype: torch.dtype,
        way: Way = "tree",
        own_head: bool = True,
        max_tokens: int = 4096,
    ) -> None:
        self.model = model
        self.dtype = dtype
        self.max_tokens = max_tokens
        self.forward = Forward(model, dtype=dtype, way=way)
        self.causal, self.kernels = self.forward.causal, self.forward.kernels
        self.shape = LogitShape.of(self.causal.config.get_text_config())
        self.own_head = own_head and self.kernels.head is not None
        self.value_head = value_head(self.causal)
        """The output of a reward model; None for a causal model."""

    @property
    def way(self) -> Way:
        """How trees reach the model."""
        return self.forward.way

    @property
    def device(self) -> torch.device:
        """The model's."""
        return self.forward.device

    def __enter__(self) -> Scorer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the model its own forwards and attention back."""
        self.forward.remove()

    def token_logps(self, pack: Pack) -> Tensor:
        """Log-probs of the pack's scored tokens, `[S]` float32 or wider, with their gradient.

        math.md, notation: `log π(y_t | x, y_<t)`.
        """
        return self.forward.through(pack, self._logps)

    def token_figures(self, pack: Pack, value_head: nn.Linear | None = None) -> TokenFigures:
        """Log-probs, entropies and, with a value head, values of the pack's scored tokens, all by one forward.

        Args:
            value_head: reads the hidden state that predicts a token: the value of the state in which it is drawn.
        """
        found = self.forward.through(pack, lambda row, mask: self._figures(row, mask, value_head))
        logps, entropies, *values = found.unbind(1)
        return TokenFigures(logps, entropies, values[0] if values else None)

    def end_states(self, pack: Pack) -> Tensor:
        """Final hidden states at the branches' last tokens, `[B, D]` float32 or wider, with their gradient.

        Raises:
            ValueError: a branch without any token, its prompt empty too.
        """
        if bool((pack.ends < 0).any()):
            raise ValueError("a branch without any token has no end")
        return self.forward.through(pack, self._ends)

    def make_packs(self, trees: Sequence[Tree], *, max_tokens: int | None = None) -> list[list[int]]:
        """Indices into `trees`, pack by pack; trees that cannot share a row with others are kept apart."""
        budget = max_tokens or self.max_tokens
        packed = [i for i, tree in enumerate(trees) if self.forward.shares_rows(tree)]
        alone = [[i] for i, tree in enumerate(trees) if not self.forward.shares_rows(tree)]
        packs = pack_trees([trees[i] for i in packed], max_tokens=budget)
        return [[packed[i] for i in pack] for pack in packs] + alone

    def branch_logps(self, pack: Pack) -> Tensor:
        """Log-probs of the pack's branches, `[B]` float64: sums over scored tokens, in one fixed order."""
        return sum_branches(self.token_logps(pack), pack.lengths)

    def branch_values(self, pack: Pack) -> Tensor:
        """Values of the pack's branches, `[B]` float64: the head's output on each branch's last token.

        math.md (3): `r_φ(x, y)`. Of a model with a `value_head` alone.
        """
        head = self.value_head
        assert head is not None
        # In float64, row by row: a sum never depends on the pack, and the head costs nothing in any precision.
        products = self.end_states(pack).double() * head.weight[0].double()
        values = torch.stack([row.sum() for row in products.unbind()])
        return values if head.bias is None else values + head.bias.double()

    def branches(self, pack: Pack) -> Tensor:
        """What the model says of each branch, `[B]` float64: its log-prob, or its value where it is a reward model."""
        return self.branch_logps(pack) if self.value_head is None else self.branch_values(pack)

    @torch.no_grad()
    def score(self, trees: Sequence[Tree], *, max_tokens: int | None = None) -> list[list[Tensor]]:
        """Per tree and branch the log-probs of its scored tokens (of a reward model, `[1]`: its value), on the CPU."""
        return [logps for _, logps in sorted(self.score_each(trees, max_tokens=max_tokens))]

    def score_each(
        self, trees: Sequence[Tree], *, max_tokens: int | None = None
    ) -> Iterator[tuple[int, list[Tensor]]]:
        """The same pack after pack, as `(index of the tree, its branches' numbers)`."""
        budget = max_tokens or self.max_tokens
        parts = [(i, part) for i, tree in enumerate(trees) for part in split_tree(tree, max_tokens=budget)]
        waiting = Counter(i for i, _ in parts)
        done: dict[int, dict[int, list[Tensor]]] = {}
        for indices in self.make_packs([part for _, part in parts], max_tokens=budget):
            pack = make_pack([parts[i][1] for i in indices])
            with torch.no_grad():
                branches = self._split(pack)
            for i in indices:
                tree = parts[i][0]
                own = [branches.pop(0) for _ in parts[i][1].branches]
                if waiting[tree] == 1:
                    yield tree, own
                    continue
                done.setdefault(tree, {})[i] = own
                if len(done[tree]) == waiting[tree]:
                    yield tree, [b for _, part in sorted(done.pop(tree).items()) for b in part]

    @contextmanager
    def plain(self) -> Iterator[nn.Module]:
        """The model as transformers runs it, for as long as the context lasts (to sample, say)."""
        self.close()
        try:
            yield self.model
        finally:
            self.forward.install()

    def _split(self, pack: Pack) -> list[Tensor]:
        """Branch by branch, what `score` gives."""
        if self.value_head is None:
            return list(self.token_logps(pack).cpu().split(list(pack.lengths)))
        return list(self.branch_values(pack).cpu().split(1))

    def _logps(self, pack: Pack, mask: Tensor | None) -> Tensor:
        if not self.own_head:
            return self._model_head(pack, mask)
        hidden = self.forward.hidden(pack, mask)
        return self._head(hidden.index_select(0, pack.predictors), pack.targets)

    def _ends(self, pack: Pack, mask: Tensor | None) -> Tensor:
        ends = self.forward.hidden(pack, mask).index_select(0, pack.ends)
        return ends.to(torch.promote_types(ends.dtype, torch.float32))

    def _figures(self, pack: Pack, mask: Tensor | None, value_head: nn.Linear | None) -> Tensor:
        """`[S, 2]`, or `[S, 3]` with values."""
        if self.own_head:
            states = self.forward.hidden(pack, mask).index_select(0, pack.predictors)
            weights = self.kernels.head
            assert weights is not None
            figures = TokenDistribution.apply(  # type: ignore[no-untyped-call]
                *(states, weights, pack.targets, self.shape, torch.is_grad_enabled(), *weights.parameters)
            )
        else:
            with read_states(decoder(self.causal)) as read:
                logps = self._model_logps(pack, mask)
            states = read[0].index_select(0, pack.predictors)
            figures = logps.gather(1, pack.targets[:, None])[:, 0], token_entropies(logps)
        values = () if value_head is None else (state_values(states, value_head).to(figures[0].dtype),)
        return torch.stack([*figures, *values], 1)

    def _head(self, hidden: Tensor, targets: Tensor) -> Tensor:
        weights = self.kernels.head
        assert weights is not None
        logps: Tensor = TokenLogps.apply(  # type: ignore[no-untyped-call]
            hidden, weights, targets, self.shape, torch.is_grad_enabled(), *weights.parameters
        )
        return logps

    def _model_head(self, pack: Pack, mask: Tensor | None) -> Tensor:
        """Through the model's own logits at those positions."""
        chosen: Tensor = self._model_logps(pack, mask).gather(1, pack.targets[:, None])[:, 0]
        return chosen

    def _model_logps(self, pack: Pack, mask: Tensor | None) -> Tensor:
        """Of the whole vocabulary at the positions that predict a scored token, `[S, V]`."""
        index, inverse = torch.unique(pack.predictors, return_inverse=True)
        out = self.forward.run(self.causal, pack, mask, logits_to_keep=index)
        wide: Tensor = out.logits[0].to(torch.promote_types(out.logits.dtype, torch.float32))
        return wide.log_softmax(-1).index_select(0, inverse)


def sum_branches(logps: Float[Tensor, " tokens"], lengths: Sequence[int]) -> Float[Tensor, " branches"]:
    """`[S]` -> `[B]` float64, branch by branch: the order of a sum never depends on the pack."""
    parts = logps.double().split(list(lengths))
    return torch.stack([part.sum() for part in parts]) if parts else logps.new_zeros(0, dtype=torch.float64)
