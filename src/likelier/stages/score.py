"""Score completions: log-probs, and against a reference the implicit rewards.

    likelier score --model runs/first/model --data preferences.jsonl --reference smollm2 --out scores.jsonl

One line per input row, in order. Rewards are math.md (8): `β (log π_θ(y|x) − log π_ref(y|x))`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch

from likelier.config import named, named_data
from likelier.data.columns import parse_columns
from likelier.data.encoding import encode
from likelier.data.faults import Fault
from likelier.data.output import JsonLines, check_out
from likelier.data.reading import load_records
from likelier.data.records import Record
from likelier.data.trees import Tree
from likelier.errors import DataError, UsageError
from likelier.manifest import write_manifest
from likelier.models.folders import work_error
from likelier.models.loading import Loaded, load_model
from likelier.models.noise import silence_noise
from likelier.scoring.cache import LogpCache, cache_folder
from likelier.scoring.equality import choose_way
from likelier.scoring.limits import require_context, require_masters
from likelier.scoring.precision import DTYPES, Precision, default_device, default_precision, master_dtype
from likelier.scoring.reference import branch_sums, in_tenths, model_digest, reference_logps
from likelier.scoring.scorer import Scorer
from likelier.stages.score_config import ScoreConfig


def score(
    model: Any,
    data: Any,
    *,
    reference: Any = None,
    out: str | Path | None = None,
    tokenizer: Any = None,
    **config: Any,
) -> list[dict[str, Any]]:
    """Log-probs of every completion in `data` under `model`; one dictionary per row.

    Args:
        model: a name, a folder, or a module with its `tokenizer`.
        data: a path or hub name, rows, or a `datasets.Dataset`.
        reference: another model; adds `reference_logps` and `rewards`, math.md (8).
        out: a JSON Lines file to write as well.
        config: every other setting of `likelier score`, by name.

    Raises:
        UsageError, DataError, ModelError: settings, data or models that cannot be used as given.

    >>> score("smollm2", [{"prompt": "2 + 2 =", "chosen": " 4", "rejected": " 5"}])[0]["lengths"]  # doctest: +SKIP
    [3, 3]
    """
    values = {"model": named(model), "reference": named(reference), "data": named_data(data)}
    settings = ScoreConfig.build(values | {"out": None if out is None else Path(out)} | config)
    return _score(settings, model, data, reference, tokenizer, say=lambda text: None)


def main(config: ScoreConfig) -> int:
    """The command."""
    lines = _score(
        config, config.model, config.data, config.reference, None, say=lambda t: print(t, file=sys.stderr)
    )
    if config.json_:
        tokens = sum(sum(line["lengths"]) for line in lines)
        nll = -sum(sum(line["logps"]) for line in lines) / max(1, tokens)
        print(json.dumps({"rows": len(lines), "scored_tokens": tokens, "nll_per_token": nll}))
    elif config.out is None:
        for line in lines:
            print(json.dumps(line))
    return 0


def _score(
    config: ScoreConfig, model: Any, data: Any, reference: Any, tokenizer: Any, *, say: Callable[[str], None]
) -> list[dict[str, Any]]:
    check_out(config.out, config.data)
    precision = _precision(config)
    loaded = load_model(
        model,
        tokenizer=tokenizer,
        dtype=master_dtype(precision),
        device=default_device(),
        trust_remote_code=config.trust_remote_code,
    )
    records, trees = _read(config, data, loaded.tokenizer, say)
    logps = _sums(loaded, trees, config, precision, say)
    referenced = None
    if reference is not None:
        other = load_model(
            reference,
            tokenizer=loaded.tokenizer,
            dtype=master_dtype(precision),
            device=default_device(),
            trust_remote_code=config.trust_remote_code,
        )
        referenced = _sums(other, trees, config, precision, say)
    lines = list(_lines(records, trees, logps, referenced, config.beta))
    if config.out is not None:
        _write(config.out, lines, config)
        say(f"{len(lines)} rows scored into {config.out}")
    return lines


def _precision(config: ScoreConfig) -> Precision:
    if config.precision == "float64" and default_device().type == "cuda":
        raise UsageError("--precision float64 is for the CPU; take float32 or bfloat16 on CUDA")
    return config.precision or default_precision(default_device())


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


def _read(
    config: ScoreConfig, data: Any, tokenizer: Any, say: Callable[[str], None]
) -> tuple[list[Record], list[Tree]]:
    """The rows that can be scored, and one tree of each with every completion as a branch."""
    records, faults = load_records(
        data,
        format=config.format,
        columns=parse_columns(config.columns),
        as_messages=config.as_ == "messages",
        skip_bad_rows=config.skip_bad_rows,
    )
    encoded = encode(
        records,
        tokenizer,
        need="completions",
        max_length=config.max_length,
        allow_template_edits=config.allow_template_edits,
        cut_answers=config.cut_answers,
        group_prompts=False,
    )
    refused = [*faults, *encoded.refused]
    if encoded.refused and not config.skip_bad_rows:
        raise DataError(
            f"{len(encoded.refused)} rows cannot be scored; the first: {encoded.refused[0]}"
            " (--skip-bad-rows leaves such rows out)"
        )
    if refused:
        say(f"left out as unusable: {_by_kind(refused)}")
    return records, encoded.trees


@torch.no_grad()
def _sums(
    loaded: Loaded,
    trees: Sequence[Tree],
    config: ScoreConfig,
    precision: Precision,
    say: Callable[[str], None],
) -> list[list[float]]:
    """Per tree and branch the log-prob, through the cache that training shares."""
    model = loaded.model
    require_masters(model, precision)
    require_context(model, trees, name=loaded.name)
    with ExitStack() as stack:
        stack.callback(silence_noise(model).undo)
        choice = choose_way(model)
        scorer = Scorer(
            model,
            dtype=DTYPES[precision],
            way=choice.way,
            own_head=choice.own_head,
            max_tokens=config.max_tokens,
        )
        stack.callback(scorer.close)
        cache = stack.enter_context(LogpCache(cache_folder()))
        logps = reference_logps(
            scorer, trees, cache=cache, digest=model_digest(scorer), on_progress=in_tenths(say, loaded.name)
        )
    return [branch_sums(own).tolist() for own in logps]


def _lines(
    records: Sequence[Record],
    trees: Sequence[Tree],
    logps: Sequence[Sequence[float]],
    referenced: Sequence[Sequence[float]] | None,
    beta: float,
) -> Any:
    """One line per row, completions in the order of the row."""
    for index, tree in enumerate(trees):
        record = records[tree.sources[0][0][0]]
        branch = {c: b for b, sources in enumerate(tree.sources) for _, c in sources}
        order = [branch[c] for c in range(len(record.completions))]
        line: dict[str, Any] = {"id": record.id, "row": record.row}
        line["logps"] = [logps[index][b] for b in order]
        line["lengths"] = [tree.branch_length(b) for b in order]
        if referenced is not None:
            line["reference_logps"] = [referenced[index][b] for b in order]
            line["rewards"] = [
                beta * (ours - theirs)
                for ours, theirs in zip(line["logps"], line["reference_logps"], strict=True)
            ]
        yield line


def _by_kind(faults: Sequence[Fault]) -> str:
    kinds = [fault.kind for fault in faults]
    return ", ".join(f"{kind} {kinds.count(kind)}" for kind in dict.fromkeys(kinds))
