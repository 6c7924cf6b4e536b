"""RL fine-tuning: the policy answers prompts, a reward judges the answers, and likelier become the better ones.

    likelier ppo --model smollm2 --prompts prompts.jsonl --reward vader --out runs/ppo

math.md (4): `max E[r(x, y)] − β KL(π_θ ‖ π_ref)`. A step draws a rollout (answers to the next prompts, by the engine of
`likelier sample`), scores it under policy and reference, and learns from it in a few updates: PPO with a learned value
(`--advantage gae`), or each answer against the others to its prompt (`rloo`, `grpo`).

Where it departs: the value is a linear output of the policy itself, so that one forward gives log-probs and values; a
prompt is read once for all its answers; the penalty of GRPO stands in the reward, as that of the others, since the
optimum is then that of (4).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from likelier.config import named, reward_name
from likelier.engines.rewards import Reward, resolve_reward, reward_of
from likelier.training.on_step import OnStep
from likelier.training.policy_gradient import PolicyGradient
from likelier.training.ppo_config import PpoConfig
from likelier.training.run import Run
from likelier.training.session import Inputs, command, train


def ppo(
    model: Any,
    prompts: Any,
    reward: Any,
    *,
    out: str | Path | None = None,
    reference: Any = None,
    on_step: OnStep | None = None,
    tokenizer: Any = None,
    eval_prompts: Any = None,
    **config: Any,
) -> Run:
    """Train `model` to earn `reward` without going far from where it began: math.md (4), arXiv 2305.18290 equation 3.

    Args:
        model: a name, a folder, a GGUF file, or a module or PeftModel with its `tokenizer`.
        prompts: a path, rows with a `prompt` and, if wanted, an `id`, or a `datasets.Dataset`.
        reward: a name (`"vader"`, `"regex:…"`, `"module:function"`, a model's folder), or a function
            `f(prompt, completion) -> float`; one whose first parameter is called `prompts` gets all of a rollout as
            lists.
        out: the run folder; None keeps everything in memory.
        reference: another model than the policy before its first update.
        on_step: called with each line of metrics.
        tokenizer: needed with a module in memory.
        eval_prompts: held-out prompts, in any form of `prompts`.
        config: every other setting of `likelier ppo`, by name.

    Raises:
        UsageError, DataError, ModelError: settings, prompts or models that cannot be used as given.
        WorkError: a reward that is no finite number (names the prompt), a loss that is not finite, a full disk.

    >>> run = ppo("smollm2", [{"prompt": "2 + 2 ="}], "length", max_steps=1)  # doctest: +SKIP
    >>> run.metrics[0]["kl"]  # doctest: +SKIP
    0.0
    """
    inputs = Inputs(model, prompts, eval_prompts, tokenizer)
    given = {
        "model": named(model),
        "prompts": _named(prompts),
        "eval_prompts": _named(eval_prompts),
        "reward": reward if isinstance(reward, str) else reward_name(reward),
        "out": out,
        "reference": named(reference),
        **config,
    }
    settings = PpoConfig.build({name: value for name, value in given.items() if value is not None})
    method = PolicyGradient(settings, _reward(settings, reward), reference=reference).method()
    return train(settings, method, inputs, on_step=on_step, say=lambda text: None, quiet=True)


def main(config: PpoConfig) -> int:
    """The command: the same run, with words on stderr and the result on stdout."""
    method = PolicyGradient(config, resolve_reward(config.reward), reference=config.reference).method()
    return command(config, method, Inputs(config.model, config.prompts, config.eval_prompts))


def _named(prompts: Any) -> str | None:
    if prompts is None:
        return None
    return str(prompts) if isinstance(prompts, (str, Path)) else "<rows>"


def _reward(config: PpoConfig, reward: Any) -> Reward:
    return resolve_reward(config.reward) if isinstance(reward, str) else reward_of(config.reward, reward)
