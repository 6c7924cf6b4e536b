"""Promise 3: the reference is the policy at step 0, by content."""

from __future__ import annotations

import math
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from likelier.errors import UsageError, WorkError
from likelier.models.adapters import add_lora
from likelier.objectives import OBJECTIVES, Objective
from likelier.scoring.cache import LogpCache
from likelier.scoring.reference import model_digest, reference_logps
from likelier.scoring.scorer import Scorer
from tests.models.families import tiny
from tests.training.support import model_of, pairs, rankings, scorer_of, train, trees_of

PRECISIONS = ("float32", "bfloat16", "float64")
WITH_A_VALUE = [name for name, entry in OBJECTIVES.items() if entry.needs_reference]


def data_for(objective: Objective) -> list[dict[str, Any]]:
    if objective.kind == "pair":
        return pairs(5)
    return rankings(3, answers=3, scores=objective.kind == "scores")


def value_at_reference(objective: Objective, trees: list[Any], beta: float) -> float:
    """The step's loss at θ = ref by the table, all weights 1."""
    labels: dict[str, Any] = {"ranking": "ranks", "scores": "scores"}
    name = labels.get(objective.kind)
    values = [objective.at_reference(beta, **({name: getattr(t, name)} if name else {})) for t in trees]
    return sum(v for v in values if v is not None) / len(values)


def first_line(model: Any, rows: Any, tokenizer: Any, **config: Any) -> dict[str, Any]:
    return train(model, rows, tokenizer, batch_size=64, max_steps=1, **config).metrics[0]


def require_at_reference(line: dict[str, Any], loss: float) -> None:
    assert line["rewards/margins"] == 0.0
    assert line["rewards/chosen"] == 0.0
    assert line["rewards/rejected"] == 0.0
    assert line["rewards/accuracies"] == 0.5
    assert line["loss"] == pytest.approx(loss, rel=1e-12)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", WITH_A_VALUE)
def test_every_loss_starts_at_its_own_value(name: str, precision: str, tokenizer: Any) -> None:
    objective = OBJECTIVES[name]
    rows = data_for(objective)
    needs: dict[str, Any] = {"pair": "pairs", "ranking": "ranking", "scores": "scores"}
    trees = trees_of(rows, tokenizer, need=needs[objective.kind])
    line = first_line(
        model_of(tokenizer, precision=precision), rows, tokenizer, loss=name, precision=precision, beta=0.3
    )
    require_at_reference(line, value_at_reference(objective, trees, 0.3))


def test_options_enter_the_first_value(tokenizer: Any) -> None:
    rows = pairs(4, margin=0.7)
    line = first_line(model_of(tokenizer), rows, tokenizer, label_smoothing=0.2)
    require_at_reference(
        line, -0.8 * math.log(1 / (1 + math.exp(0.7))) - 0.2 * math.log(1 / (1 + math.exp(-0.7)))
    )


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize(
    "family",
    [
        "mistral",
        "qwen3",
        "gemma2",
        "gpt2",
        "gpt_neox",
        "olmo2",
        "mixtral",
        "deepseek_v3",
        "bloom",
        "mamba",
        "falcon",
    ],
)
def test_every_family_starts_at_log_2(family: str, precision: str, tokenizer: Any) -> None:
    """In several packs, whose composition is another than the reference pass's."""
    model = model_of(tokenizer, family, precision)
    line = first_line(model, pairs(5) + rankings(2), tokenizer, precision=precision, max_tokens=90)
    require_at_reference(line, math.log(2))


@pytest.mark.parametrize("precision", PRECISIONS)
def test_lora(precision: str, tokenizer: Any) -> None:
    run = train(
        model_of(tokenizer, precision=precision), pairs(5), tokenizer, lora_rank=2, precision=precision
    )
    require_at_reference(run.metrics[0], math.log(2))
    assert run.metrics[-1]["rewards/margins"] != 0.0


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_start_that_is_itself_an_adapter(precision: str, tokenizer: Any) -> None:
    """Switching such an adapter off gives another model: its log-probs at step 0 are the reference."""
    base = model_of(tokenizer, precision=precision)
    model = add_lora(base, rank=2, seed=0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.3, generator=torch.Generator().manual_seed(0))
    run = train(model, pairs(5), tokenizer, precision=precision)
    require_at_reference(run.metrics[0], math.log(2))
    (tree, *_) = trees_of(pairs(5), tokenizer)
    with scorer_of(model) as scorer, model.disable_adapter():
        off = scorer.score([tree])[0][0].sum()
    with scorer_of(model) as scorer:
        on = scorer.score([tree])[0][0].sum()
    assert abs(float(on - off)) > 0.01


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
@pytest.mark.parametrize("kind", ["pissa", "olora"])
def test_a_start_that_moves_the_base_into_the_adapter(kind: str, tokenizer: Any) -> None:
    """The base with its adapter off is no longer the model that was given."""
    from peft import LoraConfig, get_peft_model

    settings = LoraConfig(r=4, init_lora_weights=kind, target_modules="all-linear")
    model = get_peft_model(model_of(tokenizer, precision="float32"), settings)
    run = train(model, pairs(5), tokenizer, precision="float32")
    require_at_reference(run.metrics[0], math.log(2))
    assert run.metrics[-1]["rewards/margins"] != 0.0


def test_updates_smaller_than_bfloat16_can_show_add_up(tokenizer: Any) -> None:
    """Master weights are float32: at 1e-6 an update is a thousandth of what a bfloat16 weight could take."""
    model = model_of(tokenizer, precision="bfloat16")
    before = [p.detach().clone() for p in model.parameters()]
    train(model, pairs(5), tokenizer, precision="bfloat16", learning_rate=1e-6, epochs=2)
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    after = torch.cat([p.detach().flatten() for p in model.parameters()])
    start = torch.cat([b.flatten() for b in before])
    assert 1e-7 < float((after - start).abs().median()) < 1e-5
    shown = after.bfloat16() != start.bfloat16()
    assert float(shown.float().mean()) < 0.1


def test_an_adapter_folder_is_trained_further(tmp_path: Path, tiny_llama: Path) -> None:
    first = train(str(tiny_llama), pairs(5), precision="float32", lora_rank=2, out=tmp_path / "a")
    assert first.metrics[-1]["rewards/margins"] != 0.0
    second = train(str(tmp_path / "a" / "model"), pairs(5), precision="float32")
    require_at_reference(second.metrics[0], math.log(2))


def test_another_reference_is_reported_and_does_not_stop_the_run(tokenizer: Any) -> None:
    rows = pairs(5)
    policy, reference = model_of(tokenizer), model_of(tokenizer, seed=7)
    trees = trees_of(rows, tokenizer)
    margins = []
    with scorer_of(policy) as ours, scorer_of(reference) as theirs:
        for own, ref in zip(ours.score(trees), theirs.score(trees), strict=True):
            reward = [0.1 * float(o.sum() - r.sum()) for o, r in zip(own, ref, strict=True)]
            margins.append(reward[0] - reward[1])
    before = [p.detach().clone() for p in reference.parameters()]
    line = first_line(policy, rows, tokenizer, reference=reference)
    assert line["rewards/margins"] == pytest.approx(sum(margins) / 5, rel=1e-9)
    assert abs(line["rewards/margins"]) > 1e-3
    assert all(torch.equal(b, p) for b, p in zip(before, reference.parameters(), strict=True))


def test_a_reference_of_another_vocabulary_is_refused(tokenizer: Any) -> None:
    with pytest.raises(UsageError, match=r"--reference has a vocabulary of 128 tokens"):
        first_line(model_of(tokenizer), pairs(3), tokenizer, reference=tiny("llama"))


def test_losses_without_a_reference_make_no_pass(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Scorer, "score_each", lambda *_, **__: pytest.fail("a reference pass"))
    for name in ("simpo", "orpo", "unlikelihood"):
        line = first_line(model_of(tokenizer), pairs(3), tokenizer, loss=name)
        assert line["rewards/margins"] != 0.0


def poison(folder: Path) -> int:
    """Moves every value in the cache by a bit, under its right key and with a valid checksum."""
    with LogpCache(folder) as cache:
        with sqlite3.connect(cache.path) as connection:
            keys = [row[0] for row in connection.execute("SELECT key FROM entries")]
        connection.close()
        wrong = {key: values.copy() for key, values in cache.get(keys).items()}
        for values in wrong.values():
            values[0] = np.nextafter(values[0], values.dtype.type(0))
        cache.put(wrong)
    return len(keys)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_wrong_entry_in_the_cache_stops_the_run(precision: str, own_cache: Path, tokenizer: Any) -> None:
    """Off by the last bit of one token of each answer."""
    rows = pairs(5)
    first_line(model_of(tokenizer, precision=precision), rows, tokenizer, precision=precision)
    assert poison(own_cache) == 10
    model = model_of(tokenizer, precision=precision)
    start = [p.detach().clone() for p in model.parameters()]
    with pytest.raises(WorkError, match=r"differs from its reference.*LIKELIER_CACHE"):
        first_line(model, rows, tokenizer, precision=precision)
    assert all(torch.equal(b, p) for b, p in zip(start, model.parameters(), strict=True))


def test_after_a_resume_the_reference_is_still_that_of_step_0(
    tmp_path: Path, tiny_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The defect of tinker-cookbook: there, margins began at 0 again after a resume."""
    rows = pairs(6)

    def run(name: str, **config: Any) -> list[dict[str, Any]]:
        # A cache of its own: the reference is made anew, not remembered.
        monkeypatch.setenv("LIKELIER_CACHE", str(tmp_path / f"{name}-{len(config)}"))
        return train(
            str(tiny_llama),
            rows,
            out=tmp_path / name,
            checkpoint_every=2,
            epochs=3,
            precision="float32",
            **config,
        ).metrics

    whole = run("whole")
    run("cut", on_step=lambda line: line["step"] == 3)
    (tmp_path / "cut" / "manifest.json").unlink()
    resumed = run("cut", resume=True)
    names = ("loss", "rewards/margins", "rewards/chosen", "logps/chosen", "grad_norm")
    assert [[m[n] for n in names] for m in resumed] == [[m[n] for n in names] for m in whole]
    assert len(resumed) == 6
    assert abs(resumed[3]["rewards/margins"]) > 1e-3


def counted_passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by the number of branches whenever the reference is scored."""
    seen: list[int] = []
    whole = Scorer.score_each

    def counting(self: Scorer, trees: Any, **settings: Any) -> Any:
        seen.extend(len(tree.branches) for tree in trees)
        return whole(self, trees, **settings)

    monkeypatch.setattr(Scorer, "score_each", counting)
    return seen


def test_what_does_not_change_the_number_costs_no_new_pass(
    tmp_path: Path, tiny_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = pairs(5)
    seen = counted_passes(monkeypatch)

    def run(model: Any = None, data: Any = None, **config: Any) -> int:
        seen.clear()
        line = train(model or str(tiny_llama), data or rows, **{"precision": "float32", **config}).metrics[0]
        if "reference" not in config:
            assert line["rewards/margins"] == 0.0
        return sum(seen)

    assert run() == 10
    assert run(beta=0.5) == 0
    assert run(loss="ipo", learning_rate=1e-4, out=tmp_path / "out", seed=4) == 0
    assert run(max_tokens=70) == 0
    # The base's layers are computed in fused kernels, an adapter's one by one: not the same last bits.
    assert run(lora_rank=2) == 10
    assert run(lora_rank=4, seed=3) == 0
    assert run(data=rankings(2)) == 8
    assert run(data=[*rows, *pairs(2, seed=3)]) == 4
    # Truncation shortens some rows: those, and only those, are other branches.
    longest = max(tree.num_tokens for tree in trees_of(rows, _tokenizer(tiny_llama)))
    assert 0 < run(max_length=longest // 2, cut_answers=True) <= 10
    assert run(precision="bfloat16") == 10
    assert run(data=pairs(8, seed=5), max_steps=1) == 6  # three of the eight pairs are visited
    # Other weights under the same name never hit.
    other = Path(shutil.copytree(tiny_llama, tmp_path / "model"))
    assert run(model=str(other)) == 0
    weights = load_file(other / "model.safetensors")
    weights["model.norm.weight"][0] += 1e-6
    save_file(weights, other / "model.safetensors", metadata={"format": "pt"})
    assert run(model=str(other)) == 10


def _tokenizer(folder: Path) -> Any:
    from likelier.models.loading import load_tokenizer

    return load_tokenizer(folder)


def test_every_file_of_the_room_is_known_to_make_numbers_or_not() -> None:
    """A file that makes numbers and is missing from the cache's key would let old entries hit after a change."""
    from likelier.scoring import reference

    others = {
        "__init__",
        "cache",
        "cache_rows",
        "equality",
        "halfway",
        "limits",
        "precision",
        "reference",
        "whole",
    }
    assert {path.stem for path in Path(reference.__file__).parent.glob("*.py")} == others | set(
        reference._KERNELS
    )


def test_what_raises_during_the_pass_keeps_what_was_scored(tokenizer: Any, tmp_path: Path) -> None:
    trees = trees_of(pairs(6), tokenizer)
    with scorer_of(model_of(tokenizer), max_tokens=60) as scorer, LogpCache(tmp_path) as cache:
        digest = model_digest(scorer)

        def fall(done: int, total: int) -> None:
            if done == 4:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            reference_logps(scorer, trees, cache=cache, digest=digest, on_progress=fall)
        seen: list[tuple[int, int]] = []
        reference_logps(scorer, trees, cache=cache, digest=digest, on_progress=lambda *n: seen.append(n))
        assert seen == [(1, 2), (2, 2)]
