"""`likelier demo --stages`: two rounds end to end on a tiny random model."""

from __future__ import annotations

import json
import math
import shlex
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
import yaml

from likelier.cli import main, parse
from likelier.errors import UsageError
from likelier.stages.demo_config import DemoConfig
from likelier.stages.demo_stages import walk_stages
from tests.stages.test_demo import lines, settings


@pytest.fixture(scope="module")
def walked(tmp_path_factory: pytest.TempPathFactory, patient_llama: Path) -> DemoConfig:
    folder = tmp_path_factory.mktemp("stages")
    config = settings(folder, patient_llama, stages=True, rounds=2)
    walk_stages(config)
    return config


def results(config: DemoConfig) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((config.out / "results.json").read_text())
    return found


def test_each_round_starts_from_the_policy_of_the_last(walked: DemoConfig) -> None:
    starts = [
        yaml.safe_load((walked.out / f"round-{number}" / "dpo" / "config.yaml").read_text())["model"]
        for number in (1, 2)
    ]
    assert starts == [str(walked.out / "start"), str(walked.out / "round-1" / "dpo" / "model")]
    for number in (1, 2):
        first = lines(walked.out / f"round-{number}" / "dpo" / "metrics.jsonl")[0]
        assert first["loss"] == pytest.approx(math.log(2), abs=1e-6)


def test_answers_are_those_of_the_policy_with_new_random_numbers_in_training(walked: DemoConfig) -> None:
    rows = [lines(walked.out / f"round-{number}" / "samples.jsonl") for number in (1, 2)]
    assert [row["id"] for row in rows[0]] == [row["id"] for row in rows[1]]
    assert rows[0][0]["sampling"]["seed"] != rows[1][0]["sampling"]["seed"]
    held_out = [lines(walked.out / f"round-{number}" / "held-out.jsonl") for number in (0, 1, 2)]
    assert len({row["sampling"]["seed"] for answers in held_out for row in answers}) == 1
    seeds = {rows[number][0]["sampling"]["seed"] for number in (0, 1)}
    assert held_out[0][0]["sampling"]["seed"] not in seeds


def test_the_figures_are_those_of_the_files(walked: DemoConfig) -> None:
    found = results(walked)
    for one in found["rounds"][1:]:
        rows = lines(walked.out / f"round-{one['number']}" / "held-out.jsonl")
        words = [[float(len(answer["text"].split())) for answer in row["completions"]] for row in rows]
        assert one["comparison"]["rewards_after"] == words
        scored = lines(walked.out / f"round-{one['number']}" / "log-ratios.jsonl")
        ratios = [
            ours - theirs
            for line in scored
            for ours, theirs in zip(line["logps"], line["reference_logps"], strict=True)
        ]
        assert one["comparison"]["kl"]["value"] == pytest.approx(fmean(ratios), abs=1e-9)
        pairs = json.loads((walked.out / f"round-{one['number']}" / "preferences.manifest.json").read_text())
        assert one["pairs"] == pairs["pairs"] > 0
    for number, values in enumerate(found["learned_rewards"]):
        scored = lines(walked.out / f"round-{number}" / "learned-rewards.jsonl")
        assert values == [value for line in scored for value in line["rewards"]]
        assert values


def test_every_labeller_has_had_its_say(walked: DemoConfig) -> None:
    who = {name: (how, result) for name, how, result in results(walked)["labellings"]}
    assert list(who) == ["judge", "reward model", "people"]
    assert "agrees with the reward" in who["judge"][1]
    assert "n = " in who["reward model"][1]
    assert shlex.split(who["people"][1])[:2] == ["likelier", "label"]


def test_the_commands_are_the_run(walked: DemoConfig, tmp_path: Path) -> None:
    """Each can be typed as it stands; one is, and leaves the same file."""
    commands = [shlex.split(command) for command in results(walked)["commands"]]
    assert [words[1] for words in commands[:6]] == ["sample", "sample", "label", "dpo", "sample", "score"]
    for words in commands:
        parse(words[1], words[2:])
    (score,) = [w for w in commands if w[1] == "score" and w[-1].endswith("round-2/log-ratios.jsonl")]
    again = tmp_path / "again.jsonl"
    assert main([*score[1:-1], str(again)]) == 0
    assert again.read_bytes() == Path(score[-1]).read_bytes()


def test_the_page_shows_every_round_and_escapes_its_text(walked: DemoConfig) -> None:
    page = (walked.out / "page.html").read_text()
    for text in ("round 1", "round 2", "before", "likelier label", "KL to the start"):
        assert text in page
    assert "<script" not in page
    prompt = lines(walked.out / "round-2" / "held-out.jsonl")[0]["prompt"]
    assert prompt in page


def test_an_earlier_run_is_replaced_only_when_asked(walked: DemoConfig) -> None:
    with pytest.raises(UsageError, match="is not empty: pass --overwrite"):
        walk_stages(walked)


def test_rounds_are_of_stages() -> None:
    with pytest.raises(UsageError, match="--rounds needs --stages"):
        DemoConfig.build({"rounds": 2})
