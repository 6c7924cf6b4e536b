"""Score completions: log-probs, against a reference the implicit rewards, or the rewards of a reward model.

    likelier score --model runs/first/model --data preferences.jsonl --reference smollm2 --out scores.jsonl
    likelier score --reward runs/reward/model --data preferences.jsonl --out rewards.jsonl

One line per input row, in order. Implicit rewards are math.md (8): `β (log π_θ(y|x) − log π_ref(y|x))`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from likelier.config import named, named_data
from likelier.data.labelled import answer_text
from likelier.data.output import JsonLines, check_out
from likelier.data.records import Record
from likelier.data.trees import Tree
from likelier.data.usable import usable_records, usable_trees
from likelier.engines.rewards import resolve_reward
from likelier.manifest import write_manifest
from likelier.models.folders import work_error
from likelier.models.loading import Loaded, load_model
from likelier.models.reward_model import load_reward_model, made_here
from likelier.scoring.precision import default_device, master_dtype
from likelier.scoring.reference import in_tenths
from likelier.scoring.whole import chosen_precision, score_trees
from likelier.stages.score_config import ScoreConfig

Line = dict[str, Any]


def score(
    model: Any = None,
    data: Any = None,
    *,
    reference: Any = None,
    reward: Any = None,
    out: str | Path | None = None,
    tokenizer: Any = None,
    **config: Any,
) -> list[Line]:
    """Log-probs of every completion in `data` under `model`, or its rewards; one dictionary per row.

    Args:
        model: a name, a folder, or a module with its `tokenizer`.
        data: a path or hub name, rows, or a `datasets.Dataset`.
        reference: another model; adds `reference_logps` and `rewards`, math.md (8).
        reward: in place of a model: a reward model in any form of `model`, or the name of another reward.
        out: a JSON Lines file to write as well.
        config: every other setting of `likelier score`, by name.

    Raises:
        UsageError, DataError, ModelError: settings, data or models that cannot be used as given.

    >>> score("smollm2", [{"prompt": "2 + 2 =", "chosen": " 4", "rejected": " 5"}])[0]["lengths"]  # doctest: +SKIP
    [3, 3]
    """
    values = {"model": named(model), "reference": named(reference), "reward": named(reward)}
    given = {name: value for name, value in values.items() if value is not None}
    settings = ScoreConfig.build(
        given | {"data": named_data(data), "out": None if out is None else Path(out)} | config
    )
    return _score(settings, model, data, reference, reward, tokenizer, say=lambda text: None)


def main(config: ScoreConfig) -> int:
    """The command."""
    lines = _score(
        *(config, config.model, config.data, config.reference, config.reward, None),
        say=lambda text: print(text, file=sys.stderr),
    )
    if config.json_:
        print(json.dumps(_summary(lines)))
    elif config.out is None:
        for line in lines:
            print(json.dumps(line))
    return 0


def _summary(lines: Sequence[Line]) -> dict[str, float]:
    if lines and "logps" not in lines[0]:
        rewards = [reward for line in lines for reward in line["rewards"]]
        return {"rows": len(lines), "answers": len(rewards), "mean_reward": sum(rewards) / len(rewards)}
    tokens = sum(sum(line["lengths"]) for line in lines)
    nll = -sum(sum(line["logps"]) for line in lines) / max(1, tokens)
    return {"rows": len(lines), "scored_tokens": tokens, "nll_per_token": nll}


def _score(
    config: ScoreConfig,
    model: Any,
    data: Any,
    reference: Any,
    reward: Any,
    tokenizer: Any,
    *,
    say: Callable[[str], None],
) -> list[Line]:
    check_out(config.out, config.data)
    records = usable_records(config, data, say)
    if reward is None:
        lines = _logps(config, model, reference, tokenizer, records, say)
    elif isinstance(reward, str) and not _is_reward_model(reward):
        lines = _by_text(reward, records)
    else:
        lines = _rewards(config, reward, tokenizer, records, say)
    if config.out is not None:
        _write(config.out, lines, config)
        say(f"{len(lines)} rows scored into {config.out}")
    return lines


def _logps(
    config: ScoreConfig,
    model: Any,
    reference: Any,
    tokenizer: Any,
    records: Sequence[Record],
    say: Callable[[str], None],
) -> list[Line]:
    """Under a model, and under the reference that it is compared with."""
    loaded = _load(load_model, config.model if model is None else model, tokenizer, config)
    trees = _trees(config, records, loaded.tokenizer, say)
    logps = _scored(loaded, trees, config, say)
    referenced = None
    if reference is not None:
        referenced = _scored(_load(load_model, reference, loaded.tokenizer, config), trees, config, say)
    lines = []
    for index, (record, tree) in enumerate(_in_order(records, trees)):
        order = _branches(record, tree)
        line = _line(record, tree, logps=[logps[index][b] for b in order])
        if referenced is not None:
            line["reference_logps"] = [referenced[index][b] for b in order]
            line["rewards"] = [
                config.beta * (ours - theirs)
                for ours, theirs in zip(line["logps"], line["reference_logps"], strict=True)
            ]
        lines.append(line)
    return lines


def _rewards(
    config: ScoreConfig,
    reward: Any,
    tokenizer: Any,
    records: Sequence[Record],
    say: Callable[[str], None],
) -> list[Line]:
    """By a reward model: each prompt is read once for all its answers."""
    loaded = _load(load_reward_model, reward, tokenizer, config)
    trees = _trees(config, records, loaded.tokenizer, say)
    values = _scored(loaded, trees, config, say)
    return [
        _line(record, tree, rewards=[own[b] for b in _branches(record, tree)])
        for own, (record, tree) in zip(values, _in_order(records, trees), strict=True)
    ]


def _by_text(name: str, records: Sequence[Record]) -> list[Line]:
    """By a rule, a function, or a classifier that other people made: they read text."""
    reward = resolve_reward(name)
    lines: list[Line] = []
    for record in records:
        texts = [answer_text(answer) for answer in record.completions]
        places = [f"{record.where}, answer {number}" for number in range(1, len(texts) + 1)]
        rewards = reward([record.prompt] * len(texts), texts, places=places)
        lines.append({"id": record.id, "row": record.row, "rewards": rewards})
    return lines


def _is_reward_model(name: str) -> bool:
    """Whether a name, which may be a rule's, is that of a reward model made here, or of a model that is none."""
    return ("/" in name or Path(name).is_dir()) and ":" not in name and made_here(name)


def _load(loader: Callable[..., Loaded], model: Any, tokenizer: Any, config: ScoreConfig) -> Loaded:
    return loader(
        model,
        tokenizer=tokenizer,
        dtype=master_dtype(chosen_precision(config.precision)),
        device=default_device(),
        trust_remote_code=config.trust_remote_code,
    )


def _trees(
    config: ScoreConfig, records: Sequence[Record], tokenizer: Any, say: Callable[[str], None]
) -> list[Tree]:
    """One tree of each row with every completion as a branch."""
    return usable_trees(config, records, tokenizer, need="completions", group_prompts=False, say=say)


def _scored(
    loaded: Loaded, trees: Sequence[Tree], config: ScoreConfig, say: Callable[[str], None]
) -> list[list[float]]:
    precision = chosen_precision(config.precision)
    told = in_tenths(say, loaded.name)
    return score_trees(loaded, trees, precision=precision, max_tokens=config.max_tokens, on_progress=told)


def _in_order(records: Sequence[Record], trees: Sequence[Tree]) -> Iterator[tuple[Record, Tree]]:
    for tree in trees:
        yield records[tree.sources[0][0][0]], tree


def _branches(record: Record, tree: Tree) -> list[int]:
    """The branch of each completion, in the order of the row."""
    branch = {c: b for b, sources in enumerate(tree.sources) for _, c in sources}
    return [branch[c] for c in range(len(record.completions))]


def _line(record: Record, tree: Tree, **numbers: list[float]) -> Line:
    lengths = [tree.branch_length(b) for b in _branches(record, tree)]
    return {"id": record.id, "row": record.row, **numbers, "lengths": lengths}


def _write(out: Path, lines: Sequence[dict[str, Any]], config: ScoreConfig) -> None:
    """The lines, and beside a plain file its manifest (`/dev/stdout` has no place beside it)."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise work_error(error, out.parent) or error from None
    with JsonLines(out) as file:
        for line in lines:
            file.write(line)
    if out.is_file():
        inputs = {name: Path(name) for name in config.data if Path(name).is_file()}
        write_manifest(out, stage="score", config=config.model_dump(mode="json"), inputs=inputs)
