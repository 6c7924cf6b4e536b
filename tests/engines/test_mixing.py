"""Policy and reference as one model: against plain forwards, mixed by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from likelier.engines.drawing import Sampler
from likelier.engines.mixing import Mixture, at_strength, share_equal_weights
from likelier.engines.prompts import Prompt
from likelier.engines.sampling import SampledPrompt, sample
from likelier.errors import UsageError
from likelier.models.adapters import add_lora
from tests.models.families import tiny

PROMPTS = [
    Prompt(id="short", content="A"),
    Prompt(id="long", content="The cat sat on the mat and looked at the rain. " * 2),
]
FAMILIES = ("llama", "gpt2", "gemma2")


def pair(family: str, tokenizer: Any, dtype: torch.dtype = torch.float64) -> tuple[Any, Any]:
    """Two models of one family that disagree."""
    made = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        made.append(tiny(family, dtype=dtype, vocab_size=len(tokenizer)))
    with torch.no_grad():
        for parameter in made[0].parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return made[0], made[1]


def by_hand(policy: Any, reference: Any, strength: float, tokens: list[int]) -> torch.Tensor:
    """Log-probs of the next token after each of `tokens`, from whole forwards without a cache."""
    with torch.no_grad():
        ours, theirs = (
            model(input_ids=torch.tensor([tokens]), use_cache=False).logits[0].double().log_softmax(-1)
            for model in (policy, reference)
        )
    return ((1.0 - strength) * theirs + strength * ours).log_softmax(-1)


def check(
    found: list[SampledPrompt], policy: Any, reference: Any, strength: float, temperature: float
) -> None:
    bits = torch.finfo(next(policy.parameters()).dtype).bits
    for prompt in found:
        for answer in prompt.completions:
            start = len(prompt.prompt_tokens)
            logps = by_hand(policy, reference, strength, prompt.prompt_tokens + answer.tokens)[start - 1 : -1]
            if temperature == 0.0:
                assert answer.tokens == logps.argmax(-1).tolist()
            else:
                each = (logps / temperature).log_softmax(-1)
                summed = each[torch.arange(len(answer.tokens)), answer.tokens].sum()
                assert answer.logp == pytest.approx(summed.item(), rel=1e-6, abs=1e-4 if bits == 32 else 0.0)


@pytest.mark.parametrize("temperature", [0.0, 0.7])
@pytest.mark.parametrize("strength", [0.4, 2.0])
@pytest.mark.parametrize("family", FAMILIES)
def test_answers_come_from_the_mixture(
    family: str, strength: float, temperature: float, tokenizer: Any
) -> None:
    # In float64 transformers' own attention of gemma2 gives no number where there is padding.
    policy, reference = pair(family, tokenizer, torch.float32 if family == "gemma2" else torch.float64)
    mixture = at_strength(policy, reference, strength)
    sampler = Sampler(seed=3, temperature=temperature)
    found = sample(mixture, tokenizer, PROMPTS, n=2, max_new_tokens=6, sampler=sampler)
    check(found, policy, reference, strength, temperature)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_sample_is_its_own_whatever_stands_beside_it(family: str, tokenizer: Any) -> None:
    mixture = at_strength(*pair(family, tokenizer, torch.float32), 1.5)
    together = sample(mixture, tokenizer, PROMPTS, n=3, max_new_tokens=6)
    for place, prompt in enumerate(PROMPTS):
        (alone,) = sample(mixture, tokenizer, [prompt], n=2, max_new_tokens=6)
        assert alone.completions == together[place].completions[:2]


@pytest.mark.parametrize("strength", [0.0, 1.0])
def test_the_ends_are_reference_and_policy(strength: float, tokenizer: Any) -> None:
    policy, reference = pair("llama", tokenizer, torch.float32)
    end = policy if strength else reference
    assert at_strength(policy, reference, strength) is end
    plain = sample(end, tokenizer, PROMPTS, n=2, max_new_tokens=6)
    mixed = sample(Mixture(policy, reference, strength), tokenizer, PROMPTS, n=2, max_new_tokens=6)
    assert [one.completions for one in mixed] == [one.completions for one in plain]


def test_other_tokens_are_refused(tokenizer: Any) -> None:
    policy, reference = (tiny("llama", dtype=torch.float32, vocab_size=size) for size in (64, 128))
    with pytest.raises(UsageError, match="128 tokens and the policy one of 64"):
        at_strength(policy, reference, 0.5)


def test_an_adapter_and_its_reference_hold_one_set_of_weights(tokenizer: Any) -> None:
    base = tiny("llama", dtype=torch.float32, vocab_size=len(tokenizer))
    reference = tiny("llama", dtype=torch.float32, vocab_size=len(tokenizer))
    reference.load_state_dict(base.state_dict())
    policy = add_lora(base, rank=2, seed=0)
    with torch.no_grad():
        for name, parameter in policy.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.2)
    before = sample(at_strength(policy, reference, 1.5), tokenizer, PROMPTS, n=2, max_new_tokens=6)
    share_equal_weights(policy, reference)
    held = {parameter.data_ptr() for model in (policy, reference) for parameter in model.parameters()}
    adapter = {p.data_ptr() for name, p in policy.named_parameters() if "lora_" in name}
    assert held == {parameter.data_ptr() for parameter in reference.parameters()} | adapter
    after = sample(at_strength(policy, reference, 1.5), tokenizer, PROMPTS, n=2, max_new_tokens=6)
    assert after == before
    check(after, policy, reference, 1.5, 1.0)
