"""The settings of `likelier evaluate`; imports nothing heavy, since the command line lists them."""

from __future__ import annotations

import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, field_validator, model_validator

from likelier.data.rows_config import RowsConfig
from likelier.engines.judge_config import JudgeConfig
from likelier.flags import flag

Kind = Literal["preferences", "frontier", "winrate", "temperature"]
BY_JUDGE = tuple(JudgeConfig.model_fields)
"""What only a judge reads."""

_SETTINGS_OF: dict[tuple[Kind, ...], tuple[str, ...]] = {
    ("preferences",): (
        "data", "eval_share", "beta", "columns", "max_length", "cut_answers", "allow_template_edits", "max_tokens",
    ),
    ("frontier", "winrate", "temperature"): ("prompts", "reward", "n", "max_new_tokens", "seed"),
    ("preferences", "winrate", "temperature"): BY_JUDGE,
    ("winrate", "temperature"): ("baseline", "human_labels", "strength"),
    ("frontier", "temperature"): ("best_of", "chooser"),
    ("frontier",): ("estimator", "dial", "strengths"),
    ("winrate",): ("against", "sampling_temperature"),
    ("temperature",): ("temperatures",),
}  # fmt: skip
OWN_SETTINGS = {name: kinds for kinds, names in _SETTINGS_OF.items() for name in names}
"""Settings that not every evaluation reads, and those that do."""


class EvaluateConfig(JudgeConfig, RowsConfig):
    """The settings of `likelier evaluate`."""

    positional: ClassVar[tuple[str, ...]] = ("what", "runs")

    what: Kind = Field(
        description="preferences: how well rewards predict held-out ones; frontier: reward against KL and compute;"
        " winrate: against other answers; temperature: that over sampling temperatures"
    )
    runs: list[str] = Field(
        [],
        description="run folders or models; for winrate also files of samples; for preferences also reward models",
    )
    out: Path = Field(description="folder for NAME.csv, .json, .svg and .png")
    data: list[str] = Field(
        [], description="preferences: rows in a file, a datasets folder or under a hub name"
    )
    eval_share: float | None = Field(
        None, gt=0, lt=1, description="preferences: only what a run with this --eval-share held out"
    )
    beta: PositiveFloat | None = Field(
        None, description="preferences: of implicit rewards; a run knows its own, else 0.1"
    )
    max_tokens: PositiveInt = Field(2048, description="preferences: tokens per forward")
    prompts: str | None = Field(
        None, description="held-out prompts: rows with a prompt, or a .txt file of one a line"
    )
    reward: str | None = Field(
        None, description="vader, length, json, regex:PATTERN, module:function, a reward model or classifier"
    )
    reference: str | None = Field(
        None, description="what policies are compared with, or mixed with by --strength; a run knows its own"
    )
    n: PositiveInt | None = Field(None, description="answers per prompt: 4 for frontier, else 1")
    max_new_tokens: PositiveInt = Field(64, description="answers are cut there")
    seed: int = Field(0, description="with prompt id and answer number, the source of all random numbers")
    estimator: Literal["rao_blackwell", "k1"] = Field(
        "rao_blackwell", description="frontier: of KL: over the whole vocabulary at each token, or log-ratios"
    )
    best_of: list[PositiveInt] = Field(
        [],
        description="also best-of-N for each N, as 1,2,4,8,16; frontier: from the reference; temperature: from the"
        " first run named; needs --chooser",
    )
    chooser: str | None = Field(
        None, description="of best-of-N: the reward that chooses, named as for --reward"
    )
    dial: bool = Field(
        False, description="frontier: also each run's policy at other strengths, three ways, without training"
    )
    strengths: list[float] = Field(
        [0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0],
        description="frontier: of --dial, as 0,0.5,1: 0 is the reference, 1 the policy",
    )
    against: str | None = Field(
        None, description="winrate: a run, a model or a file of samples; the second of two runs unless given"
    )
    baseline: str | None = Field(
        None, description="the column of --prompts that holds the answers to compare with"
    )
    sampling_temperature: float = Field(
        1.0, ge=0, description="winrate: of the answers; 0 takes the likeliest token every time"
    )
    strength: float | None = Field(
        None,
        ge=0,
        description="winrate, temperature: the runs mixed with their reference, token by token: 0 is the reference, 1"
        " the model, above goes beyond it; --against and --baseline stay as they are",
    )
    temperatures: list[float] = Field(
        [0.0, 0.25, 0.5, 0.75, 1.0], description="temperature: which, as 0,0.5,1"
    )
    human_labels: str | None = Field(
        None, description="preferences by people, to say how often the judge agrees with them"
    )
    precision: Literal["bfloat16", "float32", "float64"] | None = Field(
        None, description="bfloat16 where the processor has it, else float32"
    )
    trust_remote_code: bool = Field(False, description="run Python files that come with the model")
    dry_run: bool = Field(
        False, description="say what would be done and what it costs, load no weights, write nothing"
    )
    json_: bool = Field(False, description="print the result as one JSON object on stdout")

    @classmethod
    def fields_for(cls, words: Sequence[str]) -> list[str]:
        """`evaluate frontier --help` shows what the frontier reads."""
        if not words or words[0] not in typing.get_args(Kind):
            return super().fields_for(words)
        return [
            name for name in cls.model_fields if name != "what" and words[0] in OWN_SETTINGS.get(name, words)
        ]

    @field_validator("temperatures", "best_of", "strengths", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        """`0,0.5` is two numbers."""
        given = value if isinstance(value, list) else [value]
        return [part for item in given for part in (item.split(",") if isinstance(item, str) else [item])]

    @field_validator("temperatures")
    @classmethod
    def _temperatures(cls, value: list[float]) -> list[float]:
        if not value or min(value) < 0:
            raise ValueError("a temperature is 0 or more, as 0,0.5,1")
        if len(set(value)) < len(value):
            raise ValueError("each temperature once")
        return sorted(value)

    @field_validator("strengths")
    @classmethod
    def _strengths(cls, value: list[float]) -> list[float]:
        if not value or min(value) < 0 or len(set(value)) < len(value):
            raise ValueError("a strength is 0 or more, each once, as 0,0.5,1,2")
        return sorted(value)

    @field_validator("best_of")
    @classmethod
    def _sizes(cls, value: list[int]) -> list[int]:
        if len(set(value)) < len(value):
            raise ValueError("each N once")
        return sorted(value)

    @model_validator(mode="after")
    def _belong_together(self) -> Self:
        """A setting that this evaluation never reads is refused, and so is one that it lacks."""
        for name in sorted(self.model_fields_set):
            kinds = OWN_SETTINGS.get(name, (self.what,))
            if self.what not in kinds:
                raise ValueError(
                    f"{flag(name)} is for evaluate {' or '.join(kinds)}, not evaluate {self.what}"
                )
        if not self.runs and not (self.what == "preferences" and self.judge_model is not None):
            raise ValueError("--runs is missing: name run folders or models")
        if bool(self.best_of) != (self.chooser is not None):
            raise ValueError(
                "best-of-N needs both --best-of 1,2,4 and --chooser REWARD, which says whose answer is kept"
            )
        if self.what == "preferences":
            self._check_judge()
            if not self.data:
                raise ValueError("evaluate preferences needs --data: held-out preferences")
        elif self.what == "frontier":
            if self.prompts is None or self.reward is None:
                missing = "--prompts" if self.prompts is None else "--reward"
                raise ValueError(f"evaluate frontier needs {missing}")
            if "strengths" in self.model_fields_set and not self.dial:
                raise ValueError("--strengths is for --dial; give both, or leave it out")
        else:
            self._check_contest()
        return self

    def _check_judge(self) -> None:
        """A judge's settings fit each other, and are not there without one."""
        if self.judge_model is not None:
            self.check_judge()
        elif read := [
            name
            for name in (*BY_JUDGE, "human_labels")
            if name in self.model_fields_set and name != "judge_model"
        ]:
            raise ValueError(f"{flag(read[0])} is for a judge: give --judge-model, or leave it out")

    def _check_contest(self) -> None:
        if (self.reward is None) == (self.judge_model is None):
            raise ValueError(
                "who says which answer is better? --reward NAME, or --judge-model MODEL; give one of them"
            )
        self._check_judge()
        if self.reference is not None and self.strength is None:
            raise ValueError("--reference is what --strength mixes with; give both, or leave it out")
        if self.what == "temperature" and (self.prompts is None or self.baseline is None):
            missing = "--prompts" if self.prompts is None else "--baseline COLUMN"
            raise ValueError(f"evaluate temperature needs {missing}: what the answers are compared with")
        if self.what == "winrate":
            if self.against is not None and self.baseline is not None:
                raise ValueError("--against and --baseline are two things to compare with; give one of them")
            if self.baseline is not None and self.prompts is None:
                raise ValueError("--baseline is a column of --prompts; give those")
            if self.against is None and self.baseline is None and len(self.runs) != 2:
                raise ValueError(
                    "evaluate winrate compares two: name two runs, or what to compare with by --against RUN or"
                    " --baseline COLUMN"
                )
