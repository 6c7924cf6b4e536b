"""Intervals for every figure that is reported; imports nothing else of ours."""

from likelier.stats.intervals import (
    Estimate,
    accuracy_interval,
    mean_interval,
    paired_interval,
    ratio_interval,
    wilson,
)

__all__ = ["Estimate", "accuracy_interval", "mean_interval", "paired_interval", "ratio_interval", "wilson"]
