"""The client of OpenAI-compatible servers, against a real one on loopback that fails in every way it can."""

from __future__ import annotations

import json
import threading
import time
from email.utils import formatdate
from typing import Any

import pytest

from likelier.engines.protocol import Choice, Failure, Reply, Request, Unusable, read_reply
from likelier.engines.server import Server
from likelier.errors import UsageError
from tests.engines.stub_server import DROP, HALF, HANG, Behaviour, Status, StubServer, Text, answers

CHAT = [{"role": "user", "content": "Hi"}]


def connect(stub: StubServer, **settings: Any) -> Server:
    return Server(stub.url, "m", **{"backoff": 0.001, "timeout": 10.0} | settings)


def ask(server: Server, *requests: Request) -> list[Reply | Failure]:
    found = dict(server.map(requests))
    return [found[index] for index in range(len(requests))]


def one(behaviour: Behaviour, request: Request, **settings: Any) -> tuple[Any, Server, StubServer]:
    with StubServer(behaviour) as stub:
        server = connect(stub, **settings)
        (result,) = ask(server, request)
    return result, server, stub


def texts(result: Reply | Failure) -> list[str]:
    return [choice.text for choice in result.choices]


def echo(number: int, body: dict[str, Any]) -> Any:
    prompt = body["prompt"] if "prompt" in body else body["messages"][-1]["content"]
    return answers(body, *(f"{prompt}:{index}" for index in range(body.get("n", 1))))


def test_a_request_says_what_is_wanted() -> None:
    request = Request(
        prompt=CHAT,
        n=2,
        max_tokens=7,
        temperature=0.5,
        top_p=0.9,
        stop=("\n", "END"),
        seed=3,
        logprobs=True,
        extra={"top_k": 5},
    )
    result, _, stub = one(echo, request)
    assert texts(result) == ["Hi:0", "Hi:1"]
    assert stub.paths == ["/v1/chat/completions"]
    assert stub.bodies == [
        {
            "model": "m",
            "messages": CHAT,
            "n": 2,
            "max_tokens": 7,
            "temperature": 0.5,
            "top_p": 0.9,
            "stop": ["\n", "END"],
            "seed": 3,
            "logprobs": True,
            "return_token_ids": True,
            "top_k": 5,
        }
    ]
    assert (result.prompt_tokens, result.completion_tokens) == (5, 4)


def test_a_plain_prompt_goes_to_completions() -> None:
    result, _, stub = one(echo, Request(prompt="Once"))
    assert result.choices == [Choice(text="Once:0", finish="stop")]
    assert (stub.paths, stub.bodies) == (["/v1/completions"], [{"model": "m", "prompt": "Once"}])


def test_many_at_once_but_never_more_than_the_limit() -> None:
    barrier = threading.Barrier(3)  # passes only if three are under way together

    def behaviour(number: int, body: dict[str, Any]) -> Any:
        def together() -> Any:
            barrier.wait(timeout=20)
            return echo(number, body)

        return together

    with StubServer(behaviour) as stub:
        results = ask(connect(stub, concurrency=3), *(Request(prompt=f"p{i}") for i in range(12)))
        assert stub.most_at_once == 3
    assert [texts(result) for result in results] == [[f"p{i}:0"] for i in range(12)]


MISFORTUNES = {
    "HTTP 500": Status(500, {"error": {"message": "oh"}}),
    "HTTP 503": Status(503),
    "HTTP 429": Status(429, headers={"Retry-After": "0"}),
    "HTTP 408": Status(408),
    "HTTP 409": Status(409),
    "closed mid-answer": HALF,
    "not JSON": Text("<html>busy</html>"),
    "fields missing": {"choices": []},
}


@pytest.mark.parametrize("reason", MISFORTUNES)
def test_a_misfortune_costs_nothing_but_time(reason: str) -> None:
    def behaviour(number: int, body: dict[str, Any]) -> Any:
        return MISFORTUNES[reason] if number < 2 else echo(number, body)

    result, server, stub = one(behaviour, Request(prompt=CHAT))
    assert texts(result) == ["Hi:0"]
    assert server.troubles == {reason: 2}
    assert server.notes == [f"the server failed 2 times ({reason}: 2); each was tried again"]
    assert len(stub.bodies) == 3
    assert stub.bodies[0] == stub.bodies[2]


@pytest.mark.parametrize("reason", MISFORTUNES)
def test_what_lasts_is_given_up_and_counted(reason: str) -> None:
    result, server, stub = one(lambda number, body: MISFORTUNES[reason], Request(prompt=CHAT), retries=2)
    assert isinstance(result, Failure)
    assert (result.reason, result.attempts, result.choices) == (reason, 3, [])
    assert server.troubles == {reason: 3}
    assert len(stub.bodies) == 3


@pytest.mark.parametrize(
    "body",
    [
        "null",
        "[]",
        '"text"',
        "{}",
        '{"choices": null}',
        '{"choices": {"text": "a"}}',
        '{"choices": [null]}',
        '{"choices": [{"message": "Hi"}]}',
        '{"choices": [{"message": {"content": null}, "finish_reason": "stop"}]}',
        '{"choices": [{"message": {"content": 5}}]}',
        '{"choices": [{"message": {"content": "a"}, "finish_reason": 3}]}',
        '{"error": {"message": "out of memory"}}',
        '{"choices": [{"message": {"content": "a"',
        "",
        "data: {}\n\ndata: [DONE]\n",
    ],
)
def test_nonsense_is_no_answer(body: str) -> None:
    with pytest.raises(Unusable):
        read_reply(body, chat=True)
    result, _, _ = one(
        lambda number, asked: Text(body) if number == 0 else echo(number, asked), Request(prompt=CHAT)
    )
    assert texts(result) == ["Hi:0"]


@pytest.mark.parametrize("raw", [b"\xff\xfe\x00", b"\x00" * 10, b"<html>", b"[" * 200_000])
@pytest.mark.parametrize(
    "content_type", ["application/json", "text/html", "application/octet-stream", "nonsense"]
)
def test_bytes_of_any_kind_are_no_answer(raw: bytes, content_type: str) -> None:
    result, server, _ = one(
        lambda number, asked: Text(raw, content_type) if number == 0 else echo(number, asked),
        Request(prompt=CHAT),
    )
    assert texts(result) == ["Hi:0"]
    assert server.troubles.total() == 1


def test_a_server_that_hangs_is_not_waited_for() -> None:
    result, server, _ = one(
        lambda number, body: HANG if number == 0 else echo(number, body), Request(prompt=CHAT), timeout=0.3
    )
    assert texts(result) == ["Hi:0"]
    assert server.troubles == {"timeout": 1}


def test_a_dropped_connection_is_tried_again() -> None:
    result, server, _ = one(
        lambda number, body: DROP if number == 0 else echo(number, body), Request(prompt=CHAT)
    )
    assert texts(result) == ["Hi:0"]
    assert server.troubles == {"closed mid-answer": 1}


def test_no_server_at_all() -> None:
    with StubServer(echo) as stub:
        url = stub.url
    server = Server(url, "m", retries=1, backoff=0.001, concurrency=2)
    results = ask(server, *(Request(prompt=f"p{i}") for i in range(30)))
    reasons = [result.reason for result in results if isinstance(result, Failure)]
    assert len(reasons) == 30
    # After six failed requests in a row the rest is not asked; those under way come on top.
    assert 6 <= reasons.count("no connection") <= 8
    assert reasons.count("not asked") == 30 - reasons.count("no connection")


def test_some_failures_do_not_give_up_the_rest() -> None:
    def behaviour(number: int, body: dict[str, Any]) -> Any:
        return Status(500) if body["prompt"].startswith("bad") else echo(number, body)

    prompts = ["good" if i % 3 == 2 else f"bad{i}" for i in range(30)]
    with StubServer(behaviour) as stub:
        server = connect(stub, concurrency=1, retries=0)
        results = ask(server, *(Request(prompt=prompt) for prompt in prompts))
    assert [isinstance(result, Reply) for result in results] == [prompt == "good" for prompt in prompts]


@pytest.mark.parametrize("header", ["0.4", "date"])
def test_retry_after_is_honoured(header: str) -> None:
    times: list[float] = []

    def behaviour(number: int, body: dict[str, Any]) -> Any:
        times.append(time.time())
        asked = "0.4" if header == "0.4" else formatdate(times[0] + 2, usegmt=True)
        return Status(429, headers={"Retry-After": asked}) if number == 0 else echo(number, body)

    result, _, _ = one(behaviour, Request(prompt=CHAT))
    assert texts(result) == ["Hi:0"]
    assert times[1] - times[0] >= (0.4 if header == "0.4" else 0.9)  # a date has whole seconds


def test_the_rest_is_asked_for_where_answers_are_missing() -> None:
    """The second answer has no text; then the server dies once; then it takes `n` for 1."""

    def behaviour(number: int, body: dict[str, Any]) -> Any:
        if number == 0:
            reply = answers(body, "a", "b", "c", "d")
            reply["choices"][1]["message"] = {}
            del reply["choices"][3]
            return reply
        return Status(500) if number == 1 else answers(body, f"extra {body['seed']}")

    result, server, stub = one(behaviour, Request(prompt=CHAT, n=4, seed=10))
    assert texts(result) == ["a", "c", "extra 12", "extra 13"]
    assert [(body.get("n"), body["seed"]) for body in stub.bodies] == [(4, 10), (2, 12), (2, 12), (None, 13)]
    assert (result.prompt_tokens, result.completion_tokens) == (15, 12)
    assert "fewer answers than asked for 2 times" in server.notes[-1]


def test_more_answers_than_asked_for_are_cut() -> None:
    result, _, _ = one(lambda number, body: answers(body, "a", "b", "c"), Request(prompt=CHAT, n=2))
    assert texts(result) == ["a", "b"]


def test_what_was_had_before_giving_up_is_kept() -> None:
    def behaviour(number: int, body: dict[str, Any]) -> Any:
        return answers(body, "a", "b") if number == 0 else Status(500)

    result, _, stub = one(behaviour, Request(prompt=CHAT, n=4), retries=1)
    assert isinstance(result, Failure)
    assert texts(result) == ["a", "b"]
    assert len(stub.bodies) == 3


def test_a_server_without_log_probs_or_n_is_asked_more_plainly_and_it_is_said() -> None:
    def behaviour(number: int, body: dict[str, Any]) -> Any:
        if body.keys() & {"logprobs", "return_token_ids", "n"}:
            return Status(400, {"error": {"message": "unsupported"}})
        return echo(number, body)

    with StubServer(behaviour) as stub:
        server = connect(stub, concurrency=1)
        results = ask(server, *(Request(prompt=f"p{i}", n=2, logprobs=True) for i in range(3)))
        assert len(stub.bodies) == 3 + 1 + 4  # three forms once, and from then on the plainest
    assert [texts(result) for result in results] == [[f"p{i}:0"] * 2 for i in range(3)]
    assert server.notes == [
        "the server refuses several answers a request (and log-probs and token ids): asked without"
    ]


def test_a_refused_request_fails_alone_and_at_once() -> None:
    def behaviour(number: int, body: dict[str, Any]) -> Any:
        return (
            Status(400, {"error": {"message": "too long"}})
            if body["prompt"] == "long"
            else echo(number, body)
        )

    with StubServer(behaviour) as stub:
        server = connect(stub, concurrency=1)
        long, short = ask(
            server, Request(prompt="long", n=2, logprobs=True), Request(prompt="short", n=2, logprobs=True)
        )
    assert isinstance(long, Failure)
    assert long.reason == "HTTP 400"
    assert "too long" in long.detail
    assert texts(short) == ["short:0", "short:1"]
    assert stub.bodies[-1]["n"] == 2  # one refused prompt says nothing about what the server knows
    assert server.notes == []


@pytest.mark.parametrize(
    ("status", "remedy"),
    [(401, "--api-key-variable"), (403, "--api-key-variable"), (404, "--base-url"), (405, "--base-url")],
)
def test_what_no_retry_mends_stops_the_work(status: int, remedy: str) -> None:
    with StubServer(lambda number, body: Status(status, {"error": {"message": "no"}})) as stub:
        with pytest.raises(UsageError, match=remedy) as caught:
            ask(connect(stub), *(Request(prompt=f"p{i}") for i in range(100)))
        assert len(stub.bodies) <= 8
    assert stub.url in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_key_is_sent_and_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "sk-very-secret")
    said = {"error": {"message": "Incorrect API key provided: sk-very-secret."}}
    with StubServer(lambda number, body: Status(401, said)) as stub:
        server = connect(stub, api_key_variable="MY_KEY")
        with pytest.raises(UsageError) as caught:
            ask(server, Request(prompt="a"))
    assert stub.keys[0] == "Bearer sk-very-secret"
    assert "very-secret" not in str(caught.value)
    assert "MY_KEY" in str(caught.value)


def test_a_key_in_the_environment_goes_nowhere_unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
    _, _, stub = one(echo, Request(prompt="a"))
    assert stub.keys == ["Bearer none"]


@pytest.mark.parametrize(
    ("url", "variable", "expected"),
    [
        ("localhost:8000/v1", None, "no address"),
        ("ftp://host/v1", None, "no address"),
        ("http://", None, "no address"),
        ("http://user:secret@host/v1", None, "environment variable"),
        ("http://host/v1?key=secret", None, "environment variable"),
        ("http://host/v1", "LIKELIER_NO_SUCH_KEY", "LIKELIER_NO_SUCH_KEY"),
    ],
)
def test_addresses_and_keys_are_checked_at_once(url: str, variable: str | None, expected: str) -> None:
    with pytest.raises(UsageError, match=expected) as caught:
        Server(url, "m", api_key_variable=variable)
    assert "secret" not in str(caught.value)


def test_log_probs_and_token_ids_are_read_where_they_are_given() -> None:
    chat = {"logprobs": {"content": [{"token": "a", "logprob": -0.5}, {"token": "b", "logprob": -1}]}}
    result, _, _ = one(
        lambda number, body: answers(body, "ab", token_ids=[4, 7], **chat),
        Request(prompt=CHAT, logprobs=True),
    )
    assert result.choices == [Choice(text="ab", finish="stop", tokens=[4, 7], logprobs=[-0.5, -1.0])]
    plain = {"logprobs": {"token_logprobs": [-0.25, -2.0]}}
    result, _, _ = one(lambda number, body: answers(body, "ab", **plain), Request(prompt="x", logprobs=True))
    assert result.choices[0].logprobs == [-0.25, -2.0]


@pytest.mark.parametrize(
    "more",
    [
        {"logprobs": {"content": []}},
        {"logprobs": {"content": [{"logprob": None}]}},
        {"logprobs": {"content": [3, {"logprob": -1.0}]}},
        {"logprobs": "yes"},
        {"logprobs": {"content": [{"logprob": float("nan")}]}},
        {"token_ids": []},
        {"token_ids": [1.5]},
        {"token_ids": [True]},
        {"token_ids": "12"},
    ],
)
def test_broken_log_probs_are_none(more: dict[str, Any]) -> None:
    reply = read_reply(json.dumps(answers({"messages": []}, "a", **more)), chat=True)
    if more == {"logprobs": {"content": [3, {"logprob": -1.0}]}}:
        assert reply.choices[0].logprobs == [3.0, -1.0]  # a bare number is one
    else:
        assert (reply.choices[0].logprobs, reply.choices[0].tokens) == (None, None)


def test_who_stops_reading_leaves_nothing_running() -> None:
    with StubServer(lambda number, body: HANG if number else echo(number, body)) as stub:
        results = connect(stub, timeout=60.0).map(Request(prompt=f"p{i}") for i in range(5))
        assert isinstance(next(results)[1], Reply)
        results.close()  # type: ignore[attr-defined]
        assert not [thread for thread in threading.enumerate() if thread.name == "likelier-server"]


def test_requests_are_drawn_as_they_are_needed() -> None:
    drawn = []

    def requests() -> Any:
        for number in range(1000):
            drawn.append(number)
            yield Request(prompt=f"p{number}")

    with StubServer(lambda number, body: echo(number, body) if number < 3 else HANG) as stub:
        results = connect(stub, concurrency=2).map(requests())
        for _ in range(3):
            next(results)
        results.close()  # type: ignore[attr-defined]
    assert len(drawn) <= 5


def test_a_fault_of_ours_in_the_requests_is_no_silence() -> None:
    def requests() -> Any:
        yield Request(prompt="a")
        raise ZeroDivisionError

    with StubServer(echo) as stub, pytest.raises(ZeroDivisionError):
        list(connect(stub).map(requests()))


def test_no_requests() -> None:
    assert list(Server("http://127.0.0.1:9/v1", "m").map([])) == []
