"""How well a reward predicts preferences: accuracy, log loss, calibration, and whether it just reads length.

A reward's margin `u = r(x, y_w) − r(x, y_l)` says that the chosen answer is preferred with probability `σ(u)`:
math.md (1). Which answer stands first is arbitrary, so calibration looks at the favourite: the answer with the higher
reward, its confidence `σ(|u|)` between one half and 1, and how often people preferred it.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from likelier.stats.intervals import Estimate, accuracy_interval, mean_interval

Floats = npt.NDArray[np.float64]
_DRAWS = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Pairs of one kind, and how often the reward's favourite was preferred among them."""

    low: float
    high: float
    """Where the group lies: of confidence, or of the length difference; both ends included for lengths."""
    mean: float
    """Mean confidence, or mean length difference."""
    accuracy: Estimate | None
    """None where no pair lies there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Category:
    """The figures over the pairs of one category; `PreferenceEvaluation` says what each is."""

    name: str
    accuracy: Estimate
    log_loss: Estimate | None
    calibration_error: float | None
    calibration_error_if_calibrated: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PreferenceEvaluation:
    """Figures over all pairs, with intervals clustered by prompt."""

    pairs: int
    prompts: int
    accuracy: Estimate
    """A tie of the rewards counts one half."""
    log_loss: Estimate | None
    """Mean `−log σ(u)`, nats; log 2 for a coin. None, as the four below, where margins are but signs."""
    margin: Estimate | None
    calibration_error: float | None
    """Expected calibration error: mean |accuracy − confidence| over the bins, weighted by their pairs."""
    calibration_error_if_calibrated: float | None
    """Its 95 % quantile for labels drawn from the confidences themselves: what chance alone gives with so few pairs."""
    reliability: tuple[Group, ...]
    by_length: tuple[Group, ...]
    """Of the chosen answer's length less that of the rejected, in equal parts."""
    longer_chosen: Estimate
    """How often the longer answer is the chosen one: the accuracy of a reward that only counts length."""
    by_category: tuple[Category, ...] = ()
    """In the order of their names; empty where all pairs are of one."""
    unit: str = "tokens"
    """Of length."""

    def as_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        return asdict(self)


def evaluate_preferences(
    margins: npt.ArrayLike,
    *,
    length_differences: npt.ArrayLike,
    prompts: Sequence[Hashable],
    categories: Sequence[str] | None = None,
    signs_alone: bool = False,
    unit: str = "tokens",
    bins: int = 10,
    parts: int = 5,
) -> PreferenceEvaluation:
    """The evaluation of a reward on preference pairs.

    Args:
        margins: `[n]`, reward of the chosen less that of the rejected.
        length_differences: `[n]`, length of the chosen less that of the rejected.
        prompts: `[n]`, the prompt of each pair: rows that share one are not independent.
        categories: `[n]`, what each pair is about.
        signs_alone: margins say which answer is preferred and not how surely, as verdicts in words do.
        unit: of length.
        bins: of confidence, equal in width between one half and 1.
        parts: of length difference, equal in pairs as far as equal differences allow.

    Raises:
        ValueError: no pairs, or figures that are not finite.

    >>> found = evaluate_preferences([2.0, 1.0, -0.5, 0.0], length_differences=[5, -3, 4, 1], prompts="abcd")
    >>> found.accuracy.value, round(found.log_loss.value, 4), found.longer_chosen.value
    (0.625, 0.5269, 0.75)
    """
    gaps = np.asarray(margins, np.float64)
    lengths = np.asarray(length_differences, np.float64)
    of_all = _category("", gaps, prompts, signs_alone=signs_alone, bins=bins)
    reliability = () if signs_alone else _reliability(gaps, _sigmoid(np.abs(gaps)), prompts, bins)
    return PreferenceEvaluation(
        pairs=gaps.size,
        prompts=len(set(prompts)),
        accuracy=of_all.accuracy,
        log_loss=of_all.log_loss,
        margin=None if signs_alone else mean_interval(gaps, clusters=prompts),
        calibration_error=of_all.calibration_error,
        calibration_error_if_calibrated=of_all.calibration_error_if_calibrated,
        reliability=reliability,
        by_length=_by_length(gaps, lengths, prompts, parts),
        longer_chosen=accuracy_interval(lengths, clusters=prompts),
        by_category=tuple(
            _category(name, gaps[here], _inside(prompts, here), signs_alone=signs_alone, bins=bins)
            for name, here in _by_name(categories)
        ),
        unit=unit,
    )


def _category(
    name: str, margins: Floats, prompts: Sequence[Hashable], *, signs_alone: bool, bins: int
) -> Category:
    accuracy = accuracy_interval(margins, clusters=prompts)
    if signs_alone:
        return Category(
            name=name,
            accuracy=accuracy,
            log_loss=None,
            calibration_error=None,
            calibration_error_if_calibrated=None,
        )
    confidence = _sigmoid(np.abs(margins))
    return Category(
        name=name,
        accuracy=accuracy,
        log_loss=mean_interval(np.logaddexp(0.0, -margins), clusters=prompts),
        calibration_error=calibration_error(confidence, 0.5 * (1.0 + np.sign(margins)), bins=bins),
        calibration_error_if_calibrated=_by_chance(confidence, bins=bins),
    )


def _by_name(categories: Sequence[str] | None) -> Iterator[tuple[str, npt.NDArray[np.bool_]]]:
    """Each category with where it is; none where there is but one."""
    names = sorted(set(categories or ()))
    for name in names if len(names) > 1 else ():
        yield name, np.asarray([other == name for other in categories or ()])


def calibration_error(confidence: npt.ArrayLike, right: npt.ArrayLike, *, bins: int) -> float:
    """`Σ_b n_b/n |accuracy_b − confidence_b|` over bins of equal width from one half to 1 (arXiv 1706.04599, eq. 3).

    Args:
        confidence: `[n]`, between one half and 1.
        right: `[n]`, 1 where the favourite was preferred, 0 where not, one half on a tie.

    >>> calibration_error([0.7, 0.7, 0.9, 0.9], [1, 0, 1, 1], bins=10)
    0.15
    """
    sure, hits = np.asarray(confidence, np.float64), np.asarray(right, np.float64)
    sums = np.bincount(_bin(sure, bins), weights=hits - sure, minlength=bins)
    return float(round(np.abs(sums).sum() / sure.size, 12))


def _by_chance(confidence: Floats, *, bins: int) -> float:
    draw = np.random.default_rng(0)
    errors = [
        calibration_error(confidence, draw.random(confidence.size) < confidence, bins=bins)
        for _ in range(_DRAWS)
    ]
    return float(np.quantile(errors, 0.95))


def _reliability(
    margins: Floats, confidence: Floats, prompts: Sequence[Hashable], bins: int
) -> tuple[Group, ...]:
    where = _bin(confidence, bins)
    width = 0.5 / bins
    return tuple(
        _group(margins, confidence, prompts, where == b, 0.5 + b * width, 0.5 + (b + 1) * width)
        for b in range(bins)
    )


def _by_length(
    margins: Floats, lengths: Floats, prompts: Sequence[Hashable], parts: int
) -> tuple[Group, ...]:
    """Equal differences stay together, so a part may be larger than others, or missing."""
    edges = np.unique(np.quantile(lengths, np.linspace(0, 1, parts + 1)[1:-1], method="higher"))
    where = np.searchsorted(edges, lengths, side="right")
    return tuple(
        _group(margins, lengths, prompts, chosen, lengths[chosen].min(), lengths[chosen].max())
        for chosen in (where == part for part in range(len(edges) + 1))
        if chosen.any()
    )


def _group(
    margins: Floats,
    measure: Floats,
    prompts: Sequence[Hashable],
    chosen: npt.NDArray[np.bool_],
    low: float,
    high: float,
) -> Group:
    if not chosen.any():
        return Group(low=low, high=high, mean=(low + high) / 2, accuracy=None)
    accuracy = accuracy_interval(margins[chosen], clusters=_inside(prompts, chosen))
    return Group(low=float(low), high=float(high), mean=float(measure[chosen].mean()), accuracy=accuracy)


def _inside(prompts: Sequence[Hashable], chosen: npt.NDArray[np.bool_]) -> list[Hashable]:
    return [prompt for prompt, here in zip(prompts, chosen, strict=True) if here]


def _bin(confidence: Floats, bins: int) -> npt.NDArray[np.intp]:
    return np.minimum(((confidence - 0.5) * 2 * bins).astype(np.intp), bins - 1)


def _sigmoid(values: Floats) -> Floats:
    result: Floats = np.exp(-np.logaddexp(0.0, -values))
    return result
