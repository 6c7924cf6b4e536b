"""The settings of a training stage. One model for the command line, the YAML file and the Python function."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from likelier.config import StageConfig
from likelier.data.rows_config import RowsConfig

PRESETS: dict[str, dict[str, Any]] = {
    "paper": {
        "optimizer": "rmsprop",
        "learning_rate": 1e-6,
        "warmup_steps": 150,
        "schedule": "constant",
        "clip": 10.0,
        "batch_size": 64,
        "beta": 0.1,
    }
}
"""`paper`: the settings of arXiv 2305.18290, appendix B."""


class DataConfig(RowsConfig):
    """What a stage reads that trains on rows with answers."""

    heading: ClassVar[str] = "what to train on"
    data: list[str] = Field(
        description="preference rows: a file, a datasets folder or a hub name; may be repeated"
    )
    eval_data: list[str] = Field([], description="held-out rows to evaluate on")
    group_prompts: bool = Field(True, description="rows of one prompt share a tree and its forward")
    weigh: Literal["rows", "prompts"] = Field("rows", description="prompts: each prompt has weight 1")


class TrainingConfig(StageConfig):
    """What every training stage reads."""

    heading: ClassVar[str] = "training"
    full_rate: ClassVar[float] = 1e-6
    """The default learning rate of full training."""
    lora_rate: ClassVar[float] = 1e-5
    """That of an adapter."""
    held_out_by: ClassVar[str] = "eval_data"
    """The setting that names what is held out, beside `eval_share`."""

    model: str = Field(
        "smollm2", description="folder, hub name, .gguf file, adapter folder, or smollm2 (embedded)"
    )
    eval_share: float | None = Field(
        None, gt=0, lt=1, description="hold out this share of the data, by prompt"
    )
    out: Path | None = Field(None, description="run folder")
    optimizer: Literal["adamw", "rmsprop"] = Field("adamw", description="AdamW (0.9, 0.999), or RMSprop")
    learning_rate: PositiveFloat | None = Field(None, description="1e-6; with LoRA 1e-5")
    schedule: Literal["constant", "linear", "cosine"] = Field("constant", description="after the warm-up")
    warmup_steps: NonNegativeInt | None = Field(None, description="a tenth of the steps, 150 at most")
    clip: NonNegativeFloat = Field(1.0, description="gradient norm to clip at; 0 is no clipping")
    batch_size: PositiveInt = Field(64, description="pairs per step")
    epochs: PositiveInt = Field(1, description="passes over the data")
    max_steps: PositiveInt | None = Field(None, description="stop after this many steps")
    precision: Literal["bfloat16", "float32", "float64"] | None = Field(
        None, description="bfloat16 where the processor has it, else float32"
    )
    max_tokens: PositiveInt | None = Field(
        None, description="tokens per forward; chosen from the memory unless given"
    )
    gradient_checkpointing: bool = Field(False, description="recompute activations: less memory, more time")
    seed: int = Field(0, ge=0, lt=2**63, description="of the order, and of new adapters")

    lora_rank: PositiveInt | None = Field(None, description="train a LoRA adapter of this rank")
    lora_alpha: PositiveFloat | None = Field(None, description="twice the rank unless given")
    lora_targets: list[str] = Field(
        [], description="names of the layers to adapt; all linear layers of the blocks"
    )
    merge: bool = Field(False, description="save the adapter merged into a full model")
    quantize: Literal["4bit"] | None = Field(None, description="frozen weights in 4 bits, with LoRA, on CUDA")

    eval_every: PositiveInt | None = Field(None, description="evaluate on held-out rows every N steps")
    checkpoint_every: PositiveInt | None = Field(
        None, description="write a checkpoint every N steps, and after the last"
    )
    keep_checkpoints: PositiveInt = Field(2, description="how many of the latest checkpoints stay")
    keep_best: str | None = Field(
        None, description="keep the model with the best eval/loss or other eval figure"
    )
    patience: PositiveInt | None = Field(None, description="stop after N evaluations without a better one")
    track: Literal["tensorboard", "wandb"] | None = Field(None, description="also log there")

    resume: bool = Field(False, description="go on from the last complete checkpoint in --out")
    overwrite: bool = Field(False, description="delete an existing --out first")
    dry_run: bool = Field(False, description="say what would be done, and stop before the first step")
    json_: bool = Field(False, description="print the result as one JSON object on stdout")
    trust_remote_code: bool = Field(False, description="run Python files that come with the model")
    revision: str | None = Field(None, description="of a model on the hub")

    @model_validator(mode="after")
    def _belongs_together(self) -> TrainingConfig:
        """Settings that something else must be set for."""
        named, flag = bool(getattr(self, self.held_out_by)), f"--{self.held_out_by.replace('_', '-')}"
        if named and self.eval_share is not None:
            raise ValueError(f"{flag} and --eval-share are two ways to hold rows out; give one of them")
        held_out = named or self.eval_share is not None
        for name, needs, given in (
            ("eval_every", f"{flag} or --eval-share", held_out),
            ("keep_best", "--eval-every", self.eval_every is not None),
            ("keep_best", "--out", self.out is not None),
            ("merge", "--out", self.out is not None),
            ("patience", "--eval-every", self.eval_every is not None),
            ("lora_alpha", "--lora-rank", self.lora_rank is not None),
            ("lora_targets", "--lora-rank", self.lora_rank is not None),
            ("quantize", "--lora-rank", self.lora_rank is not None),
            ("resume", "--out", self.out is not None),
            ("overwrite", "--out", self.out is not None),
            ("checkpoint_every", "--out", self.out is not None),
            ("track", "--out", self.out is not None),
        ):
            if getattr(self, name) and not given:
                raise ValueError(f"--{name.replace('_', '-')} needs {needs}")
        if self.resume and self.overwrite:
            raise ValueError("--resume goes on with a run and --overwrite deletes it; give one of them")
        if self.keep_best is not None and not self.keep_best.startswith("eval/"):
            raise ValueError(
                f"--keep-best takes an evaluation figure such as eval/loss, not {self.keep_best}"
            )
        return self


class RowTrainingConfig(TrainingConfig, DataConfig):
    """What a stage reads that trains on rows with answers, all of it."""


class SamplingConfig(StageConfig):
    """What is read besides where the model that trains can answer."""

    heading: ClassVar[str] = "answers while it trains"
    sample_prompts: Path | None = Field(None, description="prompts that the policy answers as it trains")
    sample_every: PositiveInt | None = Field(None, description="answer them every N steps")

    @model_validator(mode="after")
    def _both_or_neither(self) -> Self:
        if (self.sample_prompts is None) != (self.sample_every is None):
            given, missing = ("prompts", "every") if self.sample_every is None else ("every", "prompts")
            raise ValueError(f"--sample-{given} needs --sample-{missing}")
        return self


class DpoConfig(RowTrainingConfig, SamplingConfig):
    """The settings of `likelier dpo`."""

    ties: Literal["drop", "half"] = Field(
        "drop", description="leave ties out, or take them both ways at half weight"
    )
    reference: str | None = Field(
        None, description="another reference than the policy before its first update"
    )
    loss: str = Field("sigmoid", description="name of a loss, or module:function")
    beta: PositiveFloat = Field(0.1, description="how dear it is to leave the reference")
    label_smoothing: float | None = Field(None, description="sigmoid (cDPO), robust: share of flipped labels")
    gamma: float | None = Field(None, description="simpo: target margin")
    odds_weight: float | None = Field(None, description="orpo: weight of the odds ratio")
    unlikelihood_weight: float | None = Field(
        None, description="unlikelihood: weight of the rejected answer's log-prob, 0 to 1"
    )
    sft_weight: NonNegativeFloat = Field(0.0, description="adds this times the chosen answer's token loss")
    preset: Literal["paper"] | None = Field(
        None, description="paper: RMSprop, 1e-6, 150 warm-up steps, clip 10"
    )

    @model_validator(mode="before")
    @classmethod
    def _fill_preset(cls, values: dict[str, Any]) -> dict[str, Any]:
        """A preset fills what was not said."""
        name = values.get("preset")
        preset = PRESETS.get(name, {}) if isinstance(name, str) else {}
        return {**{k: v for k, v in preset.items() if k in cls.model_fields}, **values}


class SftConfig(RowTrainingConfig, SamplingConfig):
    """The settings of `likelier sft`."""

    full_rate: ClassVar[float] = 2e-5
    lora_rate: ClassVar[float] = 2e-4

    data: list[str] = Field(
        description="answers to imitate: a file, a datasets folder or a hub name; may be repeated"
    )
    learning_rate: PositiveFloat | None = Field(None, description="2e-5; with LoRA 2e-4")
    batch_size: PositiveInt = Field(64, description="examples per step")
    on: Literal["completions", "chosen"] = Field(
        "completions", description="chosen: of preferences, the preferred answers"
    )
    template: str | None = Field(
        None, description="chat template for a model that has none: chatml, or a Jinja file"
    )


class RewardConfig(RowTrainingConfig):
    """The settings of `likelier reward`."""

    full_rate: ClassVar[float] = 2e-5
    lora_rate: ClassVar[float] = 2e-4

    model: str = Field(
        "smollm2",
        description="what to start from: a causal model or a reward model, as folder, hub name or .gguf; or smollm2",
    )
    learning_rate: PositiveFloat | None = Field(None, description="2e-5; with LoRA 2e-4")
    ties: Literal["drop", "half"] = Field(
        "drop", description="leave ties out, or take them both ways at half weight"
    )
    loss: Literal["bradley_terry", "plackett_luce"] = Field(
        "bradley_terry", description="over pairs, or one term for each ranking"
    )
    label_smoothing: float | None = Field(None, description="bradley_terry: share of flipped labels")
    centre: bool = Field(True, description="shift the rewards so that their mean over the data is 0")

    @model_validator(mode="after")
    def _whole(self) -> Self:
        """What a reward model has no choice in."""
        if self.merge:
            raise ValueError("--merge: a reward model is always saved merged, head and all; leave it out")
        if self.quantize is not None:
            raise ValueError(
                "--quantize is not there for reward models, which are saved merged; leave it out"
            )
        return self


UPDATE_FREE = frozenset(
    {
        "out", "resume", "overwrite", "dry_run", "json_", "max_tokens", "gradient_checkpointing", "eval_every",
        "eval_data", "checkpoint_every", "keep_checkpoints", "keep_best", "patience", "sample_prompts",
        "sample_every", "track", "merge", "trust_remote_code", "skip_bad_rows", "preset", "max_steps",
        "data", "model", "reference", "revision", "centre", "prompts", "eval_prompts",
    }
)  # fmt: skip
"""Settings that a resumed run may change: none of them enters an update. Data, model and reference are held to
their content instead: a folder may have moved, and a path may hold something else."""
