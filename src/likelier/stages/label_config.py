"""The settings of `likelier label`; imports nothing heavy, since the command line lists them."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal, Self

from pydantic import Field, NonNegativeFloat, PositiveFloat, model_validator

from likelier.engines.judge_config import JudgeConfig
from likelier.flags import flag

Labeller = Literal["reward", "judge", "human"]

_SETTINGS_OF: dict[tuple[Labeller, ...], tuple[str, ...]] = {
    ("reward",): ("reward", "draw", "label_temperature"),
    ("judge",): (
        "judge", "judge_model", "verdict", "rubric", "judge_max_tokens", "precision", "base_url",
        "api_key_variable", "concurrency", "retries", "timeout",
    ),
    ("human",): (
        "annotators", "overlap", "rank", "pairs_per_prompt", "strength", "repeat_share", "guidelines", "ties",
        "disagreements", "host", "port", "browser", "export_only",
    ),
    ("reward", "judge"): ("pairs", "min_gap", "json_", "dry_run"),
    ("reward", "human"): ("seed",),
}  # fmt: skip
OWN_SETTINGS = {name: readers for readers, names in _SETTINGS_OF.items() for name in names}
"""Settings that not every labeller reads, and those that do."""


class LabelConfig(JudgeConfig):
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
        0.0,
        description="reward: pairs whose scores lie closer are left out; judge by log-odds: they are ties",
    )
    seed: int = Field(0, description="of everything that is drawn")
    reward: str = Field(
        "vader", description="reward: vader, length, json, regex:PATTERN, module:function or a classifier"
    )
    draw: Literal["bradley-terry"] | None = Field(
        None, description="reward: noisy labels, the higher score preferred with σ(gap / temperature)"
    )
    label_temperature: PositiveFloat = Field(1.0, description="reward: of --draw, in units of the score")
    precision: Literal["bfloat16", "float32", "float64"] | None = Field(
        None, description="local judge: bfloat16 where the processor has it, else float32"
    )
    annotators: list[str] = Field(
        default_factory=list, description="human: who may label; may be repeated; anybody unless given"
    )
    overlap: int = Field(default=1, ge=1, description="human: annotators per item")
    rank: bool = Field(
        default=False, description="human: all answers of a prompt are ranked at once, not two and two"
    )
    pairs_per_prompt: int = Field(
        default=0, ge=0, description="human: at most so many pairs, drawn by seed; 0 is all"
    )
    strength: bool = Field(default=False, description="human: ask how much better the better answer is")
    repeat_share: float = Field(
        default=0.05, ge=0, le=1, description="human: items shown to their annotator again, sides swapped"
    )
    guidelines: Path | None = Field(default=None, description="human: a Markdown file that the page shows")
    ties: Literal["keep", "drop"] = Field(default="keep", description="human: whether ties become rows")
    disagreements: Literal["majority", "drop", "all"] = Field(
        default="majority",
        description="human: what more than half say, only what all say, or a row per label",
    )
    host: str = Field(default="127.0.0.1", description="human: an address of this machine alone")
    port: int = Field(default=8765, ge=0, le=65535, description="human: 0 takes any that is free")
    browser: bool = Field(default=True, description="human: open the page")
    export_only: bool = Field(
        default=False, description="human: write the files from earlier labels, and end"
    )
    dry_run: bool = Field(
        False,
        description="reward, judge: say what would be done and what it costs, load no weights, write nothing",
    )
    json_: bool = Field(False, description="print a summary as one JSON object on stdout")

    @model_validator(mode="after")
    def _belong_together(self) -> Self:
        """A setting that this labeller never reads is refused."""
        for name in sorted(self.model_fields_set):
            readers = OWN_SETTINGS.get(name, (self.with_,))
            if self.with_ not in readers:
                raise ValueError(
                    f"{flag(name)} is for --with {' or '.join(readers)}, not --with {self.with_}"
                )
        if self.with_ == "reward":
            self._check_reward()
        if self.with_ == "judge":
            self._check_judge()
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

    def _check_judge(self) -> None:
        if self.judge_model is None:
            raise ValueError(
                "--with judge needs --judge-model: a folder, a hub name, or a name that the server has"
            )
        if self.pairs in ("ranking", "best-worst"):
            raise ValueError(f"--pairs {self.pairs} needs scores; a judge takes all, ring or adjacent")
        self.check_judge()
        if self.judge == "openai" and "precision" in self.model_fields_set:
            raise ValueError("--precision says nothing to --judge openai; leave it out")
        if self.verdict == "text" and "min_gap" in self.model_fields_set:
            raise ValueError("--min-gap says nothing to --verdict text; leave it out")
