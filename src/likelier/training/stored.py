"""What a run folder holds, for those who did not make it: its policies step by step, their reference, their cost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from likelier.config import read_yaml
from likelier.errors import ModelError, UsageError
from likelier.models.adapters import add_lora, is_adapted
from likelier.models.loading import Loaded, base_name, load_model
from likelier.training.folder import whole_lines

_VALUES, _POLICY = "value_head.", "model."
"""How names begin in a checkpoint that holds a value head besides the policy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredPolicy:
    """A policy as it lies on the disk."""

    run: str
    """The run, or the model, as it was named."""
    step: int | None
    """Updates done; None for a model that is no run's."""
    model: str | None
    """A folder or name that loads alone; None for a checkpoint."""
    weights: Path | None = None
    """A checkpoint's."""

    @property
    def name(self) -> str:
        """For people: `runs/first, step 20`."""
        return self.run if self.step is None else f"{self.run}, step {self.step}"


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredRun:
    """A run folder as it stands, or a model that is no run's."""

    name: str
    policies: tuple[StoredPolicy, ...]
    """In the order of their steps; the last is the run's result where it is finished."""
    reference: str | None = None
    """What it was held to, or started from; None where it does not say."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    compute: Mapping[int, Mapping[str, float]] = field(default_factory=dict)
    """By step, `seconds` and `tokens` of training until then, where its metrics say so."""


def stored_run(name: str) -> StoredRun:
    """What there is under a name: a run folder with its checkpoints and its model, else a model alone.

    Raises:
        UsageError: a run that has neither a checkpoint nor a model yet, or a damaged one.
    """
    folder = Path(name)
    if not (folder / "config.yaml").is_file():
        return StoredRun(name=name, policies=(StoredPolicy(run=name, step=None, model=name),))
    settings = read_yaml(folder / "config.yaml")
    lines = whole_lines(folder / "metrics.jsonl")
    checkpoints = [
        StoredPolicy(run=name, step=step, model=None, weights=place)
        for step, place in sorted(_checkpoints(folder / "checkpoints"))
    ]
    last = max([0, *(int(line["step"]) for line in lines)])
    finished = (folder / "model" / "config.json").is_file() or (
        folder / "model" / "adapter_config.json"
    ).is_file()
    result = [StoredPolicy(run=name, step=_steps(folder, last), model=str(folder / "model"))] * finished
    if not checkpoints and not result:
        raise UsageError(
            f"{name} holds neither a checkpoint nor a model yet: train with --checkpoint-every N, or finish it with"
            " --resume"
        )
    return StoredRun(
        name=name,
        policies=(*checkpoints, *result),
        reference=held_to(settings),
        settings=settings,
        compute=compute_by_step(lines),
    )


def held_to(settings: Mapping[str, Any]) -> str | None:
    """The model that a run's settings name as its reference, or its start; None for one that was only in memory.

    >>> held_to({"model": "smollm2", "reference": None}), held_to({"model": "<LlamaForCausalLM>"})
    ('smollm2', None)
    """
    started = settings.get("reference") or settings.get("model")
    # One that was in memory is known by its type alone.
    return None if started is None or str(started).startswith("<") else str(started)


def trained_from(model: str) -> str | None:
    """What a model was held to in training, or started from: its run says so, or its adapter; None where nobody does.

    Args:
        model: a run's folder, the `model` folder in one, an adapter's folder, or any name of a model.

    Raises:
        ModelError: an adapter that names no base model.

    >>> trained_from("smollm2")
    """
    folder = Path(model)
    adapter = folder / "adapter_config.json"
    is_model = adapter.is_file() or (folder / "config.json").is_file()
    for run in (folder, folder.parent):
        # An adapter's base is not what held it where it had a --reference, or began as an adapter.
        if (run / "config.yaml").is_file() and (is_model or run == folder):
            return held_to(read_yaml(run / "config.yaml"))
    return base_name(folder) if adapter.is_file() else None


def mixed_with(model: str, reference: str | None) -> str:
    """What `--strength` mixes a model with: the reference that is given, else what it was trained from.

    Raises:
        UsageError: nobody says what it was trained from.

    >>> mixed_with("runs/first", "smollm2")
    'smollm2'
    """
    found = reference or trained_from(model)
    if found is None:
        raise UsageError(
            f"--strength mixes {model} with what it was trained from, which it does not say: give --reference MODEL"
        )
    return found


def compute_by_step(lines: Sequence[Mapping[str, Any]]) -> dict[int, dict[str, float]]:
    """Seconds and tokens of the updates up to each step, from the rates that metrics give, and their FLOP.

    >>> rates = {"pairs_per_second": 2.0, "tokens_per_second": 50.0}
    >>> compute_by_step([{"step": 1, "pairs_seen": 4, "flop": 3e12, **rates}])
    {1: {'seconds': 2.0, 'tokens': 100.0, 'flop': 3000000000000.0}}
    """
    found: dict[int, dict[str, float]] = {}
    seconds = tokens = seen = 0.0
    for line in lines:
        unit = next((name.removesuffix("_per_second") for name in line if _is_rate(name, line)), None)
        if unit is None or not line.get(f"{unit}_per_second"):
            continue
        taken = (line[f"{unit}_seen"] - seen) / line[f"{unit}_per_second"]
        seen = line[f"{unit}_seen"]
        seconds += taken
        tokens += taken * (line.get("tokens_per_second") or 0.0)
        flop = {"flop": float(line["flop"])} if "flop" in line else {}  # runs of earlier versions do not say
        found[int(line["step"])] = {"seconds": seconds, "tokens": tokens, **flop}
    return found


def _is_rate(name: str, line: Mapping[str, Any]) -> bool:
    return name.endswith("_per_second") and f"{name.removesuffix('_per_second')}_seen" in line


def loaded_policies(
    run: StoredRun,
    policies: Sequence[StoredPolicy],
    *,
    dtype: torch.dtype,
    device: torch.device,
    trust_remote_code: bool = False,
) -> Iterator[tuple[StoredPolicy, Loaded]]:
    """Each of a run's policies in turn, one in memory at a time: what came before is gone, or has other weights.

    Raises:
        ModelError, UsageError: a model that cannot be loaded, a checkpoint that is damaged.
    """
    options: dict[str, Any] = {"dtype": dtype, "device": device, "trust_remote_code": trust_remote_code}
    base: Loaded | None = None
    for policy in policies:
        if policy.weights is not None:
            base = base or _base(run, options)
            _put_weights(policy.weights / "weights.safetensors", base.model)
            yield policy, base
        else:
            base = None
            assert policy.model is not None  # one of both is there
            yield policy, load_model(policy.model, **options)


def _base(run: StoredRun, options: dict[str, Any]) -> Loaded:
    """A model of the shape that a run's checkpoints fill: its own result, else what it started from."""
    rank, own = run.settings.get("lora_rank"), Path(run.name) / "model"
    if (own / "adapter_config.json").is_file() or (rank is None and (own / "config.json").is_file()):
        return load_model(str(own), **options)
    start = str(run.settings.get("model"))
    if start.startswith("<"):
        raise UsageError(
            f"{run.name} started from a model in memory, and its checkpoints need that; finish it with --resume"
        )
    try:
        loaded = load_model(start, **options)
    except ModelError as error:
        raise ModelError(
            f"the checkpoints of {run.name} need the model that it started from: {error}"
        ) from None
    if rank is None or is_adapted(loaded.model):
        return loaded
    adapted = add_lora(
        loaded.model,
        rank=int(rank),
        alpha=run.settings.get("lora_alpha"),
        targets=run.settings.get("lora_targets") or None,
        seed=0,
    )
    return replace(loaded, model=adapted.eval())


@torch.no_grad()
def _put_weights(file: Path, model: nn.Module) -> None:
    """Copies stored weights into the model's own tensors, in its precision."""
    own = dict(model.named_parameters())
    try:
        with safe_open(file, "pt") as stored:
            names = list(stored.keys())
            beside = any(name.startswith(_VALUES) for name in names)
            for written in names:
                if written.startswith(_VALUES):
                    continue
                name, tensor = (
                    written.removeprefix(_POLICY) if beside else written,
                    stored.get_tensor(written),
                )
                if name not in own or own[name].shape != tensor.shape:
                    raise ValueError(f"{name} of shape {list(tensor.shape)} is not of this model")
                own[name].copy_(tensor)
    except (SafetensorError, OSError, ValueError) as error:
        raise UsageError(
            f"the checkpoint {file.parent} is damaged, or of another model ({' '.join(str(error).split())}); delete it"
        ) from None


def _checkpoints(folder: Path) -> Iterator[tuple[int, Path]]:
    for place in folder.glob("step-*"):
        number = place.name.removeprefix("step-")
        if number.isdecimal() and (place / "state.json").is_file():
            yield int(number), place


def _steps(folder: Path, last: int) -> int:
    """Of the result: what the manifest says, else the last step of the metrics."""
    manifest = folder / "manifest.json"
    found = read_yaml(manifest).get("steps") if manifest.is_file() else None
    return found if isinstance(found, int) else last
