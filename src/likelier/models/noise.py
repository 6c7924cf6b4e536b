"""What makes two forwards of the same weights differ is switched off, and put back when it is saved.

Dropout and router jitter are off in every stage: log-probabilities are a function of the weights. The
balancing loss of a mixture of experts depends on what else is in the batch, so it is off as well.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from torch import nn
from transformers import PretrainedConfig

_OFF: dict[str, Any] = {
    "router_jitter_noise": 0.0,
    "input_jitter_noise": 0.0,
    "jitter_noise": 0.0,
    "router_aux_loss_coef": 0.0,
    "output_router_logits": False,
    "use_cache": False,
    "layerdrop": 0.0,
}


@dataclass(frozen=True, slots=True)
class Silenced:
    """What `silence_noise` changed: each entry is (owner, name, original value)."""

    changes: list[tuple[Any, str, Any]] = field(default_factory=list)

    def settle(self, owner: Any, name: str, value: Any) -> None:
        """Set an attribute and remember what it was."""
        before = getattr(owner, name)
        if before != value:
            self.changes.append((owner, name, before))
            setattr(owner, name, value)

    @contextlib.contextmanager
    def restored(self) -> Iterator[None]:
        """Inside, everything is as it was before: for writing the original configuration."""
        quiet = [(owner, name, getattr(owner, name)) for owner, name, _ in self.changes]
        try:
            for owner, name, value in self.changes:
                setattr(owner, name, value)
            yield
        finally:
            for owner, name, value in quiet:
                setattr(owner, name, value)

    def undo(self) -> None:
        """Put everything back for good: for a model that its owner goes on with."""
        for owner, name, value in reversed(self.changes):
            setattr(owner, name, value)
        self.changes.clear()


def silence_noise(model: nn.Module) -> Silenced:
    """Set every dropout and router jitter to 0; switch the key-value cache and the balancing loss off.

    Returns what was changed; `Silenced.restored()` puts it back for as long as a configuration is written.
    A model that is silenced twice keeps what the first call found.

    >>> from torch import nn
    >>> changed = silence_noise(layer := nn.Sequential(nn.Dropout(0.1)))
    >>> layer[0].p, [(name, before) for _, name, before in changed.changes]
    (0.0, [('p', 0.1)])
    """
    silenced = Silenced()
    for config in _configs(model):
        for name, value in list(vars(config).items()):
            if name in _OFF and value is not None:
                silenced.settle(config, name, _OFF[name])
            elif _is_dropout(name, value):
                silenced.settle(config, name, 0.0)
    for module in model.modules():
        _silence_module(module, silenced)
    return silenced


def _silence_module(module: nn.Module, silenced: Silenced) -> None:
    if isinstance(module, nn.modules.dropout._DropoutNd):
        silenced.settle(module, "p", 0.0)
    for name, value in list(vars(module).items()):
        if name in _OFF and isinstance(value, (int, float)):
            silenced.settle(module, name, _OFF[name])
        elif _is_dropout(name, value):
            silenced.settle(module, name, 0.0)


def _is_dropout(name: str, value: Any) -> bool:
    """`attention_dropout`, `attn_pdrop`, `dropout_p` …: a number, not a module and not a flag."""
    return "drop" in name and isinstance(value, float) and not name.startswith("__")


def _configs(model: nn.Module) -> list[PretrainedConfig]:
    """The configurations that the model's modules read, each once, sub-configurations included."""
    found: dict[int, PretrainedConfig] = {}
    for module in model.modules():
        config = getattr(module, "config", None)
        if isinstance(config, PretrainedConfig):
            found.setdefault(id(config), config)
            for value in vars(config).values():
                if isinstance(value, PretrainedConfig):
                    found.setdefault(id(value), value)
    return list(found.values())
