"""What a model cannot do as asked, said before the first forward: other weights than the precision's, and rows
longer than its context."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from likelier.data.trees import Tree
from likelier.errors import DataError, UsageError
from likelier.scoring.parts import causal_model
from likelier.scoring.precision import DTYPES, Precision, master_dtype


def require_masters(model: nn.Module, precision: Precision) -> None:
    """Refuse a model in memory whose weights are not the master weights of `precision`.

    Weights that do not train may also be in the precision of the products.

    Raises:
        UsageError: names the weights' dtype and the remedy.

    >>> require_masters(nn.Linear(1, 1), "bfloat16")
    """
    master = master_dtype(precision)
    frozen = {master, DTYPES[precision]}
    wrong = {
        parameter.dtype
        for parameter in model.parameters()
        if parameter.is_floating_point()
        and parameter.dtype not in (frozen if not parameter.requires_grad else {master})
    }
    for dtype in sorted(map(str, wrong)):
        had, wanted = dtype.removeprefix("torch."), str(master).removeprefix("torch.")
        raise UsageError(
            f"the model in memory has {had} weights, and --precision {precision} works on {wanted} ones:"
            f" pass model.to(torch.{wanted})" + (" or --precision float64" if had == "float64" else "")
        )


def require_context(model: nn.Module, trees: Sequence[Tree], *, name: str) -> None:
    """Refuse rows with more tokens than the model has positions.

    Raises:
        DataError: names the longest row and the remedy.
    """
    config: Any = causal_model(model).config.get_text_config()
    positions = getattr(config, "max_position_embeddings", None)
    if not isinstance(positions, int):
        return
    lengths = {tree.id: _longest(tree) for tree in trees}
    too_long = [row for row, length in lengths.items() if length > positions]
    if too_long:
        worst = max(too_long, key=lambda row: lengths[row])
        raise DataError(
            f"{len(too_long)} examples are longer than the context of {name}, {positions} tokens; the longest,"
            f" {worst}, has {lengths[worst]} with its prompt: set --max-length {positions}"
        )


def _longest(tree: Tree) -> int:
    return max(sum(len(tree.nodes[n].tokens) for n in tree.path(branch)) for branch in tree.branches)
