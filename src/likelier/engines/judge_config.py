"""The settings of a judge, whichever stage asks it; imports nothing heavy, since the command line lists them."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from likelier.config import StageConfig


class JudgeConfig(StageConfig):
    """Who judges, and how it is asked."""

    heading: ClassVar[str] = "a judge"
    judge: Literal["local", "openai"] = Field(
        "local", description="judge: a model loaded here, or one behind an OpenAI-compatible address"
    )
    judge_model: str | None = Field(
        None, description="judge: folder, hub name, .gguf file or smollm2; of a server, its name there"
    )
    verdict: Literal["text", "log-odds"] = Field(
        "text", description="judge: what it writes, or the log-odds of A and B (local alone)"
    )
    rubric: Path | None = Field(
        None, description="judge: a file with {prompt}, {answer_a}, {answer_b}, {verdict}; ours unless given"
    )
    judge_max_tokens: PositiveInt = Field(256, description="judge: of what it writes")
    base_url: str | None = Field(None, description="openai judge: its address, as http://127.0.0.1:8000/v1")
    api_key_variable: str | None = Field(None, description="openai judge: environment variable with the key")
    concurrency: PositiveInt = Field(8, description="openai judge: questions under way at once")
    retries: NonNegativeInt = Field(5, description="openai judge: attempts after a failed one")
    timeout: PositiveFloat = Field(600.0, description="openai judge: seconds for one answer")

    def check_judge(self) -> None:
        """Settings that this judge needs, and those that it never reads.

        Raises:
            ValueError: what is missing or too much.
        """
        if (self.base_url is None) == (self.judge == "openai"):
            raise ValueError("--judge openai and --base-url belong together: give both or neither")
        if self.judge == "openai" and self.verdict == "log-odds":
            raise ValueError("--verdict log-odds reads the model's own probabilities: it needs --judge local")
        kind = "--verdict log-odds" if self.verdict == "log-odds" else f"--judge {self.judge}"
        unread = ["judge_max_tokens"] if self.verdict == "log-odds" else []
        if self.judge == "local":
            unread += ["api_key_variable", "concurrency", "retries", "timeout"]
        for name in unread:
            if name in self.model_fields_set:
                raise ValueError(f"--{name.replace('_', '-')} says nothing to {kind}; leave it out")
