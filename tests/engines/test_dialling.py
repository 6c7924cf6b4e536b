"""Several strengths in one pass: token for token what each strength draws alone, and its KL."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from likelier.engines.dialling import at_each, sample_strengths
from likelier.engines.divergence import estimate_kl
from likelier.engines.drawing import Sampler
from likelier.engines.mixing import at_strength
from likelier.engines.sampling import sample
from likelier.errors import ModelError, UsageError
from tests.engines.test_mixing import FAMILIES, PROMPTS, pair

STRENGTHS = (0.0, 0.5, 1.0, 2.0)
SIZE: dict[str, Any] = {"n": 3, "max_new_tokens": 6}


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("family", FAMILIES)
def test_each_strength_is_what_it_draws_alone(family: str, temperature: float, tokenizer: Any) -> None:
    """So at 0 and 1 what reference and policy draw."""
    policy, reference = pair(family, tokenizer, torch.float32)
    sampler = Sampler(seed=3, temperature=temperature)
    drawn = sample_strengths(policy, reference, tokenizer, PROMPTS, STRENGTHS, sampler=sampler, **SIZE)
    tokens = set()
    for strength, own in zip(STRENGTHS, at_each(drawn, len(STRENGTHS)), strict=True):
        model = at_strength(policy, reference, strength)
        alone = sample(model, tokenizer, PROMPTS, sampler=sampler, **SIZE)
        assert [[answer.tokens for answer in prompt.completions] for prompt in own] == [
            [answer.tokens for answer in prompt.completions] for prompt in alone
        ]
        assert own == alone
        tokens.add(str([[answer.tokens for answer in prompt.completions] for prompt in own]))
    # The models disagree, so that a strength taken for another is seen; the likeliest tokens may agree.
    assert temperature == 0.0 or len(tokens) == len(STRENGTHS)


def test_bfloat16_too(tokenizer: Any) -> None:
    policy, reference = pair("llama", tokenizer, torch.bfloat16)
    drawn = sample_strengths(policy, reference, tokenizer, PROMPTS, STRENGTHS, **SIZE)
    for strength, own in zip(STRENGTHS, at_each(drawn, len(STRENGTHS)), strict=True):
        alone = sample(at_strength(policy, reference, strength), tokenizer, PROMPTS, **SIZE)
        for prompt, other in zip(own, alone, strict=True):
            assert [a.tokens for a in prompt.completions] == [a.tokens for a in other.completions]


@pytest.mark.parametrize("estimator", ["rao_blackwell", "k1"])
def test_its_kl_is_that_of_the_mixture(estimator: Any, tokenizer: Any) -> None:
    policy, reference = pair("llama", tokenizer, torch.float32)
    drawn = sample_strengths(policy, reference, tokenizer, PROMPTS, STRENGTHS, **SIZE)
    given = list(STRENGTHS) * SIZE["n"]
    found = estimate_kl(policy, reference, drawn, estimator=estimator, strengths=given).values
    for place, (strength, own) in enumerate(zip(STRENGTHS, at_each(drawn, len(STRENGTHS)), strict=True)):
        model = at_strength(policy, reference, strength)
        expected = estimate_kl(model, reference, own, estimator=estimator).values
        for ours, theirs in zip(found, expected, strict=True):
            assert ours[place :: len(STRENGTHS)] == pytest.approx(theirs, rel=1e-4, abs=1e-5)
        assert strength != 0.0 or expected == [[0.0] * 3] * 2


def test_other_tokens_and_scores_that_are_no_numbers(tokenizer: Any) -> None:
    policy, reference = pair("llama", tokenizer, torch.float32)
    with torch.no_grad():
        reference.get_output_embeddings().weight[-1] = torch.nan
    with pytest.raises(ModelError, match="no numbers"):
        sample_strengths(policy, reference, tokenizer, PROMPTS, (1.0,), **SIZE)
    reference.resize_token_embeddings(len(tokenizer) + 8)
    with pytest.raises(UsageError, match="mixing next tokens needs the same tokens"):
        sample_strengths(policy, reference, tokenizer, PROMPTS, STRENGTHS, **SIZE)
