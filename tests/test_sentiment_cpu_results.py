"""What the paper's experiment for two cores says of planted runs whose answers are known by hand."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy import stats

from tests.report.run_folders import write_lines

FOLDER = Path(__file__).parents[1] / "examples" / "sentiment-cpu"
MODULES = ("experiment", "seeds", "findings", "phrases", "words", "results")
PROMPTS = 8
DPO, GT = (0.5, 4.0), (0.5, 4.0)
PPO_GAINS = (0.4, 0.3, 0.2)
"""By seed, at 2 nats."""
DRAWS = np.array([-0.03, -0.01, 0.01, 0.03])
"""Of the reference's answers to a prompt, around their mean."""


@pytest.fixture(scope="module")
def example() -> Iterator[SimpleNamespace]:
    """The scripts as they find each other when one of them is run."""
    sys.path.insert(0, str(FOLDER))
    yield SimpleNamespace(**{name: importlib.import_module(name) for name in MODULES})
    sys.path.remove(str(FOLDER))
    for name in MODULES:
        del sys.modules[name]


def rewards_of(gain: float, wobble: float = 0.0) -> list[float]:
    """By prompt: what the prompt is worth, what the policy adds, and on every other prompt more or less."""
    return [0.1 + 0.01 * prompt + gain + wobble * (-1) ** prompt for prompt in range(PROMPTS)]


def rows_of(run: str, step: int | None, rewards: Sequence[float], kl: float) -> list[dict[str, Any]]:
    return [
        {"id": f"p{n}", "run": run, "step": step, "completions": [{"reward": reward, "kl": kl}] * 4}
        for n, reward in enumerate(rewards)
    ]


def reference_rows() -> list[dict[str, Any]]:
    return [
        {
            "id": f"p{n}",
            "run": "reference",
            "step": None,
            "completions": [{"reward": reward + draw, "kl": 0.0, "chooser": draw} for draw in DRAWS],
        }
        for n, reward in enumerate(rewards_of(0.0))
    ]


def plant(runs: Path, example: SimpleNamespace, *, best_beta: float = DPO[0], dial: bool = True) -> Path:
    """Three seeds; `best_beta` is what DPO at its smallest β gains."""
    for seed, ppo in enumerate(PPO_GAINS):
        folder = runs / f"seed-{seed}"
        ends = {"dpo": (*DPO, 0.0), "ppo": (ppo, 2.0, 0.0), "ppo-gt": (*GT, 0.2)}
        ends |= {"unlikelihood": (-0.1, 3.0, 0.0), "preferred-ft": (0.1, 30.0, 0.0)}
        rows = reference_rows()
        for method, settings in example.experiment.SWEEP.items():
            for setting in settings:
                gain, kl, wobble = ends[method]
                if (method, setting) == ("dpo", "beta-0.05"):
                    gain = best_beta
                run = f"{folder}/{method}-{setting}"
                rows += rows_of(run, 12, rewards_of(0.0), 1.0)
                rows += rows_of(run, 24, rewards_of(gain, wobble), kl)
                write_metrics(Path(run), method)
        write_metrics(folder / "reward-model", "reward")
        for name in ("frontier", "temperature", "dial"):
            (folder / name).mkdir()
        write_lines(folder / "frontier" / "frontier.answers.jsonl", rows)
        write_lines(folder / "answers.jsonl", [{"completions": [{}] * 4}] * 3)
        (folder / "temperature" / "temperature.json").write_text(json.dumps({"sweeps": sweeps(folder)}))
        if dial:
            (folder / "dial" / "frontier.json").write_text(json.dumps(dialled(folder)))
    return runs


def write_metrics(run: Path, method: str) -> None:
    """Two steps: DPO 10 s and 2e12 FLOP in all, PPO four and three times that, the reward model a half of both."""
    unit, times = ("answers", (4, 3)) if method.startswith("ppo") else ("pairs", (1, 1))
    times = (0.5, 0.5) if method == "reward" else times
    run.mkdir(parents=True)
    lines = [
        {
            "step": step,
            f"{unit}_seen": 18 * step,
            f"{unit}_per_second": 18 / (5 * times[0]),
            "tokens_per_second": 1.0,
            "flop": 1e12 * step * times[1],
        }
        for step in (1, 2)
    ]
    write_lines(run / "metrics.jsonl", lines)


def sweeps(folder: Path) -> list[dict[str, Any]]:
    rates = {
        "smollm2": (0.5, 0.5, 0.25),
        f"{folder}/dpo-beta-0.1": (0.75, 1.0, 0.75),
        f"{folder}/ppo-kl-6": (0.75, 0.75, 0.25),
        "best-of-N": (0.5, 0.7, 0.7),
    }
    return [
        {
            "run": run,
            "temperatures": [
                {"temperature": at, "per_prompt": {str(p): rate for p in range(PROMPTS)}}
                for at, rate in zip((0.0, 0.5, 1.0), own, strict=True)
            ],
        }
        for run, own in rates.items()
    ]


def dialled(folder: Path) -> dict[str, Any]:
    """Mixed rises above the line to the policy, interpolated lies on it, reweighted has the policy alone."""

    def point(way: str, strength: str, gain: float, kl: float) -> dict[str, Any]:
        per_prompt = {"rewards": rewards_of(gain), "kl": [kl] * PROMPTS}
        return {
            "run": f"{folder}/dpo-beta-0.1/model, {way}",
            "setting": f"λ = {strength}",
            "per_prompt": per_prompt,
        }

    points = [point("mixed", "0.5", 0.4, 2.0), point("mixed", "1", *DPO), point("mixed", "2", 0.4, 9.0)]
    points += [point("interpolated", "0.5", 0.25, 2.0), point("interpolated", "1", *DPO)]
    points += [point("reweighted", "1, 100% effective", *DPO)]
    start = {"run": "reference", "setting": "", "per_prompt": {}}
    return {"points": [start, *points], "answers_per_prompt": 2}


@pytest.fixture(scope="module")
def found(example: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> Any:
    runs = plant(tmp_path_factory.mktemp("runs"), example)
    return example.findings.found_in([example.seeds.read_seed(one) for one in example.seeds.seeds_done(runs)])


def value_of(both: Any) -> Any:
    return pytest.approx(both.value, abs=1e-12)


def test_areas_are_a_triangle_and_a_rectangle(found: Any) -> None:
    """Up to a method's only point, and on to 10 nats; what lies below the start counts for nothing."""
    areas = {method: own["area"] for method, own in found["areas"].items()}
    assert value_of(areas["dpo"]) == 0.5 * 4 / 2 + 0.5 * 6
    assert value_of(areas["ppo"]) == 0.3 * 2 / 2 + 0.3 * 8
    assert value_of(areas["ppo-gt"]) == 4.0
    assert value_of(areas["unlikelihood"]) == 0.0
    assert value_of(areas["preferred-ft"]) == 0.1 / 30 * 100 / 2
    # Best of 2 is the mean of the larger of the six pairs, best of 4 the largest; their KL is the bound.
    two, four = np.log(2) - 1 / 2, np.log(4) - 3 / 4
    at_two = (-0.01 + 0.01 + 0.03 + 0.01 + 0.03 + 0.03) / 6
    best = at_two * two / 2 + (at_two + 0.03) / 2 * (four - two) + 0.03 * (10 - four)
    assert value_of(areas["best-of-n"]) == best
    assert found["areas"]["ppo"]["by_seed"] == [pytest.approx(9 * gain) for gain in PPO_GAINS]
    assert areas["dpo"].over_prompts.n == 3 * PROMPTS
    assert areas["dpo"].over_prompts.clusters == PROMPTS
    assert areas["dpo"].over_seeds.n == 3


def test_differences_with_both_intervals(found: Any) -> None:
    gap = found["areas"]["ppo"]["dpo_less_this"]["mean_height"]
    by_seed = [(4.0 - 9 * gain) / 10 for gain in PPO_GAINS]
    assert value_of(gap) == np.mean(by_seed)
    wanted = stats.t.interval(0.95, 2, loc=np.mean(by_seed), scale=stats.sem(by_seed))
    assert gap.over_seeds.interval == pytest.approx(wanted)
    # All prompts have the same difference, whatever the seed.
    assert gap.over_prompts.interval == pytest.approx([np.mean(by_seed)] * 2)
    wobbling = found["areas"]["ppo-gt"]["dpo_less_this"]["mean_height"]
    heights = [-0.2 * (-1) ** p * (4 / 2 + 6) / 10 for p in range(PROMPTS)]
    wanted = stats.t.interval(0.95, PROMPTS - 1, loc=0.0, scale=stats.sem(heights))
    assert wobbling.over_prompts.interval == pytest.approx(wanted)


def test_envelopes_band_by_band(found: Any) -> None:
    """DPO rises by 0.125 a nat up to 4 nats, PPO by half of its gain up to 2."""
    bands = found["areas"]["ppo"]["dpo_less_this"]["by_band"]
    assert value_of(bands["0 to 2"]) == (0.125 * 4 / 2 - 0.3) / 2
    assert value_of(bands["2 to 5"]) == (0.125 * (16 - 4) / 2 + 0.5 - 0.9) / 3
    assert value_of(bands["5 to 10"]) == 0.5 - 0.3


def test_temperatures_costs_spread_and_collapse(found: Any) -> None:
    own = found["temperatures"]
    assert set(own) == {"before training", "dpo", "ppo", "best-of-n"}
    assert (own["dpo"]["best"], own["dpo"]["below_the_best"]["1"].value) == ("0.5", pytest.approx(0.25))
    assert value_of(own["ppo"]["lost"]) == 0.5
    assert value_of(own["ppo"]["lost_more_than_dpo"]) == 0.5
    # Wilson's with 8 prompts, which are all alike, and t of 7 degrees of freedom.
    t = 2.364624
    sure, half = (own["dpo"]["win_rates"][at].over_prompts for at in ("0.5", "1"))
    assert (sure.low, sure.high) == (pytest.approx(1 / (1 + t**2 / 8)), 1.0)
    centre, spread = 0.75 + t**2 / 16, t * (0.1875 / 8 + t**2 / (4 * 8**2)) ** 0.5
    assert half.interval == pytest.approx(
        [(centre - spread) / (1 + t**2 / 8), (centre + spread) / (1 + t**2 / 8)]
    )
    # Of best-of-N a prompt's rate is a mean over subsets, which no number of answers divides.
    assert own["best-of-n"]["win_rates"]["1"].value == pytest.approx(0.7)
    costs = found["costs"]
    assert (costs["dpo"]["seconds"], costs["dpo"]["flop"]) == (10.0, 2e12)
    assert (costs["ppo"]["seconds"], costs["ppo"]["seconds_of_reward_model"]) == (45.0, 5.0)
    assert (costs["ppo"]["flop"], costs["ppo-gt"]["flop"]) == (7e12, 6e12)
    drawn = {method: (one["drawn_before"], one["drawn"]) for method, one in costs.items()}
    assert (drawn["dpo"], drawn["ppo"], drawn["ppo-gt"]) == ((12, 0.0), (12, 36.0), (0, 36.0))
    assert found["spread"]["ppo"]["rewards"] == pytest.approx(0.1)
    assert found["spread"]["ppo"]["area"] == pytest.approx(0.9)
    assert found["spread"]["dpo"]["kl"] == pytest.approx(0.0, abs=1e-12)
    lost = {method: (one["runs"], one["of"], one["seeds"]) for method, one in found["collapsed"].items()}
    assert lost["dpo"] == lost["ppo"] == (0, 9, 0)
    assert lost["unlikelihood"] == lost["preferred-ft"] == (9, 9, 3)  # less reward; beyond a nat a token


def test_the_dial_beside_the_sweep(found: Any) -> None:
    dial = found["dial"]
    assert value_of(dial["sweep"]) == value_of(dial["one_run"]) == 4.0
    mixed = 0.4 * 2 / 2 + (0.4 + 0.5) / 2 * 2 + 0.5 * 6
    assert value_of(dial["ways"]["mixed"]["area"]) == mixed
    assert value_of(dial["ways"]["interpolated"]["less_the_sweep"]["mean_height"]) == 0.0
    assert value_of(dial["ways"]["mixed"]["less_the_one_run"]["mean_height"]) == (mixed - 4.0) / 10


def answers(example: SimpleNamespace, found: Any) -> dict[str, str]:
    """The page's answers by question."""
    parts = example.words.verdict(found).split("\n## ")
    return {part.partition("?")[0]: part for part in parts[1:]} | {"": parts[0]}


def test_what_is_said_of_a_known_difference(example: SimpleNamespace, found: Any) -> None:
    said = answers(example, found)
    (frontiers,) = (text for question, text in said.items() if "frontier" in question)
    ppo, gt = (
        next(line for line in frontiers.split("\n") if f"less that of {name}," in line)
        for name in ("PPO", "PPO-GT")
    )
    assert found["different"]["ppo"] == {"settings": 3, "policies": 1}
    assert "**PPO's 3 settings gave 1 different end** in one seed at least" in frontiers
    assert "DPO's frontier is above PPO's (over prompts; not significant over seeds)" in said[""]
    assert "not shown to be above or below PPO-GT's" in said[""]
    assert "18 of 45 runs collapsed; the dial of one run is above a sweep of β." in said[""]
    assert "+0.130 [0.130, 0.130] over prompts" in ppo
    assert "significant over prompts, not significant over seeds" in ppo
    assert "DPO's is surely above from 2 to 5 and 5 to 10 nats, surely below from 0 to 2 nats." in ppo
    assert "The same direction as in the paper" in ppo
    assert "which these seeds do not settle" in ppo
    assert "over seeds [0.000, 0.000]: not significant" in gt
    assert "The paper's difference (DPO's frontier strictly above PPO-GT's) is not shown here." in gt
    (warm,) = (text for question, text in said.items() if "temperatures" in question)
    assert (
        "DPO: most wins at temperature 0.5, 100.0 [58.9, 100.0] %;"
        " at 1 75.0 [35.1, 94.3] %, 25.0 [25.0, 25.0] points below that" in warm
    )
    assert "+50.0 [50.0, 50.0] over prompts" in warm
    assert "The same direction as in the paper (PPO loses more than DPO at higher temperatures)." in warm
    (cost,) = (text for question, text in said.items() if "cost" in question)
    assert "3.5 times the FLOP of one of DPO and 4.5 times its seconds" in cost
    (swept,) = (text for question, text in said.items() if "sweep" in question)
    assert "**No need of a sweep is shown here**: the dial (mixed) of one run is even above" in swept


def test_a_better_sweep_is_worth_its_runs(example: SimpleNamespace, tmp_path: Path) -> None:
    runs = plant(tmp_path, example, best_beta=0.8)
    found = example.findings.found_in([example.seeds.read_seed(runs / "seed-0")])
    assert found["dial"]["ways"]["mixed"]["less_the_sweep"]["mean_height"].value == pytest.approx(
        (4.3 - 6.4) / 10
    )
    assert found["spread"]["dpo"] is None
    assert found["different"]["dpo"] == {"settings": 3, "policies": 2}
    said = example.words.verdict(found)
    assert "**A sweep is worth its runs here**" in said
    assert "One seed is done: nothing here can be said of others." in said
    assert "significant over prompts; one seed says nothing of others" in said


def test_the_opposite_of_the_paper_is_said(example: SimpleNamespace) -> None:
    def both(value: float, prompts: float, seeds: float | None) -> Any:
        def one(half: float | None) -> Any:
            ends = (None, None) if half is None else (value - half, value + half)
            return example.findings.Estimate(value=value, low=ends[0], high=ends[1], n=9, clusters=9)

        return example.findings.Both(over_prompts=one(prompts), over_seeds=one(seeds))

    say = example.phrases.beside_the_paper
    assert (
        say(both(-0.2, 0.1, 0.1), "c")
        == "**This differs from the paper** (c): here it is the other way round."
    )
    assert "though these seeds do not settle it" in say(both(-0.2, 0.1, 0.3), "c")
    assert say(both(0.2, 0.1, 0.1), "c") == "The same direction as in the paper (c)."
    assert "is not shown here" in say(both(0.2, 0.3, 0.1), "c")
    sure = example.phrases.sureness
    assert sure(both(0.2, 0.3, 0.1)) == "not significant over prompts, significant over seeds"
    assert sure(both(0.2, 0.3, 0.3)) == "not significant"
    assert sure(both(0.2, 0.3, None)) == "not significant over prompts; one seed says nothing of others"


def test_a_page_picture_and_numbers(
    example: SimpleNamespace,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    runs, out = plant(tmp_path / "runs", example, dial=False), tmp_path / "out"
    monkeypatch.setattr(sys, "argv", ["results.py", "--runs", str(runs), "--out", str(out)])
    example.results.main()
    text = (out / "results.md").read_text("utf-8")
    assert text in capsys.readouterr().out
    assert "The dial was not drawn" in text
    assert "| PPO | 2.70 [2.70, 2.70] | 3.60, 2.70, 1.80 | +0.130 [0.130, 0.130] |" in text
    assert all(
        len({line.count("|") for line in table.split("\n")}) == 1
        for table in text.strip().split("\n\n")
        if table[0] == "|"
    )
    numbers = json.loads((out / "results.json").read_text("utf-8"))
    assert numbers["areas"]["dpo"]["area"]["over_seeds"]["value"] == pytest.approx(4.0)
    assert (out / "results.png").read_bytes()[:4] == b"\x89PNG"
    assert (out / "results.svg").read_bytes().startswith(b"<?xml")
    monkeypatch.setattr(sys, "argv", ["results.py", "--runs", str(tmp_path / "none"), "--out", str(out)])
    with pytest.raises(SystemExit, match="no seed is done yet"):
        example.results.main()


def test_a_dial_of_another_run_is_refused(example: SimpleNamespace, tmp_path: Path) -> None:
    runs = plant(tmp_path, example)
    path = runs / "seed-0" / "dial" / "frontier.json"
    told = json.loads(path.read_text())
    told["points"][2]["per_prompt"]["rewards"][3] += 0.01
    path.write_text(json.dumps(told))
    with pytest.raises(SystemExit, match=r"at strength 1 the rewards are not those of dpo-beta-0\.1"):
        example.seeds.read_seed(runs / "seed-0")
