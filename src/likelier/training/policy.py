"""The model to train: loaded, given its adapter, and put into the form that scores it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, TypeVar

from torch import nn

from likelier.errors import ModelError, UsageError
from likelier.models.adapters import adapter_is_start, add_lora, is_adapted
from likelier.models.loading import Loaded, load_model
from likelier.models.noise import Silenced, silence_noise
from likelier.scoring.equality import Choice, choose_way
from likelier.scoring.halfway import settle_halfway
from likelier.scoring.limits import require_masters
from likelier.scoring.precision import DTYPES, Precision, default_device, default_precision, master_dtype
from likelier.scoring.reference import content_digest, model_digest
from likelier.scoring.scorer import Scorer
from likelier.training.config import TrainingConfig

Settings = TypeVar("Settings", bound=TrainingConfig)
_WAYS = {"tree": "trees", "mask": "a dense mask over one row", "rows": "ordinary rows"}


@dataclass(slots=True)
class Policy:
    """The model to train, in the form that scores it."""

    model: nn.Module
    tokenizer: Any
    scorer: Scorer
    name: str
    choice: Choice
    content: bytes
    """Hash of the policy before its first update: weights and configuration."""
    digest: bytes
    """The same with all that its log-probs depend on besides."""
    silenced: Silenced
    precision: Precision
    value_head: nn.Linear | None = None
    """What learns beside the model to foretell rewards; no part of what is saved."""

    @property
    def trained(self) -> nn.Module:
        """All that trains, as one module: the model, with its value head where there is one."""
        if self.value_head is None:
            return self.model
        return nn.ModuleDict({"model": self.model, "value_head": self.value_head})

    def give_back(self) -> None:
        """The model as its owner knows it: its own forwards, dropout and mode; only the weights have moved."""
        self.scorer.close()
        self.silenced.undo()
        if self.model.training:
            off = getattr(self.model, "activation_checkpointing_disable", None)
            (off or self.model.gradient_checkpointing_disable)()  # type: ignore[operator]
            self.model.eval()


def peak_rate(config: TrainingConfig) -> float:
    """The learning rate after the warm-up."""
    if config.learning_rate is not None:
        return config.learning_rate
    return config.full_rate if config.lora_rank is None else config.lora_rate


def with_rate(config: Settings, policy: Policy, *, say: Callable[[str], None]) -> Settings:
    """An adapter that is trained further has the default learning rate of a new one."""
    given = config.learning_rate is not None or config.lora_rank is not None
    if given or not is_adapted(policy.model):
        return config
    say(f"{policy.name} is an adapter: {_default_rate(config)}")
    return config.model_copy(update={"learning_rate": config.lora_rate})


def load_policy(
    config: TrainingConfig,
    model: Any,
    tokenizer: Any,
    *,
    say: Callable[[str], None],
    load: Callable[..., Loaded] = load_model,
    prepare: Callable[[Loaded], Loaded] = lambda loaded: loaded,
) -> Policy:
    """Load the model, add an adapter where asked, decide how trees reach it.

    Args:
        load: reads the model.
        prepare: the model to train, from the model as loaded.

    Raises:
        ModelError: the model cannot be loaded, or not be trained as asked.
        UsageError: settings that do not go with it.
    """
    if config.lora_rank is not None:
        say(_lora_rate(config))
    precision = _precision(config)
    loaded = load(
        model,
        tokenizer=tokenizer,
        dtype=master_dtype(precision),
        device=default_device(),
        revision=config.revision,
        trust_remote_code=config.trust_remote_code,
        quantize=config.quantize,
    )
    policy: Any = loaded.model
    if config.revision is not None and loaded.kind not in ("hub", "adapter"):
        raise UsageError(f"--revision is of a hub model, and {loaded.name} is none; leave it out")
    if config.merge and config.lora_rank is None and not is_adapted(policy):
        raise UsageError(f"--merge: {loaded.name} has no adapter to merge; add --lora-rank, or leave it out")
    require_masters(policy, precision)
    loaded = prepare(loaded)
    silenced = silence_noise(loaded.model)
    try:
        return _prepared(config, loaded, silenced, precision, say)
    except BaseException:
        silenced.undo()
        raise


def _prepared(
    config: TrainingConfig,
    loaded: Loaded,
    silenced: Silenced,
    precision: Precision,
    say: Callable[[str], None],
) -> Policy:
    """The adapter, what trains, and the form that scores it."""
    policy: Any = loaded.model
    choice = choose_way(policy)
    if choice.why:
        say(f"{loaded.name}: trees go as {_WAYS[choice.way]} ({choice.why})")
    start = None
    if config.lora_rank is not None:
        policy, start = _with_lora(config, policy, choice, precision)
    elif not is_adapted(policy):
        _train_all(policy, precision, say)
    if config.gradient_checkpointing:
        _checkpoint_activations(policy, loaded.name)
    scorer = Scorer(policy, dtype=DTYPES[precision], way=choice.way, own_head=choice.own_head)
    if start is None:
        content = content_digest(scorer)
        start = content, model_digest(scorer, content=content)
    return Policy(policy, loaded.tokenizer, scorer, loaded.name, choice, *start, silenced, precision)


def _precision(config: TrainingConfig) -> Precision:
    device = default_device()
    if config.precision == "float64" and device.type == "cuda":
        raise UsageError("--precision float64 is for the CPU; take float32 or bfloat16 on CUDA")
    return config.precision or default_precision(device)


def _lora_rate(config: TrainingConfig) -> str:
    rate = f"learning rate {config.learning_rate:g}, as given" if config.learning_rate else ""
    return f"LoRA of rank {config.lora_rank}: {rate or _default_rate(config)}"


def _default_rate(config: TrainingConfig) -> str:
    times = config.lora_rate / config.full_rate
    return (
        f"learning rate {config.lora_rate:g}, {times:.0f} times the default of full training;"
        " --learning-rate changes it"
    )


def _with_lora(
    config: TrainingConfig, model: Any, choice: Choice, precision: Precision
) -> tuple[Any, tuple[bytes, bytes] | None]:
    """The model with its adapter, and the start's two digests where the adapter is no part of the start.

    Layers with an adapter are computed one by one, those without in fused kernels: other last bits. So the start
    is the base's content and the adapted layers; neither rank nor seed moves a bit while B is 0.
    """
    assert config.lora_rank is not None
    with Scorer(model, dtype=DTYPES[precision], way=choice.way, own_head=choice.own_head) as base:
        content = content_digest(base)
        digest = model_digest(base, content=content)
    policy = add_lora(
        model,
        rank=config.lora_rank,
        alpha=config.lora_alpha,
        targets=config.lora_targets or None,
        seed=config.seed,
    )
    if not adapter_is_start(policy):
        return policy, None
    adapted = sorted(name for name, _ in policy.named_modules() if name.endswith(".lora_B"))
    return policy, (content, sha256(digest + repr(adapted).encode()).digest())


def _train_all(policy: Any, precision: Precision, say: Callable[[str], None]) -> None:
    """Every parameter trains but those that their owner froze; in bfloat16 dequantised ones leave the middle first."""
    share = settle_halfway(policy.parameters()) if precision == "bfloat16" else 0.0
    if share:
        say(
            f"{share:.1%} of the weights lie exactly halfway between two bfloat16 numbers (a dequantised"
            " checkpoint); they start at the one that they round to"
        )
    # A model that is frozen whole was only loaded to be used; one that is frozen in part is meant so.
    if not any(parameter.requires_grad for parameter in policy.parameters()):
        policy.requires_grad_(True)


def _checkpoint_activations(policy: Any, name: str) -> None:
    # The method has a new name in transformers 5.2x, where the old one warns.
    enable = getattr(policy, "activation_checkpointing_enable", None) or policy.gradient_checkpointing_enable
    try:
        enable({"use_reentrant": False})
    except ValueError:
        raise ModelError(f"{name} cannot recompute activations; leave out --gradient-checkpointing") from None
    # transformers recomputes in training mode alone; what is random in that mode has been switched off.
    policy.train()
