"""Models without their weights, for `--dry-run`: what a stage would read and what it costs.

    model = blueprint("runs/sft/model")

Nothing is loaded but `config.json` and the tokenizer, and nothing of the hub fetched besides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from likelier.engines.prompts import Prompt, check_context, encode_prompts
from likelier.engines.rewards import names_a_model, resolve_reward
from likelier.errors import UsageError
from likelier.models.loading import base_name, load_tokenizer
from likelier.models.quiet import quiet_transformers
from likelier.models.sources import Source, find_source

NOTHING_DONE = "dry run: nothing was done and nothing written"


@dataclass(frozen=True, slots=True)
class Blueprint:
    """A model as its configuration describes it."""

    name: str
    model: Any
    """On the meta device: shapes without numbers."""
    tokenizer: Any

    @property
    def parameters(self) -> int:
        """How many it has."""
        return sum(parameter.numel() for parameter in self.model.parameters())

    def reads(self, prompts: Sequence[Prompt], *, max_new_tokens: int) -> int:
        """Tokens of all prompts.

        Raises:
            DataError, ModelError: prompts that this model cannot answer.
        """
        encoded = encode_prompts(self.tokenizer, prompts)
        check_context(self.model, prompts, encoded, max_new_tokens)
        return sum(map(len, encoded))

    def costs(self, tokens: int) -> str:
        """In words, a pass over so many tokens: two operations for each parameter and token.

        >>> Blueprint("m", torch.nn.Linear(10, 99, device="meta"), None).costs(2_000)
        'm (1,089 parameters): about 4.4e+06 FLOP'
        """
        count = self.parameters
        size = f"{count / 1e6:,.0f} M" if count >= 1e6 else f"{count:,}"
        return f"{self.name} ({size} parameters): about {2.0 * count * tokens:.2g} FLOP"


def blueprint(name: str | Path, *, classifies: bool = False, trust_remote_code: bool = False) -> Blueprint:
    """The model in a folder or under a hub name, by its configuration.

    Args:
        name: as everywhere; an adapter is its base's blueprint.
        classifies: a sequence classifier, as rewards are.
        trust_remote_code: run Python files that come with the model.

    Raises:
        ModelError: nothing there.
        UsageError: a model that does not classify where one has to.
    """
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification

    source = find_source(name, weights=False, remote_code=trust_remote_code)
    if source.kind == "adapter":
        base = base_name(source.path)
        found = blueprint(base, classifies=classifies, trust_remote_code=trust_remote_code)
        return Blueprint(str(name), found.model, load_tokenizer(name, trust_remote_code=trust_remote_code))
    with quiet_transformers():
        config = AutoConfig.from_pretrained(**_place(source), trust_remote_code=trust_remote_code)
        architecture = (config.architectures or ["model"])[0]
        if classifies and not architecture.endswith("ForSequenceClassification"):
            raise UsageError(f"reward `{name}` is a {architecture}, which does not classify")
        kind = AutoModelForSequenceClassification if classifies else AutoModelForCausalLM
        with torch.device("meta"):
            model = kind.from_config(config, trust_remote_code=trust_remote_code)
    return Blueprint(str(name), model, load_tokenizer(name, trust_remote_code=trust_remote_code))


def _place(source: Source) -> dict[str, Any]:
    if source.kind == "gguf":
        return {"pretrained_model_name_or_path": str(source.path.parent), "gguf_file": source.path.name}
    return {"pretrained_model_name_or_path": str(source.path)}


def reward_blueprint(reward: Any) -> Blueprint | None:
    """Of a reward that is a model; None for a rule or a function, which are resolved.

    Raises:
        UsageError: no such reward.
        ModelError: no classifier of that name.
    """
    if not isinstance(reward, str):
        return None
    if names_a_model(reward):
        return blueprint(reward, classifies=True)
    resolve_reward(reward)
    return None
