"""A model that reads packs of token trees, whichever way trees reach it, with our kernels inside."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from likelier.data.trees import Tree, tree_of
from likelier.scoring.attention import ATTENTION, TreePlan
from likelier.scoring.kernels import Kernels
from likelier.scoring.packing import Pack, make_pack, subtree
from likelier.scoring.parts import causal_model, decoder, set_attention
from likelier.scoring.rotary import forget_longest, rotary_limit

Way = Literal["tree", "mask", "rows"]
"""One flat row with tree attention, one flat row with the tree as a dense mask, or each branch an ordinary row."""

Read = Callable[[Pack, Tensor | None], Tensor]
"""What is made of a pack and its mask."""


class Forward:
    """`model` with our forwards and attention, until `remove()`.

    Args:
        model: as `Scorer` takes it.
        dtype: of the inputs of matrix products.
        way: how trees reach the model.
    """

    def __init__(self, model: nn.Module, *, dtype: torch.dtype, way: Way) -> None:
        self.causal = causal_model(model)
        self.way = way
        self.device = next(model.parameters()).device
        self.attention_calls = 0
        """How many layers of the last pack called tree attention."""
        self._rotary_limit = rotary_limit(self.causal.config.get_text_config())
        self._attention = self.causal.config._attn_implementation
        self._attend()
        self.kernels = Kernels(self.causal, dtype=dtype, probe=self._probe)

    def install(self) -> None:
        """Give the model our forwards and attention again."""
        self._attend()
        self.kernels.install()

    def remove(self) -> None:
        """Give it its own."""
        self.kernels.remove()
        set_attention(self.causal, self._attention)

    def through(self, pack: Pack, read: Callable[[Pack, Tensor | None], Tensor]) -> Tensor:
        """What `read` finds in a pack, however trees reach the model."""
        if self.way == "rows" or any(not self.shares_rows(tree) for tree in pack.trees):
            return self._rows(pack, read)
        pack = pack.to(self.device)
        plan = TreePlan(pack.spans)
        mask = plan.carrier(self.device) if self.way == "tree" else self._dense_mask(pack)
        found = read(pack, mask)
        self.attention_calls = plan.calls
        return found

    def hidden(self, pack: Pack, mask: Tensor | None) -> Tensor:
        """Final hidden states `[T, D]`."""
        hidden: Tensor = self.run(decoder(self.causal), pack, mask).last_hidden_state[0]
        return hidden

    def run(self, module: nn.Module, pack: Pack, mask: Tensor | None, **more: Any) -> Any:
        """What `module`, the model or its decoder, gives for a pack."""
        if self._rotary_limit is not None:
            forget_longest(self.causal)
        given = {"attention_mask": mask, "position_ids": pack.position_ids}
        optional = {name: value for name, value in given.items() if value is not None}
        return module(input_ids=pack.input_ids, use_cache=False, **optional, **more)

    def shares_rows(self, tree: Tree) -> bool:
        """Past its rotary limit a model takes its frequencies from the longest position in the call."""
        if self._rotary_limit is None:
            return True
        paths = (tree.path(branch) for branch in tree.branches)
        return max(sum(len(tree.nodes[n].tokens) for n in path) for path in paths) <= self._rotary_limit

    def _rows(self, pack: Pack, read: Callable[[Pack, Tensor | None], Tensor]) -> Tensor:
        """Each branch as an ordinary row: exact for every causal model."""
        rows = [
            make_pack([subtree(tree, [branch])]).to(self.device)
            for tree in pack.trees
            for branch in range(len(tree.branches))
        ]
        # The flat row of a tree of one branch is that branch's ordinary row. `position_ids` are left out: not
        # every model takes them, and in an ordinary row they say nothing.
        return torch.cat([read(replace(row, position_ids=None), None) for row in rows])

    def _dense_mask(self, pack: Pack) -> Tensor:
        """The tree as an additive `[1, 1, T, T]` mask."""
        size = pack.num_tokens
        mask = torch.full((size, size), float("-inf"), dtype=self.causal.dtype)
        for span in pack.spans:
            for start, stop in span.context:
                mask[span.start : span.stop, start:stop] = 0
            own = mask[span.start : span.stop, span.start : span.stop]
            own.copy_(torch.full_like(own, float("-inf")).triu_(1))
        return mask[None, None].to(self.device)

    def _probe(self) -> None:
        # Any vocabulary has a token 0.
        pack = make_pack([tree_of([0, 0], [[0]])]).to(self.device)
        mask = TreePlan(pack.spans).carrier(self.device) if self.way == "tree" else None
        self.hidden(pack if self.way != "rows" else replace(pack, position_ids=None), mask)

    def _attend(self) -> None:
        if self.way == "tree":
            set_attention(self.causal, ATTENTION)
