"""From settings to what a training loop needs: trees in order, the policy's scorer, the reference's log-probs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from torch import Tensor, nn

from likelier.data.columns import parse_columns
from likelier.data.encoding import encode
from likelier.data.grouping import cut_groups, weigh_prompts
from likelier.data.reading import load_records
from likelier.data.records import Record
from likelier.data.selection import Need
from likelier.data.splitting import hash_records, split_by_prompt
from likelier.data.trees import Tree
from likelier.errors import DataError, ModelError, UsageError
from likelier.models.adapters import adapter_is_start, add_lora, is_adapted
from likelier.models.loading import load_model
from likelier.models.noise import Silenced, silence_noise
from likelier.objectives import Objective, check_options, resolve, with_sft
from likelier.scoring.cache import LogpCache, default_folder
from likelier.scoring.equality import Choice, choose_way
from likelier.scoring.halfway import settle_halfway
from likelier.scoring.limits import require_context, require_masters
from likelier.scoring.precision import DTYPES, Precision, default_device, default_precision, master_dtype
from likelier.scoring.reference import branch_sums, model_digest, reference_logps
from likelier.scoring.scorer import Scorer
from likelier.training.config import LORA_LEARNING_RATE_FACTOR, DpoConfig, TrainingConfig
from likelier.training.step import Loss


@dataclass(slots=True)
class Data:
    """Trees to train on and to evaluate on, and what was counted while they were made."""

    train: list[Tree]
    evaluation: list[Tree] = field(default_factory=list)
    content_hash: str = ""
    """Of the training records."""
    hashes: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Policy:
    """The model to train, in the form that scores it."""

    model: nn.Module
    tokenizer: Any
    scorer: Scorer
    name: str
    choice: Choice
    digest: bytes
    """Of the policy before its first update."""
    silenced: Silenced
    precision: Precision

    def give_back(self) -> None:
        """The model as its owner knows it: its own forwards, dropout and mode; only the weights have moved."""
        self.scorer.close()
        self.silenced.undo()
        if self.model.training:
            off = getattr(self.model, "activation_checkpointing_disable", None)
            (off or self.model.gradient_checkpointing_disable)()  # type: ignore[operator]
            self.model.eval()


def load_data(config: TrainingConfig, data: Any, eval_data: Any, tokenizer: Any, *, need: Need) -> Data:
    """Read, split and encode; unusable rows are refused, or left out and counted.

    Raises:
        DataError: unusable rows without --skip-bad-rows.
    """
    notes: list[str] = []
    records = _records(config, data, notes)
    held_out: list[Record] = []
    if eval_data:
        held_out = _records(config, eval_data, notes)
    elif config.eval_share is not None:
        records, held_out = split_by_prompt(records, config.eval_share, seed=0)
    train = _trees(config, records, tokenizer, need, notes)
    if config.weigh == "prompts":
        train = weigh_prompts(train)
    hashes = {"train": hash_records(records)}
    evaluation: list[Tree] = []
    if held_out:
        evaluation = _trees(config, held_out, tokenizer, need, notes)
        hashes["eval"] = hash_records(held_out)
    return Data(cut_groups(train, batch_size=config.batch_size), evaluation, hashes["train"], hashes, notes)


def resolve_loss(config: DpoConfig, loss: Any, *, given: Collection[str]) -> Loss:
    """The objective and its options.

    Raises:
        UsageError: an unknown loss, or an option that it does not read.
    """
    options = {
        name: getattr(config, name)
        for name in ("label_smoothing", "gamma", "odds_weight")
        if getattr(config, name) is not None
    }
    try:
        objective = resolve(loss)
        check_options(objective, options)
        objective = with_sft(objective, weight=config.sft_weight)
    except ValueError as error:
        raise UsageError(f"--loss: {error}") from None
    if "beta" in given and not objective.reads_beta:
        raise UsageError(f"--beta: the loss `{objective.name}` does not read it; leave it out")
    return Loss(objective, config.beta, options)


def need_of(objective: Objective) -> Need:
    """What the data must hold for an objective."""
    kinds: dict[str, Need] = {"pair": "pairs", "ranking": "ranking", "scores": "scores", "sft": "completions"}
    return kinds[objective.kind]


def load_policy(config: TrainingConfig, model: Any, tokenizer: Any, *, say: Callable[[str], None]) -> Policy:
    """Load the model, add an adapter where asked, decide how trees reach it."""
    device = default_device()
    precision = config.precision or default_precision(device)
    if precision == "float64" and device.type == "cuda":
        raise UsageError("--precision float64 is for the CPU; take float32 or bfloat16 on CUDA")
    loaded = load_model(
        model,
        tokenizer=tokenizer,
        dtype=master_dtype(precision),
        device=device,
        revision=config.revision,
        trust_remote_code=config.trust_remote_code,
        quantize=config.quantize,
    )
    require_masters(loaded.model, precision)
    silenced = silence_noise(loaded.model)
    policy: Any = loaded.model
    choice = choose_way(policy)
    if choice.why:
        say(f"{loaded.name}: trees go as {_WAYS[choice.way]} ({choice.why})")
    if precision == "bfloat16" and config.lora_rank is None and not is_adapted(policy):
        share = settle_halfway(policy.parameters())
        if share:
            say(
                f"{share:.1%} of the weights lie exactly halfway between two bfloat16 numbers (a dequantised"
                " checkpoint); they start at the one that they round to"
            )
    start = b""
    if config.lora_rank is not None:
        with Scorer(policy, dtype=DTYPES[precision], way=choice.way, own_head=choice.own_head) as base:
            start = model_digest(base)
        policy = add_lora(
            policy,
            rank=config.lora_rank,
            alpha=config.lora_alpha,
            targets=config.lora_targets or None,
            seed=config.seed,
        )
        say(
            f"LoRA of rank {config.lora_rank}: learning rate {peak_rate(config):g}, ten times that of full training"
        )
        # Layers with an adapter are computed one by one, those without in fused kernels: other last bits. So the
        # start is the base's content and the adapted layers; neither rank nor seed moves a bit while B is 0.
        adapted = sorted(name for name, _ in policy.named_modules() if name.endswith(".lora_B"))
        start = sha256(start + repr(adapted).encode()).digest() if adapter_is_start(policy) else b""
    elif not is_adapted(policy):
        for parameter in policy.parameters():
            parameter.requires_grad_(True)
    if config.gradient_checkpointing:
        _checkpoint_activations(policy, loaded.name)
    scorer = Scorer(policy, dtype=DTYPES[precision], way=choice.way, own_head=choice.own_head)
    return Policy(
        policy,
        loaded.tokenizer,
        scorer,
        loaded.name,
        choice,
        start or model_digest(scorer),
        silenced,
        precision,
    )


def _checkpoint_activations(policy: Any, name: str) -> None:
    # The method has a new name in transformers 5.2x, where the old one warns.
    enable = getattr(policy, "activation_checkpointing_enable", None) or policy.gradient_checkpointing_enable
    try:
        enable({"use_reentrant": False})
    except ValueError:
        raise ModelError(f"{name} cannot recompute activations; leave out --gradient-checkpointing") from None
    # transformers recomputes in training mode alone; what is random in that mode has been switched off.
    policy.train()


def load_reference(
    config: DpoConfig,
    reference: Any,
    policy: Policy,
    trees: Sequence[Tree],
    *,
    on_progress: Callable[[int, int], None],
) -> tuple[list[Tensor], bytes]:
    """Per tree the reference's branch log-probs `[branches]` float64, and the reference's digest.

    The reference is the policy as it stands, which must not have been updated yet, or another model.
    """
    with LogpCache(default_folder()) as cache:
        if reference is None:
            logps = reference_logps(
                policy.scorer, trees, cache=cache, digest=policy.digest, on_progress=on_progress
            )
            return [branch_sums(own) for own in logps], policy.digest
        other = load_model(
            reference,
            tokenizer=policy.tokenizer,
            dtype=master_dtype(policy.precision),
            device=policy.scorer.device,
            trust_remote_code=config.trust_remote_code,
        )
        _require_same_tokens(other.model, policy)
        require_masters(other.model, policy.precision)
        require_context(other.model, trees, name=other.name)
        silenced = silence_noise(other.model)
        choice = choose_way(other.model)
        with Scorer(
            other.model,
            dtype=policy.scorer.dtype,
            way=choice.way,
            own_head=choice.own_head,
            max_tokens=policy.scorer.max_tokens,
        ) as scorer:
            digest = model_digest(scorer)
            logps = reference_logps(scorer, trees, cache=cache, digest=digest, on_progress=on_progress)
        silenced.undo()
        return [branch_sums(own) for own in logps], digest


def peak_rate(config: TrainingConfig) -> float:
    """The learning rate after the warm-up."""
    if config.learning_rate is not None:
        return config.learning_rate
    return 1e-6 * (LORA_LEARNING_RATE_FACTOR if config.lora_rank is not None else 1.0)


_WAYS = {"tree": "trees", "mask": "a dense mask over one row", "rows": "ordinary rows"}


def _records(config: TrainingConfig, data: Any, notes: list[str]) -> list[Record]:
    records, faults = load_records(
        data,
        format=config.format,
        columns=parse_columns(config.columns),
        as_messages=config.as_ == "messages",
        skip_bad_rows=config.skip_bad_rows,
    )
    if faults:
        notes.append(f"left out as unusable: {_by_kind([fault.kind for fault in faults])}")
    return records


def _trees(
    config: TrainingConfig, records: list[Record], tokenizer: Any, need: Need, notes: list[str]
) -> list[Tree]:
    encoded = encode(
        records,
        tokenizer,
        need=need,
        max_length=config.max_length,
        allow_template_edits=config.allow_template_edits,
        cut_answers=config.cut_answers,
        group_prompts=config.group_prompts,
        ties=config.ties,
    )
    if encoded.refused and not config.skip_bad_rows:
        raise DataError(
            f"{len(encoded.refused)} of {len(records)} rows cannot be used"
            f" ({_by_kind([fault.kind for fault in encoded.refused])}); the first: {encoded.refused[0]}"
            " (--skip-bad-rows leaves such rows out, `likelier check --model …` lists them)"
        )
    if encoded.refused:
        notes.append(f"left out as unusable: {_by_kind([fault.kind for fault in encoded.refused])}")
    if encoded.counts:
        notes.append(
            "noticed: " + ", ".join(f"{kind} {count}" for kind, count in encoded.counts.most_common())
        )
    if not encoded.trees:
        raise DataError("the data holds no row that can be trained on; `likelier check --model …` says why")
    return encoded.trees


def _by_kind(kinds: Sequence[str]) -> str:
    return ", ".join(f"{kind} {kinds.count(kind)}" for kind in dict.fromkeys(kinds))


def _require_same_tokens(model: Any, policy: Policy) -> None:
    theirs = model.get_input_embeddings().weight.shape[0]
    ours = policy.scorer.causal.get_input_embeddings().weight.shape[0]
    if theirs != ours:
        raise UsageError(
            f"--reference has a vocabulary of {theirs} tokens and the model one of {ours};"
            " the reference must read the policy's tokens"
        )
