"""The demo end to end on a tiny random model, and what it refuses."""

from __future__ import annotations

import json
import shlex
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch

from likelier.cli import parse
from likelier.engines.sampling import SampledCompletion, SampledPrompt
from likelier.errors import DataError, ModelError, UsageError, WorkError
from likelier.report.page import number
from likelier.stages import demo_time
from likelier.stages.demo import DemoResult, demo
from likelier.stages.demo_config import DemoConfig
from likelier.stages.demo_prompts import read_demo_prompts
from likelier.stages.demo_report import next_commands
from likelier.stages.dpo import dpo
from likelier.stages.label import label_file
from likelier.stages.label_config import LabelConfig
from likelier.training.run import Run

FILES = [
    "page.html",
    "preferences.jsonl",
    "preferences.manifest.json",
    "prompts-held-out.jsonl",
    "prompts-train.jsonl",
    "results.json",
    "run",
    "samples-after.jsonl",
    "samples-after.manifest.json",
    "samples-before.jsonl",
    "samples-before.manifest.json",
    "samples-strengths.jsonl",
    "samples-train.jsonl",
    "samples-train.manifest.json",
]


def prompt_rows(train: int = 6, held_out: int = 4) -> list[dict[str, Any]]:
    rows = [
        {"id": f"t{number}", "split": "train", "subject": "rice", "prompt": f"Wash rice {number} times"}
        for number in range(train)
    ]
    rows += [
        {"id": f"h{number}", "split": "held-out", "subject": "<i>rain</i>", "prompt": f"In rain {number}"}
        for number in range(held_out)
    ]
    return rows


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def settings(folder: Path, model: Path, **more: Any) -> DemoConfig:
    prompts = write(folder / "prompts.jsonl", prompt_rows())
    values = {"model": str(model), "prompts": prompts, "out": folder / "demo", "reward": "length"}
    return DemoConfig.build(values | {"max_new_tokens": 8, "learning_rate": 3e-3, "batch_size": 8} | more)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, tiny_llama: Path) -> tuple[DemoConfig, DemoResult]:
    config = settings(tmp_path_factory.mktemp("demo"), tiny_llama)
    return config, demo(config)


def test_every_stage_leaves_its_file(done: tuple[DemoConfig, DemoResult]) -> None:
    config, result = done
    assert sorted(path.name for path in config.out.iterdir()) == FILES
    assert result.page == config.out / "page.html"
    assert (config.out / "run" / "model" / "model.safetensors").is_file()
    samples = lines(config.out / "samples-after.jsonl")
    assert [row["id"] for row in samples] == ["h0", "h1", "h2", "h3"]
    assert {len(row["completions"]) for row in samples} == {8}
    assert samples[0]["model"] == str(config.out / "run" / "model")


def test_training_starts_at_the_reference_on_every_pair(done: tuple[DemoConfig, DemoResult]) -> None:
    config, _ = done
    pairs = json.loads((config.out / "preferences.manifest.json").read_text())["pairs"]
    metrics = lines(config.out / "run" / "metrics.jsonl")
    steps = [line for line in metrics if "loss" in line]
    assert steps[0]["loss"] == pytest.approx(0.6931471805599453, abs=1e-6)
    assert steps[-1]["pairs_seen"] == pairs


def test_the_results_are_those_of_the_files(done: tuple[DemoConfig, DemoResult]) -> None:
    config, result = done
    results = json.loads(result.results.read_text())
    comparison = results["comparison"]
    assert comparison["verdict"] == result.verdict
    for when in ("before", "after"):
        rows = lines(config.out / f"samples-{when}.jsonl")
        words = [[float(len(c["text"].split())) for c in row["completions"]] for row in rows]
        assert comparison[f"rewards_{when}"] == words
    assert comparison["kl"]["value"] > 0
    example = results["example"]
    assert example["chosen_score"] > example["rejected_score"]
    assert example["policy_logps"] != example["reference_logps"]


def test_the_page_tells_the_run_and_escapes_its_text(done: tuple[DemoConfig, DemoResult]) -> None:
    _, result = done
    page = result.page.read_text()
    assert "&lt;i&gt;rain&lt;/i&gt;" in page
    assert "<i>rain" not in page
    for command in ("likelier check --data", "likelier dpo --model", "likelier score --model"):
        assert command in page


def test_a_run_can_be_repeated_to_the_bit(
    done: tuple[DemoConfig, DemoResult], tmp_path: Path, tiny_llama: Path
) -> None:
    config, _ = done
    again = settings(tmp_path, tiny_llama)
    demo(again)
    first, second = (
        [
            [answer["tokens"] for answer in row["completions"]]
            for row in lines(run.out / "samples-after.jsonl")
        ]
        for run in (config, again)
    )
    assert first == second


def test_an_earlier_demo_is_replaced_only_when_asked(
    done: tuple[DemoConfig, DemoResult], tmp_path: Path, tiny_llama: Path
) -> None:
    config, _ = done
    with pytest.raises(UsageError, match="is not empty: pass --overwrite"):
        demo(config)
    other = settings(tmp_path, tiny_llama, overwrite=True)
    other.out.mkdir()
    (other.out / "thesis.txt").write_text("years of work")
    with pytest.raises(UsageError, match="holds something else than a demo"):
        demo(other)
    assert (other.out / "thesis.txt").read_text() == "years of work"


def test_a_wrong_model_leaves_an_earlier_demo_as_it_was(tmp_path: Path, tiny_llama: Path) -> None:
    config = settings(tmp_path, tmp_path / "no-model-here", overwrite=True)
    config.out.mkdir()
    for name in ("prompts-train.jsonl", "page.html"):
        (config.out / name).write_text("of an earlier demo")
    with pytest.raises(ModelError, match="no-model-here"):
        demo(config)
    assert (config.out / "page.html").read_text() == "of an earlier demo"


def test_the_story_is_told_on_a_pair_that_was_trained_on(
    tmp_path: Path, tiny_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pair of answers furthest apart has an empty one, so its prompt was left out of the preferences."""
    from likelier.models.loading import load_model
    from likelier.stages.demo_pair import widest_pair

    answers = {"empty": ["", "a b c d e f g"], "kept": ["a b c", "a"], "cut": ["a b c d e", "a"]}
    sampled = [
        SampledPrompt(
            id=name,
            prompt=f"say {name}",
            prompt_tokens=[5],
            completions=[
                SampledCompletion(text=text, tokens=[6 + k, 2], logp=-1.0, finish=ends)
                for k, (text, ends) in enumerate(
                    zip(texts, ["stop", "length" if name == "cut" else "stop"], strict=True)
                )
            ],
        )
        for name, texts in answers.items()
    ]
    rows = [
        {"id": p.id, "prompt": p.prompt, "completions": [asdict(c) for c in p.completions]} for p in sampled
    ]
    samples, out = write(tmp_path / "samples.jsonl", rows), tmp_path / "preferences.jsonl"
    assert label_file(LabelConfig(with_="reward", samples=samples, reward="length", out=out)).skipped == 1
    pair = widest_pair(out, sampled, load_model(tiny_llama).model, beta=0.1)
    assert (pair.example.prompt, pair.example.chosen, pair.example.rejected) == ("say kept", "a b c", "a")
    assert (pair.example.chosen_score, pair.example.rejected_score) == (3.0, 1.0)
    assert pair.answer_tokens == ([6, 2], [7, 2])


def test_the_next_commands_can_be_pasted_and_parse(tmp_path: Path) -> None:
    config = DemoConfig(out=tmp_path / "my runs", beta=0.2)
    for _, command in next_commands(config, model="a model"):
        words = shlex.split(command)
        assert words[0] == "likelier"
        parse(words[1], words[2:])
    assert "--beta 1 " in next_commands(config, model="a model")[1][1]


def test_the_terminal_tells_the_same_story(
    tmp_path: Path, tiny_llama: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And `--quick` takes every third training prompt, and two answers to each held-out one."""
    config = settings(tmp_path, tiny_llama, quick=True)
    demo(config)
    told = " ".join(capsys.readouterr().err.split())
    parts = ["likelier demo", "1 · The reference π_ref", "This takes about", "y_w ≻ y_l", "the loss is log 2"]
    parts += ["it now pulls with σ(−u) =", "before after change 95 % interval", "KL(π_θ ‖ π_ref)"]
    parts += ["8 · The same policy at other strengths", "λ: mean reward at KL: 0:", "The page"]
    parts += ["likelier check --data", "likelier dpo --model", "likelier score --model", "--strength 1.5"]
    places = [told.find(part) for part in parts]
    assert -1 not in places
    assert places == sorted(places)
    turned = json.loads((config.out / "results.json").read_text())["dial"]["strengths"]
    figures = [(one["strength"], one["reward"]["value"], one["kl"]["value"]) for one in turned]
    line = " · ".join(f"{at:g}: {number(reward)} at {number(kl, 1)}" for at, reward, kl in figures)
    assert f"mixed at strength λ, 4 prompts; λ: mean reward at KL: {line} " in told
    assert [row["id"] for row in lines(config.out / "samples-train.jsonl")] == ["t0", "t3"]
    assert {len(row["completions"]) for row in lines(config.out / "samples-after.jsonl")} == {2}


def test_early_signs_of_trouble_reach_terminal_page_and_results(
    tmp_path: Path, tiny_llama: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from likelier.training.signs import Signs

    sign = "answers <grow>: lower --learning-rate"
    monkeypatch.setattr(Signs, "look", lambda self, line: [sign] if line.get("step") == 1 else [])
    config = settings(tmp_path, tiny_llama, quick=True)
    result = demo(config)
    manifest = json.loads((config.out / "run" / "manifest.json").read_text())
    assert manifest["notes"][-1] == sign
    assert json.loads(result.results.read_text())["notes"] == manifest["notes"]
    assert "<li>answers &lt;grow&gt;: lower --learning-rate</li>" in result.page.read_text()
    told = " ".join(capsys.readouterr().err.split())
    assert f"Training noticed: · {' · '.join(manifest['notes'])} " in told


def test_the_expected_time_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """2 · 10⁸ · 10 · (100 + 2 · 50 + 8 · 25) = 8 · 10¹¹ operations at 0.62 · 10¹² and at 525 · 10⁹ a second."""
    monkeypatch.setattr(demo_time, "matrix_rate", lambda: 1e12)
    minutes = demo_time.expected_minutes(1e8, sampled=100, compared=50, trained=25, tokens=10)
    assert minutes == pytest.approx((15 + 0.8 / 0.62 + 0.8 / 0.525) / 60)


def test_a_stopped_training_is_not_measured(
    tmp_path: Path, tiny_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from likelier.stages import demo_walk

    def stopped(*arguments: Any, **named: Any) -> Run:
        run = dpo(*arguments, **named)
        run.stopped = "SIGTERM"
        return run

    monkeypatch.setattr(demo_walk, "dpo", stopped)
    config = settings(tmp_path, tiny_llama)
    with pytest.raises(WorkError, match="training was stopped by SIGTERM"):
        demo(config)
    assert not (config.out / "page.html").exists()


def test_our_own_prompts() -> None:
    prompts = read_demo_prompts(None)
    train, held_out = prompts["train"], prompts["held-out"]
    assert len(train) == 96
    assert len(held_out) >= 64
    assert not {p.subject for p in train} & {p.subject for p in held_out}
    contents = [json.dumps(prompt.prompt) for prompt in (*train, *held_out)]
    assert len(set(contents)) == len(contents)
    assert len({prompt.id for prompt in (*train, *held_out)}) == len(contents)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"split": "test"}, 'row 2: `split` must be "train" or "held-out", not \'test\''),
        ({"prompt": ""}, "row 2: `prompt` must be text or a list of messages"),
        ({"prompt": 3}, "row 2: `prompt` must be text or a list of messages"),
        ({"subject": "<i>rain</i>"}, "subject '<i>rain</i>' is in both splits"),
    ],
)
def test_prompts_that_cannot_be_used(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    rows = prompt_rows()
    rows[1] |= change
    with pytest.raises(DataError) as error:
        read_demo_prompts(write(tmp_path / "p.jsonl", rows))
    assert message in str(error.value)


def test_prompts_of_one_split_alone(tmp_path: Path) -> None:
    with pytest.raises(DataError, match='no row has `split` "held-out"'):
        read_demo_prompts(write(tmp_path / "p.jsonl", prompt_rows(held_out=0)))


def test_nothing_is_started_for_an_unknown_reward(tmp_path: Path, tiny_llama: Path) -> None:
    config = settings(tmp_path, tiny_llama, reward="vadder")
    with pytest.raises(UsageError, match="did you mean `vader`"):
        demo(config)
    assert not config.out.exists()


def test_every_setting_is_read() -> None:
    sources = [
        path.read_text() for path in (Path(__file__).parents[2] / "src/likelier/stages").glob("demo*.py")
    ]
    for name in DemoConfig.model_fields:
        assert any(f"config.{name}" in source for source in sources), name


@pytest.fixture(autouse=True)
def deterministic_algorithms_are_left_as_they_were() -> Any:
    before = torch.are_deterministic_algorithms_enabled()
    yield
    assert torch.are_deterministic_algorithms_enabled() == before
