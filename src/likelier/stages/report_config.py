"""The settings of `likelier report`; imports nothing heavy, since the command line lists them."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from pydantic import Field, field_validator

from likelier.config import StageConfig


class ReportConfig(StageConfig):
    """The settings of `likelier report`."""

    positional: ClassVar[tuple[str, ...]] = ("runs",)

    runs: list[str] = Field(
        description="run folders, of any stages, and folders that `likelier evaluate` wrote"
    )
    out: Path = Field(description="the page, a file that ends in .html; written anew if it is there")
    json_: bool = Field(
        False, description="print what the page says of the runs as one JSON object on stdout"
    )

    @field_validator("out")
    @classmethod
    def _is_a_page(cls, out: Path) -> Path:
        """What is written anew must not be a run's file by a slip of the keys."""
        if out.suffix.lower() not in (".html", ".htm"):
            raise ValueError(f"--out {out} is a page, and its name ends in .html")
        return out

    @field_validator("runs")
    @classmethod
    def _some(cls, runs: list[str]) -> list[str]:
        if not runs:
            raise ValueError("name at least one run folder: likelier report runs/first --out page.html")
        return runs
