"""Policy and reference as one model: against plain forwards, mixed by hand."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from likelier.engines.divergence import estimate_kl
from likelier.engines.drawing import Sampler
from likelier.engines.mixing import Mixture, at_strength, mixed_logits, share_equal_weights
from likelier.engines.prompts import Prompt
from likelier.engines.sampling import SampledPrompt, sample
from likelier.errors import ModelError, UsageError
from likelier.models.adapters import adapter_off, add_lora
from likelier.theory.dial import dial
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


def test_mixed_logits_against_the_theory() -> None:
    """Logits are log-probs but for a shift; what the reference never says stays unsaid."""
    logits = torch.randn(2, 5, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    logits[0, 0, 0] = -torch.inf
    reference, policy = logits.log_softmax(dim=-1)
    for strength in (0.0, 0.4, 1.0, 2.0):
        found = mixed_logits(reference + 3.0, policy - 2.0, strength).log_softmax(dim=-1)
        torch.testing.assert_close(found, dial(reference, policy, strength), rtol=1e-12, atol=1e-12)


def test_mixed_bits_do_not_depend_on_the_place() -> None:
    rows = torch.randn(2, 13, 101, generator=torch.Generator().manual_seed(0))
    whole = mixed_logits(rows[0], rows[1], 1.3)
    for row in range(13):
        assert torch.equal(mixed_logits(rows[0][row : row + 1], rows[1][row : row + 1], 1.3)[0], whole[row])


def test_first_tokens_come_as_often_as_the_mixture_says(tokenizer: Any) -> None:
    """3,000 of them, in standard errors; the same measure tells them from the policy's and the reference's."""
    policy, reference = pair("llama", tokenizer)
    (prompt,) = sample(at_strength(policy, reference, 1.5), tokenizer, PROMPTS[:1], n=3000, max_new_tokens=1)
    counts = torch.zeros(len(tokenizer), dtype=torch.float64)
    for answer in prompt.completions:
        counts[answer.tokens[0]] += 1

    def off_by(strength: float) -> float:
        p = by_hand(policy, reference, strength, prompt.prompt_tokens)[-1].exp()
        return float(((counts - 3000 * p).abs() / (3000 * p * (1 - p)).sqrt().clamp(min=1.0)).max())

    assert off_by(1.5) < 4.5
    assert min(off_by(0.0), off_by(1.0)) > 6


def test_kl_is_that_of_the_mixture(tokenizer: Any) -> None:
    policy, reference = pair("llama", tokenizer)
    mixture = at_strength(policy, reference, 1.5)
    sampled = sample(mixture, tokenizer, PROMPTS, n=2, max_new_tokens=6)
    found = estimate_kl(mixture, reference, sampled).values
    for values, prompt in zip(found, sampled, strict=True):
        for value, answer in zip(values, prompt.completions, strict=True):
            tokens, start = prompt.prompt_tokens + answer.tokens, len(prompt.prompt_tokens) - 1
            mixed, held = (by_hand(policy, reference, strength, tokens)[start:-1] for strength in (1.5, 0.0))
            assert value == pytest.approx(float((mixed.exp() * (mixed - held)).sum()), rel=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_reference_that_is_read_once_says_the_same(dtype: torch.dtype, tokenizer: Any) -> None:
    """A mixture's own reference is not run again for its KL; an equal one is, and the bits are the same."""
    policy, reference = pair("llama", tokenizer, dtype)
    mixture, apart = at_strength(policy, reference, 1.5), copy.deepcopy(reference)
    sampled = sample(mixture, tokenizer, PROMPTS, n=2, max_new_tokens=6)
    calls: list[int] = []
    hook = reference.register_forward_hook(lambda *_: calls.append(1))
    once = estimate_kl(mixture, reference, sampled).values
    read = len(calls)
    assert once == estimate_kl(mixture, apart, sampled).values
    hook.remove()
    assert len(calls) == 2 * read > 0


def test_a_reference_of_another_depth_and_context(tokenizer: Any) -> None:
    policy = tiny("llama", vocab_size=len(tokenizer), num_hidden_layers=3)
    reference = tiny("llama", seed=3, vocab_size=len(tokenizer), max_position_embeddings=40)
    found = sample(at_strength(policy, reference, 0.5), tokenizer, PROMPTS[:1], n=2, max_new_tokens=6)
    check(found, policy, reference, 0.5, 1.0)
    with pytest.raises(ModelError, match="exceeds the model's context of 40"):
        sample(Mixture(policy, reference, 0.5), tokenizer, PROMPTS[:1], max_new_tokens=40)


def test_the_reference_is_the_adapter_switched_off(tokenizer: Any) -> None:
    """Two models of one set of base weights say what one says with its adapter on and off."""
    reference = tiny("llama", vocab_size=len(tokenizer))
    policy = add_lora(tiny("llama", vocab_size=len(tokenizer)), rank=4, seed=0).eval()
    with torch.no_grad():
        for parameter in policy.parameters():
            if parameter.requires_grad:
                parameter.add_(0.2 * torch.randn_like(parameter))
    share_equal_weights(policy, reference)
    ids = torch.tensor([[5, 9, 30]])
    with torch.no_grad():
        on = policy(input_ids=ids).logits
        with adapter_off(policy):
            off = policy(input_ids=ids).logits
        mixed = Mixture(policy, reference, 1.5)(input_ids=ids, use_cache=False).logits
    assert not torch.equal(on, off)
    torch.testing.assert_close(mixed, 1.5 * on - 0.5 * off, rtol=1e-12, atol=1e-12)
