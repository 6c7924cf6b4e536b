"""`likelier evaluate frontier`: against engines called by hand, once per prompt and checkpoint, and after SIGKILL."""

from __future__ import annotations

import csv
import gc
import json
import shutil
import weakref
from collections import Counter
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

import likelier
from likelier import cli
from likelier.engines import kept_answers
from likelier.engines.divergence import estimate_kl
from likelier.engines.prompts import Prompt
from likelier.engines.sampling import sample
from likelier.models.loading import load_model
from likelier.stages import evaluate_frontier, evaluate_policies
from likelier.stats import mean_interval
from likelier.training import stored
from tests.stages.test_sample_kills import whole_and_killed
from tests.training.conftest import no_timing, own_cache
from tests.training.support import metrics_of, pairs, write_rows

__all__ = ["no_timing", "own_cache"]

PROMPTS = [{"id": f"p{i}", "prompt": "The cat sat " * (1 + i % 3) + str(i)} for i in range(5)]
SETTINGS: dict[str, Any] = {"n": 2, "max_new_tokens": 6, "precision": "float32"}


@pytest.fixture(scope="module")
def trained(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs with checkpoints at steps 2 and 4: one of full training, one of an adapter."""
    folder = tmp_path_factory.mktemp("runs")
    settings: dict[str, Any] = {
        "precision": "float32", "batch_size": 3, "checkpoint_every": 2, "keep_checkpoints": 9, "learning_rate": 3e-3,
    }  # fmt: skip
    likelier.dpo(str(tiny_llama), pairs(12), out=folder / "full", **settings)
    likelier.dpo(
        str(tiny_llama), pairs(12), out=folder / "lora", lora_rank=4, **settings | {"learning_rate": 0.03}
    )
    return folder


@pytest.fixture
def here(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with the runs and the prompts in it, and a cache of its own."""
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    write_rows(tmp_path / "prompts.jsonl", PROMPTS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LIKELIER_CACHE", str(tmp_path / "cache"))
    return tmp_path


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The prompt of every time that answers are drawn."""
    asked: list[str] = []
    function = kept_answers.sample_each

    def counted(model: Any, tokenizer: Any, prompts: Any, **settings: Any) -> Any:
        asked.extend(prompt.id for prompt in prompts)
        return function(model, tokenizer, prompts, **settings)

    monkeypatch.setattr(kept_answers, "sample_each", counted)
    return asked


def evaluated(runs: list[str], **more: Any) -> Any:
    return likelier.evaluate(
        "frontier", runs, prompts="prompts.jsonl", out="out", **{"reward": "length", **SETTINGS, **more}
    )


def measured_by_hand(
    model: Any, reference: Any, tokenizer: Any
) -> tuple[list[list[float]], list[list[float]]]:
    """Words and KL of each answer, `[prompts][answers]`."""
    prompts = [Prompt(id=row["id"], content=row["prompt"]) for row in PROMPTS]
    sampled = sample(model, tokenizer, prompts, n=2, max_new_tokens=6)
    words = [[float(len(answer.text.split())) for answer in prompt.completions] for prompt in sampled]
    return words, estimate_kl(model, reference, sampled).values


def test_every_checkpoint_as_its_weights_say(here: Path, tiny_llama: Path, tokenizer: Any) -> None:
    report = evaluated(["full", "lora"])
    steps = [(point.run, point.step) for point in report.points]
    assert steps == [("reference", None), ("full", 2), ("full", 4), ("lora", 2), ("lora", 4)]
    reference = AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.float32).eval()
    model = AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.float32).eval()
    for point in report.points[:3]:
        if point.step:
            weights = load_file(here / "full" / "checkpoints" / f"step-{point.step}" / "weights.safetensors")
            model.load_state_dict(weights, strict=False)
        words, kl = measured_by_hand(model, reference, tokenizer)
        assert point.rewards == words
        assert [fmean(own) for own in point.kl] == pytest.approx([fmean(own) for own in kl], abs=1e-5)
        clusters = [prompt for prompt in range(5) for _ in range(2)]
        assert point.reward == mean_interval([word for own in words for word in own], clusters=clusters)
    assert report.points[0].distance.value == 0.0
    assert all(point.distance.low > 0.0 for point in report.points[1:])
    # The adapter's last checkpoint is the model that was saved.
    lora = load_model("lora/model").model.eval()
    words, kl = measured_by_hand(lora, reference, tokenizer)
    assert report.points[4].rewards == words
    assert [own for each in report.points[4].kl for own in each] == pytest.approx(
        [own for each in kl for own in each], abs=1e-4
    )


def test_the_files_say_the_same(here: Path, capsys: Any) -> None:
    words = ["evaluate", "frontier", "full", "lora", "--prompts", "prompts.jsonl", "--reward", "length"]
    words += ["--out", "out", "--n", "2", "--max-new-tokens", "6", "--precision", "float32"]
    assert cli.main(words) == 0
    said = capsys.readouterr().out
    for part in (
        "is the highest",
        "5 prompts, 2 answers each",
        "seed 0",
        "Rao-Blackwellised",
        "clustered by prompt",
    ):
        assert part in said
    assert "answers were cut at 6 tokens" in said
    result = json.loads(Path("out/frontier.json").read_text())
    table = list(csv.DictReader(Path("out/frontier.csv").read_text().splitlines()))
    assert [float(row["reward"]) for row in table] == [point["reward"]["value"] for point in result["points"]]
    assert [float(row["kl"]) for row in table] == [point["kl"]["value"] for point in result["points"]]
    assert sum(int(row["cut"]) for row in table) == sum(point["cut"] for point in result["points"]) > 0
    overall = result["frontier"]["all"]
    assert overall["to"] == max(point["kl"]["value"] for point in result["points"])
    best = max(range(5), key=lambda index: result["points"][index]["reward"]["value"])
    assert best in overall["corners"]
    assert set(result["frontier"]) == {"all", "full", "lora"}
    rows = [json.loads(line) for line in Path("out/frontier.answers.jsonl").read_text().splitlines()]
    assert len(rows) == 25
    assert {answer["finish"] for row in rows for answer in row["completions"]} <= {"stop", "length"}
    first = [answer["reward"] for row in rows[:5] for answer in row["completions"]]
    assert fmean(first) == pytest.approx(result["points"][0]["reward"]["value"])
    assert Path("out/frontier.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in Path("out/frontier.svg").read_text()
    manifest = json.loads(Path("out/frontier.manifest.json").read_text())
    assert manifest["stage"] == "evaluate"
    assert list(manifest["inputs"]) == ["prompts.jsonl"]


def test_compute_is_what_the_metrics_say(here: Path) -> None:
    report = evaluated(["full"])
    lines = [json.loads(line) for line in Path("full/metrics.jsonl").read_text().splitlines()]
    seconds = [3 / line["pairs_per_second"] for line in lines if "pairs_per_second" in line]
    assert report.points[2].compute["steps"] == 4
    assert report.points[2].compute["seconds"] == pytest.approx(sum(seconds[:4]))
    assert report.points[1].compute["seconds"] == pytest.approx(sum(seconds[:2]))
    assert report.points[1].compute["tokens"] > 0
    assert set(report.by_compute) == {"steps", "seconds", "tokens", "flop"}
    assert report.by_compute["steps"]["all"].to == 4
    assert len(metrics_of(Path("full"))) >= 4


def test_each_prompt_is_answered_once_for_each_policy(here: Path, drawn: list[str]) -> None:
    """A second evaluation draws nothing, nor does another reward; a new checkpoint costs its own answers."""
    shutil.move("full/checkpoints/step-4", "kept")
    shutil.move("full/model", "kept-model")
    first = evaluated(["full"])
    assert Counter(drawn) == {f"p{i}": 2 for i in range(5)}  # the reference, and step 2
    drawn.clear()
    again = evaluated(["full"], reward="regex:cat")
    assert drawn == []
    assert again.points[1].kl == first.points[1].kl
    shutil.move("kept", "full/checkpoints/step-4")
    assert [point.step for point in evaluated(["full"]).points] == [None, 2, 4]
    assert Counter(drawn) == {f"p{i}": 1 for i in range(5)}
    drawn.clear()
    shutil.move("kept-model", "full/model")
    assert len(evaluated(["full"]).points) == 3  # the result is the last checkpoint's policy
    assert drawn == []
    evaluated(["full"], seed=1)
    assert len(drawn) == 15


def test_twenty_checkpoints_and_one_pass_of_both_models_over_each_prompts_answers(
    here: Path, tiny_llama: Path, drawn: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings: dict[str, Any] = {"precision": "float32", "batch_size": 1, "learning_rate": 1e-3}
    likelier.dpo(str(tiny_llama), pairs(20), out="long", checkpoint_every=1, keep_checkpoints=99, **settings)
    measured: list[str] = []
    function = kept_answers.estimate_kl

    def counted(policy: Any, reference: Any, sampled: Any, **more: Any) -> Any:
        assert policy is not reference
        measured.extend(prompt.id for prompt in sampled)
        return function(policy, reference, sampled, **more)

    monkeypatch.setattr(kept_answers, "estimate_kl", counted)
    report = evaluated(["long"], n=1, max_new_tokens=3)
    assert [point.step for point in report.points] == [None, *range(1, 21)]
    assert Counter(drawn) == {f"p{i}": 21 for i in range(5)}
    assert Counter(measured) == {f"p{i}": 20 for i in range(5)}
    evaluated(["long"], n=1, max_new_tokens=3)
    assert len(drawn) == 105
    assert len(measured) == 100


def test_two_models_are_in_memory_at_most_and_none_beside_the_reward(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alive: list[Any] = []
    seen = {"loading": 0, "sampling": 0, "reward": 0}

    def look(name: str) -> None:
        gc.collect()
        seen[name] = max(seen[name], sum(one() is not None for one in alive))

    def loading(function: Any) -> Any:
        def load(*args: Any, **kwargs: Any) -> Any:
            loaded = function(*args, **kwargs)
            alive.append(weakref.ref(loaded.model))
            look("loading")
            return loaded

        return load

    def count(name: str, function: Any) -> Any:
        def counted(*args: Any, **kwargs: Any) -> Any:
            look(name)
            return function(*args, **kwargs)

        return counted

    monkeypatch.setattr(stored, "load_model", loading(stored.load_model))
    monkeypatch.setattr(evaluate_policies, "load_model", loading(evaluate_policies.load_model))
    monkeypatch.setattr(kept_answers, "sample_each", count("sampling", kept_answers.sample_each))
    monkeypatch.setattr(evaluate_frontier, "scores_of", count("reward", evaluate_frontier.scores_of))
    # Weights that no checkpoint has, so that the result is loaded and sampled from too.
    shutil.rmtree("full/checkpoints/step-4")
    evaluated(["full", "lora"], best_of=[2], chooser="regex:a")
    assert seen == {"loading": 2, "sampling": 2, "reward": 0}
    assert len(alive) >= 4


def test_after_sigkill_nothing_is_drawn_twice_and_the_result_is_the_same(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed before something is kept, in the middle of an answer, and thrice in one evaluation."""
    words = ["evaluate", "frontier", "full", "lora", "--prompts", "prompts.jsonl", "--reward", "length"]
    words += ["--n", "2", "--max-new-tokens", "6", "--precision", "float32"]
    # Kept are 5 prompts of the reference, then for each of 4 policies 5 answers and 5 distances: 45 in all.
    points = [("put", 3), ("put", 9), ("token", 4), ("put", 20)]
    _, results = whole_and_killed(here, words, [{"at": at, "nth": nth} for at, nth in points], monkeypatch)
    assert [result["code"] for result in results] == [-9, -9, -9, -9, 0]
    # 2 and then 8 more are kept, which leaves 35 of 45; the third process dies in the first answers of step 2's
    # successor, the last one after 19 more.
    before = [
        int(line.split(" prompts, ")[1].split()[0])
        for line in results[-1]["stderr"].splitlines()
        if " prompts, " in line
    ]
    assert before[0] == 5
    assert sum(before) < 25
    for name in ("frontier.csv", "frontier.json", "frontier.answers.jsonl", "frontier.svg"):
        assert (here / "killed" / name).read_bytes() == (here / "whole" / name).read_bytes(), name


def test_plain_models_and_one_reference_for_all(here: Path, tiny_llama: Path) -> None:
    report = evaluated(["full/model", str(tiny_llama)], reference=str(tiny_llama))
    assert [point.name for point in report.points] == ["reference", "full/model", str(tiny_llama)]
    assert report.points[2].distance.value == 0.0
    assert report.points[2].rewards == report.points[0].rewards
    assert report.by_compute == {}


def test_where_nothing_moves_the_estimators_name_themselves(here: Path) -> None:
    one, other = evaluated(["full"]), evaluated(["full"], estimator="k1")
    assert other.points[1].kl != one.points[1].kl
    assert other.points[1].rewards == one.points[1].rewards
    assert "mean log-ratio (k1)" in json.loads(Path("out/frontier.json").read_text())["words"][0]


def refused(words: list[str], capsys: Any, *, code: int = 2) -> str:
    given = ["--prompts", "prompts.jsonl", "--reward", "length", "--out", "out"]
    options = [words[index] for index in range(len(words)) if words[index].startswith("--")]
    kept = [
        word
        for place in range(0, len(given), 2)
        if given[place] not in options
        for word in given[place : place + 2]
    ]
    assert cli.main(["evaluate", "frontier", *words, *kept]) == code
    return str(capsys.readouterr().err)


def test_what_is_refused_in_one_line(here: Path, tiny_llama: Path, capsys: Any) -> None:
    assert "needs --reward" in _without("--reward", capsys)
    assert "needs --prompts" in _without("--prompts", capsys)
    assert "did you mean `length`" in refused(["full", "--reward", "lenght"], capsys)
    assert "does not say what it started from; KL needs that: --reference MODEL" in refused(
        ["full/model"], capsys
    )
    assert "no model at" in refused(["./nowhere", "--reference", str(tiny_llama)], capsys)
    assert "--data is for evaluate preferences" in refused(["full", "--data", "x"], capsys)
    assert "--judge-model is for evaluate preferences or winrate or temperature" in refused(
        ["full", "--judge-model", "x"], capsys
    )
    shutil.rmtree("lora/model")
    shutil.rmtree("lora/checkpoints")
    assert "neither a checkpoint nor a model yet: train with --checkpoint-every N" in refused(
        ["lora"], capsys
    )
    shutil.copytree("full", "other")
    text = Path("other/config.yaml").read_text().replace(str(tiny_llama), "elsewhere")
    Path("other/config.yaml").write_text(text)
    assert "held to different references" in refused(["full", "other"], capsys)
    Path("full/checkpoints/step-2/weights.safetensors").write_bytes(b"nothing")
    assert "the checkpoint full/checkpoints/step-2 is damaged" in refused(["full"], capsys)
    Path("out").write_text("")
    assert "--out out is a file" in refused(["full"], capsys)


def _without(flag: str, capsys: Any) -> str:
    given = {"--prompts": "prompts.jsonl", "--reward": "length"}
    del given[flag]
    words = [word for pair in given.items() for word in pair]
    assert cli.main(["evaluate", "frontier", "full", "--out", "out", *words]) == 2
    return str(capsys.readouterr().err)


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("return float('nan')", "nan for prompt 'p0', answer 1 of reference, not a finite number"),
        ("return 'good'", "'good' for prompt 'p0'"),
        (
            "raise ValueError('no idea')",
            "failed for prompt 'p0', answer 1 of reference (ValueError: no idea)",
        ),
    ],
)
def test_a_reward_that_is_no_number_names_the_prompt(here: Path, source: str, told: str, capsys: Any) -> None:
    name = f"reward_{abs(hash(source))}"
    Path(f"{name}.py").write_text(f"def score(prompt, answer):\n    {source}\n")
    assert told in refused(["full", "--reward", f"{name}:score"], capsys, code=1)


def test_a_reward_of_the_wrong_count_says_so(here: Path, capsys: Any) -> None:
    Path("wrong_count.py").write_text("def score(prompts, answers):\n    return [1.0]\n")
    assert "gave 1 numbers for 4 answers" in refused(
        ["full", "--reward", "wrong_count:score"], capsys, code=1
    )
