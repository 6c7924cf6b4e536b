"""`likelier sample --engine openai`: against a server that fails on purpose, and against `transformers serve`."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import likelier
from likelier.cli import main
from likelier.data.unfinished import partial_path
from likelier.errors import WorkError
from tests.engines.served import served
from tests.engines.stub_server import DROP, HALF, HANG, Status, StubServer, Text, answers

PROMPTS = [{"id": f"p{i}", "prompt": f"Question {i}"} for i in range(12)]
SETTINGS: dict[str, Any] = {"engine": "openai", "n": 2, "max_new_tokens": 8}


def echo(body: dict[str, Any]) -> dict[str, Any]:
    """Texts that follow from prompt and seed alone, as of a server that keeps to seeds."""
    prompt = body.get("prompt") or body["messages"][-1]["content"]
    return answers(body, *(f"{prompt} with {body['seed'] + index}" for index in range(body.get("n", 1))))


def words(stub: StubServer, out: Path, *more: str) -> list[str]:
    prompts = out.with_name("prompts.jsonl")
    prompts.write_text("".join(json.dumps(row) + "\n" for row in PROMPTS))
    fixed = ["--model", "m", "--prompts", str(prompts), "--out", str(out), "--n", "2", "--engine", "openai"]
    return ["sample", *fixed, "--base-url", stub.url, *more]


def test_rows_hold_what_the_server_gave(tmp_path: Path) -> None:
    def behaviour(number: int, body: dict[str, Any]) -> Any:
        reply = answers(body, "yes", finish="length", token_ids=[3, 4])
        reply["choices"][0]["logprobs"] = {"token_logprobs": [-0.5, -0.25]}
        return reply

    with StubServer(behaviour) as stub:
        plain, cut, warm = (
            likelier.sample("m", PROMPTS[:1], base_url=stub.url, **SETTINGS | {"n": 1} | more)[0]
            for more in ({}, {"stop": ["x"]}, {"temperature": 0.5, "top_k": 3, "min_p": 0.1, "top_p": 0.9})
        )
    assert plain["completions"] == [{"text": "yes", "tokens": [3, 4], "logp": -0.75, "finish": "length"}]
    assert plain["model"] == "m"
    assert plain["sampling"]["engine"] == "openai"
    assert cut["completions"] == plain["completions"]  # cut by length: the text is whole
    assert warm["completions"][0]["logp"] is None  # a server's log-probs are the model's, not this sampler's
    assert [body["max_tokens"] for body in stub.bodies] == [8, 8, 8]
    assert "top_k" not in stub.bodies[0]
    assert (stub.bodies[2]["top_k"], stub.bodies[2]["min_p"], stub.bodies[2]["top_p"]) == (3, 0.1, 0.9)


def test_tokens_beside_a_stop_string_are_not_handed_on() -> None:
    with StubServer(lambda number, body: answers(body, "yes", token_ids=[3, 4])) as stub:
        (row,) = likelier.sample("m", PROMPTS[:1], base_url=stub.url, **SETTINGS | {"n": 1, "stop": ["x"]})
    assert row["completions"] == [{"text": "yes", "tokens": None, "logp": None, "finish": "stop"}]


def test_seeds_differ_by_prompt_and_follow_the_seed() -> None:
    def seeds(**more: Any) -> list[int]:
        with StubServer(lambda number, body: echo(body)) as stub:
            likelier.sample("m", PROMPTS, base_url=stub.url, concurrency=1, **SETTINGS | more)
        return [body["seed"] for body in stub.bodies]

    assert len(set(seeds())) == 12
    assert seeds() == seeds()
    assert not set(seeds()) & set(seeds(seed=1))


def test_a_hostile_server_costs_nothing_but_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every kind of misfortune, then an answer: the file is that of a server without any."""
    with StubServer(lambda number, body: echo(body)) as stub:
        assert main(words(stub, tmp_path / "calm.jsonl")) == 0
    evils = [Status(500), HALF, Text("<html>"), DROP, {"choices": []}, Status(503), HANG]
    evils += [Status(429, headers={"Retry-After": "0.1"}), Text('{"choices": [{"text": 3}]}')]
    seen: Counter[str] = Counter()

    def behaviour(number: int, body: dict[str, Any]) -> Any:
        seen[body["prompt"]] += 1
        if seen[body["prompt"]] <= 2:
            return evils[number % len(evils)]
        return answers(body, f"{body['prompt']} with {body['seed']}")  # one of the two: the rest is asked for

    capsys.readouterr()
    with StubServer(behaviour) as stub:
        assert main(words(stub, tmp_path / "evil.jsonl", "--timeout", "1.5", "--json")) == 0
    said = capsys.readouterr()
    assert (tmp_path / "evil.jsonl").read_bytes() == (tmp_path / "calm.jsonl").read_bytes()
    assert "the server failed 24 times" in said.err
    assert "fewer answers than asked" in said.err
    assert json.loads(said.out)["failed"] == {}


def test_what_a_server_does_not_answer_is_kept_apart(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two prompts fail for good: no file, nothing lost; then the server is well, and only those are asked."""
    sick = {"Question 3", "Question 7"}

    def behaviour(number: int, body: dict[str, Any]) -> Any:
        return Status(500) if body["prompt"] in sick else echo(body)

    out = tmp_path / "samples.jsonl"
    with StubServer(behaviour) as stub:
        assert main(words(stub, out, "--retries", "1")) == 1
        said = capsys.readouterr().err
        assert "2 of 12 prompts are unanswered (HTTP 500: 2" in said
        assert "--resume" in said
        assert "--skip-failed" in said
        assert not out.exists()
        asked = len(stub.bodies)
        assert main(words(stub, out, "--retries", "0", "--resume", "--skip-failed")) == 0
        assert len(stub.bodies) == asked + 2
        rows = [json.loads(line) for line in out.read_text().splitlines()]
        assert [row["prompt"] for row in rows] == [f"Question {i}" for i in range(12) if i not in (3, 7)]
        manifest = json.loads((tmp_path / "samples.manifest.json").read_text())
        assert sorted(manifest["failed"]) == ["p3", "p7"]
        out.unlink()
        assert main(words(stub, out, "--retries", "0")) == 1
        asked = len(stub.bodies)
        sick.clear()
        assert main(words(stub, out, "--resume")) == 0
        assert len(stub.bodies) == asked + 2
        assert len(out.read_text().splitlines()) == 12
    assert not partial_path(out).exists()


def test_an_answer_that_ended_otherwise_is_none() -> None:
    with StubServer(lambda number, body: answers(body, "half", "half", finish="content_filter")) as stub:
        with pytest.raises(WorkError, match="finish content_filter: 12"):
            likelier.sample("m", PROMPTS, base_url=stub.url, **SETTINGS)
        assert len(stub.bodies) == 12


def test_no_key_is_written_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MY_KEY", "sk-very-secret")
    out = tmp_path / "samples.jsonl"
    with StubServer(lambda number, body: echo(body) if number % 2 else Status(500, "sk-very-secret")) as stub:
        assert main(words(stub, out, "--api-key-variable", "MY_KEY", "--concurrency", "1")) == 0
        assert set(stub.keys) == {"Bearer sk-very-secret"}
        assert main(words(stub, tmp_path / "b.jsonl", "--retries", "0", "--api-key-variable", "MY_KEY")) == 1
    for path in tmp_path.iterdir():
        assert b"very-secret" not in path.read_bytes()
    said = capsys.readouterr()
    assert "very-secret" not in said.err + said.out


@pytest.fixture(scope="module")
def real_server(smollm2: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """SmolLM2 behind `transformers serve`; without `do_sample` in its folder that server is greedy."""
    folder = tmp_path_factory.mktemp("served") / "smollm2"
    smollm2.model.save_pretrained(folder)
    smollm2.tokenizer.save_pretrained(folder)
    path = folder / "generation_config.json"
    settings = json.loads(path.read_text()) | {"do_sample": True, "top_k": 0}
    path.write_text(json.dumps(settings))
    with served(folder, folder.with_name("server.log")) as url:
        yield url, str(folder)


def test_a_real_server_of_a_real_model(real_server: tuple[str, str], tmp_path: Path, capsys: Any) -> None:
    url, model = real_server
    prompts = tmp_path / "prompts.jsonl"
    chat = [{"role": "user", "content": "What is the capital of France? One word."}]
    lines = [{"id": "chat", "prompt": chat}, {"id": "raw", "prompt": "The capital of France is"}]
    prompts.write_text("".join(json.dumps(line) + "\n" for line in lines))
    out = tmp_path / "samples.jsonl"
    command = ["sample", "--engine", "openai", "--base-url", url, "--model", model, "--prompts", str(prompts)]
    command += ["--n", "3", "--max-new-tokens", "6", "--out", str(out), "--timeout", "120"]
    assert main([*command, "--concurrency", "2", "--json"]) == 0
    said = capsys.readouterr()
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["id"] for row in rows] == ["chat", "raw"]
    for row in rows:
        assert len(row["completions"]) == 3
        assert row["model"] == model
        for answer in row["completions"]:
            assert answer["finish"] in ("stop", "length")
            assert answer["text"]
            assert answer["tokens"] is None
            assert answer["logp"] is None
        # Follow-up requests have seeds of their own, so that answers differ.
        assert len({answer["text"] for answer in row["completions"]}) > 1
    summary = json.loads(said.out)
    assert summary["answers"] == 6
    assert summary["prompt_tokens"] > 0
    assert "fewer answers than asked" in said.err  # this server ignores `n`


def test_a_real_server_refuses_what_it_does_not_know(real_server: tuple[str, str]) -> None:
    url, model = real_server
    with pytest.raises(WorkError, match=r"HTTP 422.*top_k"):
        likelier.sample(model, PROMPTS[:1], base_url=url, **SETTINGS, top_k=5)
    with pytest.raises(WorkError, match=r"HTTP 400.*pinned"):
        likelier.sample("another", PROMPTS[:1], base_url=url, **SETTINGS)
