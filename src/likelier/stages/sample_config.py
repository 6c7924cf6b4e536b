"""The settings of `likelier sample`; imports nothing heavy, since the command line lists them."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from likelier.config import StageConfig
from likelier.flags import flag

SERVER_ONLY = ("base_url", "api_key_variable", "concurrency", "retries", "timeout", "skip_failed")
LOCAL_ONLY = ("precision", "trust_remote_code", "strength", "reference")
DRAWING = ("n", "temperature", "top_p", "top_k", "min_p", "max_new_tokens", "stop", "seed")
"""What stands as `sampling` in every row."""


class SampleConfig(StageConfig):
    """The settings of `likelier sample`."""

    model: str = Field(
        "smollm2",
        description="folder, hub name, .gguf file, adapter folder, smollm2; or the server's name for it",
    )
    prompts: str = Field(description="rows with a prompt and, if wanted, an id; or a .txt file of one a line")
    out: Path | None = Field(None, description="the file to write, one line per prompt")
    format: str = Field(
        "prompts", description="format of the rows; that of preferences takes each of their prompts once"
    )
    as_: Literal["text", "messages"] = Field(
        "text", description="read plain strings as raw text or as a user's turn"
    )
    n: PositiveInt = Field(4, description="answers per prompt")
    strength: float | None = Field(
        None,
        ge=0,
        description="mix with the reference, token by token: 0 is the reference, 1 the model, above goes beyond it",
    )
    reference: str | None = Field(
        None, description="of --strength; a run and an adapter know what they were trained from"
    )
    temperature: float = Field(1.0, ge=0, description="0 takes the likeliest token every time")
    top_p: float = Field(1.0, gt=0, le=1, description="draw from the smallest set of tokens of this mass")
    top_k: int = Field(0, ge=0, description="draw from this many likeliest tokens; 0 is all")
    min_p: float = Field(
        0.0, ge=0, le=1, description="draw from tokens this share as likely as the likeliest"
    )
    max_new_tokens: PositiveInt = Field(64, description="answers are cut there")
    stop: list[str] = Field([], description="an answer ends before this text; may be repeated")
    seed: int = Field(0, description="with prompt id and answer number, the source of all random numbers")
    engine: Literal["transformers", "openai"] = Field(
        "transformers", description="run the model here, or ask an OpenAI-compatible server"
    )
    base_url: str | None = Field(None, description="the server's address, as http://127.0.0.1:8000/v1")
    api_key_variable: str | None = Field(None, description="environment variable that holds the server's key")
    concurrency: PositiveInt = Field(8, description="requests to the server under way at once")
    retries: int = Field(5, ge=0, description="times a failed request is sent again")
    timeout: PositiveFloat = Field(600.0, description="seconds for one answer of the server")
    skip_failed: bool = Field(
        False, description="write the file without prompts that the server did not answer"
    )
    precision: Literal["bfloat16", "float32"] | None = Field(
        None, description="bfloat16 where the processor has it, else float32"
    )
    trust_remote_code: bool = Field(False, description="run Python files that come with the model")
    skip_bad_rows: bool = Field(False, description="leave unusable rows out, and print how many of each kind")
    resume: bool = Field(False, description="go on with what a stopped run of the same settings has left")
    overwrite: bool = Field(False, description="replace the file, and what a stopped run has left")
    dry_run: bool = Field(
        False, description="say what would be done and what it costs, load no weights, write nothing"
    )
    json_: bool = Field(False, description="print a summary as one JSON object on stdout")

    @model_validator(mode="after")
    def _engines(self) -> SampleConfig:
        """No flag without a reader: those of the other engine are refused."""
        server = self.engine == "openai"
        for name in LOCAL_ONLY if server else SERVER_ONLY:
            if name in self.model_fields_set and getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(
                    f"{flag(name)} is for --engine {'transformers' if server else 'openai'}; leave it out"
                )
        if self.reference is not None and self.strength is None:
            raise ValueError("--reference is what --strength mixes with; give both, or leave it out")
        if server and not self.base_url:
            raise ValueError("--engine openai needs --base-url, as http://127.0.0.1:8000/v1")
        if server and "model" not in self.model_fields_set:
            raise ValueError("--engine openai needs --model, the name that the server has for it")
        if self.resume and self.overwrite:
            raise ValueError("--resume goes on and --overwrite begins anew: give one of them")
        if not all(self.stop):
            raise ValueError("--stop needs text: an empty one would end every answer before it begins")
        return self
