"""`likelier evaluate frontier --dial`: three ways to other strengths, each against what it should be."""

from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import likelier
from likelier import cli
from likelier.engines.divergence import estimate_kl
from likelier.engines.drawing import Sampler
from likelier.engines.mixing import at_strength
from likelier.engines.prompts import Prompt
from likelier.engines.sampling import sample
from likelier.errors import UsageError
from likelier.models.adapters import add_lora
from likelier.models.loading import load_model
from likelier.stages.evaluate_dial import interpolate, reweighted
from tests.models.families import tiny
from tests.training.conftest import own_cache
from tests.training.support import pairs, write_rows

__all__ = ["own_cache"]

PROMPTS = [{"id": name, "prompt": text} for name, text in (("a", "The cat"), ("b", "Rain"), ("c", "A dog"))]


def test_reweighting_by_hand() -> None:
    """Two answers with ℓ = 0 and log 3 at λ = 2: weights 1/4 and 3/4, reward 4, KL 2 · 3/4 · log 3 − log 2.

    Either alone has the reward 1 or 5 and the KL 0 or log 3, so the jackknife takes 2 θ less 3, and less log 3 / 2.
    """
    ratios, rewards, lengths = [[0.0, np.log(3.0)]], [[1.0, 5.0]], [[2.0, 6.0]]
    found, kl, tokens, effective = reweighted(ratios, rewards, lengths, 2.0)
    assert found == [[pytest.approx(2 * 4.0 - 3.0)]]
    assert tokens == [[pytest.approx(5.0)]]
    assert kl == [[pytest.approx(2 * (2 * 0.75 * np.log(3.0) - np.log(2.0)) - np.log(3.0) / 2)]]
    assert effective == pytest.approx((1 / (1 / 16 + 9 / 16) - 1) / (2 - 1))


def test_the_jackknife_by_leaving_out_each_answer_and_each_pair() -> None:
    """Against a loop over plain sums, also where one answer has all the weight but for rounding."""
    draws = np.random.default_rng(0)
    for scale in (0.5, 60.0):
        ratios, rewards = scale * draws.normal(size=7), draws.normal(size=7)

        def plain(kept: Any, ratios: Any = ratios, rewards: Any = rewards) -> Any:
            raw = np.exp(0.8 * (ratios[kept] - ratios.max()).astype(np.longdouble))
            mean = np.log(raw.mean()) + 0.8 * ratios.max()
            return np.array([raw @ rewards[kept], 1.8 * (raw @ ratios[kept])]) / raw.sum() - [0.0, mean]

        one = np.mean([plain(np.arange(7) != left) for left in range(7)], axis=0)
        pairs = combinations(range(7), 2)
        two = np.mean([plain(np.delete(np.arange(7), left)) for left in pairs], axis=0)
        expected = (7**2 * plain(slice(None)) - 2 * 6**2 * one + 5**2 * two) / 2
        reward, kl, _, _ = reweighted([ratios.tolist()], [rewards.tolist()], [[1.0] * 7], 1.8)
        assert [reward[0][0], kl[0][0]] == pytest.approx(expected.astype(float).tolist(), rel=1e-9)


def test_an_answer_that_has_all_the_weight_is_no_quarter_of_four() -> None:
    """Else the bound of a fifth could never be met with the four answers of the default."""
    one_of_four, even = [[0.0, 0.0, 0.0, 50.0]], [[0.7, 0.7, 0.7, 0.7]]
    assert reweighted(one_of_four, [[1.0] * 4], [[1.0] * 4], 2.0)[3] == pytest.approx(0.0, abs=1e-9)
    assert reweighted(even, [[1.0] * 4], [[1.0] * 4], 2.0)[3] == pytest.approx(1.0)
    assert reweighted([*one_of_four, *even], [[1.0] * 4] * 2, [[1.0] * 4] * 2, 2.0)[3] == pytest.approx(0.5)


def test_one_answer_to_a_prompt_says_nothing_of_other_strengths() -> None:
    for strength, share in ((0.5, 0.0), (1.0, 1.0), (2.0, 0.0)):
        assert reweighted([[0.3], [0.1]], [[1.0], [2.0]], [[3.0], [4.0]], strength)[3] == share


@pytest.mark.parametrize("strength", [0.5, 1.0, 1.5])
def test_reweighted_answers_approach_the_optimum_of_14(strength: float) -> None:
    """Policy and reference over six answers, `π_λ` by enumeration, many answers of the policy."""
    draws = np.random.default_rng(5)
    reference, policy = (np.exp(row) / np.exp(row).sum() for row in draws.normal(size=(2, 6)))
    reward = draws.normal(size=6)
    exact = reference * (policy / reference) ** strength
    exact /= exact.sum()
    drawn = draws.choice(6, size=40_000, p=policy)
    ratios = np.log(policy / reference)
    found, kl, _, _ = reweighted(
        [ratios[drawn].tolist()], [reward[drawn].tolist()], [[1.0] * 40_000], strength
    )
    assert found[0][0] == pytest.approx(exact @ reward, abs=0.02)
    assert kl[0][0] == pytest.approx(exact @ np.log(exact / reference), abs=0.02)


@pytest.mark.parametrize("rank", [None, 2])
def test_interpolated_weights(rank: int | None, tokenizer: Any) -> None:
    torch.manual_seed(0)
    reference = tiny("llama", dtype=torch.float32, vocab_size=len(tokenizer))
    policy = tiny("llama", dtype=torch.float32, vocab_size=len(tokenizer))
    policy.load_state_dict(reference.state_dict())
    if rank is not None:
        policy = add_lora(policy, rank=rank, seed=0)
    with torch.no_grad():
        for name, parameter in policy.named_parameters():
            if rank is None or "lora_B" in name:
                parameter.add_(torch.randn_like(parameter) * 0.1)
    tokens = torch.arange(3, 20)[None]

    def logits(model: Any) -> torch.Tensor:
        with torch.no_grad():
            return model(input_ids=tokens, use_cache=False).logits  # type: ignore[no-any-return]

    own, trained = {n: p.detach().clone() for n, p in policy.named_parameters()}, logits(policy)
    interpolate(policy, own, reference, 0.0)
    assert torch.allclose(logits(policy), logits(reference), atol=1e-6)
    interpolate(policy, own, reference, 1.0)
    assert torch.allclose(logits(policy), trained, atol=1e-5)
    interpolate(policy, own, reference, 2.0)
    name = next(name for name in own if "q_proj" in name and (rank is None or "lora_B" in name))
    now, theirs = dict(policy.named_parameters())[name], dict(reference.named_parameters()).get(name)
    assert torch.allclose(now, 2.0 * own[name] - (0.0 if theirs is None else theirs), atol=1e-6)


@pytest.mark.parametrize("rank", [None, 4], ids=["full", "lora"])
@pytest.mark.usefixtures("own_cache")
def test_a_runs_dial(rank: int | None, tmp_path: Path, tiny_llama: Path) -> None:
    data = write_rows(tmp_path / "data.jsonl", pairs(8))
    likelier.dpo(
        str(tiny_llama), str(data), out=tmp_path / "run", learning_rate=0.02, lora_rank=rank, epochs=2
    )
    settings: dict[str, Any] = {
        "prompts": PROMPTS,
        "reward": "length",
        "dial": True,
        "strengths": [0.0, 0.5, 1.0, 1.5],
        "n": 3,
        "max_new_tokens": 5,
        "precision": "float32",
    }
    run = str(tmp_path / "run")
    report = likelier.evaluate("frontier", [run], out=tmp_path / "dial", **settings)
    names = [point.name for point in report.points]
    assert names[0] == "reference"
    assert names[1].startswith(run)
    both = [f"{run}, {way}, λ = {at}" for way in ("mixed", "interpolated") for at in ("0.5", "1", "1.5")]
    assert names[2:8] == both
    assert all(name.startswith(f"{run}, reweighted, λ = ") for name in names[8:])
    by_name = dict(zip(names, report.points, strict=True))
    assert by_name[f"{run}, mixed, λ = 1"].rewards == report.points[1].rewards
    # The mixture's own KL, its answers and both models' distributions anew.
    policy, reference = (load_model(str(name)) for name in (tmp_path / "run" / "model", tiny_llama))
    mixture = at_strength(policy.model, reference.model, 1.5)
    asked = [Prompt(id=row["id"], content=row["prompt"]) for row in PROMPTS]
    drawn = sample(mixture, policy.tokenizer, asked, n=3, max_new_tokens=5, sampler=Sampler(seed=0))
    expected = estimate_kl(mixture, reference.model, drawn).values
    for found, wanted in zip(by_name[both[2]].kl, expected, strict=True):
        assert found == pytest.approx(wanted, abs=1e-4)
    assert by_name[both[2]].distance.value > by_name[both[0]].distance.value > 0
    # At λ = 1 reweighting is the policy as it was measured; elsewhere what its own answers say, put right as much.
    at_1, at_1_5 = (
        next(point for name, point in by_name.items() if f"reweighted, λ = {at}," in name)
        for at in ("1", "1.5")
    )
    assert at_1.reward.value == pytest.approx(report.points[1].reward.value)
    assert at_1.distance.value == pytest.approx(report.points[1].distance.value)
    own = sample(policy.model, policy.tokenizer, asked, n=3, max_new_tokens=5, sampler=Sampler(seed=0))
    ratios = estimate_kl(policy.model, reference.model, own, estimator="k1").values
    lengths = [[0.0] * 3] * len(PROMPTS)
    plain = reweighted(ratios, report.points[1].rewards, lengths, 1.5)[1]
    for found, (uncorrected,), noisy, better in zip(
        at_1_5.kl, plain, ratios, report.points[1].kl, strict=True
    ):
        assert found == [pytest.approx(uncorrected + np.mean(better) - np.mean(noisy), abs=1e-4)]
    # Three answers are too few for an interval of what their weights leave of them, and no envelope rests on it.
    assert (at_1_5.kl_is, at_1_5.distance.interval) == ("rough estimate", None)
    assert names.index(at_1_5.name) not in report.overall.corners
    said = "\n".join(json.loads((tmp_path / "dial" / "frontier.json").read_text())["words"])
    assert (
        f"{at_1_5.name}: reward {at_1_5.reward.value:.4g}, KL roughly {at_1_5.distance.value:.4g}, " in said
    )
    assert "KL without an interval, 3 answers to a prompt of which" in said
    # The file pairs it with other evaluations, prompt by prompt; the reweighted points have no answers of their own.
    told = json.loads((tmp_path / "dial" / "frontier.json").read_text())["points"]
    assert [one["name"] for one in told] == names
    for one, point in zip(told, report.points, strict=True):
        assert one["per_prompt"]["rewards"] == [pytest.approx(np.mean(own)) for own in point.rewards]
        assert one["per_prompt"]["kl"] == [pytest.approx(np.mean(own)) for own in point.kl]
    assert f"{run}, reweighted: area up to the same KL" in said
    again = likelier.evaluate("frontier", [run], out=tmp_path / "again", **settings)
    assert [point.kl for point in again.points] == [point.kl for point in report.points]
    # Where all is rough that a run has, there is no area to tell.
    likelier.evaluate("frontier", [run], out=tmp_path / "rough", **settings | {"strengths": [1.5]})
    said = "\n".join(json.loads((tmp_path / "rough" / "frontier.json").read_text())["words"])
    assert "reweighted, λ = 1.5, " in said
    assert "reweighted: area" not in said


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"strengths": [0.5]}, "--strengths is for --dial"),
        ({"dial": True, "strengths": [-1.0]}, "a strength is 0 or more"),
        ({"dial": True, "strengths": [float("nan")]}, "a finite number"),
        ({"dial": True, "strengths": [1.0, 1.0]}, "each once"),
    ],
)
def test_strengths_that_are_none(settings: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=said):
        likelier.evaluate("frontier", ["x"], out=tmp_path, prompts=PROMPTS, reward="length", **settings)


def test_a_dry_run_counts_the_dial(
    tmp_path: Path, tiny_llama: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One model; at 0.5 and 2 both ways that sample answer anew: 5 times 3 prompts."""
    prompts = write_rows(tmp_path / "prompts.jsonl", PROMPTS)
    words = f"evaluate frontier {tiny_llama} --reference {tiny_llama} --prompts {prompts} --reward length"
    words += f" --dial --strengths 0,0.5,1,2 --out {tmp_path / 'out'} --dry-run --json"
    assert cli.main(words.split()) == 0
    assert json.loads(capsys.readouterr().out)["policies"] == 5
