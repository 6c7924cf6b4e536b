"""The paper's first experiment on two cores: reward against KL for six methods, three settings and three seeds of each.

Every step is one `likelier` command, written to `commands.sh` before it runs and skipped where its result is there: a
stopped experiment goes on with the same command. What is compared, and which choices are ours: `README.md` beside this.

    python examples/sentiment-cpu/experiment.py --out runs/sentiment-cpu
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """How much of everything."""

    train: int | None
    """Prompts to train on; None takes all."""
    held_out: int | None
    answers: int
    tokens: int
    steps: int
    rollouts: int
    """Steps of PPO, each two passes over as many fresh answers as DPO has pairs in a step."""
    batch: int
    """Pairs of a step of DPO, answers of a step of PPO."""
    chosen_from: tuple[int, ...]
    """The sizes N of best-of-N."""
    lora: int
    strengths: tuple[float, ...]
    """Of the dial."""
    fewer: int
    """Answers to each prompt of the dial and at each temperature: the first of the frontier's, to save time."""


WHOLE = Scale(
    train=None,
    held_out=None,
    answers=4,
    tokens=24,
    steps=24,
    rollouts=16,
    batch=48,
    chosen_from=(2, 4, 8, 16),
    lora=16,
    strengths=(0.25, 0.5, 1.0, 2.0),
    fewer=2,
)
QUICK = Scale(
    train=8,
    held_out=4,
    answers=3,
    tokens=6,
    steps=2,
    rollouts=2,
    batch=8,
    chosen_from=(2, 3),
    lora=2,
    strengths=(0.5, 1.0),
    fewer=2,
)
"""For the test: every step runs, nothing is learned."""

DPO: dict[str, object] = {"learning_rate": 2e-4}
REWARD: dict[str, object] = {"learning_rate": 1e-3}
PPO: dict[str, object] = {
    "learning_rate": 5e-4,
    "rollout_epochs": 2,
    # In deviations of the reward, whatever its scale; the gain is one that moves beta within these few steps.
    "normalize_rewards": True,
    "beta": 0.1,
    "kl_gain": 0.5,
}
SWEEP: dict[str, dict[str, tuple[str, dict[str, object]]]] = {
    "dpo": {f"beta-{beta}": ("dpo", {**DPO, "beta": beta}) for beta in (0.05, 0.1, 1.0)},
    "ppo": {f"kl-{kl}": ("ppo", {**PPO, "target_kl": kl, "reward": "{reward}"}) for kl in (3, 6, 9)},
    "ppo-gt": {f"kl-{kl}": ("ppo", {**PPO, "target_kl": kl, "reward": "vader"}) for kl in (3, 6, 9)},
    "unlikelihood": {
        f"alpha-{alpha}": ("dpo", {**DPO, "loss": "unlikelihood", "unlikelihood_weight": alpha})
        for alpha in (0.1, 0.5, 1.0)
    },
    "preferred-ft": {
        f"rate-{rate}": ("sft", {"on": "chosen", "learning_rate": rate}) for rate in (5e-5, 2e-4, 8e-4)
    },
}
"""By method and setting, a command and its settings. Best-of-N needs no training: `evaluate frontier` draws it."""
DIALLED = "dpo-beta-0.1"
"""The one run whose other strengths are set beside the sweep of β."""


@dataclass(frozen=True, slots=True)
class Step:
    """One command, and the file that is there when it is done."""

    name: str
    words: tuple[str, ...]
    done: Path
    resumes: bool = True


def flags(settings: Mapping[str, object]) -> list[str]:
    """Settings as words of a command.

    >>> flags({"beta": 0.1, "merge": True})
    ['--beta', '0.1', '--merge']
    """
    words: list[str] = []
    for name, value in settings.items():
        words.append("--" + name.replace("_", "-"))
        words += [] if value is True else [str(value)]
    return words


def steps(out: Path, *, model: str, seeds: Sequence[int], scale: Scale) -> Iterator[Step]:
    """The whole experiment in its order: a seed after another, so that each third is an experiment by itself."""
    for seed in seeds:
        folder = out / f"seed-{seed}"
        yield from _preferences(out, folder, model, seed, scale)
        yield from _training(out, folder, model, seed, scale)
        yield from _evaluation(out, folder, model, seed, scale)
        yield _dial(out, folder, model, seed, scale)


def _preferences(out: Path, folder: Path, model: str, seed: int, scale: Scale) -> Iterator[Step]:
    """The model's own answers, all their pairs labelled by the true reward, and the reward model made of them."""
    answers, preferences = folder / "answers.jsonl", folder / "preferences.jsonl"
    length = {"n": scale.answers, "max_new_tokens": scale.tokens, "seed": seed}
    drawn = {"model": model, "prompts": out / "prompts-train.jsonl", **length, "out": answers}
    yield Step(f"seed {seed}: answers", ("sample", *flags(drawn)), answers)
    labelled = {"with": "reward", "reward": "vader", "pairs": "all", "out": preferences}
    yield Step(f"seed {seed}: labels", ("label", str(answers), *flags(labelled)), preferences, resumes=False)
    made = folder / "reward-model"
    reward = {**_trained(model, seed, scale.steps, scale), **REWARD, "data": preferences, "out": made}
    reward |= {"skip_bad_rows": True}
    yield Step(f"seed {seed}: reward model", ("reward", *flags(reward)), made / "manifest.json")


def _trained(model: str, seed: int, steps: int, scale: Scale) -> dict[str, object]:
    """What every training run has."""
    return {
        "model": model,
        "seed": seed,
        "batch_size": scale.batch,
        "epochs": 1000,
        "max_steps": steps,
        # Its default is a share of all epochs' steps, of which these are the first few.
        "warmup_steps": max(steps // 10, 1),
        "lora_rank": scale.lora,
    }


def _training(out: Path, folder: Path, model: str, seed: int, scale: Scale) -> Iterator[Step]:
    for method, settings in SWEEP.items():
        for name, (command, own) in settings.items():
            run = folder / f"{method}-{name}"
            count = scale.rollouts if command == "ppo" else scale.steps
            kept = {"checkpoint_every": max(count // 2, 1), "out": run}
            given: dict[str, object] = {**_trained(model, seed, count, scale), **own, **kept}
            if command == "ppo":
                given |= {"prompts": out / "prompts-train.jsonl", "n": scale.answers}
                given |= {"max_new_tokens": scale.tokens}
                given["reward"] = str(own["reward"]).format(reward=folder / "reward-model" / "model")
            else:
                given |= {"data": folder / "preferences.jsonl", "skip_bad_rows": True}
            yield Step(f"seed {seed}: {method}, {name}", (command, *flags(given)), run / "manifest.json")


def runs_of(folder: Path) -> list[Path]:
    """The run folders of a seed."""
    return [folder / f"{method}-{name}" for method, settings in SWEEP.items() for name in settings]


def _evaluation(out: Path, folder: Path, model: str, seed: int, scale: Scale) -> Iterator[Step]:
    """Reward against KL of everything, and what happens at other temperatures to the middle setting of each."""
    held_out = {"prompts": out / "prompts-held-out.jsonl", "reward": "vader", "max_new_tokens": scale.tokens}
    frontier = folder / "frontier"
    best = {"best_of": ",".join(map(str, scale.chosen_from)), "chooser": folder / "reward-model" / "model"}
    given = {**held_out, "n": scale.answers, "seed": seed + 1000, **best, "out": frontier}
    names = [str(run) for run in runs_of(folder)]
    yield Step(
        f"seed {seed}: frontier",
        ("evaluate", "frontier", *names, *flags(given)),
        frontier / "frontier.manifest.json",
        resumes=False,
    )
    baseline = folder / "baseline.jsonl"
    greedy = {"model": model, "prompts": out / "prompts-held-out.jsonl", "n": 1, "temperature": 0}
    greedy |= {"max_new_tokens": scale.tokens, "out": baseline}
    yield Step(f"seed {seed}: baseline", ("sample", *flags(greedy)), baseline)
    middle = [str(folder / f"{method}-{list(settings)[1]}") for method, settings in SWEEP.items()]
    temperature = folder / "temperature"
    given = {**held_out, "prompts": folder / "baseline-rows.jsonl", "baseline": "answer", "n": scale.fewer}
    given |= {"best_of": scale.chosen_from[1], "chooser": folder / "reward-model" / "model"}
    given |= {"seed": seed + 2000, "out": temperature}
    yield Step(
        f"seed {seed}: temperatures",
        ("evaluate", "temperature", model, *middle, *flags(given)),
        temperature / "temperature.manifest.json",
        resumes=False,
    )


def _dial(out: Path, folder: Path, model: str, seed: int, scale: Scale) -> Step:
    """Other strengths of one run, on the frontier's prompts and by its random numbers: both can be paired."""
    dial = folder / "dial"
    given = {"dial": True, "strengths": ",".join(f"{strength:g}" for strength in scale.strengths)}
    given |= {"prompts": out / "prompts-held-out.jsonl", "reward": "vader", "max_new_tokens": scale.tokens}
    given |= {"n": scale.fewer, "seed": seed + 1000, "reference": model, "out": dial}
    return Step(
        f"seed {seed}: dial",
        # The model alone, not its run: checkpoints on the way have their place in the frontier.
        ("evaluate", "frontier", str(folder / DIALLED / "model"), *flags(given)),
        dial / "frontier.manifest.json",
        resumes=False,
    )


def prompts(out: Path, scale: Scale) -> None:
    """The demo's prompts, those to train on and those about other subjects, as files."""
    from likelier.stages.demo_prompts import read_demo_prompts, write_demo_prompts

    for split, found in read_demo_prompts(None).items():
        count = scale.train if split == "train" else scale.held_out
        write_demo_prompts(out / f"prompts-{split}.jsonl", found[:count])


def baseline_rows(folder: Path) -> None:
    """The held-out prompts, each with the likeliest answer of the model before training, in a column `answer`."""
    rows = [json.loads(line) for line in (folder / "baseline.jsonl").read_text(encoding="utf-8").splitlines()]
    asked = [
        {"id": row["id"], "prompt": row["prompt"], "answer": row["completions"][0]["text"]} for row in rows
    ]
    lines = "".join(json.dumps(row) + "\n" for row in asked)
    (folder / "baseline-rows.jsonl").write_text(lines, encoding="utf-8")


def run(step: Step, out: Path) -> None:
    """Runs a step that is not done; what was stopped goes on.

    Raises:
        SystemExit: the command failed; it has said why.
    """
    if step.done.exists():
        return
    words = [*step.words, *(["--resume"] if step.resumes else [])]
    told = shlex.join(["likelier", *words])
    with (out / "commands.sh").open("a", encoding="utf-8") as file:
        file.write(told + "\n")
    print(f"\n== {step.name}\n$ {told}", flush=True)
    started = time.perf_counter()
    code = subprocess.run([sys.executable, "-m", "likelier", *words]).returncode
    if code != 0:
        raise SystemExit(
            f"{step.name}: the command ended with {code}; the experiment goes on from here when run again"
        )
    if not step.done.exists():
        raise SystemExit(f"{step.name}: the command ended well, and {step.done} is not there")
    with (out / "seconds.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps({"step": step.name, "seconds": time.perf_counter() - started}) + "\n")


def main() -> None:
    """All steps, in their order."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--out", type=Path, default=Path("runs/sentiment-cpu"))
    made.add_argument("--model", default="smollm2")
    made.add_argument("--seeds", type=int, default=3)
    made.add_argument("--quick", action="store_true", help="a few prompts and steps: whether everything runs")
    options = made.parse_args()
    scale = QUICK if options.quick else WHOLE
    options.out.mkdir(parents=True, exist_ok=True)
    prompts(options.out, scale)
    for step in steps(options.out, model=options.model, seeds=range(options.seeds), scale=scale):
        run(step, options.out)
        if step.done.name == "baseline.jsonl":
            baseline_rows(step.done.parent)
    told = [str(Path(__file__).with_name("results.py")), "--runs", str(options.out)]
    raise SystemExit(
        subprocess.run([sys.executable, *told, "--out", str(options.out / "results")]).returncode
    )


if __name__ == "__main__":
    main()
