"""Intervals for every figure that is reported; imports nothing else of ours."""

from likelier.stats.intervals import (
    Estimate,
    accuracy_interval,
    mean_interval,
    paired_interval,
    rate_interval,
    ratio_interval,
    wilson,
)
from likelier.stats.preferences import PreferenceEvaluation, evaluate_preferences

__all__ = [
    "Estimate",
    "PreferenceEvaluation",
    "accuracy_interval",
    "evaluate_preferences",
    "mean_interval",
    "paired_interval",
    "rate_interval",
    "ratio_interval",
    "wilson",
]
