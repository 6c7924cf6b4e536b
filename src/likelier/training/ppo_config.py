"""The settings of `likelier ppo`."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from likelier.config import StageConfig
from likelier.training.config import SamplingConfig, TrainingConfig

OF_GAE = ("gae_lambda", "discount", "value_weight", "value_learning_rate", "value_clip_range")
"""What only a learned value reads."""


class RolloutConfig(StageConfig):
    """How answers are drawn and rewarded."""

    heading: ClassVar[str] = "answers and their reward"
    prompts: str = Field(description="rows with a prompt and, if wanted, an id; or a .txt file of one a line")
    reward: str = Field(
        description="vader, length, json, regex:PATTERN, module:function, a reward model's or a classifier's folder"
    )
    eval_prompts: str | None = Field(None, description="held-out prompts to evaluate on")
    format: str = Field(
        "prompts", description="format of the rows; that of preferences takes each of their prompts once"
    )
    as_: Literal["text", "messages"] = Field(
        "text", description="read plain strings as raw text or as a user's turn"
    )
    skip_bad_rows: bool = Field(False, description="leave unusable rows out, and print how many of each kind")
    n: PositiveInt = Field(4, description="answers per prompt")
    max_new_tokens: PositiveInt = Field(64, description="answers are cut there")
    temperature: float = Field(1.0, description="of the answers: 1 alone, which is the policy's own")
    missing_end_penalty: NonNegativeFloat = Field(
        0.0, description="taken from the reward of an answer that is cut at its limit"
    )
    normalize_rewards: bool = Field(
        False, description="to mean 0 and deviation 1 over all answers so far; beta is then in deviations"
    )
    beta: NonNegativeFloat = Field(0.1, description="how dear it is to leave the reference, in reward a nat")
    target_kl: PositiveFloat | None = Field(
        None, description="steer beta so that answers are this many nats from the reference"
    )
    kl_gain: PositiveFloat = Field(0.1, description="how fast beta follows --target-kl")


class PpoConfig(RolloutConfig, TrainingConfig, SamplingConfig):
    """The settings of `likelier ppo`."""

    full_rate: ClassVar[float] = 3e-6
    lora_rate: ClassVar[float] = 3e-5
    held_out_by: ClassVar[str] = "eval_prompts"

    eval_share: float | None = Field(None, gt=0, lt=1, description="hold out this share of the prompts")
    reference: str | None = Field(
        None, description="another reference than the policy before its first update"
    )
    learning_rate: PositiveFloat | None = Field(None, description="3e-6; with LoRA 3e-5")
    batch_size: PositiveInt = Field(64, description="answers per step: a rollout of whole prompts")
    epochs: PositiveInt = Field(1, description="passes over the prompts")
    seed: int = Field(0, ge=0, lt=2**63, description="of the order, of the answers, and of new adapters")
    eval_every: PositiveInt | None = Field(None, description="evaluate on held-out prompts every N steps")
    advantage: Literal["gae", "rloo", "grpo"] = Field(
        "gae",
        description="against a learned value, the other answers' mean, or that in the group's deviations",
    )
    rollout_epochs: PositiveInt = Field(4, description="passes over each rollout")
    minibatches: PositiveInt = Field(1, description="updates in a pass")
    clip_range: NonNegativeFloat = Field(0.2, description="how far a ratio pays to move; 0 is no clipping")
    stop_kl: PositiveFloat | None = Field(
        None,
        description="leave a rollout once the policy is this many nats a token from the one that drew it",
    )
    normalize_advantages: bool = Field(True, description="to mean 0 and deviation 1 over a rollout's tokens")
    entropy_weight: NonNegativeFloat = Field(0.0, description="rewards a spread next-token distribution")
    value_weight: NonNegativeFloat = Field(0.1, description="of the value's loss")
    value_learning_rate: PositiveFloat = Field(
        1e-4, description="of the value's own weights, on the schedule of --learning-rate"
    )
    value_clip_range: NonNegativeFloat = Field(
        0.2, description="how far a value pays to move in a step; 0 is no clipping"
    )
    gae_lambda: float = Field(0.95, ge=0, le=1, description="0 trusts the value alone, 1 the rewards alone")
    discount: float = Field(1.0, gt=0, le=1, description="of rewards that come a token later")

    @model_validator(mode="after")
    def _answers(self) -> Self:
        """What a rollout cannot be."""
        if self.temperature != 1.0:
            raise ValueError(
                "--temperature: what is trained are log-probs at temperature 1, so answers are drawn there; leave it"
                " out, and give another to `likelier sample` once the model is trained"
            )
        if self.kl_gain != 0.1 and self.target_kl is None:
            raise ValueError("--kl-gain needs --target-kl")
        if self.target_kl is not None and self.beta == 0.0:
            raise ValueError("--target-kl multiplies beta, and 0 stays 0; give --beta above 0")
        prompts = -(-self.batch_size // self.n)
        if prompts < self.minibatches:
            raise ValueError(
                f"--minibatches {self.minibatches}: a step of {self.batch_size} answers, {self.n} to a prompt, has"
                f" {prompts} prompts, whose answers stay together; give fewer, or raise --batch-size"
            )
        return self

    @model_validator(mode="after")
    def _advantages(self) -> Self:
        """What the way to an advantage needs, and what it does not read."""
        if self.advantage == "gae":
            return self
        if self.n < 2:
            raise ValueError(
                f"--advantage {self.advantage} compares answers of one prompt: give --n 2 or more"
            )
        for name in OF_GAE:
            if getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"--{name.replace('_', '-')} is of --advantage gae; leave it out")
        return self
