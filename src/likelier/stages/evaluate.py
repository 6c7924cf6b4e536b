"""Evaluation on held-out rows, with n and an interval for every figure.

    likelier evaluate preferences runs/reward runs/first --data preferences.jsonl --eval-share 0.1 --out runs/compared

How well does a reward predict which answer people preferred? A reward model's values, or the implicit reward of a DPO
policy, math.md (8), on the same pairs by the same figures: accuracy, log loss, calibration, and all that by length.
"""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from likelier.config import named_data, read_yaml
from likelier.data.records import Record
from likelier.data.splitting import hash_records, split_by_prompt
from likelier.data.trees import Tree
from likelier.data.usable import usable_records, usable_trees
from likelier.errors import DataError, UsageError
from likelier.manifest import as_json, write_manifest, write_whole
from likelier.models.folders import work_error
from likelier.models.heads import value_head
from likelier.models.loading import Loaded, load_model
from likelier.models.reward_model import inner_model
from likelier.report.preferences import preferences_picture
from likelier.scoring.precision import default_device, master_dtype
from likelier.scoring.whole import chosen_precision, score_trees
from likelier.stages.evaluate_config import EvaluateConfig
from likelier.stats import Estimate
from likelier.stats.preferences import Group, PreferenceEvaluation, evaluate_preferences

Say = Callable[[str], None]


def evaluate(
    what: str, runs: str | Path | Sequence[str | Path], data: Any, *, out: str | Path, **config: Any
) -> dict[str, PreferenceEvaluation]:
    """How well the rewards of `runs` predict the preferences in `data`: one evaluation for each, by name.

    Args:
        what: `"preferences"`.
        runs: run folders of `reward` or `dpo`, reward models, or policies with `reference=`.
        data: a path or hub name, rows, or a `datasets.Dataset`.
        out: a folder for `preferences.csv`, `.json`, `.svg` and `.png`.
        config: every other setting of `likelier evaluate`, by name.

    Raises:
        UsageError, DataError, ModelError: settings, data or models that cannot be used as given.

    >>> evaluate("preferences", "runs/reward", "held_out.jsonl", out="runs/held-out")  # doctest: +SKIP
    """
    names = [str(run) for run in ([runs] if isinstance(runs, (str, Path)) else runs)]
    settings = EvaluateConfig.build(
        {"what": what, "runs": names, "data": named_data(data), "out": Path(out), **config}
    )
    return _KINDS[settings.what](settings, data, lambda text: None)


def main(config: EvaluateConfig) -> int:
    """The command."""
    found = _KINDS[config.what](config, config.data, lambda text: print(text, file=sys.stderr))
    if config.json_:
        print(as_json({name: one.as_dict() for name, one in found.items()}))
        return 0
    for name, one in found.items():
        print("\n".join([name, *(f"  {line}" for line in _words(one))]))
    print(f"written to {config.out}")
    return 0


@dataclass(frozen=True, slots=True)
class _Judge:
    """Where a reward comes from."""

    name: str
    model: str
    reference: str | None
    beta: float
    trained_on: str | None
    """Hash of the rows it was trained on, where a run says so."""


def _preferences(config: EvaluateConfig, data: Any, say: Say) -> dict[str, PreferenceEvaluation]:
    if config.out.exists() and not config.out.is_dir():
        raise UsageError(f"--out {config.out} is a file; choose a folder")
    judges = [_judge(config, name) for name in config.runs]
    records = usable_records(config, data, say)
    if config.eval_share is not None:
        records = split_by_prompt(records, config.eval_share, seed=0)[1]
    seen = hash_records(records)
    found = {}
    for judge in judges:
        if judge.trained_on == seen:
            say(f"warning: {judge.name} was trained on these very rows: its figures say nothing of others")
        found[judge.name] = _evaluated(config, judge, records, say)
    _write(config, found)
    return found


def _judge(config: EvaluateConfig, name: str) -> _Judge:
    """A run folder says what it was held to; of a model's name nothing is known."""
    folder = Path(name)
    if not (folder / "config.yaml").is_file():
        return _Judge(name, name, config.reference, config.beta or 0.1, None)
    if not (folder / "model").is_dir():
        raise UsageError(f"{name} is a run without a model; finish it with --resume")
    known = read_yaml(folder / "config.yaml")
    start = known.get("reference") or known.get("model")
    # One that was in memory is known by its type alone: `<LlamaForCausalLM>`.
    start = None if start is None or str(start).startswith("<") else str(start)
    manifest = read_yaml(folder / "manifest.json") if (folder / "manifest.json").is_file() else {}
    return _Judge(
        name,
        str(folder / "model"),
        config.reference or start,
        config.beta or known.get("beta") or 0.1,
        manifest.get("inputs", {}).get("train"),
    )


def _evaluated(
    config: EvaluateConfig, judge: _Judge, records: Sequence[Record], say: Say
) -> PreferenceEvaluation:
    loaded = _load(config, judge.model)
    trees = usable_trees(config, records, loaded.tokenizer, need="pairs", group_prompts=True, say=say)
    if not trees:
        raise DataError("the data holds no pair of answers of which one is preferred")
    rewards = _scored(config, loaded, trees, say)
    if value_head(inner_model(loaded.model)) is None:
        if judge.reference is None:
            raise UsageError(
                f"{judge.name} is no reward model; its implicit reward needs the policy that it started from:"
                " --reference MODEL"
            )
        reference = _scored(config, _load(config, judge.reference, loaded.tokenizer), trees, say)
        rewards = [
            [judge.beta * (ours - theirs) for ours, theirs in zip(*both, strict=True)]
            for both in zip(rewards, reference, strict=True)
        ]
    compared = [(index, c) for index, tree in enumerate(trees) for c in tree.comparisons]
    return evaluate_preferences(
        [rewards[i][c.chosen] - rewards[i][c.rejected] for i, c in compared],
        length_differences=[
            trees[i].branch_length(c.chosen) - trees[i].branch_length(c.rejected) for i, c in compared
        ],
        prompts=[i for i, _ in compared],
    )


def _load(config: EvaluateConfig, name: str, tokenizer: Any = None) -> Loaded:
    return load_model(
        name,
        tokenizer=tokenizer,
        dtype=master_dtype(chosen_precision(config.precision)),
        device=default_device(),
        trust_remote_code=config.trust_remote_code,
        rewards=True,
    )


def _scored(config: EvaluateConfig, loaded: Loaded, trees: Sequence[Tree], say: Say) -> list[list[float]]:
    precision = chosen_precision(config.precision)
    return score_trees(loaded, trees, precision=precision, max_tokens=config.max_tokens, say=say)


def _words(one: PreferenceEvaluation) -> Iterator[str]:
    yield f"accuracy {one.accuracy}"
    yield f"log loss {one.log_loss}; log 2 = 0.6931 for a coin"
    yield (
        f"expected calibration error {one.calibration_error:.3f}; chance alone stays below"
        f" {one.calibration_error_if_calibrated:.3f} in 95 % of draws"
    )
    yield f"the longer answer is the chosen one: {one.longer_chosen}"
    for group in one.by_length:
        yield f"accuracy with {group.low:+.0f} to {group.high:+.0f} tokens more: {group.accuracy}"


def _write(config: EvaluateConfig, found: dict[str, PreferenceEvaluation]) -> None:
    """Four files, each whole, and the manifest last."""
    try:
        config.out.mkdir(parents=True, exist_ok=True)
        picture = config.out / "preferences.png"
        beside = picture.with_name(f".{picture.name}.partial")
        beside.write_bytes(preferences_picture(found, form="png"))
        beside.replace(picture)
    except OSError as error:
        raise work_error(error, config.out) or error from None
    write_whole(config.out / "preferences.svg", preferences_picture(found, form="svg").decode())
    write_whole(config.out / "preferences.csv", _csv(found))
    result = {name: one.as_dict() for name, one in found.items()}
    write_whole(config.out / "preferences.json", as_json(result, indent=2) + "\n")
    inputs = {name: Path(name) for name in config.data if Path(name).is_file()}
    write_manifest(
        config.out / "preferences.json",
        stage="evaluate",
        config=config.model_dump(mode="json"),
        inputs=inputs,
    )


def _csv(found: dict[str, PreferenceEvaluation]) -> str:
    """A row for each figure, with its interval and n."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["reward", "figure", "from", "to", "mean", "value", "low", "high", "pairs", "prompts"])
    for name, one in found.items():
        for figure in ("accuracy", "log_loss", "margin", "longer_chosen"):
            writer.writerow([name, figure, "", "", "", *_cells(getattr(one, figure))])
        for figure in ("calibration_error", "calibration_error_if_calibrated"):
            writer.writerow([name, figure, "", "", "", getattr(one, figure), "", "", one.pairs, one.prompts])
        for figure in ("reliability", "by_length"):
            for group in getattr(one, figure):
                writer.writerow([name, figure, *_place(group), *_cells(group.accuracy)])
    return text.getvalue()


def _place(group: Group) -> list[float]:
    return [group.low, group.high, group.mean]


def _cells(one: Estimate | None) -> list[Any]:
    return ["", "", "", 0, 0] if one is None else [one.value, one.low, one.high, one.n, one.clusters]


_KINDS = {"preferences": _preferences}
