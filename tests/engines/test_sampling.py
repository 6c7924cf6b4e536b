"""Samples: exact log-probs, the right distribution, and nothing that depends on the batch."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from likelier.engines import decoding
from likelier.engines.decoding import generation_copy
from likelier.engines.drawing import Sampler
from likelier.engines.prompts import Prompt, encode_prompts
from likelier.engines.sampling import SampledPrompt, sample, sample_each
from likelier.engines.stopping import Stopping, stop_tokens
from likelier.errors import DataError, ModelError, UsageError
from tests.models.families import tiny

TEXTS = [
    "The cat sat on the mat.",
    "What is the best way to cook rice? Wash it, then boil it, then wait for the steam to settle again.",
    "A",
    "Human: please help me with my garden.",
    "a bad answer is long, long, long.",
    "rain, rain, rain, rain, rain, rain, rain, rain, rain",
]
PROMPTS = [Prompt(id=f"p{number}", content=text) for number, text in enumerate(TEXTS)]
SAMPLED_FAMILIES = [
    "llama",
    "mistral",
    "qwen2",
    "gemma2",
    "gemma3_text",
    "phi3",
    "gpt2",
    "gpt_neox",
    "falcon",
]


def build(family: str, tokenizer: Any, dtype: torch.dtype = torch.float32) -> Any:
    return tiny(family, dtype=dtype, vocab_size=len(tokenizer)).eval()


@pytest.fixture(scope="module")
def llama(tokenizer: Any) -> Any:
    return build("llama", tokenizer)


def by_id(sampled: list[SampledPrompt]) -> dict[str, list[tuple[list[int], float]]]:
    return {prompt.id: [(a.tokens, a.logp) for a in prompt.completions] for prompt in sampled}


def plain_logp(model: Any, prompt: list[int], tokens: list[int], temperature: float = 1.0) -> float:
    """By an ordinary forward over one unpadded row."""
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([prompt + tokens])).logits[0, len(prompt) - 1 : -1]
    logps = (logits.double() / temperature).log_softmax(dim=-1)
    return float(logps.gather(-1, torch.tensor(tokens)[:, None]).sum())


@pytest.mark.parametrize("family", SAMPLED_FAMILIES)
def test_log_probs_are_those_of_a_plain_forward(family: str, tokenizer: Any) -> None:
    model = build(family, tokenizer)
    for temperature in (1.0, 0.7):
        sampler = Sampler(seed=3, temperature=temperature)
        for prompt in sample(model, tokenizer, PROMPTS, n=2, max_new_tokens=12, sampler=sampler):
            for answer in prompt.completions:
                expected = plain_logp(model, prompt.prompt_tokens, answer.tokens, temperature)
                assert answer.logp == pytest.approx(expected, rel=2e-5, abs=1e-3)


@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_a_sample_depends_on_its_own_prompt_alone(family: str, tokenizer: Any) -> None:
    """Order, the other prompts and the number of samples change no bit."""
    model = build(family, tokenizer)
    together = by_id(sample(model, tokenizer, PROMPTS, n=5, max_new_tokens=10))
    assert by_id(sample(model, tokenizer, PROMPTS[::-1], n=5, max_new_tokens=10)) == together
    for prompt in PROMPTS:
        alone = by_id(sample(model, tokenizer, [prompt], n=2, max_new_tokens=10))
        assert alone[prompt.id] == together[prompt.id][:2]


def test_more_samples_than_a_block_holds(llama: Any, tokenizer: Any) -> None:
    many = by_id(sample(llama, tokenizer, PROMPTS[:3], n=70, max_new_tokens=4))
    few = by_id(sample(llama, tokenizer, PROMPTS[:3], n=3, max_new_tokens=4))
    assert {prompt_id: answers[:3] for prompt_id, answers in many.items()} == few
    assert [len(answers) for answers in many.values()] == [70, 70, 70]


def test_batch_independence_of_the_real_model_in_bfloat16(smollm2: Any) -> None:
    model = generation_copy(smollm2.model)
    prompts = [
        Prompt(id=f"q{number}", content=[{"role": "user", "content": f"Say {number} words about {text}"}])
        for number, text in enumerate(TEXTS)
    ]
    together = by_id(sample(model, smollm2.tokenizer, prompts, n=3, max_new_tokens=6))
    for prompt in prompts[:2]:
        alone = by_id(sample(model, smollm2.tokenizer, [prompt], n=1, max_new_tokens=6))
        assert alone[prompt.id] == together[prompt.id][:1]


def test_the_generation_copy_leaves_the_model_and_its_frequencies_alone(llama: Any) -> None:
    before = copy.deepcopy(llama.state_dict())
    fast = generation_copy(llama)
    assert all(torch.equal(value, before[name]) for name, value in llama.state_dict().items())
    assert fast.model.rotary_emb.inv_freq.dtype == torch.float32


@pytest.mark.parametrize(
    ("sampler", "transform"),
    [
        (Sampler(seed=1), lambda p: p),
        (Sampler(seed=1, temperature=0.5), lambda p: p**2),
        (Sampler(seed=1, top_k=3), lambda p: p * (p >= p.sort().values[-3])),
        (Sampler(seed=1, top_p=0.4), lambda p: p * top_p_mask(p, 0.4)),
        (Sampler(seed=1, top_k=5, top_p=0.5), lambda p: p * top_p_mask(p * (p >= p.sort().values[-5]), 0.5)),
        (Sampler(seed=1, min_p=0.3), lambda p: p * (p >= 0.3 * p.max())),
        (Sampler(seed=1, min_p=1.0), lambda p: p * (p == p.max())),
        (Sampler(seed=1, temperature=2.0, min_p=0.5), lambda p: p**0.5 * (p**0.5 >= 0.5 * p.max() ** 0.5)),
    ],
    ids=["plain", "temperature", "top-k", "top-p", "both", "min-p", "min-p 1", "hot min-p"],
)
def test_first_tokens_follow_the_distribution(sampler: Sampler, transform: Any) -> None:
    logits = torch.tensor([[1.0, 0.2, -0.3, 2.0, 0.9, -1.0, 0.0, 1.4]])
    weights = transform(logits[0].double().softmax(dim=-1))
    expected = weights / weights.sum()
    draws = 8_000
    draw = sampler.draw(logits.expand(draws, -1), list(range(0, draws * 7919, 7919)))
    tokens, logps = draw.tokens, draw.logps
    counts = torch.tensor(tokens).bincount(minlength=8).double()
    assert counts[expected == 0].sum() == 0
    kept = expected > 0
    chi_square = ((counts - draws * expected)[kept] ** 2 / (draws * expected)[kept]).sum()
    assert chi_square < 24.4  # 7 degrees of freedom, 0.1 %
    assert torch.tensor(logps).exp() == pytest.approx(expected[tokens], rel=1e-5)


def top_p_mask(p: torch.Tensor, mass: float) -> torch.Tensor:
    """The smallest set of likeliest entries of at least this mass."""
    p = p / p.sum()
    kept, total = torch.zeros_like(p), 0.0
    for entry in p.argsort(descending=True):
        if total >= mass:
            break
        kept[entry], total = 1.0, total + float(p[entry])
    return kept


def test_greedy_takes_the_likeliest_token(llama: Any, tokenizer: Any) -> None:
    sampled = sample(llama, tokenizer, PROMPTS[:2], n=2, max_new_tokens=6, sampler=Sampler(temperature=0))
    for prompt in sampled:
        first, second = prompt.completions
        assert first == second
        assert first.logp == 0.0
        for position, token in enumerate(first.tokens):
            ids = torch.tensor([prompt.prompt_tokens + first.tokens[:position]])
            assert llama(input_ids=ids).logits[0, -1].argmax() == token


def test_an_answer_ends_with_its_stop_token_or_at_the_limit(llama: Any, tokenizer: Any) -> None:
    stops = stop_tokens(llama, tokenizer)
    sampled = sample(llama, tokenizer, PROMPTS, n=40, max_new_tokens=20)
    answers = [answer for prompt in sampled for answer in prompt.completions]
    assert {answer.finish for answer in answers} == {"stop", "length"}
    for answer in answers:
        assert not stops & set(answer.tokens[:-1])
        assert (answer.tokens[-1] in stops) == (answer.finish == "stop")
        assert len(answer.tokens) == 20 or answer.finish == "stop"
        told = answer.tokens[:-1] if answer.finish == "stop" else answer.tokens
        assert answer.text == tokenizer.decode(told, clean_up_tokenization_spaces=False)


def test_stop_tokens_are_those_of_model_and_tokenizer(llama: Any, tokenizer: Any) -> None:
    model = copy.copy(llama)
    model.generation_config = copy.deepcopy(llama.generation_config)
    model.generation_config.eos_token_id = [7, 9]
    assert stop_tokens(model, tokenizer) == {7, 9, tokenizer.eos_token_id}


@pytest.mark.parametrize("length", [1, 14, 15, 16, 17, 31, 32])
def test_prompts_at_the_edges_of_a_width(length: int, llama: Any) -> None:
    prompts = [list(range(3, 3 + length)), [5] * length]
    with torch.inference_mode():
        prefix = decoding.read_prompts(llama, prompts)
        for row, prompt in enumerate(prompts):
            plain = llama(input_ids=torch.tensor([prompt])).logits[0, -1]
            torch.testing.assert_close(prefix.logits[row], plain, rtol=1e-5, atol=1e-5)


def test_messages_go_through_the_template(tokenizer: Any) -> None:
    prompt = Prompt(id="m", content=[{"role": "user", "content": "Hi"}])
    (tokens,) = encode_prompts(tokenizer, [prompt])
    assert tokenizer.decode(tokens) == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"


def test_the_mode_of_the_model_is_left_as_it_was(tokenizer: Any) -> None:
    model = build("gpt_neox", tokenizer).train()
    first = by_id(sample(model, tokenizer, PROMPTS[:1], n=1, max_new_tokens=8))
    assert model.training
    assert by_id(sample(model.eval(), tokenizer, PROMPTS[:1], n=1, max_new_tokens=8)) == first


def test_progress_adds_up(llama: Any, tokenizer: Any) -> None:
    counts: list[int] = []
    sample(llama, tokenizer, PROMPTS, n=30, max_new_tokens=2, on_progress=counts.append)
    assert sum(counts) == 30 * len(PROMPTS)


def test_equal_ids_are_refused(llama: Any, tokenizer: Any) -> None:
    with pytest.raises(DataError, match="share an id"):
        sample(llama, tokenizer, [PROMPTS[0], PROMPTS[0]])


def test_an_empty_prompt_is_refused(llama: Any, tokenizer: Any) -> None:
    with pytest.raises(DataError, match="'e' is empty"):
        sample(llama, tokenizer, [Prompt(id="e", content="")])


def test_a_prompt_beyond_the_context_is_refused(llama: Any, tokenizer: Any) -> None:
    long = Prompt(id="long", content="rain " * 200)
    with pytest.raises(ModelError, match=r"prompt 'long' has .* the model's context of 256"):
        sample(llama, tokenizer, [long])


def test_a_model_with_another_kind_of_state_is_refused(tokenizer: Any) -> None:
    with pytest.raises(ModelError, match="MambaForCausalLM cannot be sampled from here"):
        sample(build("mamba", tokenizer), tokenizer, PROMPTS)


@pytest.mark.parametrize(
    ("setting", "flag"),
    [
        ({"temperature": -1.0}, "--temperature"),
        ({"temperature": float("nan")}, "--temperature"),
        ({"top_p": 0.0}, "--top-p"),
        ({"top_k": -1}, "--top-k"),
        ({"min_p": -0.1}, "--min-p"),
        ({"min_p": 1.1}, "--min-p"),
    ],
)
def test_settings_out_of_range_are_refused(setting: dict[str, Any], flag: str) -> None:
    with pytest.raises(UsageError, match=flag):
        Sampler(**setting)


def test_messages_need_a_chat_template(tokenizer: Any) -> None:
    bare = copy.copy(tokenizer)
    bare.chat_template = None
    turns = Prompt(id="greeting", content=[{"role": "user", "content": "Hi"}])
    with pytest.raises(ModelError, match=r"prompt 'greeting' is a list of messages.*no chat template"):
        encode_prompts(bare, [turns])
    assert encode_prompts(bare, [Prompt(id="raw", content="Hi")])


SETTINGS = [
    Sampler(seed=5, temperature=0.8),
    Sampler(seed=5, top_k=7),
    Sampler(seed=5, top_p=0.6),
    Sampler(seed=5, min_p=0.2),
    Sampler(seed=5, temperature=1.5, top_k=40, top_p=0.9, min_p=0.05),
]


def truncated_logp(logits: torch.Tensor, token: int, sampler: Sampler) -> float:
    """Of one token, in float64, entry after entry, as the settings are defined."""
    p = (logits.double() / sampler.temperature).softmax(dim=-1)
    if sampler.top_k:
        p = p * (p >= p.sort().values[-sampler.top_k])
    if sampler.top_p < 1:
        p = p * top_p_mask(p, sampler.top_p)
    p = p * (p >= sampler.min_p * p.max())
    return float((p[token] / p.sum()).log())


@pytest.mark.parametrize("sampler", SETTINGS, ids=str)
def test_log_probs_are_those_of_the_truncated_distribution(
    sampler: Sampler, llama: Any, tokenizer: Any
) -> None:
    for prompt in sample(llama, tokenizer, PROMPTS[:3], n=2, max_new_tokens=8, sampler=sampler):
        for answer in prompt.completions:
            ids = torch.tensor([prompt.prompt_tokens + answer.tokens])
            with torch.no_grad():
                logits = llama(input_ids=ids).logits[0, len(prompt.prompt_tokens) - 1 : -1]
            expected = sum(
                truncated_logp(row, token, sampler) for row, token in zip(logits, answer.tokens, strict=True)
            )
            assert answer.logp == pytest.approx(expected, rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_sample_is_the_same_whatever_runs_beside_it(dtype: torch.dtype, tokenizer: Any) -> None:
    """Many more samples than fit at once, of many widths, so that they end and begin at all times."""
    model = build("llama", tokenizer, dtype=dtype)
    prompts = [Prompt(id=f"q{i}", content=TEXTS[i % 6] * (1 + i % 3)) for i in range(18)]
    sampler = Sampler(seed=2, temperature=1.3)
    together = by_id(sample(model, tokenizer, prompts, n=9, max_new_tokens=25, sampler=sampler))
    lengths = {len(tokens) for answers in together.values() for tokens, _ in answers}
    assert len(lengths) > 5
    back = by_id(sample(model, tokenizer, prompts[::-1], n=9, max_new_tokens=25, sampler=sampler))
    assert back == together
    for prompt in prompts[::5]:
        alone = by_id(sample(model, tokenizer, [prompt], n=2, max_new_tokens=25, sampler=sampler))
        assert alone[prompt.id] == together[prompt.id][:2]


def test_prompts_are_given_out_as_they_are_finished(llama: Any, tokenizer: Any) -> None:
    prompts = [Prompt(id=f"q{i}", content=TEXTS[i % 6]) for i in range(30)]
    counts: list[int] = []
    numbers, seen = [], []
    for number, prompt in sample_each(
        llama, tokenizer, prompts, n=8, max_new_tokens=6, on_progress=counts.append
    ):
        assert prompt.id == f"q{number}"
        assert len(prompt.completions) == 8
        numbers.append(number)
        seen.append(sum(counts))
    assert sorted(numbers) == list(range(30))
    assert seen[0] < 120  # long before the last answer


def cut_by_hand(text: str, stops: list[str]) -> str:
    return min((text.split(stop)[0] for stop in stops), key=len)


@pytest.mark.parametrize("stops", [["e"], ["is", " a"], ["ood", "."], ["never so"]])
def test_a_stop_string_cuts_the_text_before_it(stops: list[str], llama: Any, tokenizer: Any) -> None:
    """Against the same samples without stop strings: cut by hand, and the same tokens up to the string's end."""
    whole = sample(llama, tokenizer, PROMPTS, n=6, max_new_tokens=40)
    cut = sample(llama, tokenizer, PROMPTS, n=6, max_new_tokens=40, stop=stops)
    hits = 0
    for long, short in zip(
        (a for p in whole for a in p.completions), (a for p in cut for a in p.completions), strict=True
    ):
        assert short.text == cut_by_hand(long.text, stops)
        assert short.tokens == long.tokens[: len(short.tokens)]
        if short.text == long.text:
            assert short == long
            continue
        hits += 1
        assert (short.finish, short.text_is_tokens) == ("stop", False)
        told = tokenizer.decode(short.tokens, clean_up_tokenization_spaces=False)
        before = tokenizer.decode(short.tokens[:-1], clean_up_tokenization_spaces=False)
        assert any(stop in told for stop in stops)
        assert not any(stop in before for stop in stops)
    assert (hits > 0) == (stops != ["never so"])


def test_a_stop_string_across_tokens_and_inside_one(tokenizer: Any) -> None:
    ids = tokenizer("garden good answer long")["input_ids"]
    pieces = [tokenizer.decode([token]) for token in ids]
    across = pieces[0][-1] + pieces[1][:1]
    stopping = Stopping(tokenizer, frozenset(), [across])
    assert [stopping.ended(ids[: end + 1]) for end in range(2)] == [False, True]
    text, finish, text_is_tokens = stopping.finished(ids[:2])
    assert (finish, text_is_tokens) == ("stop", False)
    assert text == (pieces[0] + pieces[1]).split(across)[0]


def test_an_empty_stop_string_is_refused(tokenizer: Any) -> None:
    with pytest.raises(UsageError, match="--stop"):
        Stopping(tokenizer, frozenset(), ["a", ""])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_ties_are_counted_by_the_precision_of_the_logits(dtype: torch.dtype) -> None:
    """Two equal logits tie only where their noise does; greedy sampling sees the logits alone."""
    logits = torch.tensor([[2.0, 2.0, 1.0], [2.0, 1.5, 1.0]]).to(dtype)
    assert Sampler(temperature=0).draw(logits, [0, 1]).ties == [True, False]
    keys = list(range(0, 40_000, 2))
    ties = Sampler().draw(torch.zeros(len(keys), 2).to(dtype), keys).ties
    # Of two exponentials the larger over the smaller is at least 1 - eps apart from 1 with probability eps / 2.
    expected = len(keys) * torch.finfo(dtype).eps / 2
    assert abs(sum(ties) - expected) <= 4 * expected**0.5 + 1


def test_a_model_without_numbers_is_told_of(tokenizer: Any) -> None:
    model = tiny("llama", dtype=torch.float32, vocab_size=len(tokenizer))
    with torch.no_grad():
        next(model.parameters())[5:] = torch.nan
    with pytest.raises(ModelError, match=r"prompt 'only': the model's scores .* are no numbers"):
        sample(model, tokenizer, [Prompt(id="only", content="The cat")], n=2, max_new_tokens=3)
