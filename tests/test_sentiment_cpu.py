"""The paper's experiment for two cores: its commands are ones that exist, and what one reads another has written."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from likelier.cli import parse
from likelier.training.config import TrainingConfig

FOLDER = Path(__file__).parents[1] / "examples" / "sentiment-cpu"


def loaded(name: str) -> ModuleType:
    """A script of the example."""
    spec = importlib.util.spec_from_file_location(f"sentiment_cpu_{name}", FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look it up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def experiment() -> ModuleType:
    return loaded("experiment")


def steps_of(experiment: ModuleType, out: Path) -> list[Any]:
    return list(experiment.steps(out, model="smollm2", seeds=range(3), scale=experiment.WHOLE))


def test_every_command_has_settings_that_its_stage_takes(experiment: ModuleType, tmp_path: Path) -> None:
    for step in steps_of(experiment, tmp_path):
        parse(step.words[0], [*step.words[1:], *(["--resume"] if step.resumes else [])])


def test_the_learning_rate_is_reached(experiment: ModuleType, tmp_path: Path) -> None:
    """Without a warm-up of their own, 24 steps of many epochs were all warm-up: DPO ended 0.07 nats from its start."""
    for step in steps_of(experiment, tmp_path):
        config: Any = parse(step.words[0], list(step.words[1:]))
        if isinstance(config, TrainingConfig):
            assert config.max_steps is not None
            assert config.warmup_steps is not None
            assert config.warmup_steps <= config.max_steps / 10


def test_six_methods_at_three_settings_and_three_seeds(experiment: ModuleType, tmp_path: Path) -> None:
    assert {len(settings) for settings in experiment.SWEEP.values()} == {3}
    assert len(experiment.SWEEP) == 5
    assert len(experiment.WHOLE.chosen_from) >= 3  # best-of-N is the sixth
    steps = steps_of(experiment, tmp_path)
    assert len({step.done for step in steps}) == len(steps)
    trained = [step for step in steps if step.words[0] in ("dpo", "sft", "ppo")]
    assert len(trained) == 3 * 5 * 3


def test_what_a_step_reads_is_there_when_it_runs(experiment: ModuleType, tmp_path: Path) -> None:
    there = {"prompts-train.jsonl", "prompts-held-out.jsonl"}
    for step in steps_of(experiment, tmp_path):
        words = [Path(word) for word in step.words if word.startswith(str(tmp_path))]
        made = step.done.parent if step.done.name.endswith("manifest.json") else step.done
        for path in words:
            relative = path.relative_to(tmp_path)
            known = path == made or any(str(part) in there for part in (relative, *relative.parents))
            assert known, f"{step.name} reads {relative}, which no earlier step writes"
        there.add(str(made.relative_to(tmp_path)))
        if made.name == "baseline.jsonl":
            there.add(str(made.relative_to(tmp_path).with_name("baseline-rows.jsonl")))


def test_the_dial_can_be_set_beside_the_frontier(experiment: ModuleType, tmp_path: Path) -> None:
    """Last of its seed; the same prompts, reward, lengths and random numbers; its run is one of the sweep's."""
    steps = [step for step in steps_of(experiment, tmp_path) if step.name.startswith("seed 1: ")]
    assert steps[-1].name == "seed 1: dial"
    frontier: Any = next(parse("evaluate", list(step.words[1:])) for step in steps if "frontier" in step.name)
    dial: Any = parse("evaluate", list(steps[-1].words[1:]))
    for name in ("what", "prompts", "reward", "max_new_tokens", "seed", "estimator"):
        assert getattr(dial, name) == getattr(frontier, name)
    assert str(Path(dial.runs[0]).parent) in frontier.runs
    assert dial.n <= frontier.n
    assert dial.dial
    assert 1.0 in dial.strengths
    assert max(dial.strengths) == 2.0


def test_a_step_that_is_done_is_not_done_again(
    experiment: ModuleType, tmp_path: Path, patient_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    experiment.prompts(tmp_path, experiment.QUICK)
    steps = experiment.steps(tmp_path, model=str(patient_llama), seeds=[0], scale=experiment.QUICK)
    answers = next(steps)
    for _ in range(2):
        experiment.run(answers, tmp_path)
    assert len((tmp_path / "commands.sh").read_text().splitlines()) == 1
    assert len(answers.done.read_text().splitlines()) == experiment.QUICK.train
    words = ("label", str(tmp_path / "none.jsonl"), "--with", "reward")
    missing = experiment.Step("bad", words, tmp_path / "x", resumes=False)
    with pytest.raises(SystemExit, match="bad: the command ended with"):
        experiment.run(missing, tmp_path)


def test_the_baseline_is_a_column(experiment: ModuleType, tmp_path: Path) -> None:
    row = {"id": "a", "prompt": "p", "completions": [{"text": "first"}]}
    (tmp_path / "baseline.jsonl").write_text(json.dumps(row) + "\n")
    experiment.baseline_rows(tmp_path)
    (made,) = map(json.loads, (tmp_path / "baseline-rows.jsonl").read_text().splitlines())
    assert made == {"id": "a", "prompt": "p", "answer": "first"}
