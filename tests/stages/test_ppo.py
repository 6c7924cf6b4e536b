"""`likelier ppo`: settings, rewards, what a run leaves behind, and what it says of wrong input."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

import likelier
from likelier import cli
from likelier.engines.drawing import Sampler
from likelier.engines.prompts import Prompt
from likelier.engines.rewards import resolve_reward
from likelier.errors import DataError, ModelError, UsageError, WorkError
from likelier.models.adapters import add_lora
from likelier.training import rollouts
from likelier.training.frozen import FrozenOther
from likelier.training.policy import load_policy
from likelier.training.ppo_config import PpoConfig
from likelier.training.rollouts import draw_rollout
from tests.training.conftest import no_timing, own_cache
from tests.training.support import model_of, timeless, weights_of, write_rows

__all__ = ["no_timing", "own_cache"]

PROMPTS = [{"id": f"p{n}", "prompt": text} for n, text in enumerate(["the cat", "rain", "a good", "what is"])]
METRICS = (
    *(
        "reward/mean",
        "reward/mean/low",
        "reward/mean/high",
        "reward/std",
        "kl",
        "kl/low",
        "kl/high",
        "objective",
    ),
    *("entropy", "length/mean", "stop_rate", "beta", "loss", "loss/policy", "loss/value", "approx_kl"),
    *("clip_fraction", "explained_variance", "updates", "learning_rate", "grad_norm", "answers_seen"),
)


def vowels(prompt: Any, completion: str) -> float:
    return float(sum(letter in "aeiou" for letter in completion))


def train(
    model: Any, prompts: Any = PROMPTS, reward: Any = vowels, tokenizer: Any = None, **config: Any
) -> Any:
    settings: dict[str, Any] = {
        "precision": "float32",
        "learning_rate": 1e-3,
        "batch_size": 4,
        "n": 2,
        "max_new_tokens": 5,
        "rollout_epochs": 2,
        **config,
    }
    return likelier.ppo(model, prompts, reward, tokenizer=tokenizer, **settings)


def small(tokenizer: Any, **changes: Any) -> Any:
    return model_of(tokenizer, precision="float32", **changes)


def test_a_line_for_every_step_with_every_figure(tokenizer: Any) -> None:
    run = train(small(tokenizer), tokenizer=tokenizer, epochs=2)
    assert [line["step"] for line in run.metrics] == [1, 2, 3, 4]
    assert [line["answers_seen"] for line in run.metrics] == [4, 8, 12, 16]
    for line in run.metrics:
        assert set(METRICS) <= set(line)
        assert line["reward/mean/low"] <= line["reward/mean"] <= line["reward/mean/high"]
        assert line["updates"] == 2
        assert 0.0 < line["entropy"] < 6.0
        assert line["objective"] == pytest.approx(line["reward/mean"] - line["beta"] * line["kl"], rel=1e-9)
    first = run.metrics[0]
    assert (first["kl"], first["kl/low"], first["kl/high"]) == (0.0, 0.0, 0.0)
    assert run.report().splitlines()[1].startswith("last rollout: reward ")
    assert "4 steps, 16 answers" in run.report()


@pytest.mark.parametrize("advantage", ["rloo", "grpo"])
def test_without_a_value_there_is_none_to_explain(advantage: str, tokenizer: Any) -> None:
    run = train(small(tokenizer), tokenizer=tokenizer, advantage=advantage)
    assert [line["explained_variance"] for line in run.metrics] == [None, None]
    assert [line["loss/value"] for line in run.metrics] == [0.0, 0.0]
    assert run.metrics[1]["kl"] != 0.0


def test_the_controller_steers_beta(tokenizer: Any) -> None:
    """At first the KL is 0, below its target: β falls by 2 % with the gain of 0.1."""
    run = train(small(tokenizer), tokenizer=tokenizer, target_kl=3.0, beta=0.5)
    assert [line["beta"] for line in run.metrics] == pytest.approx([0.5, 0.5 * 0.98], rel=1e-12)


def test_an_answer_that_is_cut_gets_no_end_and_may_be_charged(tokenizer: Any) -> None:
    """A penalty is optimised, not reported; all answers are cut here, so a value learns it."""
    model = small(tokenizer)
    with torch.no_grad():
        model.lm_head.weight[tokenizer.eos_token_id] = 0.0
    rewards = [
        train(model_copy(model), tokenizer=tokenizer, max_steps=1, missing_end_penalty=penalty).metrics[0]
        for penalty in (0.0, 10.0)
    ]
    assert rewards[0]["reward/mean"] == rewards[1]["reward/mean"]
    assert rewards[0]["stop_rate"] < 1.0
    assert rewards[1]["loss/value"] > rewards[0]["loss/value"] + 10.0


def model_copy(model: Any) -> Any:
    import copy

    return copy.deepcopy(model)


def test_in_every_form_it_is_the_same_run(tmp_path: Path, tiny_llama: Path, tokenizer: Any) -> None:
    from datasets import Dataset

    path = write_rows(tmp_path / "prompts.jsonl", PROMPTS)

    def figures(model: Any, prompts: Any, reward: Any, **more: Any) -> Any:
        return timeless(train(model, prompts, reward, max_steps=1, **more).metrics)

    expected = figures(str(tiny_llama), str(path), "regex:e")
    assert figures(tiny_llama, Dataset.from_list(PROMPTS), lambda prompt, answer: "e" in answer) == expected
    module = small(tokenizer, max_position_embeddings=512)
    lists = figures(
        *(module, PROMPTS, lambda prompts, answers: [float("e" in a) for a in answers]), tokenizer=tokenizer
    )
    assert lists == expected


def test_messages_and_a_text_file(tmp_path: Path, tokenizer: Any) -> None:
    path = tmp_path / "prompts.txt"
    path.write_text("the cat\n\nwhat is rain\n")
    run = train(small(tokenizer), path, tokenizer=tokenizer, as_="messages")
    assert run.metrics[-1]["answers_seen"] == 4
    seen: list[Any] = []

    def note(prompt: Any, completion: str) -> float:
        seen.append(prompt)
        return 0.0

    train(small(tokenizer), path, note, tokenizer=tokenizer, as_="messages", max_steps=1)
    assert [{"role": "user", "content": "the cat"}] in seen


def test_a_peft_model_and_lora_keep_the_base(tokenizer: Any) -> None:
    for how in ("given", "added"):
        model: Any = small(tokenizer)
        base = weights_of(model)
        model = add_lora(model, rank=2, seed=0) if how == "given" else model
        run = train(model, tokenizer=tokenizer, lora_rank=None if how == "given" else 2)
        assert run.metrics[0]["kl"] == 0.0
        assert run.metrics[1]["kl"] != 0.0
        plain = {
            name.replace(".base_layer", ""): p for name, p in run.model.get_base_model().named_parameters()
        }
        assert all(torch.equal(plain[name], before) for name, before in base.items())


def test_an_adapter_that_was_trained_is_its_own_reference(tokenizer: Any) -> None:
    """Switched off it would be another model: the start is copied."""
    model = add_lora(small(tokenizer), rank=2, seed=0)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(std=0.1, generator=torch.Generator().manual_seed(0))
    run = train(model, tokenizer=tokenizer)
    assert run.metrics[0]["kl"] == 0.0


@pytest.mark.parametrize("family", ["falcon", "bloom", "gemma2"])
def test_other_ways_to_a_model(family: str, tokenizer: Any) -> None:
    run = train(small(tokenizer, family=family), tokenizer=tokenizer)
    assert run.metrics[0]["kl"] == 0.0


def test_bfloat16(tokenizer: Any) -> None:
    run = train(small(tokenizer), tokenizer=tokenizer, precision="bfloat16")
    assert run.metrics[0]["kl"] == 0.0
    assert run.metrics[0]["explained_variance"] is not None


def test_the_command(tmp_path: Path, tiny_llama: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prompts, out = write_rows(tmp_path / "prompts.jsonl", PROMPTS), tmp_path / "run"
    words = [
        *("ppo", "--model", str(tiny_llama), "--prompts", str(prompts), "--reward", "regex:[aeiou]"),
        *(
            "--eval-share",
            "0.5",
            "--eval-every",
            "1",
            "--n",
            "2",
            "--batch-size",
            "4",
            "--max-new-tokens",
            "5",
        ),
        *("--precision", "float32", "--out", str(out)),
    ]
    assert cli.main(words) == 0
    said = capsys.readouterr()
    assert "1 steps of 4 answers" in said.err
    assert "against the policy before its first update" in said.err
    assert "up to" in said.err
    assert "held-out reward" in said.out
    assert "(before: " in said.out
    assert "nats from the reference (k1)" in said.out
    manifest = json.loads((out / "manifest.json").read_text())
    assert (manifest["stage"], manifest["finished"]) == ("ppo", True)
    assert set(manifest["inputs"]) == {"train", "eval"}
    text = (out / "config.yaml").read_text()
    assert "reward: regex:[aeiou]" in text
    assert "rollout_epochs: 4" in text
    examples = (out / "examples.txt").read_text()
    assert "prompt, " in examples
    assert "tokens trained" not in examples
    saved = AutoModelForCausalLM.from_pretrained(out / "model")
    assert all("value_head" not in name for name in saved.state_dict())
    assert "PPO" in (out / "model" / "README.md").read_text()
    # What was written down starts the same run anew.
    again = tmp_path / "again"
    assert cli.main(["ppo", "--config", str(out / "config.yaml"), "--out", str(again)]) == 0
    lines = [timeless([json.loads(line)])[0] for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert lines == [
        timeless([json.loads(line)])[0] for line in (again / "metrics.jsonl").read_text().splitlines()
    ]
    assert cli.main([*words, "--resume"]) == 0
    assert "is finished" in capsys.readouterr().err


def test_what_a_nat_costs_is_logged_in_deviations_of_the_rewards(tokenizer: Any) -> None:
    """Beta over the rollout's own deviation, or beta itself where rewards are normalised; the target beside it."""
    for settings in ({"normalize_rewards": False, "target_kl": 6.0}, {"normalize_rewards": True}):
        run = train(small(tokenizer), tokenizer=tokenizer, max_steps=2, beta=0.3, **settings)
        for line in run.metrics[:2]:
            spread = 1.0 if settings["normalize_rewards"] else line["reward/std"]
            assert line["beta/deviations"] == pytest.approx(line["beta"] / spread)
            assert line.get("kl/target") == settings.get("target_kl")


def test_a_dry_run_draws_nothing(tmp_path: Path, tokenizer: Any) -> None:
    def refuse(*_: Any) -> float:
        raise AssertionError("asked for a reward")

    run = train(small(tokenizer), reward=refuse, tokenizer=tokenizer, dry_run=True, out=tmp_path / "run")
    assert run.stopped == "dry run"
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("reward", "told"),
    [
        (lambda prompt, answer: float("nan"), r"gave nan for prompt 'p\d', answer 1, not a finite number"),
        (lambda prompt, answer: "good", r"gave 'good' for prompt 'p\d', answer 1, not a finite number"),
        (
            lambda prompts, answers: [1.0],
            r"gave 1 numbers for 4 answers, prompt 'p\d', answer 1 to prompt 'p\d'",
        ),
        (lambda prompts, answers: [1.0, 2.0, None, 4.0], r"gave None for prompt 'p\d', answer 1"),
        (lambda prompt, answer: 1 / 0, r"failed for prompt 'p\d', answer 1 \(ZeroDivisionError"),
    ],
)
def test_a_reward_that_is_none_names_the_prompt(reward: Any, told: str, tokenizer: Any) -> None:
    with pytest.raises(WorkError, match=told):
        train(small(tokenizer), reward=reward, tokenizer=tokenizer)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"temperature": 0.7}, "--temperature: what is trained are log-probs at temperature 1"),
        (
            {"advantage": "rloo", "n": 1},
            "--advantage rloo compares answers of one prompt: give --n 2 or more",
        ),
        ({"advantage": "grpo", "gae_lambda": 0.9}, "--gae-lambda is of --advantage gae; leave it out"),
        ({"advantage": "rloo", "value_weight": 0.5}, "--value-weight is of --advantage gae"),
        ({"minibatches": 3}, "--minibatches 3: a step of 4 answers, 2 to a prompt, has 2 prompts"),
        ({"kl_gain": 0.2}, "--kl-gain needs --target-kl"),
        ({"target_kl": 6.0, "beta": 0.0}, "--target-kl multiplies beta"),
        ({"eval_every": 1}, "--eval-every needs --eval-prompts or --eval-share"),
        ({"eval_share": 0.5, "eval_prompts": PROMPTS}, "--eval-prompts and --eval-share are two ways"),
        ({"betta": 1.0}, "unknown setting `betta`; did you mean `beta`"),
        ({"data": "x"}, "unknown setting `data`"),
        ({"max_tokens": 4}, "--max-tokens 4: the longest prompt with an answer of --max-new-tokens 5 has"),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, Any], told: str, tokenizer: Any) -> None:
    with pytest.raises(UsageError, match=told):
        train(small(tokenizer), tokenizer=tokenizer, **settings)


def test_rewards_and_prompts_that_are_not_there(tmp_path: Path, tokenizer: Any) -> None:
    with pytest.raises(UsageError, match="unknown reward `vadr`; did you mean `vader`"):
        train(small(tokenizer), reward="vadr", tokenizer=tokenizer)
    with pytest.raises(DataError, match="nowhere"):
        train(small(tokenizer), tmp_path / "nowhere.jsonl", tokenizer=tokenizer)
    with pytest.raises(DataError, match="is that of <rows>, row 1 too; ids must differ"):
        train(small(tokenizer), [{"id": "a", "prompt": "x"}, {"id": "a", "prompt": "y"}], tokenizer=tokenizer)
    with pytest.raises(DataError, match="one prompt alone cannot be split"):
        train(small(tokenizer), PROMPTS[:1], tokenizer=tokenizer, eval_share=0.5)
    with pytest.raises((DataError, ModelError), match="context"):
        train(small(tokenizer), tokenizer=tokenizer, max_new_tokens=1000)
    with pytest.raises(ModelError, match="needs its tokenizer"):
        train(small(tokenizer))


def test_a_missing_flag_says_what_it_is_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["ppo", "--prompts", "p.jsonl"]) == 2
    assert "--reward is missing; give --reward VALUE" in capsys.readouterr().err
    assert cli.main(["ppo", "--reward", "length"]) == 2
    assert "--prompts is missing" in capsys.readouterr().err


def test_a_reward_model_made_here(tmp_path: Path, tiny_llama: Path, tokenizer: Any) -> None:
    from tests.training.support import pairs

    rewards = tmp_path / "reward"
    likelier.reward(str(tiny_llama), pairs(4), out=rewards, precision="float32", learning_rate=1e-3)
    run = train(str(tiny_llama), reward=str(rewards / "model"), max_steps=1)
    assert run.metrics[0]["reward/std"] > 0.0


def test_the_value_has_a_rate_of_its_own(tmp_path: Path, tokenizer: Any) -> None:
    """AdamW's first update moves each weight by its rate, to rounding: the value's own, and not the policy's."""
    train(
        *(small(tokenizer), PROMPTS[:2]),
        tokenizer=tokenizer, out=tmp_path / "run", checkpoint_every=1, rollout_epochs=1, max_steps=1,
        learning_rate=1e-3, warmup_steps=0, value_learning_rate=0.04,
    )  # fmt: skip
    weights = load_file(tmp_path / "run" / "checkpoints" / "step-1" / "weights.safetensors")
    assert abs(float(weights["value_head.bias"])) == pytest.approx(0.04, rel=1e-3)
    before = dict(small(tokenizer).named_parameters())
    moved = [
        float((weight - before[name.removeprefix("model.")].detach()).abs().max())
        for name, weight in weights.items()
        if name.startswith("model.")
    ]
    assert max(moved) == pytest.approx(1e-3, rel=1e-2)


def test_another_reference(tmp_path: Path, tokenizer: Any) -> None:
    """Log-ratios are to it, from the first answer on, and it never moves."""
    other = small(tokenizer)
    with torch.no_grad():
        for weight in other.parameters():
            weight.mul_(1.3)
    kept = {name: weight.clone() for name, weight in other.state_dict().items()}
    run = train(small(tokenizer), tokenizer=tokenizer, reference=other, learning_rate=1e-12, beta=0.0)
    own = train(small(tokenizer), tokenizer=tokenizer, learning_rate=1e-12, beta=0.0)
    assert own.metrics[0]["kl"] == 0.0
    assert run.metrics[0]["reward/mean"] == own.metrics[0]["reward/mean"]  # the same answers
    assert abs(run.metrics[0]["kl"]) > 1e-3
    assert all(torch.equal(kept[name], weight) for name, weight in other.state_dict().items())


def test_log_ratios_are_to_the_other_reference(tokenizer: Any) -> None:
    """Against plain forwards of both models over the same answers."""
    policy, other = small(tokenizer), small(tokenizer)
    with torch.no_grad():
        for weight in other.parameters():
            weight.mul_(1.3)
    config = PpoConfig.build({"prompts": "p", "reward": "length", "n": 2, "max_new_tokens": 5})
    loaded = load_policy(config.model_copy(update={"precision": "float32"}), policy, tokenizer, say=print)
    found = draw_rollout(
        *(loaded, FrozenOther(config, other, loaded, []), resolve_reward("length")),
        [Prompt(id="p", content="the cat")], n=2, max_new_tokens=5, sampler=Sampler(),
    )  # fmt: skip
    loaded.give_back()
    by_hand = []
    prompt = tokenizer("the cat")["input_ids"]
    for answer in found.answers:
        tokens = torch.tensor([prompt + answer.tokens])
        with torch.no_grad():
            logps = [m(tokens).logits[0].double().log_softmax(-1) for m in (policy, other)]
        for place, token in enumerate(answer.tokens, len(prompt) - 1):
            by_hand.append(float(logps[0][place, token] - logps[1][place, token]))
    assert found.log_ratios.tolist() == pytest.approx(by_hand, abs=1e-4)
    assert max(map(abs, by_hand)) > 1e-3


def test_bfloat16_runs_draw_in_bfloat16_and_learn_from_the_scorer(
    tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[torch.dtype] = []
    function = rollouts.sample

    def watched(model: Any, *given: Any, **more: Any) -> Any:
        seen.append(next(model.parameters()).dtype)
        return function(model, *given, **more)

    monkeypatch.setattr(rollouts, "sample", watched)
    run = train(small(tokenizer), tokenizer=tokenizer, precision="bfloat16", max_steps=1)
    train(small(tokenizer), tokenizer=tokenizer, max_steps=1)
    assert seen == [torch.bfloat16, torch.float32]
    # The first ratios and distances are exactly those of one and the same function, whatever drew the answers.
    assert run.metrics[0]["kl"] == 0.0
    assert next(run.model.parameters()).dtype == torch.float32


def test_a_resume_is_held_to_the_weights_of_reward_and_reference(
    tmp_path: Path, tiny_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By content: another folder with the same weights will do, the same folder with other weights will not."""
    from tests.training.support import pairs

    monkeypatch.chdir(tmp_path)
    for seed in (0, 1):
        likelier.reward(
            str(tiny_llama), pairs(4), out=f"r{seed}", precision="float32", learning_rate=1e-3 * (seed + 1)
        )
    shutil.copytree(tiny_llama, "ref")

    def run(**more: Any) -> Any:
        settings = {"reference": "ref", "out": "run", "checkpoint_every": 1, **more}
        reward = settings.pop("reward", "r0/model")
        return train(str(tiny_llama), PROMPTS, reward, **settings)

    def stop(line: Any) -> bool:
        return bool(line["step"] == 1)

    run(on_step=stop)
    shutil.rmtree("run/model")
    Path("run/manifest.json").unlink()
    with pytest.raises(UsageError, match=r"--reward was a model of content .* and is a model of content"):
        run(resume=True, reward="r1/model")
    shutil.copytree("r0/model", "elsewhere")
    model = AutoModelForCausalLM.from_pretrained("ref", dtype=torch.float32)
    with torch.no_grad():
        model.get_input_embeddings().weight[5] += 1.0
    shutil.move("ref", "same")
    model.save_pretrained("ref")
    with pytest.raises(UsageError, match="--reference was a model of content"):
        run(resume=True)
    assert run(resume=True, reward="elsewhere", reference="same").metrics[-1]["step"] == 2


def test_evaluation_has_the_same_noise_every_time(tokenizer: Any) -> None:
    """At a rate of nothing held-out figures do not move; training's do."""
    run = train(
        small(tokenizer), tokenizer=tokenizer, eval_prompts=PROMPTS[:2], eval_every=1, learning_rate=1e-12
    )
    evaluated = [line for line in run.metrics if "eval/loss" in line]
    assert len(evaluated) == 3
    assert len({line["eval/reward/mean"] for line in evaluated}) == 1
    assert evaluated[0]["eval/loss"] == pytest.approx(-evaluated[0]["eval/reward/mean"])
    assert (evaluated[0]["eval/answers"], evaluated[0]["eval/prompts"]) == (4, 2)


def test_normalised_rewards_are_those_of_all_so_far(tokenizer: Any) -> None:
    """Scaling a reward changes nothing once it is normalised; reported is the reward as it is."""
    plain, scaled = (
        train(
            *(small(tokenizer), PROMPTS, lambda prompt, answer, by=by: by * vowels(prompt, answer) + by),
            tokenizer=tokenizer,
            normalize_rewards=True,
        )
        for by in (1.0, 8.0)
    )
    for one, other in zip(plain.metrics, scaled.metrics, strict=True):
        assert other["reward/mean"] == pytest.approx(8.0 * one["reward/mean"])
        assert other["loss"] == pytest.approx(one["loss"], rel=1e-4, abs=1e-6)


def test_the_defaults_are_those_that_are_documented() -> None:
    config = PpoConfig.build({"prompts": "p", "reward": "r"})
    assert (config.batch_size, config.n, config.beta, config.advantage) == (64, 4, 0.1, "gae")
    assert (config.rollout_epochs, config.minibatches, config.clip_range) == (4, 1, 0.2)
