"""A third of the labels flipped: DPO as it is, with label smoothing (cDPO), and the robust loss, each told the share.

The demo: SmolLM2 answers the project's prompts, VADER sentiment prefers, every pair of a prompt's answers is a
row. A third of the rows, drawn by the seed, have their answers swapped. Each loss trains on the same rows; what counts
is the true reward of answers to prompts never trained on, and how often the implicit reward ranks their pairs rightly.
The same losses on unflipped labels stand beside it. Writes `flipped.json` and `flipped.md` into the folder.

    python -m benchmarks.flipped_labels --out runs/flipped
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.common import read_rows
from likelier.engines.rewards import resolve_reward
from likelier.stages.demo_prompts import read_demo_prompts, write_demo_prompts
from likelier.stages.dpo import dpo
from likelier.stages.label import label
from likelier.stages.sample import sample
from likelier.stages.score import score
from likelier.stats import Estimate, accuracy_interval, mean_interval

SHARE = 1 / 3
LOSSES: dict[str, dict[str, Any]] = {
    "DPO": {"loss": "sigmoid"},
    "cDPO": {"loss": "sigmoid", "label_smoothing": SHARE},
    "robust": {"loss": "robust", "label_smoothing": SHARE},
}
Rewards = list[list[float]]
"""[prompts][answers]."""


def main() -> None:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--model", default="smollm2")
    made.add_argument("--out", type=Path, default=Path("runs/flipped"))
    made.add_argument("--seeds", type=int, default=3)
    made.add_argument("--answers", type=int, default=4)
    made.add_argument("--batch-size", type=int, default=32)
    made.add_argument("--learning-rate", type=float, default=2e-5)
    made.add_argument("--epochs", type=int, default=2)
    options = made.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    prepare(options)
    results: dict[str, Any] = {}
    for name, seed in runs(options.seeds):
        results[name] = run(options, name, seed)
        (options.out / "flipped.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    told = page(results)
    (options.out / "flipped.md").write_text(told, encoding="utf-8")
    print(told)


def runs(seeds: int) -> Iterator[tuple[str, int | None]]:
    """Names of runs, each with the seed of its flips; None flips nothing. `start` is the model as it is."""
    yield "start", None
    for loss in LOSSES:
        yield f"{loss}, right labels", None
    for seed in range(seeds):
        for loss in LOSSES:
            yield f"{loss}, a third flipped, seed {seed}", seed


def prepare(options: argparse.Namespace) -> None:
    """Answers and preferences, for training and held out; what is there already stays."""
    for split, prompts in read_demo_prompts(None).items():
        asked, answers = options.out / f"prompts-{split}.jsonl", options.out / f"answers-{split}.jsonl"
        write_demo_prompts(asked, prompts)
        if not answers.exists():
            answer(options, options.model, asked, answers, seed=0 if split == "train" else 1)
        preferences = options.out / f"preferences-{split}.jsonl"
        if not preferences.exists():
            label(answers, with_="reward", reward="vader", pairs="all", out=preferences)


def answer(options: argparse.Namespace, model: str, prompts: Path, out: Path, *, seed: int) -> None:
    sample(
        model=model,
        prompts=str(prompts),
        n=options.answers,
        max_new_tokens=28,
        seed=seed,
        out=out,
        overwrite=True,
    )


def run(options: argparse.Namespace, name: str, seed: int | None) -> dict[str, Any]:
    """Train, answer the held-out prompts, and measure; a finished run is read from its folder."""
    folder = options.out / name.replace(", ", "-").replace(" ", "-")
    found = folder / "measured.json"
    if found.exists():
        return dict(json.loads(found.read_text()))
    folder.mkdir(exist_ok=True)
    model, margins = options.model, None
    if name != "start":
        rows = flipped(read_rows(options.out / "preferences-train.jsonl"), seed)
        made = dpo(
            options.model,
            rows,
            out=folder / "run",
            overwrite=True,
            learning_rate=options.learning_rate,
            batch_size=options.batch_size,
            epochs=options.epochs,
            **LOSSES[name.split(",")[0]],
        )
        assert made is not None
        model = str(folder / "run" / "model")
        held_out = str(options.out / "preferences-held-out.jsonl")
        scored = score(model, held_out, reference=options.model, skip_bad_rows=True)
        prompts = [json.dumps(row["prompt"]) for row in read_rows(options.out / "preferences-held-out.jsonl")]
        margins = [[prompts[line["row"] - 1], line["rewards"][0] - line["rewards"][1]] for line in scored]
    answers = folder / "answers.jsonl"
    answer(options, model, options.out / "prompts-held-out.jsonl", answers, seed=1)
    measured = {"rewards": rewards(answers), "margins": margins}
    found.write_text(json.dumps(measured), encoding="utf-8")
    print(f"{name}: mean reward {mean(measured['rewards'])}", file=sys.stderr, flush=True)
    return measured


def flipped(rows: Sequence[Mapping[str, Any]], seed: int | None) -> list[dict[str, Any]]:
    """The rows, a third of them with chosen and rejected exchanged.

    >>> rows = [{"id": str(i), "prompt": "p", "chosen": f"c{i}", "rejected": f"r{i}"} for i in range(6)]
    >>> sum(row["chosen"][0] == "r" for row in flipped(rows, 0)), flipped(rows, None) == rows
    (2, True)
    """
    swapped = (
        set() if seed is None else set(random.Random(seed).sample(range(len(rows)), round(len(rows) * SHARE)))
    )
    return [swap(row) if number in swapped else dict(row) for number, row in enumerate(rows)]


def swap(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row with the other answer chosen, and whatever is kept of each answer exchanged with it."""
    exchanged = {"chosen": "rejected", "rejected": "chosen"}

    def of_answer(value: Any) -> Any:
        if isinstance(value, Mapping) and value.keys() == exchanged.keys():
            return {exchanged[key]: one for key, one in value.items()}
        return value[::-1] if isinstance(value, list) and len(value) == 2 else value

    kept = {key: of_answer(value) for key, value in row.items() if key in ("tokens", "finish")}
    return {
        "id": row["id"],
        "prompt": row["prompt"],
        "chosen": row["rejected"],
        "rejected": row["chosen"],
        **kept,
    }


def rewards(answers: Path) -> Rewards:
    """True rewards of sampled answers."""
    truth = resolve_reward("vader")
    return [
        truth([row["prompt"]] * len(row["completions"]), [one["text"] for one in row["completions"]])
        for row in read_rows(answers)
    ]


def mean(found: Rewards) -> Estimate:
    prompts = [number for number, answers in enumerate(found) for _ in answers]
    return mean_interval([value for answers in found for value in answers], clusters=prompts)


def page(results: Mapping[str, Any]) -> str:
    """Every run, then the losses against each other over all seeds, paired over prompts."""
    lines = [
        "| run | mean true reward of held-out answers | accuracy of implicit rewards on held-out pairs |\n|---|---|---|"
    ]
    for name, measured in results.items():
        lines[0] += f"\n| {name} | {mean(measured['rewards'])} | {accuracy(measured['margins'])} |"
    for loss in ("cDPO", "robust"):
        lines.append(f"{loss} less DPO, a third flipped, paired over prompts: {difference(results, loss)}")
    return "\n\n".join(lines) + "\n"


def accuracy(margins: Sequence[tuple[str, float]] | None) -> str:
    if margins is None:
        return ""
    return str(
        accuracy_interval([margin for _, margin in margins], clusters=[prompt for prompt, _ in margins])
    )


def difference(results: Mapping[str, Any], loss: str) -> Estimate:
    """Mean reward less that of DPO: a value per prompt and seed, clustered by prompt."""
    values, prompts = [], []
    for name, measured in results.items():
        if name.startswith(f"{loss}, a third"):
            other = results[name.replace(loss, "DPO", 1)]["rewards"]
            for number, (ours, theirs) in enumerate(zip(measured["rewards"], other, strict=True)):
                values.append(sum(ours) / len(ours) - sum(theirs) / len(theirs))
                prompts.append(number)
    return mean_interval(values, clusters=prompts)


if __name__ == "__main__":
    main()
