"""A world from plain data, as a YAML or JSON file holds it.

    beta: 0.5                       # optional
    prompts:
      - prompt: Will it rain?
        weight: 2                   # optional, 1: how often it is asked, beside the others
        completions:
          - {text: Perhaps., reference: 0.75, reward: 1.0}
          - {text: No., reference: 0.25, reward: -0.5}

`reference` is π_ref(y|x), and adds up to 1 over a prompt's completions; `reward` is r(x, y). Prompts may have different
numbers of completions. A probability may be 0: then no policy can give that completion.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch

from likelier.objectives.lookup import nearest
from likelier.theory.world import World

MOST = 32
"""Completions of a prompt: beyond that descents take minutes."""
_SUM = 1e-6
"""Decimal fractions may miss 1 by so much; they are then scaled to add up to 1."""


class WorldFileError(ValueError):
    """Data that is no world; the message names the file, the prompt and the field, and the remedy."""


@dataclass(frozen=True, kw_only=True)
class GivenWorld:
    """What a file says."""

    world: World
    beta: float | None
    """β, where the file has one."""


def world_from(data: Any, *, source: str) -> GivenWorld:
    """The world that `data` describes, in the form at the top of this file.

    Args:
        data: mappings, lists, numbers and text.
        source: what the data came from, for messages.

    Raises:
        WorldFileError: what is wrong, and where.

    >>> rain = {"prompt": "Rain?", "completions": [{"text": "Yes.", "reference": 0.25, "reward": 1},
    ...     {"text": "No.", "reference": 0.75, "reward": 0}]}
    >>> world_from({"prompts": [rain]}, source="rain.yaml").world.log_reference.exp().tolist()
    [[0.25, 0.75]]
    >>> world_from({"prompts": [rain | {"wieght": 2}]}, source="rain.yaml")
    Traceback (most recent call last):
    ...
    likelier.theory.reading.WorldFileError: rain.yaml: prompt 1 (`Rain?`): unknown key `wieght`; did you mean `weight`?
    """
    top = _mapping(data, source, needed=("prompts",), known=("prompts", "beta"))
    rows = _items(top["prompts"], f"{source}: `prompts`")
    prompts = [_prompt(row, f"{source}: prompt {number}") for number, row in enumerate(rows, 1)]
    _told_apart([prompt.text for prompt in prompts], f"{source}: prompt")
    beta = None if top.get("beta") is None else _number(top, "beta", source)
    if beta is not None and not beta > 0.0:
        raise WorldFileError(f"{source}: `beta` must be positive, not {beta:g}")
    weights = torch.tensor([prompt.weight for prompt in prompts], dtype=torch.float64)
    if not float(weights.sum()) > 0.0:
        raise WorldFileError(f"{source}: the prompts' weights are all 0; give one of them more")
    width = max(len(prompt.names) for prompt in prompts)
    world = World(
        log_reference=torch.stack([_filled(prompt.log_reference, width, -torch.inf) for prompt in prompts]),
        reward=torch.stack([_filled(prompt.reward, width, 0.0) for prompt in prompts]),
        prompt_weights=weights / weights.sum(),
        prompts=tuple(prompt.text for prompt in prompts),
        completions=tuple(prompt.names for prompt in prompts),
    )
    return GivenWorld(world=world, beta=beta)


@dataclass(frozen=True, kw_only=True)
class _Prompt:
    text: str
    weight: float
    names: tuple[str, ...]
    log_reference: torch.Tensor
    reward: torch.Tensor


def _prompt(row: Any, where: str) -> _Prompt:
    if isinstance(row, dict) and isinstance(row.get("prompt"), str):
        where = f"{where} (`{_short(row['prompt'])}`)"
    row = _mapping(row, where, needed=("prompt", "completions"), known=("prompt", "weight", "completions"))
    weight = _number(row, "weight", where) if "weight" in row else 1.0
    if weight < 0.0:
        raise WorldFileError(f"{where}: `weight` is at least 0, not {weight:g}")
    found = _items(row["completions"], f"{where}: `completions`")
    if len(found) > MOST:
        raise WorldFileError(
            f"{where}: {len(found)} completions; a small world has at most {MOST} for each prompt"
        )
    cells = [_completion(cell, f"{where}, completion {number}") for number, cell in enumerate(found, 1)]
    _told_apart([text for text, _, _ in cells], f"{where}, completion")
    reference = torch.tensor([probability for _, probability, _ in cells], dtype=torch.float64)
    total = float(reference.sum())
    if not abs(total - 1.0) <= _SUM:
        raise WorldFileError(
            f"{where}: `reference` adds up to {total:.7g} over its completions; it must add up to 1"
        )
    reward = torch.tensor([reward for _, _, reward in cells], dtype=torch.float64)
    return _Prompt(text=_text(row, "prompt", where), weight=weight, names=tuple(text for text, _, _ in cells),
                   log_reference=(reference / total).log(), reward=reward)  # fmt: skip


def _completion(cell: Any, where: str) -> tuple[str, float, float]:
    if isinstance(cell, dict) and isinstance(cell.get("text"), str):
        where = f"{where} (`{_short(cell['text'])}`)"
    keys = ("text", "reference", "reward")
    cell = _mapping(cell, where, needed=keys, known=keys)
    probability = _number(cell, "reference", where)
    if not 0.0 <= probability <= 1.0:
        raise WorldFileError(f"{where}: `reference` is a probability, between 0 and 1, not {probability:g}")
    return _text(cell, "text", where), probability, _number(cell, "reward", where)


def _mapping(value: Any, where: str, *, needed: Iterable[str], known: Iterable[str]) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise WorldFileError(
            f"{where} must hold {', '.join(f'`{key}:`' for key in needed)}, not {_kind(value)}"
        )
    for key in value:
        if key not in known:
            raise WorldFileError(f"{where}: unknown key `{key}`{nearest(str(key), known)}")
    for key in needed:
        if value.get(key) is None:
            raise WorldFileError(f"{where}: `{key}` is missing")
    return value


def _items(value: Any, where: str) -> list[Any]:
    if not isinstance(value, list) or not value:
        raise WorldFileError(f"{where} must be a list of at least one, not {_kind(value)}")
    return value


def _number(row: dict[str, Any], key: str, where: str) -> float:
    value = row[key]
    try:
        # YAML reads 1e-3 as text, and people mean a number; true is no number, though Python counts with it.
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise WorldFileError(f"{where}: `{key}` must be a finite number, not {_kind(value)}")
    return number


def _text(row: dict[str, Any], key: str, where: str) -> str:
    if not isinstance(row[key], str):
        raise WorldFileError(f"{where}: `{key}` must be text, not {_kind(row[key])}; put it in quotes")
    return str(row[key])


def _told_apart(texts: list[str], where: str) -> None:
    for number, text in enumerate(texts, 1):
        if text in texts[: number - 1]:
            raise WorldFileError(f"{where} {number}: `{_short(text)}` is there twice; leave one")


def _kind(value: Any) -> str:
    if value is None:
        return "nothing"
    return f"a {type(value).__name__}" if isinstance(value, (dict, list)) else f"`{_short(str(value))}`"


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 40 else f"{line[:39]}…"


def _filled(row: torch.Tensor, width: int, value: float) -> torch.Tensor:
    return torch.nn.functional.pad(row, (0, width - len(row)), value=value)
