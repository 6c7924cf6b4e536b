"""The demo, step by step. What one step leaves for the next is a file, or a model in memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from likelier.engines.decoding import generation_copy
from likelier.engines.divergence import KlEstimate, estimate_kl
from likelier.engines.rewards import Reward, resolve_reward
from likelier.engines.sampling import SampledPrompt
from likelier.errors import WorkError
from likelier.models.loading import Loaded, load_model
from likelier.report.comparison import Comparison, compare, rewards_of
from likelier.report.dial import Dial
from likelier.report.page import Example
from likelier.stages.demo_config import DemoConfig
from likelier.stages.demo_dial import STRENGTHS, Ends, turned, write_dial
from likelier.stages.demo_folder import check_folder, make_folder
from likelier.stages.demo_pair import Pair, pair_logps, widest_pair
from likelier.stages.demo_prompts import DemoPrompt, read_demo_prompts, write_demo_prompts
from likelier.stages.demo_report import Found, next_commands, write_report
from likelier.stages.demo_size import HELD_OUT_SEED, Size, size_of
from likelier.stages.demo_story import Story
from likelier.stages.demo_time import PARAMETERS, expected_minutes
from likelier.stages.dpo import dpo
from likelier.stages.evaluate_dial import sampled_at
from likelier.stages.label import label_file
from likelier.stages.label_config import LabelConfig
from likelier.stages.label_outcome import Labelled
from likelier.stages.sample import sample_file
from likelier.stages.sample_config import SampleConfig
from likelier.training.run import Run


@dataclass(frozen=True, slots=True, kw_only=True)
class Walk:
    """What every step of one demo knows."""

    config: DemoConfig
    size: Size
    folder: Path
    story: Story
    reward: Reward
    prompts: dict[str, list[DemoPrompt]]

    @property
    def train_prompts(self) -> list[DemoPrompt]:
        """The training prompts that are used."""
        return self.prompts["train"][:: self.size.train_stride]

    @property
    def model(self) -> str:
        """What loads the model."""
        return self.config.model or "smollm2"

    @property
    def model_name(self) -> str:
        """As the page and the files call the model."""
        return self.config.model or "SmolLM2-135M-Instruct"


def walk(config: DemoConfig) -> tuple[Path, Path, str]:
    """Runs the demo; returns the page, the results file and the verdict."""
    new = _prepare(config)
    loaded = _load(new)
    reference = generation_copy(loaded.model)
    labelled, pair = _prefer(new, loaded, reference)
    before = _answer_held_out(new, reference, loaded.tokenizer, "before")
    tokenizer = loaded.tokenizer
    del loaded  # `dpo` loads it again by its name, so that its run folder can be made again by that name
    run, example = _train(new, labelled, pair)
    policy = generation_copy(run.model)
    after = _answer_held_out(new, policy, tokenizer, "after")
    comparison, kl = _measure(new, policy, reference, before, after)
    dial = _turn(new, policy, reference, tokenizer, Ends(reference=before, policy=after, kl=kl))
    commands = next_commands(config, model=new.model)
    found = Found(
        config=config,
        model=new.model_name,
        reward=new.reward,
        train=new.train_prompts,
        held_out=new.prompts["held-out"],
        labelled=labelled,
        metrics=_steps(run),
        notes=run.notes,
        example=example,
        comparison=comparison,
        dial=dial,
        before=before,
        after=after,
        seconds=new.story.seconds,
        commands=commands,
    )
    page, results = write_report(found)
    new.story.closing(str(page), commands)
    return page, results, comparison.verdict


def _prepare(config: DemoConfig) -> Walk:
    """Refuses what cannot work before anything takes time, and says how long the rest will."""
    reward = resolve_reward(config.reward)
    prompts = read_demo_prompts(config.prompts)
    size = size_of(quick=config.quick)
    check_folder(config)
    new = Walk(config=config, size=size, folder=config.out, story=Story(), reward=reward, prompts=prompts)
    new.story.opening(model=new.model_name, reward=reward.name)
    if config.model is None:
        new.story.expects(_minutes(new, PARAMETERS))
    return new


def _minutes(new: Walk, parameters: float) -> float:
    held_out = len(new.prompts["held-out"]) * new.size.held_out_answers
    train = len(new.train_prompts) * new.size.answers
    dialled = min(new.size.dial_prompts, len(new.prompts["held-out"])) * len(sampled_at(STRENGTHS))
    return expected_minutes(
        parameters,
        sampled=train + 2 * held_out + 2 * dialled,  # two models read what the slider draws
        compared=held_out + dialled,
        trained=train,
        tokens=new.config.max_new_tokens,
    )


def _load(new: Walk) -> Loaded:
    """The model that is the reference, and that the policy starts from; only then is the folder made."""
    with new.story.step("1 · The reference π_ref is the model as it is"):
        device = "cuda" if torch.cuda.is_available() else "cpu"
        loaded = load_model(new.model, device=device)
        parameters = sum(parameter.numel() for parameter in loaded.model.parameters())
        new.story.say(f"{new.model_name}, {parameters / 1e6:.1f} M parameters")
        if new.config.model is not None:
            new.story.expects(_minutes(new, parameters))
    make_folder(new.config)
    write_demo_prompts(new.folder / "prompts-train.jsonl", new.train_prompts)
    write_demo_prompts(new.folder / "prompts-held-out.jsonl", new.prompts["held-out"])
    return loaded


def _prefer(new: Walk, loaded: Loaded, reference: nn.Module) -> tuple[Labelled, Pair]:
    """Samples from the reference and preferences between them."""
    samples = new.folder / "samples-train.jsonl"
    config = SampleConfig.build(
        {
            "model": new.model,
            "prompts": str(new.folder / "prompts-train.jsonl"),
            "out": samples,
            "n": new.size.answers,
            "max_new_tokens": new.config.max_new_tokens,
            "seed": new.config.seed,
        }
    )
    total = len(new.train_prompts) * config.n
    with new.story.step("2 · It answers the training prompts", total=total) as advance:
        sampled = sample_file(config, reference, loaded.tokenizer, on_progress=advance)
        new.story.sampled(sampled)
    with new.story.step("3 · The reward says which answers are better"):
        preferences = new.folder / "preferences.jsonl"
        settings = {"with_": "reward", "reward": new.config.reward, "out": preferences}
        labelled = label_file(LabelConfig.build({"samples": samples, **settings}))
        pair = widest_pair(preferences, sampled, loaded.model, beta=new.config.beta)
        new.story.labelled(labelled, pair.example)
    return labelled, pair


def _train(new: Walk, labelled: Labelled, pair: Pair) -> tuple[Run, Example]:
    """DPO on the preferences; returns the run and the story's pair under both models."""
    with new.story.step("5 · DPO makes the better answers likelier", total=labelled.pairs) as advance:
        new.story.before_training(pair.example)
        run = dpo(
            new.model,
            str(new.folder / "preferences.jsonl"),
            out=new.folder / "run",
            beta=new.config.beta,
            learning_rate=new.config.learning_rate,
            batch_size=new.config.batch_size,
            seed=new.config.seed,
            on_step=_advances(advance),
        )
        if run.stopped is not None:
            raise WorkError(f"training was stopped by {run.stopped}, so nothing was measured")
        logps = pair_logps(run.model, pair.prompt_tokens, pair.answer_tokens)
        example = replace(pair.example, policy_logps=logps)
        new.story.trained(_steps(run), example)
        new.story.noticed(run.notes)
    return run, example


def _steps(run: Run) -> list[dict[str, Any]]:
    return [line for line in run.metrics if "loss" in line]


def _advances(advance: Callable[[int], None]) -> Callable[[dict[str, Any]], None]:
    """Moves a bar of pairs at each step."""
    seen = 0

    def on_step(line: dict[str, Any]) -> None:
        nonlocal seen
        advance(line["pairs_seen"] - seen)
        seen = line["pairs_seen"]

    return on_step


def _answer_held_out(new: Walk, model: nn.Module, tokenizer: Any, when: str) -> list[SampledPrompt]:
    config = SampleConfig.build(
        {
            "model": new.model if when == "before" else str(new.folder / "run" / "model"),
            "prompts": str(new.folder / "prompts-held-out.jsonl"),
            "out": new.folder / f"samples-{when}.jsonl",
            "n": new.size.held_out_answers,
            "max_new_tokens": new.config.max_new_tokens,
            "seed": new.config.seed + HELD_OUT_SEED,
        }
    )
    total, number = len(new.prompts["held-out"]) * config.n, 4 if when == "before" else 6
    with new.story.step(
        f"{number} · It answers prompts about subjects never trained on, {when}", total=total
    ) as advance:
        return sample_file(config, model, tokenizer, on_progress=advance)


def _measure(
    new: Walk,
    policy: nn.Module,
    reference: nn.Module,
    before: list[SampledPrompt],
    after: list[SampledPrompt],
) -> tuple[Comparison, KlEstimate]:
    """Rewards, win rate, KL and what else changed; and the KL of each answer."""
    with new.story.step("7 · What changed, and how far the model went for it"):
        kl = estimate_kl(policy, reference, after)
        comparison = compare(
            before,
            after,
            rewards_before=rewards_of(new.reward, before),
            rewards_after=rewards_of(new.reward, after),
            kl=kl.values,
            kl_estimator=kl.estimator,
        )
        new.story.measured(comparison)
    return comparison, kl


def _turn(new: Walk, policy: nn.Module, reference: nn.Module, tokenizer: Any, ends: Ends) -> Dial:
    """The policy at other strengths, for the page's slider."""
    few = ends.first(new.size.dial_prompts)
    total = len(few.policy) * len(sampled_at(STRENGTHS))
    with new.story.step(
        "8 · The same policy at other strengths, without training again", total=total
    ) as advance:
        dial = turned(
            policy,
            reference,
            tokenizer,
            few,
            of_prompts=len(ends.policy),
            reward=new.reward,
            seed=new.config.seed + HELD_OUT_SEED,
            max_new_tokens=new.config.max_new_tokens,
            on_progress=advance,
        )
        write_dial(new.folder / "samples-strengths.jsonl", dial)
        new.story.dialled(dial)
    return dial
