"""What the machine can do and what the work needs: the matrix-product rate and the FLOP count of a pair.

The rate is `F.linear` at the model's own shapes: forward, gradient of the input, gradient of the weight,
for every linear layer as often as the model has it, and the head on its share of the rows. The count is
that of the floor: 6 FLOP per parameter and token for training and 2 for the reference, each prompt read
once, the head on completion positions only. Attention's own products are left out of both.

    python -m benchmarks.rates --model FOLDER --precision bfloat16 --out RATE.json
"""

from __future__ import annotations

import json
import statistics
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks.common import parser


@dataclass(frozen=True)
class Shapes:
    """The linear layers of a model as `(inputs, outputs) -> how many`, and its head's shape."""

    body: Counter[tuple[int, int]]
    head: tuple[int, int]

    @property
    def body_parameters(self) -> int:
        """Weights that every token passes."""
        return sum(inputs * outputs * count for (inputs, outputs), count in self.body.items())

    @property
    def head_parameters(self) -> int:
        """Weights that scored tokens pass."""
        return self.head[0] * self.head[1]


@dataclass(frozen=True)
class Work:
    """FLOP of a set of trees: the training of it and the reference pass over it."""

    training: float
    reference: float


def work(shapes: Shapes, trees: Sequence[tuple[int, int]]) -> Work:
    """The floor for trees given as `(tokens, scored tokens)`.

    >>> work(Shapes(Counter({(2, 3): 1}), (2, 5)), [(10, 4)])
    Work(training=600.0, reference=200.0)
    """
    products = sum(
        shapes.body_parameters * tokens + shapes.head_parameters * scored for tokens, scored in trees
    )
    return Work(6.0 * products, 2.0 * products)


def tree_sizes(token_counts: Sequence[Sequence[int]]) -> list[tuple[int, int]]:
    """`(tokens, scored tokens)` per tree, from tokens of its prompt and of each of its answers."""
    return [(sum(counts), sum(counts[1:])) for counts in token_counts]


def shapes_of(model: Any) -> Shapes:
    """Shapes of a transformers model, which may lie on the meta device."""
    from torch import nn

    head = model.get_output_embeddings()
    linears = [module for module in model.modules() if isinstance(module, nn.Linear) and module is not head]
    body = Counter((linear.in_features, linear.out_features) for linear in linears)
    return Shapes(body, (head.in_features, head.out_features))


def model_size(folder: str) -> tuple[Shapes, int]:
    """Shapes and number of parameters of the model in a folder, from its configuration alone."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder))
    return shapes_of(model), sum(parameter.numel() for parameter in model.parameters())


def seconds_of(call: Callable[[], object], repeats: int) -> float:
    """The median time of one call, after two that warm it up."""
    times = []
    for turn in range(repeats + 2):
        start = time.perf_counter()
        call()
        if turn >= 2:
            times.append(time.perf_counter() - start)
    return statistics.median(times)


def products_seconds(inputs: int, outputs: int, rows: int, dtype: Any, repeats: int) -> float:
    """Seconds for one linear layer on `rows` tokens: forward and both gradients."""
    import torch
    from torch.nn import functional

    states = torch.randn(rows, inputs).to(dtype)
    weight = torch.randn(outputs, inputs).to(dtype)
    gradient = torch.randn(rows, outputs).to(dtype)
    with torch.no_grad():
        return (
            seconds_of(lambda: functional.linear(states, weight), repeats)
            + seconds_of(lambda: gradient @ weight, repeats)
            + seconds_of(lambda: gradient.t() @ states, repeats)
        )


def measured_rate(shapes: Shapes, *, rows: int, head_rows: int, dtype: Any, repeats: int = 15) -> float:
    """FLOP per second over all products of one micro-batch of `rows` tokens, `head_rows` of them scored."""
    seconds = products_seconds(*shapes.head, head_rows, dtype, repeats)
    for (inputs, outputs), count in shapes.body.items():
        seconds += count * products_seconds(inputs, outputs, rows, dtype, repeats)
    return 6.0 * (shapes.body_parameters * rows + shapes.head_parameters * head_rows) / seconds


def main() -> None:
    import torch

    arguments = parser(__doc__)
    arguments.add_argument("--precision", choices=["bfloat16", "float32"], required=True)
    arguments.add_argument("--rows", type=int, default=2048, help="tokens per micro-batch")
    arguments.add_argument("--head-share", type=float, default=0.45, help="share of them that is scored")
    options = arguments.parse_args()
    torch.set_num_threads(options.threads)
    shapes, _ = model_size(options.model)
    head_rows = round(options.rows * options.head_share)
    dtype = getattr(torch, options.precision)
    rate = measured_rate(shapes, rows=options.rows, head_rows=head_rows, dtype=dtype)
    options.out.write_text(json.dumps({"flop_per_second": rate, "precision": options.precision}))


if __name__ == "__main__":
    main()
