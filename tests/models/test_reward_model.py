"""Reward models made from causal ones, saved, and loaded by transformers alone."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

from likelier.errors import ModelError
from likelier.models.heads import value_head
from likelier.models.loading import Loaded
from likelier.models.reward_model import PAD, as_reward_model, load_reward_model, load_start, made_here
from likelier.models.saving import save_model
from likelier.scoring.scorer import Scorer
from tests.conftest import build_tokenizer
from tests.models.families import tiny
from tests.training.support import trees_of

FAMILIES = (
    "llama",
    "mistral",
    "qwen2",
    "qwen3",
    "gemma2",
    "gemma3_text",
    "phi3",
    "gpt2",
    "gpt_neox",
    "olmo2",
    "mixtral",
)
LEFT_TOO = {
    "llama",
    "mistral",
    "qwen2",
    "qwen3",
    "gemma2",
    "gemma3_text",
    "phi3",
    "gpt_neox",
    "olmo2",
    "mixtral",
}
"""Rotary positions are relative; learned ones (GPT-2) count from the padding."""
ANSWERS = [
    " Wash it.",
    " Boil the rice in water, then wait.",
    " I do not know that; ask a cook who is good at it!",
]
PROMPT = "What is the best way to cook rice?"


def same_token():
    """Like SmolLM2's: the token that pads is the one that ends a turn, and the vocabulary has no room."""
    tokenizer = build_tokenizer()
    tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def made(family, tokenizer, **changes):
    model = tiny(family, dtype=torch.float32, vocab_size=len(tokenizer), **changes)
    model.config.pad_token_id, model.config.eos_token_id = tokenizer.pad_token_id, tokenizer.eos_token_id
    result = as_reward_model(Loaded(model, tokenizer, family, "memory"))
    value_head(result.model).weight.data.normal_(std=0.5, generator=torch.Generator().manual_seed(3))
    return model, result


@pytest.mark.parametrize("family", FAMILIES)
def test_likelier_and_transformers_alone_give_the_same_scores(family, tmp_path):
    """float32, answers of different lengths padded together; the pad token differs from the end of turn."""
    _, ours = made(family, same_token())
    save_model(ours.model, ours.tokenizer, tmp_path / "model", card="")
    loaded = load_reward_model(tmp_path / "model")
    (tree,) = trees_of([{"prompt": PROMPT, "completions": ANSWERS}], loaded.tokenizer, need="completions")
    with Scorer(loaded.model, dtype=torch.float32) as scorer:
        values = torch.cat(scorer.score([tree])[0])
    theirs = AutoModelForSequenceClassification.from_pretrained(tmp_path / "model", dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    assert tokenizer.pad_token == PAD
    assert tokenizer.pad_token_id == theirs.config.pad_token_id != tokenizer.eos_token_id
    texts = [PROMPT + answer + tokenizer.eos_token for answer in ANSWERS]
    for side in ("right", "left") if family in LEFT_TOO else ("right",):
        batch = tokenizer(
            texts, padding=True, padding_side=side, add_special_tokens=False, return_tensors="pt"
        )
        with torch.no_grad():
            logits = theirs(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits[:, 0]
        assert (logits.double() - values).abs().max() < 1e-5, side
    assert values.std() > 0.1


def test_a_pipeline_hands_the_number_on_as_it_is(tmp_path):
    _, ours = made("llama", same_token())
    save_model(ours.model, ours.tokenizer, tmp_path / "model", card="")
    (tree,) = trees_of([{"prompt": PROMPT, "completions": ANSWERS}], ours.tokenizer, need="completions")
    with Scorer(ours.model, dtype=torch.float32) as scorer:
        values = torch.cat(scorer.score([tree])[0]).tolist()
    judge = pipeline("text-classification", str(tmp_path / "model"), device="cpu")
    texts = [PROMPT + answer + ours.tokenizer.eos_token for answer in ANSWERS]
    found = judge(texts, batch_size=3, add_special_tokens=False)
    assert [one["score"] for one in found] == pytest.approx(values, abs=1e-5)
    assert {one["label"] for one in found} == {"reward"}


def test_a_new_pad_token_moves_no_number():
    """The states of all other tokens are the same bits; the start in memory is not touched."""
    tokenizer = same_token()
    model, ours = made("llama", tokenizer)
    ids = torch.arange(3, 40)[None]
    with torch.no_grad():
        before = model.base_model(input_ids=ids).last_hidden_state
        after = ours.model.base_model(input_ids=ids).last_hidden_state
    assert torch.equal(before, after)
    assert model.get_input_embeddings().weight.shape[0] == len(tokenizer)
    assert ours.model.get_input_embeddings().weight.shape[0] == len(tokenizer) + 1 == len(ours.tokenizer)
    assert tokenizer.pad_token == tokenizer.eos_token
    assert ours.model.get_input_embeddings().padding_idx == ours.tokenizer.pad_token_id


def test_a_pad_token_that_ends_nothing_is_kept_and_spare_rows_are_used(tokenizer):
    _, ours = made("llama", tokenizer)
    assert ours.tokenizer.pad_token == tokenizer.pad_token == "<|endoftext|>"
    assert len(ours.tokenizer) == len(tokenizer)
    wide = tiny("llama", dtype=torch.float32, vocab_size=400)
    spare = as_reward_model(Loaded(wide, same_token(), "wide", "memory"))
    assert spare.tokenizer.pad_token_id == 384
    assert spare.model.get_input_embeddings().weight.shape[0] == 400


def test_a_word_that_reads_pad_does_not_pad_and_a_special_token_of_that_name_does():
    word = same_token()
    word.add_tokens(["Pad", "<pad>"], special_tokens=False)
    _, ours = made("llama", word)
    assert ours.tokenizer.pad_token == PAD
    named = same_token()
    named.add_special_tokens({"additional_special_tokens": ["<|finetune_right_pad_id|>"]})
    _, ours = made("llama", named)
    assert ours.tokenizer.pad_token == "<|finetune_right_pad_id|>"
    assert len(ours.tokenizer) == len(named)


def test_the_head_starts_at_zero(tokenizer):
    ours = as_reward_model(
        Loaded(tiny("llama", dtype=torch.float32, vocab_size=384), tokenizer, "llama", "memory")
    )
    assert not value_head(ours.model).weight.any()
    assert ours.model.config.num_labels == 1


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_an_adapter_is_merged_and_a_reward_model_goes_on_as_it_is(tokenizer, tmp_path):
    base = tiny("llama", dtype=torch.float32, vocab_size=384)
    adapted = get_peft_model(base, LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False))
    ours = as_reward_model(Loaded(adapted, tokenizer, "adapted", "memory"))
    ids = torch.arange(3, 30)[None]
    with torch.no_grad():
        expected = adapted.get_base_model().base_model(input_ids=ids).last_hidden_state
        assert torch.allclose(ours.model.base_model(input_ids=ids).last_hidden_state, expected, atol=1e-5)
    value_head(ours.model).weight.data.fill_(0.25)
    save_model(ours.model, ours.tokenizer, tmp_path / "model", card="")
    again = load_start(tmp_path / "model")
    assert value_head(again.model).weight.unique().tolist() == [0.25]
    assert made_here(str(tmp_path / "model"))


@pytest.mark.parametrize("family", ["mamba", "codegen"])
def test_families_without_a_classifier_are_refused_by_name(family, tokenizer):
    model = tiny(family, dtype=torch.float32, vocab_size=len(tokenizer))
    with pytest.raises(
        ModelError, match=rf"\({family}\) cannot become a reward model: transformers has no sequence"
    ):
        as_reward_model(Loaded(model, tokenizer, "some/name", "memory"))


def test_a_causal_model_does_not_score(tiny_llama):
    with pytest.raises(ModelError, match="no reward model: `likelier reward --model"):
        load_reward_model(str(tiny_llama))
