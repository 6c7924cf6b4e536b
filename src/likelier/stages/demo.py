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
from typing import Self

from pydantic import Field, model_validator

from likelier.config import StageConfig


class DemoConfig(StageConfig):
    """What the demo runs on; every part can be swapped."""

    model: str | None = Field(
        default=None, description="folder, hub name or GGUF; by default SmolLM2-135M-Instruct"
    )
    prompts: Path | None = Field(
        default=None,
        description='rows with "prompt", "split" (train or held-out) and "subject"; by default our own',
    )
    reward: str = Field(
        default="vader", description="vader, length, regex:PATTERN, module:function or a classifier"
    )
    out: Path = Field(
        default=Path("runs/demo"), description="the folder for samples, preferences, run and page"
    )
    overwrite: bool = Field(default=False, description="replace an earlier demo in --out")
    stages: bool = Field(
        default=False, description="every stage by its command: sample, label, reward, dpo, and again"
    )
    rounds: int = Field(
        default=2, ge=1, description="of --stages: answers, preferences and DPO, so many times"
    )
    quick: bool = Field(default=False, description="a third of the time: every third prompt, fewer answers")
    beta: float = Field(default=0.1, gt=0, description="how closely the policy is held to the reference")
    learning_rate: float = Field(default=2e-5, gt=0, description="of AdamW")
    batch_size: int = Field(default=16, ge=1, description="pairs per step")
    max_new_tokens: int = Field(default=28, ge=1, description="answers are cut there")
    seed: int = Field(default=0, ge=0, description="of every random number")

    @model_validator(mode="after")
    def _belong_together(self) -> Self:
        if "rounds" in self.model_fields_set and not self.stages:
            raise ValueError("--rounds needs --stages")
        return self


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
        from likelier.stages.demo_stages import walk_stages

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
    from likelier.stages.demo_walk import walk

    page, results, verdict = walk(config)
    return DemoResult(page=page, results=results, verdict=verdict)
