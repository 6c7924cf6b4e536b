"""What the demo runs on."""

from __future__ import annotations

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
