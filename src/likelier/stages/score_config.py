"""The settings of `likelier score`; imports nothing heavy, since the command line lists them."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from likelier.data.rows_config import RowsConfig


class ScoreConfig(RowsConfig):
    """The settings of `likelier score`."""

    model: str = Field(
        "smollm2", description="folder, hub name, .gguf file, adapter folder, or smollm2 (embedded)"
    )
    reward: str | None = Field(
        None,
        description="in place of --model: rewards by a reward model or classifier (folder or hub name), vader,"
        " length, json, regex:PATTERN or module:function",
    )
    data: list[str] = Field(description="rows with completions: a file, a datasets folder or a hub name")
    reference: str | None = Field(
        None, description="a model to compare with: adds reference_logps and rewards"
    )
    beta: PositiveFloat = Field(0.1, description="of the rewards")
    out: Path | None = Field(None, description="where the lines go; stdout unless given")
    max_tokens: PositiveInt = Field(2048, description="tokens per forward")
    precision: Literal["bfloat16", "float32", "float64"] | None = Field(
        None, description="bfloat16 where the processor has it, else float32"
    )
    trust_remote_code: bool = Field(False, description="run Python files that come with the model")
    json_: bool = Field(False, description="print a summary as one JSON object on stdout")

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        """Log-probs of a model, or rewards."""
        for name in ("model", "reference", "beta") if self.reward is not None else ():
            if name in self.model_fields_set:
                raise ValueError(f"--reward gives rewards by itself, without --{name}; leave one of them out")
        return self
