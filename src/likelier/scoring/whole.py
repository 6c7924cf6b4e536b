"""A model and trees in, one number for each branch out: log-probs, or a reward model's values, through the cache."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack

import torch

from likelier.data.trees import Tree
from likelier.errors import UsageError
from likelier.models.loading import Loaded
from likelier.models.noise import silence_noise
from likelier.scoring.cache import LogpCache, cache_folder
from likelier.scoring.equality import choose_way
from likelier.scoring.halfway import settled_halfway
from likelier.scoring.limits import require_context, require_masters
from likelier.scoring.precision import DTYPES, Precision, default_device, default_precision
from likelier.scoring.reference import branch_sums, model_digest, reference_logps
from likelier.scoring.scorer import Scorer


def chosen_precision(asked: Precision | None) -> Precision:
    """The precision asked for, or this machine's.

    Raises:
        UsageError: float64 on CUDA.
    """
    if asked == "float64" and default_device().type == "cuda":
        raise UsageError("--precision float64 is for the CPU; take float32 or bfloat16 on CUDA")
    return asked or default_precision(default_device())


@torch.no_grad()
def score_trees(
    loaded: Loaded,
    trees: Sequence[Tree],
    *,
    precision: Precision,
    max_tokens: int,
    on_progress: Callable[[int, int], None],
) -> list[list[float]]:
    """Per tree and branch the log-prob (of a reward model the value), through the cache that training shares.

    Raises:
        UsageError: a model in memory whose weights are not the precision's.
        DataError: a row longer than the model's context.
    """
    model = loaded.model
    require_masters(model, precision)
    require_context(model, trees, name=loaded.name)
    with ExitStack() as stack:
        stack.callback(silence_noise(model).undo)
        if precision == "bfloat16":
            stack.enter_context(settled_halfway(model.parameters()))
        choice = choose_way(model)
        scorer = Scorer(
            model,
            dtype=DTYPES[precision],
            way=choice.way,
            own_head=choice.own_head,
            max_tokens=max_tokens,
        )
        stack.callback(scorer.close)
        cache = stack.enter_context(LogpCache(cache_folder()))
        numbers = reference_logps(
            scorer, trees, cache=cache, digest=model_digest(scorer), on_progress=on_progress
        )
    return [branch_sums(own).tolist() for own in numbers]
