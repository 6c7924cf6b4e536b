"""The settings of `likelier evaluate`; imports nothing heavy, since the command line lists them."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from likelier.data.rows_config import RowsConfig


class EvaluateConfig(RowsConfig):
    """The settings of `likelier evaluate`."""

    positional: ClassVar[tuple[str, ...]] = ("what", "runs")

    what: Literal["preferences"] = Field(description="preferences: how well rewards predict held-out ones")
    runs: list[str] = Field(
        description="run folders of reward or dpo, reward models, or policies (with --reference)"
    )
    data: list[str] = Field(description="preference rows: a file, a datasets folder or a hub name")
    eval_share: float | None = Field(
        None, gt=0, lt=1, description="of the data, only what a run with this --eval-share held out"
    )
    out: Path = Field(description="folder for preferences.csv, .json, .svg and .png")
    reference: str | None = Field(None, description="what policies are compared with; a run knows its own")
    beta: PositiveFloat | None = Field(None, description="of implicit rewards; a run knows its own, else 0.1")
    max_tokens: PositiveInt = Field(2048, description="tokens per forward")
    precision: Literal["bfloat16", "float32", "float64"] | None = Field(
        None, description="bfloat16 where the processor has it, else float32"
    )
    trust_remote_code: bool = Field(False, description="run Python files that come with the model")
    json_: bool = Field(False, description="print the result as one JSON object on stdout")
