"""What is said before step 0 counts every pass."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from likelier.training import opening


@pytest.mark.parametrize(
    ("eval_every", "total", "held", "scored_first", "expected"),
    [
        # Three trees are visited and two held out; evaluated after 2, 4 and 5, and at the start.
        (2, 5, True, True, 3 + 2 + 4 * 2),
        (2, 4, True, True, 3 + 2 + 3 * 2),
        (2, 4, False, True, 3 * 2),
        # Answers that are drawn while training are scored then.
        (2, 4, True, False, 3 * 2),
        # Without --eval-every once, at the end.
        (None, 5, True, True, 3 + 2 + 2),
        (None, 5, False, True, 2),
    ],
)
def test_passes_without_a_gradient(
    eval_every: int | None,
    total: int,
    held: bool,
    scored_first: bool,
    expected: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(opening, "flops", lambda model, trees, training: len(trees))
    config: Any = SimpleNamespace(eval_every=eval_every)
    policy: Any = SimpleNamespace(model=None)
    data: Any = SimpleNamespace(evaluation=["a", "b"])
    plan: Any = SimpleNamespace(trees=list("cdefg"), visited=lambda: [0, 2, 3], total=total)
    method: Any = SimpleNamespace(
        held_to="the start" if held else None, scored_first=scored_first, grown=lambda trees: trees
    )
    assert opening._forwards(config, policy, data, plan, method) == expected
