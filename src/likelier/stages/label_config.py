"""The settings of `likelier label`; imports nothing heavy, since the command line lists them."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from likelier.config import StageConfig

Labeller = Literal["reward", "judge", "human"]

OWN_SETTINGS: dict[str, tuple[Labeller, ...]] = {
    "reward": ("reward",),
}
"""Settings that not every labeller reads, and those that do."""


class LabelConfig(StageConfig):
    """The settings of `likelier label`."""

    positional: ClassVar[tuple[str, ...]] = ("samples",)

    samples: Path = Field(description="rows with answers: what `likelier sample` wrote, or preferences")
    with_: Labeller = Field(description="who prefers: a reward, a language model as judge, or people")
    out: Path | None = Field(None, description="where the preferences go; stdout unless given")
    reward: str = Field(
        "vader", description="reward: vader, length, regex:PATTERN, module:function or a classifier"
    )

    @model_validator(mode="after")
    def _belong_together(self) -> Self:
        """A setting that this labeller never reads is refused."""
        for name in sorted(self.model_fields_set):
            readers = OWN_SETTINGS.get(name, (self.with_,))
            if self.with_ not in readers:
                flag = "--" + name.rstrip("_").replace("_", "-")
                raise ValueError(f"{flag} is for --with {' or '.join(readers)}, not --with {self.with_}")
        if self.with_ == "human" and self.out is None:
            raise ValueError("--with human needs --out: labels are kept beside it as they are given")
        return self
