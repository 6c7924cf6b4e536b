"""The settings of `likelier check`; imports nothing heavy, since the command line lists them."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from likelier.config import StageConfig


class CheckConfig(StageConfig):
    """Settings of `likelier check`. Where a name ends in `_`, the flag is without it."""

    data: list[str] = Field(
        description="file, `datasets` folder or hub name; may be repeated, `=0.5` takes a share"
    )
    format: str | None = Field(
        None, description="name of the rows' format, where their columns do not tell it"
    )
    columns: str | None = Field(None, description="columns to rename: prompt=instruction,chosen=response1")
    as_: Literal["text", "messages"] = Field("text", description="what plain strings are: raw text, or turns")
    model: str | None = Field(
        None, description="model whose tokenizer and template the tokens are checked with"
    )
    max_length: int | None = Field(
        None, ge=1, description="tokens of a prompt with an answer, above which is cut"
    )
    cut_answers: bool = Field(False, description="whether answers that are too long may be cut, too")
    allow_template_edits: bool = Field(False, description="keep rows whose text the chat template changes")
    examples: int = Field(
        3, ge=0, le=100, description="how many examples to show, of each kind and of the rows"
    )
    fix: Path | None = Field(None, description="file for the usable rows, in the canonical form")
    rejected: Path | None = Field(None, description="file for the unusable rows, with reasons")
    json_: bool = Field(False, description="print the result as one JSON object")
