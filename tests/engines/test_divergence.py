"""KL along samples: against plain forwards, and both estimators about the same number."""

from __future__ import annotations

import copy
from statistics import fmean, stdev
from typing import Any

import pytest
import torch

from likelier.engines.divergence import estimate_kl
from likelier.engines.drawing import Sampler
from likelier.engines.prompts import Prompt
from likelier.engines.sampling import sample
from tests.models.families import tiny

PROMPTS = [
    Prompt(id=str(number), content=text) for number, text in enumerate(["The cat", "What is " * 8, "A"])
]


@pytest.fixture(scope="module")
def models(tokenizer: Any) -> tuple[Any, Any]:
    """A reference and a policy some way from it."""
    reference = tiny("llama", dtype=torch.float32, vocab_size=len(tokenizer)).eval()
    policy = copy.deepcopy(reference)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter += 0.1 * parameter.std() * torch.randn_like(parameter)
    return policy, reference


def next_token_logps(model: Any, prompt: list[int], tokens: list[int]) -> torch.Tensor:
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([prompt + tokens])).logits
    return logits[0, len(prompt) - 1 : -1].double().log_softmax(dim=-1)


def test_both_estimators_equal_plain_forwards(models: tuple[Any, Any], tokenizer: Any) -> None:
    policy, reference = models
    sampled = sample(policy, tokenizer, PROMPTS, n=3, max_new_tokens=9)
    rao_blackwell = estimate_kl(policy, reference, sampled)
    k1 = estimate_kl(policy, reference, sampled, estimator="k1")
    assert (rao_blackwell.estimator, k1.estimator) == ("rao_blackwell", "k1")
    for number, prompt in enumerate(sampled):
        for index, answer in enumerate(prompt.completions):
            p = next_token_logps(policy, prompt.prompt_tokens, answer.tokens)
            q = next_token_logps(reference, prompt.prompt_tokens, answer.tokens)
            drawn = torch.tensor(answer.tokens)[:, None]
            full = float((p.exp() * (p - q)).sum())
            assert rao_blackwell.values[number][index] == pytest.approx(full, rel=1e-4, abs=1e-5)
            assert k1.values[number][index] == pytest.approx(float((p - q).gather(-1, drawn).sum()), abs=1e-4)


def test_a_model_is_no_distance_from_itself(models: tuple[Any, Any], tokenizer: Any) -> None:
    policy, _ = models
    sampled = sample(policy, tokenizer, PROMPTS, n=2, max_new_tokens=5)
    assert estimate_kl(policy, copy.deepcopy(policy), sampled).values == [[0.0, 0.0]] * 3


def test_both_estimate_the_same_number(models: tuple[Any, Any], tokenizer: Any) -> None:
    policy, reference = models
    sampled = sample(policy, tokenizer, PROMPTS[:1], n=400, max_new_tokens=4, sampler=Sampler(seed=5))
    rao_blackwell = estimate_kl(policy, reference, sampled).values[0]
    k1 = estimate_kl(policy, reference, sampled, estimator="k1").values[0]
    difference = [a - b for a, b in zip(rao_blackwell, k1, strict=True)]
    assert abs(fmean(difference)) < 3.3 * stdev(difference) / 20
    assert stdev(rao_blackwell) < stdev(k1)


def test_cut_answers_are_counted(models: tuple[Any, Any], tokenizer: Any) -> None:
    policy, reference = models
    sampled = sample(policy, tokenizer, PROMPTS, n=20, max_new_tokens=1)
    stopped = sum(answer.finish == "stop" for prompt in sampled for answer in prompt.completions)
    assert estimate_kl(policy, reference, sampled).cut == 60 - stopped
