"""`likelier score`: one line per row in order, rewards, and the cache that it shares with training."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import likelier
from likelier import cli
from likelier.errors import DataError, UsageError
from tests.training.conftest import own_cache
from tests.training.support import model_of, pairs, rankings, train, write_rows
from tests.training.test_reference import counted_passes
from tests.training.test_second_implementation import logp

__all__ = ["own_cache"]


def test_the_lines_are_the_rows_in_order(tokenizer: Any) -> None:
    rows = [*pairs(3), *rankings(1, answers=3), {"id": "sft", "prompt": "a cat", "completion": " sat"}]
    model = model_of(tokenizer)
    lines = likelier.score(model, rows, tokenizer=tokenizer, precision="float64")
    assert [line["id"] for line in lines] == [row["id"] for row in rows]
    assert [line["row"] for line in lines] == [1, 2, 3, 4, 5]
    for row, line in zip(rows, lines, strict=True):
        answers = row.get("completions") or [row[n] for n in ("chosen", "rejected", "completion") if n in row]
        assert set(line) == {"id", "row", "logps", "lengths"}
        expected = [float(logp(model, tokenizer, row["prompt"], answer).detach()) for answer in answers]
        assert line["logps"] == pytest.approx(expected, rel=1e-6)
        assert line["lengths"] == [len(tokenizer(answer).input_ids) + 1 for answer in answers]


def test_equal_answers_and_rows_of_one_prompt_keep_their_places(tokenizer: Any) -> None:
    row = pairs(1)[0]
    rows = [row, {**row, "id": "swapped", "chosen": row["rejected"], "rejected": row["chosen"]}, row]
    one, two, three = likelier.score(model_of(tokenizer), rows, tokenizer=tokenizer, precision="float64")
    assert one["logps"] == two["logps"][::-1] == three["logps"]
    assert one["logps"][0] != one["logps"][1]


def test_rewards_against_a_reference(tokenizer: Any) -> None:
    """math.md (8)."""
    model, other = model_of(tokenizer), model_of(tokenizer, seed=5)
    settings: dict[str, Any] = {"tokenizer": tokenizer, "precision": "float64"}
    alone = likelier.score(other, pairs(3), **settings)
    for line, theirs in zip(
        likelier.score(model, pairs(3), reference=other, beta=0.3, **settings), alone, strict=True
    ):
        assert line["reference_logps"] == theirs["logps"]
        expected = [0.3 * (o - r) for o, r in zip(line["logps"], theirs["logps"], strict=True)]
        assert line["rewards"] == pytest.approx(expected, rel=1e-12)


def test_score_agrees_with_the_first_step(tokenizer: Any) -> None:
    rows = pairs(4)
    lines = likelier.score(model_of(tokenizer), rows, tokenizer=tokenizer, precision="float64")
    first = train(model_of(tokenizer), rows, tokenizer, batch_size=64).metrics[0]
    assert first["logps/chosen"] == pytest.approx(sum(line["logps"][0] for line in lines) / 4, rel=1e-12)


def test_training_and_scoring_share_the_cache(tiny_llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = pairs(4)
    seen = counted_passes(monkeypatch)
    train(str(tiny_llama), rows, precision="float32")
    assert sum(seen) == 8
    lines = likelier.score(str(tiny_llama), rows, precision="float32")
    assert sum(seen) == 8
    assert likelier.score(str(tiny_llama), rows, precision="float32", reference=str(tiny_llama), beta=0.7)
    assert sum(seen) == 8
    longest = max(sum(line["lengths"]) for line in lines)
    likelier.score(str(tiny_llama), rows, precision="float32", max_length=longest, max_tokens=300)
    seen.clear()
    likelier.score(str(tiny_llama), rows, precision="float64")
    assert sum(seen) == 8


def test_a_dequantised_model_is_scored_as_the_run_that_starts_from_it(
    tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In bfloat16 its halfway weights settle in training: embeddings are read in float32, so scoring must follow."""
    rows = pairs(4)
    model = model_of(tokenizer, precision="bfloat16")
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(halfway(weight))
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    seen = counted_passes(monkeypatch)
    lines = likelier.score(model, rows, tokenizer=tokenizer, precision="bfloat16")
    assert sum(seen) == 8
    assert all(torch.equal(before[name], weight) for name, weight in model.state_dict().items())
    first = train(model, rows, tokenizer, batch_size=64, precision="bfloat16").metrics[0]
    assert sum(seen) == 8
    assert first["logps/chosen"] == pytest.approx(sum(line["logps"][0] for line in lines) / 4, rel=1e-9)


def halfway(weight: torch.Tensor) -> torch.Tensor:
    """A quarter of the numbers moved to the middle between two bfloat16 ones."""
    middle = ((weight.view(torch.int32) & ~0xFFFF) | 0x8000).view(torch.float32)
    return torch.where(torch.arange(weight.numel()).view_as(weight) % 4 == 0, middle, weight)


def test_another_length_never_hits_wrongly(tiny_llama: Path) -> None:
    """Cut answers and cut prompts give the numbers of a cold cache."""
    import os

    rows = pairs(4)
    likelier.score(str(tiny_llama), rows, precision="float32")
    warm = likelier.score(str(tiny_llama), rows, precision="float32", max_length=12, cut_answers=True)
    os.environ["LIKELIER_CACHE"] += "-cold"
    cold = likelier.score(str(tiny_llama), rows, precision="float32", max_length=12, cut_answers=True)
    assert warm == cold


def test_the_command(tmp_path: Path, tiny_llama: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_rows(tmp_path / "data.jsonl", pairs(3))
    words = ["score", "--model", str(tiny_llama), "--data", str(data), "--precision", "float32"]
    assert cli.main(words) == 0
    printed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert cli.main([*words, "--out", str(tmp_path / "s.jsonl"), "--json"]) == 0
    (summary,) = capsys.readouterr().out.splitlines()
    written = [json.loads(line) for line in (tmp_path / "s.jsonl").read_text().splitlines()]
    assert written == printed
    tokens = sum(sum(line["lengths"]) for line in written)
    nll = -sum(sum(line["logps"]) for line in written) / tokens
    assert json.loads(summary) == {"rows": 3, "scored_tokens": tokens, "nll_per_token": pytest.approx(nll)}
    manifest = json.loads((tmp_path / "s.manifest.json").read_text())
    assert manifest["inputs"][str(data)]["hash"].startswith("sha256:")


def test_an_output_that_cannot_be_is_refused_before_the_model_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from likelier.stages import score

    monkeypatch.setattr(score, "load_model", lambda *_, **__: pytest.fail("the model is read"))
    data = write_rows(tmp_path / "data.jsonl", pairs(2))
    whole = data.read_bytes()
    link = tmp_path / "link.jsonl"
    link.symlink_to(data)
    for out, said in (
        (data, "is the data itself; write to another file"),
        (link, "is the data itself"),
        (tmp_path, "is a folder; name a file in it"),
        (data / "under" / "it.jsonl", f"{data} is a file, not a folder"),
    ):
        assert cli.main(["score", "--data", str(data), "--out", str(out)]) == 2
        err = capsys.readouterr().err
        assert said in err
        assert err.count("\n") == 1
    assert data.read_bytes() == whole


@pytest.mark.skipif(sys.platform == "win32", reason="no such device there")
def test_a_device_is_written_to_and_stays_one(tmp_path: Path, tiny_llama: Path) -> None:
    data = write_rows(tmp_path / "data.jsonl", pairs(2))
    words = ["score", "--model", str(tiny_llama), "--data", str(data), "--precision", "float32"]
    assert cli.main([*words, "--out", os.devnull]) == 0
    assert not Path(os.devnull).is_file()
    assert not list(Path(os.devnull).parent.glob("*.manifest.json"))


def test_a_long_pass_says_how_far_it_is(
    tmp_path: Path, tiny_llama: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_rows(tmp_path / "data.jsonl", pairs(20))
    words = ["score", "--model", str(tiny_llama), "--data", str(data), "--precision", "float32"]
    assert cli.main(words) == 0
    assert f"{tiny_llama}: 20 of 20 prompts scored" in capsys.readouterr().err.splitlines()


def test_a_pass_that_fails_gives_the_model_back_too(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from likelier.scoring import whole

    model = model_of(tokenizer, "gpt2", attn_pdrop=0.5)
    before = {name: module.forward.__func__ for name, module in model.named_modules()}

    def broken(*_: Any, **__: Any) -> None:
        raise KeyError("mine")

    monkeypatch.setattr(whole, "reference_logps", broken)
    with pytest.raises(KeyError, match="mine"):
        likelier.score(model, pairs(1), tokenizer=tokenizer, precision="float64")
    assert {name: module.forward.__func__ for name, module in model.named_modules()} == before
    assert model.transformer.h[0].attn.attn_dropout.p == 0.5


def test_rows_in_memory_are_written_with_a_manifest(tmp_path: Path, tokenizer: Any) -> None:
    lines = likelier.score(
        model_of(tokenizer), pairs(40), tokenizer=tokenizer, precision="float64", out=tmp_path / "s.jsonl"
    )
    assert len((tmp_path / "s.jsonl").read_text().splitlines()) == len(lines) == 40
    manifest = json.loads((tmp_path / "s.manifest.json").read_text())
    assert manifest["config"]["data"] == ["<rows>"]
    assert len(json.dumps(manifest["config"])) < 2000


def test_several_files(tmp_path: Path, tiny_llama: Path) -> None:
    files = [write_rows(tmp_path / f"{n}.jsonl", pairs(2, seed=n)) for n in range(2)]
    lines = likelier.score(str(tiny_llama), [str(file) for file in files], precision="float32")
    assert [line["id"] for line in lines] == ["row 0.0", "row 0.1", "row 1.0", "row 1.1"]


def test_bad_rows_are_refused_or_left_out(tokenizer: Any) -> None:
    rows = [*pairs(2), {"prompt": "a", "chosen": None, "rejected": " b"}, *pairs(1, seed=2)]
    with pytest.raises(DataError, match="row 3"):
        likelier.score(model_of(tokenizer), rows, tokenizer=tokenizer, precision="float64")
    lines = likelier.score(
        model_of(tokenizer), rows, tokenizer=tokenizer, precision="float64", skip_bad_rows=True
    )
    assert [line["row"] for line in lines] == [1, 2, 4]


def test_an_unknown_setting(tokenizer: Any) -> None:
    with pytest.raises(UsageError, match="did you mean `reference`"):
        likelier.score(model_of(tokenizer), pairs(1), tokenizer=tokenizer, refrence="x")


def test_the_model_has_its_own_forwards_back(tokenizer: Any) -> None:
    model = model_of(tokenizer, "gpt2", attn_pdrop=0.5)
    before = {name: module.forward.__func__ for name, module in model.named_modules()}
    likelier.score(model, pairs(1), tokenizer=tokenizer, precision="float64")
    assert {name: module.forward.__func__ for name, module in model.named_modules()} == before
    assert model.transformer.h[0].attn.attn_dropout.p == 0.5
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.isfinite(model.transformer.wte.weight).all()
