"""A chat template for a model that has none: what is set, what is added, what is saved, what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import likelier
from likelier.errors import DataError, LikelierError, ModelError, UsageError
from likelier.models.chat import CHATML, with_template
from likelier.models.loading import Loaded
from tests.conftest import build_tokenizer
from tests.data.tiny_tokenizers import metaspace
from tests.training.conftest import no_timing, own_cache
from tests.training.support import model_of

__all__ = ["no_timing", "own_cache"]

ROWS = [
    {"messages": [{"role": "user", "content": f"{word}?"}, {"role": "assistant", "content": f"{word} yes"}]}
    for word in ("rain", "rice", "garden", "cat")
]
PLAIN = (
    "{% for m in messages %}### {{ m['role'] }}:\n{{ m['content'] }}"
    "{% if m['role'] == 'assistant' %}{{ eos_token }}{% endif %}\n{% endfor %}"
    "{% if add_generation_prompt %}### assistant:\n{% endif %}"
)


def base_tokenizer() -> Any:
    """Without a template, and without the tokens that ChatML writes."""
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    core = json.loads(build_tokenizer().backend_tokenizer.to_str())
    names = {"<|im_start|>": "<|one|>", "<|im_end|>": "<|two|>"}
    core["added_tokens"] = [
        {**token, "content": names.get(token["content"], token["content"])} for token in core["added_tokens"]
    ]
    core["model"]["vocab"] = {names.get(text, text): at for text, at in core["model"]["vocab"].items()}
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(core)),
        eos_token="<|endoftext|>",
        pad_token="<|endoftext|>",
    )


def loaded(tokenizer: Any, family: str = "llama", **changes: Any) -> Loaded:
    return Loaded(model_of(tokenizer, family, **changes), tokenizer, "base", "memory")


def imitate(model: Any, tokenizer: Any, **config: Any) -> likelier.Run:
    return likelier.sft(
        model, ROWS, tokenizer=tokenizer, **{"precision": "float64", "learning_rate": 1e-3, **config}
    )


@pytest.mark.parametrize("family", ["llama", "gpt2"])  # a head of its own, and one tied to the embedding
def test_new_tokens_have_rows_that_mean_something_and_the_rest_stays(family: str) -> None:
    tokenizer = base_tokenizer()
    start = loaded(tokenizer, family)
    before = {
        "in": start.model.get_input_embeddings().weight.detach().clone(),
        "out": start.model.get_output_embeddings().weight.detach().clone(),
    }
    draws = torch.random.get_rng_state()
    made = with_template(start, "chatml", adapter=False)
    assert torch.equal(torch.random.get_rng_state(), draws)
    begin, end = (made.tokenizer.convert_tokens_to_ids(name) for name in ("<|im_start|>", "<|im_end|>"))
    assert (begin, end) == (384, 385)
    pieces = tokenizer("<|im_start|>", add_special_tokens=False).input_ids
    assert len(pieces) > 3
    after = {"in": made.model.get_input_embeddings().weight, "out": made.model.get_output_embeddings().weight}
    for name, weight in after.items():
        assert weight.shape[0] == 386
        assert torch.equal(weight[:384], before[name])
        assert torch.allclose(weight[begin], before[name][pieces].mean(0), rtol=0, atol=1e-15)
        assert torch.equal(weight[end], before[name][tokenizer.eos_token_id])
    assert (after["in"] is after["out"]) == (family == "gpt2")
    assert made.model.config.vocab_size == 386
    assert made.tokenizer.eos_token == "<|im_end|>"
    assert made.model.config.eos_token_id == made.model.generation_config.eos_token_id == end
    # The caller's own tokenizer is left alone.
    assert (tokenizer.chat_template, tokenizer.eos_token, len(tokenizer)) == (None, "<|endoftext|>", 384)


def test_rows_that_were_spare_are_taken_without_growing() -> None:
    """Vocabularies are often padded: their last rows belong to no token and were never trained."""
    tokenizer = base_tokenizer()
    start = loaded(tokenizer)
    start.model.resize_token_embeddings(400, mean_resizing=False)
    made = with_template(start, "chatml", adapter=False)
    weight = made.model.get_input_embeddings().weight
    assert weight.shape[0] == 400
    assert torch.equal(weight[385], weight[tokenizer.eos_token_id])


def test_tokens_that_are_known_stay_as_they_are() -> None:
    tokenizer = build_tokenizer()
    tokenizer.chat_template = None
    tokenizer.eos_token = "<|endoftext|>"
    start = loaded(tokenizer)
    before = start.model.get_input_embeddings().weight.detach().clone()
    made = with_template(start, "chatml", adapter=True)
    assert torch.equal(made.model.get_input_embeddings().weight, before)
    assert made.tokenizer.eos_token == "<|im_end|>"
    assert made.model.generation_config.eos_token_id == 2


def test_the_template_is_saved_and_used(tmp_path: Path) -> None:
    """A base model learns to answer in ChatML; transformers alone then reads the folder and stops where it should."""
    tokenizer = base_tokenizer()
    with pytest.raises(
        DataError, match=r"no chat template: give the model one \(likelier sft --template chatml\)"
    ):
        imitate(model_of(tokenizer), tokenizer)
    run = imitate(
        *(model_of(tokenizer), tokenizer), template="chatml", out=tmp_path / "run", epochs=150, clip=0.0
    )
    assert run.metrics[-1]["loss"] < 0.1 < run.metrics[0]["loss"]
    saved = AutoTokenizer.from_pretrained(tmp_path / "run" / "model")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "run" / "model", dtype=torch.float64)
    assert saved.chat_template == CHATML
    assert (saved.eos_token, len(saved)) == ("<|im_end|>", 386)
    for row in ROWS:
        question, answer = row["messages"]
        asked = saved.apply_chat_template(
            [question], add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        given = model.generate(**asked, max_new_tokens=40, do_sample=False, pad_token_id=0)[0]
        assert saved.decode(given[asked["input_ids"].shape[1] :]) == answer["content"] + "<|im_end|>"
    assert (tmp_path / "run" / "examples.txt").read_text().count("<|im_end|>⟧") == 4
    # The model that was made is trained further with the same command.
    again = imitate(
        *(str(tmp_path / "run" / "model"), None), template="chatml", precision="float32", max_steps=1
    )
    assert again.metrics[0]["loss"] == pytest.approx(run.metrics[-1]["loss"], abs=0.1)


@pytest.mark.parametrize(("known", "stops"), [(0, [0, 2]), ([0, 5], [0, 5, 2]), (2, 2), ([2, 0], [2, 0])])
def test_a_model_with_a_template_learns_to_stop_at_its_turns(known: Any, stops: Any, tmp_path: Path) -> None:
    """Base models bring a template and stop at the end of a text: `generate` would run past a turn's end."""
    tokenizer = build_tokenizer()
    tokenizer.eos_token = "<|endoftext|>"
    model = model_of(tokenizer)
    model.generation_config.eos_token_id = known
    imitate(model, tokenizer, out=tmp_path / "run", max_steps=1)
    assert model.generation_config.eos_token_id == stops
    saved = json.loads((tmp_path / "run" / "model" / "generation_config.json").read_text())
    assert saved["eos_token_id"] == stops


def test_a_jinja_file(tmp_path: Path) -> None:
    """Plain text with the end of sequence that the model has: nothing is added, so an adapter can learn it."""
    path = tmp_path / "plain.jinja"
    path.write_text(PLAIN, encoding="utf-8")
    tokenizer = base_tokenizer()
    run = imitate(
        *(model_of(tokenizer), tokenizer), template=str(path), out=tmp_path / "run", lora_rank=2, merge=True
    )
    saved = AutoTokenizer.from_pretrained(tmp_path / "run" / "model")
    assert (saved.chat_template, len(saved), saved.eos_token) == (PLAIN, 384, "<|endoftext|>")
    assert run.model.get_base_model().config.vocab_size == 384


def test_bos_comes_first_where_the_tokenizer_puts_it_before_raw_text() -> None:
    tokenizer = metaspace(template=None)
    made = with_template(loaded(tokenizer), "chatml", adapter=False)
    assert made.tokenizer.chat_template == "{{ bos_token }}" + CHATML
    text = made.tokenizer.apply_chat_template([{"role": "user", "content": "a"}], tokenize=False)
    assert text.startswith(f"{tokenizer.bos_token}<|im_start|>user\na<|im_end|>")


def refused(tmp_path: Path, template: str, text: str | None = None) -> str:
    if text is not None:
        (tmp_path / template).write_text(text, encoding="utf-8")
        template = str(tmp_path / template)
    tokenizer = base_tokenizer()
    with pytest.raises(UsageError) as caught:
        with_template(loaded(tokenizer), template, adapter=False)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_is_no_template_is_refused_in_one_line(tmp_path: Path) -> None:
    assert "neither `chatml`; did you mean `chatml`? nor a file" in refused(tmp_path, "chatlm")
    assert "nor a file that can be read (No such file or directory)" in refused(tmp_path, "nowhere.jinja")
    assert "(Is a directory)" in refused(tmp_path, str(tmp_path))
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    assert "no text in UTF-8" in refused(tmp_path, str(tmp_path / "binary"))
    assert "the chat template refuses the messages" in refused(tmp_path, "a.jinja", "{% for m in messages %}")
    endless = "{% for m in messages %}{{ m['content'] }}\n{% endfor %}"
    said = refused(tmp_path, "b.jinja", endless)
    assert "writes no special token after an answer" in said
    assert "{{ eos_token }}" in said
    assert "does not write the answer at all" in refused(tmp_path, "c.jinja", "{{ eos_token }}")


def test_a_template_of_the_models_own_is_not_replaced(tokenizer: Any, tmp_path: Path) -> None:
    start = loaded(tokenizer)
    with pytest.raises(ModelError, match="base has a chat template of its own: leave out --template"):
        with_template(start, "chatml", adapter=False)
    path = tmp_path / "same.jinja"
    path.write_text(tokenizer.chat_template, encoding="utf-8")
    assert with_template(start, str(path), adapter=False) is start


def test_an_adapter_cannot_learn_new_tokens() -> None:
    tokenizer = base_tokenizer()
    with pytest.raises(LikelierError, match=r"<\|im_start\|>, <\|im_end\|>.*adapter trains no embeddings"):
        imitate(model_of(tokenizer), tokenizer, template="chatml", lora_rank=2)
