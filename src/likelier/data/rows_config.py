"""The settings that say how rows are read; imports nothing heavy, since the command line lists them."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, PositiveInt

from likelier.config import StageConfig


class RowsConfig(StageConfig):
    """How a stage that trains on rows, or scores them, reads them."""

    heading: ClassVar[str] = "how rows are read"
    format: str | None = Field(None, description="format of the rows, where their columns do not tell")
    columns: str | None = Field(None, description="renames columns: prompt=instruction,chosen=response1")
    as_: Literal["text", "messages"] = Field(
        "text", description="read plain strings as raw text or as chat messages"
    )
    max_length: PositiveInt | None = Field(None, description="tokens of an answer with its prompt, at most")
    cut_answers: bool = Field(
        False, description="cut answers that are too long, rather than refuse their rows"
    )
    allow_template_edits: bool = Field(False, description="keep rows whose text the chat template changes")
    skip_bad_rows: bool = Field(False, description="leave unusable rows out, and print how many of each kind")
