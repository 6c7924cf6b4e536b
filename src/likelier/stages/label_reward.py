"""Preferences by a reward: it scores each prompt's answers; their order, or pairs of them, are the preferences.

    likelier label samples.jsonl --with reward --reward vader --out preferences.jsonl
    likelier label samples.jsonl --with reward --draw bradley-terry --label-temperature 0.5 --out noisy.jsonl

By default a row is a prompt with all its answers, their scores and their ranking, ties together: nothing is lost,
training reads the prompt once, pair losses see every strictly ordered pair and losses over rankings the order. With
`--pairs`, `--min-gap` or `--draw` a row is a pair.

Labels by a reward are deterministic, and the manifest says so: no finite reward explains them (math.md, "Where the
note slips"). Drawn ones have the scores over T as theirs: `p = σ((r_i − r_j) / T)`, math.md (1).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from likelier.data.canonical import digest
from likelier.data.labelled import answer_text, bare, labelled_row, utc_now
from likelier.data.raw_row import ranking_of
from likelier.data.reading import load_records
from likelier.data.records import Record
from likelier.engines.noise import uniform
from likelier.engines.rewards import Reward, resolve_reward, reward_of
from likelier.errors import DataError
from likelier.stages.label_config import LabelConfig
from likelier.stages.label_outcome import Labelled, counted, say_faults, write_labelled
from likelier.stages.label_pairs import EQUAL, Pair, pairs_by_score, unfit, win_probability

PROMPTS = 64
"""Scored in one call, where a function takes lists."""


def label_by_reward(
    config: LabelConfig, samples: Any, reward_given: str | Callable[..., Any], *, say: Callable[[str], None]
) -> Labelled:
    """Scores the answers of `samples` and writes `config.out` and its manifest.

    Raises:
        UsageError: no such reward.
        DataError: samples that cannot be read, or of which none is preferred to another.
        WorkError: a reward that fails or is no finite number.
    """
    if isinstance(reward_given, str):
        reward = resolve_reward(reward_given)
    else:
        reward = reward_of(config.reward, reward_given)
    # An empty answer cannot be read back as one: its row is counted and listed, not trained on.
    records, faults = load_records(samples, skip_bad_rows=True)
    say_faults(faults, say)
    scored = [record for block in blocks_of(records) for record in _scored(block, reward)]
    made = [_labels(config, record, reward) for record in scored]
    labels = [label for of_prompt in made for label in of_prompt.labels]
    labelled = Labelled(
        rows=[
            labelled_row(record, labeller=f"reward {reward.name}", time=utc_now(), reason=reason)
            for record, reason in labels
        ],
        prompts=sum(bool(of_prompt.labels) for of_prompt in made),
        all_answers=sum(len(record.completions) for record in scored),
        pairs=sum(of_prompt.pairs for of_prompt in made),
        undecided=sum(not of_prompt.labels for of_prompt in made),
        skipped=len(faults),
        left_out=sum((of_prompt.left_out for of_prompt in made), Counter()),
        figures={"against_scores": sum(_against(record) for record, _ in labels)} if config.draw else {},
    )
    if not labels:
        raise DataError(_nothing(config, labelled))
    write_labelled(config, labelled, faults, labels=_kind(config))
    say(_told(config, labelled))
    return labelled


def blocks_of(records: list[Record]) -> list[list[Record]]:
    """What is scored in one call."""
    return [records[start : start + PROMPTS] for start in range(0, len(records), PROMPTS)]


@dataclass(frozen=True, slots=True)
class _Made:
    """What one prompt gives."""

    labels: list[tuple[Record, str]] = field(default_factory=list)
    """Labelled records, each with its reason."""
    pairs: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    """Pairs that were considered and make no preference."""


def _scored(records: list[Record], reward: Reward) -> list[Record]:
    """The records with scores in place of whatever labels they had."""
    asked = [(record, answer) for record in records for answer in record.completions]
    scores = iter(
        reward(
            [record.prompt for record, _ in asked],
            [answer_text(answer) for _, answer in asked],
            places=[record.where for record, _ in asked],
        )
    )
    return [replace(bare(record), scores=[next(scores) for _ in record.completions]) for record in records]


def _labels(config: LabelConfig, record: Record, reward: Reward) -> _Made:
    choice = pair_choice(config)
    scores = record.scores or []
    if choice == "ranking":
        return _ranking(record, scores, reward.meaning)
    made = _Made()
    pairs = pairs_by_score(scores, choice)
    for pair in pairs:
        if reason := unfit(scores, record.completions, pair, config.min_gap, drawn=config.draw is not None):
            made.left_out[reason] += 1
        else:
            made.labels.append(_label(config, record, scores, pair, reward.meaning))
    return replace(made, pairs=len(made.labels))


def pair_choice(config: LabelConfig) -> Literal["ranking", "all", "adjacent", "best-worst"]:
    """What `--pairs` says, or stands for: rankings, but for gaps and draws, which are about two answers."""
    assert config.pairs != "ring"  # refused: it is a judge's
    return config.pairs or ("all" if config.draw or config.min_gap else "ranking")


def _ranking(record: Record, scores: list[float], meaning: str) -> _Made:
    ranking = ranking_of(scores)
    total = len(scores) * (len(scores) - 1) // 2
    tied = sum(len(group) * (len(group) - 1) // 2 for group in ranking)
    left_out = Counter({EQUAL: tied} if tied else {})
    if len(ranking) < 2:
        return _Made(left_out=left_out)
    if len(scores) == 2:
        record = _pair(record, scores, ranking[0][0], ranking[1][0])
    else:
        record = replace(record, ranking=ranking)
    return _Made([(record, meaning)], total - tied, left_out)


def _label(
    config: LabelConfig, record: Record, scores: list[float], pair: Pair, meaning: str
) -> tuple[Record, str]:
    """The preference of a pair: for the higher score, or drawn."""
    first, second = pair
    first_wins, chance = scores[first] > scores[second], ""
    if config.draw is not None:
        p = win_probability(scores[first], scores[second], config.label_temperature)
        first_wins = _drawn(config.seed, record, pair) < p
        chance = f"; drawn, with probability {p if first_wins else 1 - p:.4g}"
    better, worse = pair if first_wins else (second, first)
    made = _pair(record, scores, better, worse)
    if len(scores) > 2:
        made = replace(made, id=f"{record.id}:{first + 1}-{second + 1}")
    return made, f"{meaning}: {scores[better]:.6g} against {scores[worse]:.6g}{chance}"


def _drawn(seed: int, record: Record, pair: Pair) -> float:
    """Noise that belongs to the pair: neither other rows nor other answers change it."""
    first, second = (record.completions[index].content for index in pair)
    return uniform(seed, record.id, *pair, digest([first, second]).hex())


def _pair(record: Record, scores: list[float], better: int, worse: int) -> Record:
    return replace(
        record,
        completions=[record.completions[better], record.completions[worse]],
        scores=[scores[better], scores[worse]],
        ranking=[[0], [1]],
    )


def _against(record: Record) -> bool:
    return record.scores is not None and record.scores[0] < record.scores[1]


def _kind(config: LabelConfig) -> str:
    if config.draw is None:
        return (
            "deterministic: the higher score is preferred; no finite reward has these labels as its optimum"
        )
    return (
        f"drawn from Bradley-Terry: p = σ((r_i - r_j) / T) with T = {config.label_temperature:g}, "
        f"seed {config.seed}; the reward r / T explains them"
    )


def _nothing(config: LabelConfig, labelled: Labelled) -> str:
    if set(labelled.left_out) == {EQUAL}:
        return (
            f"{config.samples}: `{config.reward}` scores all answers of every prompt alike, so nothing is "
            "preferred; sample more answers or choose another --reward"
        )
    why = counted(labelled.left_out) or "no prompt has two answers"
    return f"{config.samples}: no pair of answers is left ({why}); sample more answers or lower --min-gap"


def _told(config: LabelConfig, labelled: Labelled) -> str:
    told = (
        f"pairs: {labelled.pairs:,}; prompts with a pair: {labelled.prompts:,}, without: {labelled.undecided:,}; "
        f"labels {_kind(config)}"
    )
    if config.draw is not None:
        told += f"; drawn against the scores: {labelled.figures['against_scores']:,}"
    return f"{told}; pairs left out: {counted(labelled.left_out)}" if labelled.left_out else told
