"""The whole way on one page: prompts, samples, preferences, DPO, and what it did to answers never trained on.

    likelier demo --out runs/demo
    likelier demo --stages --rounds 2 --out runs/stages

A small language model answers prompts; a true reward (VADER sentiment: the controlled-sentiment setting of
the DPO paper) says which answers are better; DPO makes those likelier; the gain is measured on prompts about
other subjects, with intervals. Stages meet in files under `--out`; `page.html` there tells the story.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from likelier.stages.demo_config import DemoConfig
from likelier.stages.demo_stages import walk_stages
from likelier.stages.demo_walk import walk


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoResult:
    """Where the demo's results are."""

    page: Path
    results: Path
    verdict: str
    """`"gain"`, `"loss"` or `"none"`, as on the page."""


def main(config: DemoConfig) -> int:
    """Runs the demo; an insignificant gain is said on the page and is no failure."""
    if config.stages:
        walk_stages(config)
    else:
        demo(config)
    return 0


def demo(config: DemoConfig) -> DemoResult:
    """Walks the way of the data once and writes the page.

    Raises:
        UsageError: `out` holds an earlier demo, or a setting cannot be used.
        DataError: the prompts lack a split, or the reward prefers nothing.
    """
    page, results, verdict = walk(config)
    return DemoResult(page=page, results=results, verdict=verdict)
