"""The whole way, stage by stage: prompts → answers → preferences → reward model and DPO, and again.

    likelier demo --stages --rounds 2 --out runs/stages

Every stage is called as its command is: it reads files, leaves files, and its command is shown, so that any of them
can be run again or replaced. From the second round on the answers are the policy's own (on-policy, iterative DPO):
a round's reference is the policy that it starts from, so that β holds it to its last self, not to the first.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from likelier.engines.rewards import Reward, resolve_reward
from likelier.engines.sampling import SampledPrompt
from likelier.errors import WorkError
from likelier.manifest import versions, write_whole
from likelier.models.cards import model_card
from likelier.models.loading import load_model
from likelier.models.saving import save_model
from likelier.report.comparison import compare, rewards_of
from likelier.report.rounds import Labelling, Round, RoundsPage, render_rounds
from likelier.stages.demo_calls import Calls
from likelier.stages.demo_config import DemoConfig
from likelier.stages.demo_folder import check_folder, make_folder
from likelier.stages.demo_prompts import DemoPrompt, last_turn, read_demo_prompts, write_demo_prompts
from likelier.stages.demo_size import HELD_OUT_SEED, Size, size_of
from likelier.stages.demo_story import Story
from likelier.stages.dpo import dpo
from likelier.stages.label import label
from likelier.stages.reward import reward
from likelier.stages.sample import as_sampled, sample
from likelier.stages.score import score

JUDGED = 24
"""Prompts of the first round whose preferences the judge is asked about."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Way:
    """What every round knows."""

    config: DemoConfig
    size: Size
    story: Story
    calls: Calls
    truth: Reward
    prompts: dict[str, list[DemoPrompt]]

    @property
    def folder(self) -> Path:
        return self.config.out

    @property
    def start(self) -> Path:
        """The model that the first round starts from."""
        return self.folder / "start"

    def round(self, number: int) -> Path:
        """The folder of a round."""
        return self.folder / f"round-{number}"

    def policy(self, number: int) -> Path:
        """The model after a round; 0 is before all."""
        return self.round(number) / "dpo" / "model" if number else self.start

    def held_out(self, number: int) -> Path:
        """Its answers to prompts never trained on."""
        return self.round(number) / "held-out.jsonl"


def walk_stages(config: DemoConfig) -> tuple[Path, Path]:
    """Runs `config.rounds` rounds; returns the page and the results file."""
    way = _begin(config)
    rounds = [_round_zero(way)]
    labellings: list[Labelling] = []
    for number in range(1, config.rounds + 1):
        rounds.append(_round(way, number, rounds[0]))
        if number == 1:
            labellings = _other_labellers(way)
    learned = _learned_rewards(way, rounds)
    way.story.rounds(rounds, learned)
    return _write(way, rounds, labellings, learned)


def _begin(config: DemoConfig) -> _Way:
    """Refuses what cannot work, makes the folder, and stores the model where every stage can load it."""
    truth, prompts, size = (
        resolve_reward(config.reward),
        read_demo_prompts(config.prompts),
        size_of(quick=config.quick),
    )
    check_folder(config)
    story = Story()
    way = _Way(config=config, size=size, story=story, calls=Calls(story), truth=truth, prompts=prompts)
    story.opening(model=config.model or "SmolLM2-135M-Instruct", reward=truth.name)
    with story.step("The model as it is"):
        loaded = load_model(config.model or "smollm2")
        make_folder(config)
        card = model_card(loaded.name, method="unchanged", data={}, settings={}, results=[])
        save_model(loaded.model, loaded.tokenizer, way.start, card=card)
        story.say(f"stored in {way.start}")
    write_demo_prompts(way.folder / "prompts-train.jsonl", prompts["train"][:: size.train_stride])
    write_demo_prompts(way.folder / "prompts-held-out.jsonl", prompts["held-out"])
    return way


def _round_zero(way: _Way) -> Round:
    with way.story.step("Before: answers to prompts about subjects never trained on"):
        answers = _answer_held_out(way, 0)
    return Round(number=0, answers=answers, rewards=rewards_of(way.truth, answers))


def _round(way: _Way, number: int, before: Round) -> Round:
    """Answers, preferences, DPO, and what it did to answers never trained on."""
    config, folder = way.config, way.round(number)
    start, policy = way.policy(number - 1), way.policy(number)
    with way.story.step(f"Round {number}: answers of the policy, preferences between them, DPO"):
        way.calls.call(
            *("sample", sample),
            model=str(start),
            prompts=str(way.folder / "prompts-train.jsonl"),
            n=way.size.answers,
            max_new_tokens=config.max_new_tokens,
            # Held-out answers have an odd number: no round shares a random number with them.
            seed=config.seed + 2 * number,
            out=folder / "samples.jsonl",
        )
        labelled = way.calls.call(
            *("label", label, str(folder / "samples.jsonl")),
            with_="reward",
            reward=config.reward,
            out=folder / "preferences.jsonl",
        )
        run = way.calls.call(
            *("dpo", dpo),
            model=str(start),
            data=str(folder / "preferences.jsonl"),
            beta=config.beta,
            learning_rate=config.learning_rate,
            batch_size=config.batch_size,
            seed=config.seed,
            out=folder / "dpo",
        )
        answers = _answer_held_out(way, number)
        # With β = 1 the reward of `score` is the log-ratio to the start, whose mean estimates the KL. What is no text
        # (an empty answer, NUL bytes) is left out here alone.
        ratios = way.calls.call(
            *("score", score),
            model=str(policy),
            data=str(way.held_out(number)),
            reference=str(way.start),
            beta=1.0,
            skip_bad_rows=True,
            out=folder / "log-ratios.jsonl",
        )
    rewards = rewards_of(way.truth, answers)
    comparison = compare(
        before.answers,
        answers,
        rewards_before=before.rewards,
        rewards_after=rewards,
        kl=[line["rewards"] for line in ratios],
        kl_estimator="mean log-ratio",
    )
    return Round(
        number=number,
        answers=answers,
        rewards=rewards,
        pairs=labelled.pairs,
        comparison=comparison,
        notes=run.notes,
    )


def _answer_held_out(way: _Way, number: int) -> list[SampledPrompt]:
    """With the same random numbers in every round: differences are the model's."""
    rows = way.calls.call(
        *("sample", sample),
        model=str(way.policy(number)),
        prompts=str(way.folder / "prompts-held-out.jsonl"),
        n=way.size.held_out_answers,
        max_new_tokens=way.config.max_new_tokens,
        seed=way.config.seed + HELD_OUT_SEED,
        out=way.held_out(number),
    )
    # Nothing here reads the prompts' tokens.
    return as_sampled(rows, [[]] * len(rows))


def _other_labellers(way: _Way) -> list[Labelling]:
    """The first round's pairs as a judge and a reward model see them, and how people would."""
    first, config = way.round(1), way.config
    with way.story.step("The same answers, labelled by others"):
        asked = first / "to-judge.jsonl"
        rows = (first / "preferences.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
        write_whole(asked, "".join(rows[:JUDGED]))
        verdicts = _judged(way, asked)
        way.calls.call(
            *("label", label, str(way.held_out(0))),
            with_="reward",
            reward=config.reward,
            out=first / "held-out-preferences.jsonl",
        )
        run = way.calls.call(
            *("reward", reward),
            model=str(way.start),
            data=str(first / "preferences.jsonl"),
            eval_data=str(first / "held-out-preferences.jsonl"),
            learning_rate=config.learning_rate,
            batch_size=config.batch_size,
            seed=config.seed,
            out=first / "reward",
        )
        by_hand = ("label", str(first / "samples.jsonl"))
        people = way.calls.shown(*by_hand, with_="human", out=first / "by-people.jsonl")
    labellings = [
        Labelling("judge", f"{config.model or 'SmolLM2'} by log-odds", verdicts),
        Labelling("reward model", "trained on the first round's pairs", _accuracy(run.result)),
        Labelling("people", "open the page and label", people),
    ]
    way.story.labellings(labellings)
    return labellings


def _learned_rewards(way: _Way, rounds: Sequence[Round]) -> list[list[float]]:
    """What the reward model, which saw the first round alone, gives the held-out answers of every round."""
    with way.story.step("What the reward model thinks of each round's answers"):
        scored = [
            way.calls.call(
                *("score", score),
                reward=str(way.round(1) / "reward" / "model"),
                data=str(way.held_out(one.number)),
                skip_bad_rows=True,
                out=way.round(one.number) / "learned-rewards.jsonl",
            )
            for one in rounds
        ]
    return [[value for line in lines for value in line["rewards"]] for lines in scored]


def _judged(way: _Way, asked: Path) -> str:
    """What the judge's labels are worth; a model too small to judge ends nothing."""
    try:
        judged = way.calls.call(
            *("label", label, str(asked)),
            with_="judge",
            judge_model=str(way.start),
            verdict="log-odds",
            pairs="adjacent",
            out=asked.with_name("by-judge.jsonl"),
        )
    except WorkError as error:
        return str(error)
    return f"agrees with the reward: {judged.figures['accuracy']['told']}"


def _accuracy(result: dict[str, Any]) -> str:
    names = ("eval/rewards/accuracies", "eval/rewards/accuracies/low", "eval/rewards/accuracies/high")
    value, low, high = (result.get(name) for name in names)
    interval = "" if low is None or high is None else f" [{low:.2f}, {high:.2f}]"
    return f"agrees with the reward on held-out pairs: {value:.2f}{interval}, n = {result['eval/pairs']}"


def _write(
    way: _Way, rounds: list[Round], labellings: list[Labelling], learned: list[list[float]]
) -> tuple[Path, Path]:
    page = RoundsPage(
        model=way.config.model or "SmolLM2-135M-Instruct",
        reward=way.truth.name,
        reward_meaning=way.truth.meaning,
        prompts=[last_turn(prompt.prompt) for prompt in way.prompts["held-out"]],
        rounds=rounds,
        learned=learned,
        labellings=labellings,
        commands=way.calls.commands,
        seconds=way.story.total_seconds,
        max_new_tokens=way.config.max_new_tokens,
    )
    results = {
        "rounds": [one.as_dict() for one in rounds],
        "learned_rewards": learned,
        "labellings": [list(one) for one in labellings],
        "commands": way.calls.commands,
        "seconds": way.story.seconds,
        "config": way.config.model_dump(),
        "versions": versions(),
    }
    paths = way.folder / "page.html", way.folder / "results.json"
    write_whole(paths[1], json.dumps(results, indent=2, default=str) + "\n")
    write_whole(paths[0], render_rounds(page))
    way.story.ends(str(paths[0]))
    return paths
