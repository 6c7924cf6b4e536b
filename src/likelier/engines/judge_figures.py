"""What a judge's verdicts say about the judge: bias for a place, agreement with itself, accuracy, cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from typing import Any

from likelier.data.canonical import prompt_digest
from likelier.engines.judges import Said
from likelier.engines.protocol import Failure
from likelier.engines.verdicts import Judged
from likelier.stats.intervals import Estimate, accuracy_interval


def figures_of(judged: Sequence[Judged], *, asked: int, known: int) -> dict[str, Any]:
    """Counts and intervals over all pairs, clustered by prompt: pairs of one prompt are not independent."""
    decided = [one for one in judged if one.labelled]
    replies = [reply for one in judged for reply in one.replies]
    failures = Counter(reply.reason for reply in replies if isinstance(reply, Failure))
    said = [reply for reply in replies if isinstance(reply, Said)]
    sides = [(one, side) for one in judged for side in one.sides if side in ("A", "B")]
    labels = [one for one in decided if one.case.label is not None]
    return {
        "judged": len(decided),
        "ties": sum(one.winner is None for one in decided),
        "unparsable": len(said) - sum(side is not None for one in judged for side in one.sides),
        "failures": dict(failures),
        "first_shown_wins": _share(
            [1.0 if side == "A" else -1.0 for _, side in sides], _prompts([one for one, _ in sides])
        ),
        "orders_agree": _share([1.0 if _agrees(one) else -1.0 for one in decided], _prompts(decided)),
        "accuracy": _share([_hit(one) for one in labels], _prompts(labels)),
        "questions": {"asked": asked, "answered_before": known},
        "tokens": {
            "prompt": sum(reply.prompt_tokens for reply in said),
            "completion": sum(reply.completion_tokens for reply in said),
        },
    }


def _agrees(one: Judged) -> bool:
    return one.sides in (("A", "B"), ("B", "A"), ("tie", "tie"))


def _hit(one: Judged) -> float:
    """1 where the judge says what the label says, 0 for a tie, −1 for the opposite."""
    return 0.0 if one.winner is None else 1.0 if one.winner == one.case.label else -1.0


def _prompts(judged: Sequence[Judged]) -> list[Hashable]:
    return [prompt_digest(one.case.record.prompt) for one in judged]


def _share(margins: list[float], clusters: list[Hashable]) -> dict[str, Any] | None:
    if not margins:
        return None
    found: Estimate = accuracy_interval(margins, clusters=clusters)
    return {"value": found.value, "low": found.low, "high": found.high, "n": found.n, "told": str(found)}
