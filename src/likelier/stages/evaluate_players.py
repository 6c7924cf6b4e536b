"""Whose answers `winrate` and `temperature` compare: a run's, a model's, those of a file, and at which strength."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from likelier.data.canonical import prompt_digest
from likelier.data.labelled import answer_text
from likelier.data.reading import load_records
from likelier.data.records import Record
from likelier.engines.drawing import Sampler
from likelier.engines.kept_answers import Speaker, answers_of, speaker_at, speaker_of
from likelier.engines.mixing import share_equal_weights
from likelier.engines.reply_cache import ReplyCache
from likelier.errors import DataError, UsageError
from likelier.models.loading import load_model
from likelier.scoring.precision import default_device
from likelier.scoring.whole import chosen_precision
from likelier.stages.evaluate_config import EvaluateConfig
from likelier.stages.evaluate_output import Say
from likelier.stages.evaluate_prompts import answers_each, asked
from likelier.training.stored import loaded_policies, mixed_with, stored_run


@dataclass(frozen=True, slots=True, kw_only=True)
class Player:
    """Whose answers are compared."""

    name: str
    """A run, a model, or a file of answers."""
    strength: float | None = None
    """λ, where it answers mixed with `reference`."""
    reference: str | None = None

    @property
    def who(self) -> str:
        """For people.

        >>> Player(name="runs/first", strength=1.5, reference="smollm2").who
        'runs/first at strength 1.5'
        """
        return self.name if self.strength is None else f"{self.name} at strength {self.strength:g}"

    @property
    def read(self) -> list[str]:
        """The models that its answers are read from: at strength 0 the reference alone, at 1 the model.

        >>> Player(name="runs/first", strength=1.5, reference="smollm2").read
        ['runs/first', 'smollm2']
        """
        own, other = [self.name] * (self.strength != 0.0), [self.reference] * (self.strength != 1.0)
        return own + [name for name in other if name is not None]


def answers_drawn(config: EvaluateConfig, player: Player) -> int:
    """To each prompt: best-of-N of every N is read off the answers of the first run named, over temperatures."""
    first = config.what == "temperature" and player.name == config.runs[0]
    return max([answers_each(config), *(config.best_of if first else [])])


def answers_at(config: EvaluateConfig, player: Player, temperature: float) -> int:
    """To each prompt: at temperature 0 the likeliest tokens are the same every time."""
    return answers_drawn(config, player) if temperature else 1


def players_of(config: EvaluateConfig) -> list[Player]:
    """The runs at `--strength`, and what `--against` names as it is.

    Raises:
        UsageError: a strength of a file of answers, or of a model that does not say what it was trained from.
    """
    against = [] if config.against is None else [Player(name=config.against)]
    return [*(_player(config, name) for name in config.runs), *against]


def _player(config: EvaluateConfig, name: str) -> Player:
    if config.strength is None:
        return Player(name=name)
    if is_samples(name):
        raise UsageError(
            f"--strength says how a model answers, and {name} holds answers: draw those by `likelier sample"
            " --strength`, and name the file in --against"
        )
    return Player(name=name, strength=config.strength, reference=mixed_with(name, config.reference))


def strength_words(players: Sequence[Player]) -> str:
    """What a strength is, and which models were mixed; nothing where none was.

    >>> strength_words([Player(name="runs/first", strength=1.5, reference="smollm2"), Player(name="other")])
    '; strength 1.5: next tokens of runs/first mixed with those of smollm2 (0 is the reference, 1 the model)'
    """
    mixed = [one for one in players if one.strength is not None]
    if not mixed:
        return ""
    both = ", ".join(f"{one.name} mixed with those of {one.reference}" for one in mixed)
    return f"; strength {mixed[0].strength:g}: next tokens of {both} (0 is the reference, 1 the model)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """Somebody's answers to the prompts."""

    who: str
    texts: list[list[str]]
    """`[prompts][answers]`."""
    cut: list[list[bool]]
    """Whether the length limit cut each."""
    temperature: float | None = None
    """That they were sampled at here."""
    strength: float | None = None
    """That they were mixed at."""
    best_of: int | None = None
    """N, where one answer of N is kept."""
    weights: list[list[float]] | None = None
    """`[prompts][answers]`: of best-of-N the chance that each is the one kept."""

    @property
    def num_cut(self) -> float:
        """How many were cut; of best-of-N how many of the kept ones are expected to be."""
        if self.weights is None:
            return sum(map(sum, self.cut))
        both = zip(self.weights, self.cut, strict=True)
        return sum(weight * cut for own in both for weight, cut in zip(*own, strict=True))

    def first(self, n: int) -> Answers:
        """The first `n` answers to each prompt alone."""
        return replace(self, texts=[own[:n] for own in self.texts], cut=[own[:n] for own in self.cut])


def column_answers(column: str, texts: Sequence[str]) -> Answers:
    """The texts of a column, one for each prompt."""
    return Answers(who=f"column {column}", texts=[[text] for text in texts], cut=[[False]] * len(texts))


def is_samples(name: str) -> bool:
    """Whether a name is a file of answers rather than a model's."""
    return Path(name).is_file() and Path(name).suffix != ".gguf"


def sampled_file(name: str, records: Sequence[Record]) -> Answers:
    """The answers in a file of `likelier sample`, prompt by prompt.

    Raises:
        DataError: a file that cannot be read, or that lacks an answer to a prompt.
    """
    found: dict[bytes, Record] = {}
    for one in load_records(name)[0]:
        found.setdefault(prompt_digest(one.prompt), one)
    missing = [record for record in records if prompt_digest(record.prompt) not in found]
    if missing:
        raise DataError(
            f"{name} has no answer to {len(missing)} of {len(records)} prompts; the first is {missing[0].where}: sample"
            " them with `likelier sample`, or leave those prompts out"
        )
    own = [found[prompt_digest(record.prompt)] for record in records]
    return Answers(
        who=name,
        texts=[[answer_text(answer) for answer in record.completions] for record in own],
        cut=[[answer.finish == "length" for answer in record.completions] for record in own],
    )


def sampled_answers(
    config: EvaluateConfig,
    player: Player,
    records: Sequence[Record],
    temperatures: Sequence[float],
    cache: ReplyCache,
    say: Say,
) -> Iterator[Answers]:
    """A model's answers at each temperature, by the same random numbers; a run's are those of its last policy.

    Raises:
        UsageError, ModelError: a run or a model that cannot be used.
    """
    speaker = _speaker(config, player, say)
    for temperature in temperatures:
        sampled, known = answers_of(
            speaker,
            asked(records),
            n=answers_at(config, player, temperature),
            max_new_tokens=config.max_new_tokens,
            sampler=Sampler(seed=config.seed, temperature=temperature),
            cache=cache,
        )
        say(
            f"{player.who}, temperature {temperature:g}: {len(records)} prompts, {known} of them answered before"
        )
        yield Answers(
            who=player.who,
            texts=[[answer.text for answer in prompt.completions] for prompt in sampled],
            temperature=temperature,
            strength=player.strength,
            cut=[[answer.finish == "length" for answer in prompt.completions] for prompt in sampled],
        )


def _speaker(config: EvaluateConfig, player: Player, say: Say) -> Speaker:
    """A run's last policy, or a model; at a strength with its reference beside it, in one set of equal weights."""
    run = stored_run(player.name)
    last = run.policies[-1]
    if last.weights is not None:
        say(f"{player.name} is not finished: its answers are those of step {last.step}")
    precision = chosen_precision(config.precision)
    options: dict[str, Any] = {"device": default_device(), "trust_remote_code": config.trust_remote_code}
    _, loaded = next(loaded_policies(run, [last], dtype=torch.float32, **options))
    policy = speaker_of(loaded, precision)
    if player.strength is None or player.reference is None:
        return policy
    reference = speaker_of(load_model(player.reference, **options), precision)
    share_equal_weights(policy.model, reference.model)
    return speaker_at(policy, reference, player.strength)
