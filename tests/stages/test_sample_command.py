"""`likelier sample`: what it reads, what it refuses, what it writes, and how it goes on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import likelier
from likelier.cli import main
from likelier.data.unfinished import partial_path
from likelier.engines import noise
from likelier.errors import DataError, UsageError
from likelier.stages import sample_engines

PROMPTS = [{"id": f"p{i}", "prompt": f"The cat number {i} sat"} for i in range(5)]


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in PROMPTS))
    return path


def words(model: Path, prompts: Path, *more: str) -> list[str]:
    out = prompts.with_name("samples.jsonl")
    fixed = ["--n", "2", "--max-new-tokens", "6", "--precision", "float32"]
    return ["sample", "--model", str(model), "--prompts", str(prompts), "--out", str(out), *fixed, *more]


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_command_writes_the_file_and_says_what_is_in_it(
    tiny_llama: Path, prompts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words(tiny_llama, prompts, "--json", "--stop", "e", "--stop", "zz")) == 0
    out = prompts.with_name("samples.jsonl")
    written = rows(out)
    assert [row["id"] for row in written] == [row["id"] for row in PROMPTS]
    settings = {
        "engine": "transformers",
        "n": 2,
        "temperature": 1.0,
        "top_p": 1.0,
        "top_k": 0,
        "min_p": 0.0,
        "max_new_tokens": 6,
        "stop": ["e", "zz"],
        "seed": 0,
    }
    for row in written:
        assert row["sampling"] == settings
        for answer in row["completions"]:
            assert "e" not in answer["text"]
    said = capsys.readouterr()
    summary = json.loads(said.out)
    assert (summary["prompts"], summary["answers"]) == (5, 10)
    assert summary["stopped"] + summary["cut"] == 10
    assert f"10 answers to 5 prompts in {out}" in said.err
    assert not partial_path(out).exists()
    assert [path.name for path in out.parent.iterdir() if path.name.startswith(".")] == []
    manifest = json.loads((out.parent / "samples.manifest.json").read_text())
    assert manifest["summary"] == summary


def test_python_gives_the_same_rows(tiny_llama: Path, prompts: Path) -> None:
    assert main(words(tiny_llama, prompts)) == 0
    settings = {"n": 2, "max_new_tokens": 6, "precision": "float32"}
    assert likelier.sample(tiny_llama, PROMPTS, **settings) == rows(prompts.with_name("samples.jsonl"))
    assert likelier.sample(tiny_llama, prompts, out=prompts.with_name("b.jsonl"), **settings) == rows(
        prompts.with_name("b.jsonl")
    )


def test_a_module_of_the_callers_is_not_changed(tiny_llama: Path) -> None:
    from likelier.models.loading import load_model

    loaded = load_model(tiny_llama)
    before = {name: (t.dtype, t.clone()) for name, t in loaded.model.state_dict().items()}
    wants_gradient = [parameter.requires_grad for parameter in loaded.model.parameters()]
    likelier.sample(loaded.model, PROMPTS[:1], tokenizer=loaded.tokenizer, n=1, precision="bfloat16")
    for name, tensor in loaded.model.state_dict().items():
        assert tensor.dtype == before[name][0]
        assert (tensor == before[name][1]).all()
    assert [parameter.requires_grad for parameter in loaded.model.parameters()] == wants_gradient


def test_what_is_there_is_not_lost(
    tiny_llama: Path, prompts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = prompts.with_name("samples.jsonl")
    out.write_text("mine\n")
    assert main(words(tiny_llama, prompts)) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert main(words(tiny_llama, prompts, "--resume")) == 2
    assert "was not made with these settings" in capsys.readouterr().err
    assert out.read_text() == "mine\n"
    assert main(words(tiny_llama, prompts, "--overwrite")) == 0
    first = out.read_bytes()
    assert main(words(tiny_llama, prompts, "--resume")) == 0
    assert "nothing to do" in capsys.readouterr().err
    assert main(words(tiny_llama, prompts, "--resume", "--temperature", "0.5")) == 2
    assert out.read_bytes() == first


@pytest.mark.parametrize("after", [0, 1, 3, 5])
def test_a_stopped_run_goes_on(
    after: int,
    tiny_llama: Path,
    prompts: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Interrupted after so many prompts; nothing is asked twice, and the file is that of a run never stopped."""
    whole = prompts.with_name("whole.jsonl")
    out = prompts.with_name("samples.jsonl")
    assert main([*words(tiny_llama, prompts), "--overwrite"]) == 0
    out.rename(whole)
    asked: list[str] = []
    original = sample_engines.sample_each

    def counted(model: Any, tokenizer: Any, asked_for: Any, **settings: Any) -> Any:
        for number, (index, result) in enumerate(original(model, tokenizer, asked_for, **settings)):
            if number == after and stopping:
                raise KeyboardInterrupt
            asked.append(result.id)
            yield index, result
        if stopping:
            raise KeyboardInterrupt

    stopping = True
    monkeypatch.setattr(sample_engines, "sample_each", counted)
    assert main(words(tiny_llama, prompts)) == 1
    said = capsys.readouterr().err
    assert f"{after} of 5 prompts are answered" in said
    assert "--resume" in said
    assert not out.exists()
    assert main(words(tiny_llama, prompts)) == 2  # neither --resume nor --overwrite
    assert "--resume" in capsys.readouterr().err
    stopping = False
    for other in (["--seed", "1"], ["--temperature", "0.9"], ["--stop", "x"], ["--n", "2", "--min-p", "0.1"]):
        changed = [word for word in words(tiny_llama, prompts) if word not in ("--n", "2")]
        assert main([*changed, *(["--n", "2"] if "--n" not in other else []), *other, "--resume"]) == 2
        assert "begun with other settings" in capsys.readouterr().err
    assert main(words(tiny_llama, prompts, "--resume")) == 0
    assert out.read_bytes() == whole.read_bytes()
    assert sorted(asked) == [row["id"] for row in PROMPTS]


def test_other_prompts_or_another_model_do_not_go_on(
    tiny_llama: Path, prompts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    def broken(*args: Any, **kwargs: Any) -> Any:
        raise KeyboardInterrupt
        yield

    with monkeypatch.context() as patch:
        patch.setattr(sample_engines, "sample_each", broken)
        assert main(words(tiny_llama, prompts)) == 1
    text = prompts.read_text()
    prompts.write_text(text.replace("number 3", "number 33"))
    assert main(words(tiny_llama, prompts, "--resume")) == 2
    assert "`prompts` was" in capsys.readouterr().err
    prompts.write_text(text)
    other = tmp_path / "other"
    other.mkdir()
    for path in tiny_llama.iterdir():
        (other / path.name).write_bytes(path.read_bytes())
    from safetensors.torch import load_file, save_file

    weights = load_file(other / "model.safetensors")
    name = sorted(weights)[0]
    save_file(weights | {name: weights[name] + 0.01}, other / "model.safetensors", metadata={"format": "pt"})
    assert main(words(other, prompts, "--resume")) == 2
    assert "`weights` was" in capsys.readouterr().err


def test_a_text_file_has_a_prompt_a_line(tiny_llama: Path, tmp_path: Path) -> None:
    path = tmp_path / "p.txt"
    path.write_bytes(b"\xef\xbb\xbfThe cat\r\n\n  A dog \n")
    written = likelier.sample(tiny_llama, path, n=1, max_new_tokens=2)
    assert [(row["id"], row["prompt"]) for row in written] == [("1", "The cat"), ("3", "  A dog ")]
    turned = likelier.sample(tiny_llama, path, n=1, max_new_tokens=2, as_="messages")
    assert turned[0]["prompt"] == [{"role": "user", "content": "The cat"}]
    path.write_bytes(b"ok\n\xff\n")
    with pytest.raises(DataError, match=r"p\.txt, line 2 is not UTF-8"):
        likelier.sample(tiny_llama, path)
    path.write_text("\n \n")
    with pytest.raises(DataError, match="holds no prompt"):
        likelier.sample(tiny_llama, path)


def test_preferences_give_each_prompt_once(tiny_llama: Path) -> None:
    pairs = [{"prompt": f"Q{i % 2}", "chosen": f"a{i}", "rejected": "b"} for i in range(4)]
    written = likelier.sample(tiny_llama, pairs, n=1, max_new_tokens=2)
    assert [(row["id"], row["prompt"]) for row in written] == [("1", "Q0"), ("2", "Q1")]
    hh = [{"chosen": "\n\nHuman: Hi\n\nAssistant: a", "rejected": "\n\nHuman: Hi\n\nAssistant: b"}] * 2
    written = likelier.sample(tiny_llama, hh, n=1, max_new_tokens=2, format="auto", skip_bad_rows=True)
    assert len(written) == 1
    named = [{"id": name, "prompt": "Q"} for name in "ab"]
    assert len(likelier.sample(tiny_llama, named, n=1, max_new_tokens=2)) == 2


def test_bad_rows_are_named(tiny_llama: Path, prompts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prompts.write_text('{"prompt": "A"}\n{"question": "B"}\n{"prompt": "C"}\n')
    assert main(words(tiny_llama, prompts)) == 2
    assert "prompts.jsonl, row 2" in capsys.readouterr().err
    assert main(words(tiny_llama, prompts, "--skip-bad-rows")) == 0
    assert "row 2" in capsys.readouterr().err
    assert [row["id"] for row in rows(prompts.with_name("samples.jsonl"))] == ["1", "3"]
    with pytest.raises(DataError, match="row 2: the id 'x' is that of <rows>, row 1 too"):
        likelier.sample(tiny_llama, [{"id": "x", "prompt": "A"}, {"id": "x", "prompt": "B"}])


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"base_url": "http://h/v1"}, "--base-url is for --engine openai"),
        ({"concurrency": 3}, "--concurrency is for --engine openai"),
        ({"engine": "openai"}, "--base-url"),
        ({"engine": "openai", "base_url": "http://h/v1", "precision": "float32"}, "--precision is for"),
        ({"resume": True, "overwrite": True}, "--resume"),
        ({"stop": [""]}, "--stop"),
        ({"n": 0}, "--n"),
        ({"min_p": 2}, "--min-p"),
        ({"out": "."}, "is a folder"),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, Any], expected: str) -> None:
    with pytest.raises(UsageError, match=expected):
        likelier.sample("nowhere", [{"prompt": "A"}], **settings)


def test_repeated_answers_are_counted(
    tiny_llama: Path, prompts: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words(tiny_llama, prompts, "--temperature", "0", "--json")) == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["exact_duplicates"] == 5
    assert "5 answers repeat another of their prompt word for word and 0 nearly, at 5 prompts" in said.err
    manifest = json.loads(prompts.with_name("samples.manifest.json").read_text())
    assert manifest["duplicates"] == {f"p{i}": {"exact": 1, "near": 0} for i in range(5)}


def test_seeds_of_a_server_stay_in_everybodys_range() -> None:
    assert noise.draw_key(2**70, "a", 0, 0) % 2**30 + 2**20 < 2**31
