"""`likelier evaluate preferences`: how well rewards predict which answer people preferred.

A reward model's values, the implicit reward of a DPO policy, math.md (8), or a judge's verdicts, on the same pairs by
the same figures: accuracy, log loss, calibration, by length, and by the category that rows name as their `source`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from likelier.config import read_yaml
from likelier.data.records import Record
from likelier.data.splitting import hash_records, split_by_prompt
from likelier.data.trees import Tree
from likelier.data.usable import usable_records, usable_trees
from likelier.errors import DataError, UsageError
from likelier.models.heads import value_head
from likelier.models.loading import Loaded, load_model
from likelier.models.reward_model import inner_model
from likelier.report.preferences import preferences_picture
from likelier.scoring.precision import default_device, master_dtype
from likelier.scoring.reference import in_tenths
from likelier.scoring.whole import chosen_precision, score_trees
from likelier.stages.evaluate_config import EvaluateConfig
from likelier.stages.evaluate_judge import category_of, evaluated_judge
from likelier.stages.evaluate_output import Outcome, Say, cells, write_outcome
from likelier.stages.evaluate_referees import failures_in, judge_words
from likelier.stats.preferences import Group, PreferenceEvaluation, evaluate_preferences
from likelier.training.stored import held_to

_CALIBRATION = ("calibration_error", "calibration_error_if_calibrated")


@dataclass(frozen=True, slots=True)
class _Rewarder:
    """Where a reward comes from."""

    name: str
    model: str
    reference: str | None
    beta: float
    trained_on: str | None
    """Hash of the rows it was trained on, where a run says so."""


def preferences(config: EvaluateConfig, data: Any, judge_model: Any, tokenizer: Any, *, say: Say) -> Outcome:
    """Evaluates every reward, and the judge, on the pairs of `data`, and writes the files."""
    rewarders = [_rewarder(config, name) for name in config.runs]
    records = usable_records(config, data, say)
    if config.eval_share is not None:
        records = split_by_prompt(records, config.eval_share, seed=0)[1]
    seen = hash_records(records)
    found: dict[str, PreferenceEvaluation] = {}
    for rewarder in rewarders:
        if rewarder.trained_on == seen:
            say(f"warning: {rewarder.name} was trained on these very rows: its figures say nothing of others")
        found[rewarder.name] = _evaluated(config, rewarder, records, say)
    judged: dict[str, Any] = {}
    if config.judge_model is not None:
        name = f"judge {config.judge_model}"
        found[name], judged[name] = evaluated_judge(config, judge_model, tokenizer, records, say=say)
    outcome = Outcome(
        found=found,
        result={
            name: one.as_dict() | ({"judge": judged[name]} if name in judged else {})
            for name, one in found.items()
        },
        words=[
            line
            for name, one in found.items()
            for line in (name, *(f"  {told}" for told in (*_words(one), *judge_words(judged.get(name, {})))))
        ],
        header=[
            *("reward", "figure", "category", "from", "to", "mean"),
            *("value", "low", "high", "pairs", "prompts"),
        ],
        table=list(_table(found)),
        picture=lambda form: preferences_picture(found, form=form),
        failures=sum(failures_in(figures) for figures in judged.values()),
    )
    write_outcome(config, outcome, inputs=config.data)
    return outcome


def _rewarder(config: EvaluateConfig, name: str) -> _Rewarder:
    """A run folder says what it was held to; of a model's name nothing is known."""
    folder = Path(name)
    if not (folder / "config.yaml").is_file():
        return _Rewarder(name, name, config.reference, config.beta or 0.1, None)
    if not (folder / "model").is_dir():
        raise UsageError(f"{name} is a run without a model; finish it with --resume")
    known = read_yaml(folder / "config.yaml")
    manifest = read_yaml(folder / "manifest.json") if (folder / "manifest.json").is_file() else {}
    return _Rewarder(
        name,
        str(folder / "model"),
        config.reference or held_to(known),
        config.beta or known.get("beta") or 0.1,
        manifest.get("inputs", {}).get("train"),
    )


def _evaluated(
    config: EvaluateConfig, rewarder: _Rewarder, records: Sequence[Record], say: Say
) -> PreferenceEvaluation:
    loaded = _load(config, rewarder.model)
    trees = usable_trees(config, records, loaded.tokenizer, need="pairs", group_prompts=True, say=say)
    if not trees:
        raise DataError("the data holds no pair of answers of which one is preferred")
    rewards = _scored(config, loaded, trees, say)
    if value_head(inner_model(loaded.model)) is None:
        if rewarder.reference is None:
            raise UsageError(
                f"{rewarder.name} is no reward model; its implicit reward needs the policy that it started from:"
                " --reference MODEL"
            )
        reference = _scored(config, _load(config, rewarder.reference, loaded.tokenizer), trees, say)
        rewards = [
            [rewarder.beta * (ours - theirs) for ours, theirs in zip(*both, strict=True)]
            for both in zip(rewards, reference, strict=True)
        ]
    compared = [(index, c) for index, tree in enumerate(trees) for c in tree.comparisons]
    return evaluate_preferences(
        [rewards[i][c.chosen] - rewards[i][c.rejected] for i, c in compared],
        length_differences=[
            trees[i].branch_length(c.chosen) - trees[i].branch_length(c.rejected) for i, c in compared
        ],
        prompts=[i for i, _ in compared],
        categories=[category_of(records[c.record]) for _, c in compared],
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
    told = in_tenths(say, loaded.name)
    return score_trees(loaded, trees, precision=precision, max_tokens=config.max_tokens, on_progress=told)


def _words(one: PreferenceEvaluation) -> Iterator[str]:
    yield f"accuracy {one.accuracy}"
    if one.log_loss is not None:
        yield f"log loss {one.log_loss}; log 2 = 0.6931 for a coin"
        yield (
            f"expected calibration error {one.calibration_error:.3f}; chance alone stays below"
            f" {one.calibration_error_if_calibrated:.3f} in 95 % of draws"
        )
    yield f"the longer answer is the chosen one: {one.longer_chosen}"
    for group in one.by_length:
        yield f"accuracy with {group.low:+.0f} to {group.high:+.0f} {one.unit} more: {group.accuracy}"
    for category in one.by_category:
        loss = "" if category.log_loss is None else f"; log loss {category.log_loss}"
        yield f"of {category.name}: accuracy {category.accuracy}{loss}"


def _table(found: dict[str, PreferenceEvaluation]) -> Iterator[list[Any]]:
    """A row for each figure, with its interval and n."""
    for name, one in found.items():
        for figure in ("accuracy", "log_loss", "margin", "longer_chosen"):
            yield [name, figure, "", "", "", "", *cells(getattr(one, figure))]
        for figure in _CALIBRATION:
            yield [name, figure, "", "", "", "", getattr(one, figure), "", "", one.pairs, one.prompts]
        for figure in ("reliability", "by_length"):
            for group in getattr(one, figure):
                yield [name, figure, "", *_place(group), *cells(group.accuracy)]
        for category in one.by_category:
            for figure in ("accuracy", "log_loss"):
                yield [name, figure, category.name, "", "", "", *cells(getattr(category, figure))]
            for figure in _CALIBRATION:
                counted = [category.accuracy.n, category.accuracy.clusters]
                yield [name, figure, category.name, "", "", "", getattr(category, figure), "", "", *counted]


def _place(group: Group) -> list[float]:
    return [group.low, group.high, group.mean]
