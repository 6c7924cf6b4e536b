"""The settings of `likelier label`; imports nothing heavy, since the command line lists them."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal, Self

from pydantic import Field, NonNegativeFloat, PositiveFloat, model_validator

from likelier.config import StageConfig

Labeller = Literal["reward", "judge", "human"]

OWN_SETTINGS: dict[str, tuple[Labeller, ...]] = {
    "reward": ("reward",),
    "pairs": ("reward", "judge"),
    "min_gap": ("reward", "judge"),
    "draw": ("reward",),
    "label_temperature": ("reward",),
    "seed": ("reward", "human"),
    "json_": ("reward", "judge"),
}
"""Settings that not every labeller reads, and those that do."""


class LabelConfig(StageConfig):
    """The settings of `likelier label`."""

    positional: ClassVar[tuple[str, ...]] = ("samples",)

    samples: Path = Field(description="rows with answers: what `likelier sample` wrote, or preferences")
    with_: Labeller = Field(description="who prefers: a reward, a language model as judge, or people")
    out: Path | None = Field(None, description="where the preferences go; stdout unless given")
    pairs: Literal["ranking", "all", "ring", "adjacent", "best-worst"] | None = Field(
        None,
        description="reward: ranking (or all, with --draw or --min-gap); judge: all, ring or adjacent",
    )
    min_gap: NonNegativeFloat = Field(
        0.0, description="reward: pairs whose scores lie closer make no preference"
    )
    seed: int = Field(0, description="of everything that is drawn")
    reward: str = Field(
        "vader", description="reward: vader, length, json, regex:PATTERN, module:function or a classifier"
    )
    draw: Literal["bradley-terry"] | None = Field(
        None, description="reward: noisy labels, the higher score preferred with σ(gap / temperature)"
    )
    label_temperature: PositiveFloat = Field(1.0, description="reward: of --draw, in units of the score")
    json_: bool = Field(False, description="print a summary as one JSON object on stdout")

    @model_validator(mode="after")
    def _belong_together(self) -> Self:
        """A setting that this labeller never reads is refused."""
        for name in sorted(self.model_fields_set):
            readers = OWN_SETTINGS.get(name, (self.with_,))
            if self.with_ not in readers:
                flag = "--" + name.rstrip("_").replace("_", "-")
                raise ValueError(f"{flag} is for --with {' or '.join(readers)}, not --with {self.with_}")
        if self.with_ == "reward":
            self._check_reward()
        if self.with_ == "human" and self.out is None:
            raise ValueError("--with human needs --out: labels are kept beside it as they are given")
        return self

    def _check_reward(self) -> None:
        if self.pairs == "ring":
            raise ValueError(
                "--pairs ring is for --with judge; a reward takes ranking, all, adjacent, best-worst"
            )
        if self.pairs == "ranking" and (self.draw or self.min_gap):
            given = "--draw" if self.draw else "--min-gap"
            raise ValueError(f"{given} is about two answers, --pairs ranking about all: take --pairs all")
        if "label_temperature" in self.model_fields_set and self.draw is None:
            raise ValueError("--label-temperature needs --draw bradley-terry")
        if "seed" in self.model_fields_set and self.draw is None:
            raise ValueError("--seed needs --draw bradley-terry: nothing else is drawn here")
