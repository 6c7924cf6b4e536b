"""The settings of `likelier theory`; imports nothing heavy, since the command line lists them."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, PositiveFloat

from likelier.config import StageConfig


class TheoryConfig(StageConfig):
    """The settings of `likelier theory`."""

    world: Path | None = Field(
        None, description="a world of your own, as examples/worlds/rain.yaml; by default three of ours"
    )
    loss: str | None = Field(
        None, description="a loss to put through the same worlds: a name, or module:function of your own"
    )
    beta: PositiveFloat | None = Field(None, description="β; by default the world's own, else 0.5")
    out: Path = Field(Path("runs/theory"), description="folder for page.html and theory.json")
    json_: bool = Field(False, description="print the statements as one JSON object on stdout")
