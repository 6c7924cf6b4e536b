"""The page against everything that is not the page: hosts, origins, tokens, sizes, paths, ids, forms; by real HTTP."""

from __future__ import annotations

import json
import re
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from likelier.labelling.requests import MAX_BODY
from likelier.labelling.safety import HEADERS, cookie_name
from likelier.labelling.server import bind
from tests.labelling.servers import Client, Server, raw, reply, write_samples

NEXT = {"annotator": "ann", "tab": "tab"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("labelling")
    with Server(
        write_samples(folder / "samples.jsonl", 50), folder / "out.jsonl", "--overlap", "2"
    ) as started:
        yield started


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[Client]:
    made = server.client()
    yield made
    made.close()


def test_what_the_page_may_do(client: Client) -> None:
    told = client.next("ann")
    assert told["annotator"] == "ann"
    assert [len(told["item"]["answers"]), told["progress"]["done"]] == [2, 0]
    assert client.get("/")[0] == client.get("/results")[0] == 200


def test_where_an_item_came_from_is_not_told(client: Client) -> None:
    told = json.dumps(client.next("ann"))
    for secret in ("secret-model", "row0", '"tokens"', "finish", "repeat"):
        assert secret not in told


@pytest.mark.parametrize("path", ["/", "/results", "/static/style.css", "/enter", "/nothing", "/api/next"])
def test_every_response_carries_the_headers(server: Server, path: str) -> None:
    headers = raw(server.port, "GET", path)[1]
    assert {name.lower(): value for name, value in HEADERS.items()}.items() <= headers.items()
    assert "server" not in headers


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:PORT",
        "127.0.0.1",
        "127.0.0.1:1",
        "localhost.evil.example:PORT",
        "",
        "0.0.0.0:PORT",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_another_host_is_refused(server: Server, client: Client, host: str, method: str) -> None:
    headers = client.headers | {"Host": host.replace("PORT", str(server.port))}
    path = "/" if method == "GET" else "/api/next"
    assert raw(server.port, method, path, headers=headers, body=json.dumps(NEXT))[0] == 421


def test_two_hosts_are_refused(server: Server, client: Client) -> None:
    with socket.create_connection(("127.0.0.1", server.port)) as connection:
        own = f"127.0.0.1:{server.port}"
        connection.sendall(f"GET / HTTP/1.1\r\nHost: {own}\r\nHost: {own}\r\n\r\n".encode())
        assert connection.recv(100).split()[1] in (b"400", b"421")


@pytest.mark.parametrize(
    "origin",
    ["https://evil.example", "null", "", None, "http://127.0.0.1", "http://127.0.0.1:1", "https://127.0.0.1:PORT",
     "http://localhost:PORT", "http://127.0.0.1:PORT.evil.example"],
)  # fmt: skip
@pytest.mark.parametrize(
    "path", ["/api/next", "/api/answer", "/api/undo", "/api/flag", "/api/leave", "/api/export"]
)
def test_a_foreign_origin_changes_nothing(
    server: Server, client: Client, origin: str | None, path: str
) -> None:
    given = None if origin is None else origin.replace("PORT", str(server.port))
    status, told = client.post(path, NEXT, Origin=given)
    assert (status, told["message"]) == (403, "This request does not come from the labelling page.")


def test_localhost_is_its_own_origin(server: Server, client: Client) -> None:
    own = f"localhost:{server.port}"
    assert client.post("/api/next", NEXT, Host=own, Origin=f"http://{own}")[0] == 200


@pytest.mark.parametrize("site", ["cross-site", "same-site", "none", "nonsense"])
def test_the_browser_says_who_asks(client: Client, site: str) -> None:
    assert client.post("/api/next", NEXT, Sec_Fetch_Site=site)[0] == 403


def test_another_site_may_not_read(server: Server, client: Client) -> None:
    headers = client.headers | {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}
    for path in ("/static/label.js", "/results"):
        assert raw(server.port, "GET", path, headers=headers)[0] == 403


@pytest.mark.parametrize(
    "cookie", ["", "x", "NAME=", "NAME=wrong", "NAME=\x7f", "likelier-1=RIGHT", "name=RIGHT"]
)
@pytest.mark.parametrize("path", ["/", "/results", "/api/next"])
def test_without_the_cookie_nothing_is_shown(server: Server, client: Client, cookie: str, path: str) -> None:
    right = client.headers["Cookie"].partition("=")[2]
    given = cookie.replace("NAME", cookie_name(server.port)).replace("RIGHT", right)
    headers = client.headers | {"Cookie": given}
    method = "POST" if path.startswith("/api") else "GET"
    status, _, body = raw(server.port, method, path, headers=headers, body=json.dumps(NEXT))
    assert status == 401
    assert b"Prompt" not in body


def test_a_link_is_good_once(server: Server) -> None:
    token = server.links[-1].partition("token=")[2]
    server.cookie()
    assert raw(server.port, "GET", f"/enter?token={token}")[0] == 401, "used"
    for wrong in ("", "x", token[:-1], "%00", "%ff"):
        status, headers, _ = raw(server.port, "GET", f"/enter?token={wrong}")
        assert (status, "set-cookie" in headers) == (401, False)


def test_a_used_link_still_leads_a_known_browser_on(server: Server, client: Client) -> None:
    used = server.links[0].partition("token=")[2]
    assert (
        raw(server.port, "GET", f"/enter?token={used}", headers={"Cookie": client.headers["Cookie"]})[0]
        == 200
    )


def test_the_cookie_is_for_this_server_alone(server: Server) -> None:
    token = server.links[-1].partition("token=")[2]
    _, headers, body = raw(server.port, "GET", f"/enter?token={token}")
    cookie = headers["set-cookie"]
    assert {"HttpOnly", "SameSite=strict", "Path=/"} <= set(cookie.split("; "))
    assert "Domain" not in cookie
    secret = re.findall(r"=([^;]+)", cookie)[0]
    assert secret != token
    assert token.encode() not in body


def test_tokens_stand_in_no_other_address_nor_line(server: Server, client: Client) -> None:
    """A link's token opens nothing but `/enter`, and what is printed holds no cookie."""
    token = server.links[-1].partition("token=")[2]
    assert raw(server.port, "GET", f"/?token={token}")[0] == 401
    headers = {"Cookie": f"{cookie_name(server.port)}={token}"}
    assert raw(server.port, "GET", "/", headers=headers)[0] == 401
    secret = client.headers["Cookie"].partition("=")[2]
    assert all(secret not in line for line in server.said)
    assert all("token=" not in line or line.split("token=")[0].endswith("/enter?") for line in server.said)


def test_a_body_that_is_too_long(server: Server, client: Client) -> None:
    headers = client.headers | {"Content-Length": str(MAX_BODY + 1)}
    assert raw(server.port, "POST", "/api/next", headers=headers, body=b"{}" * 5)[0] == 413
    assert cut_off(server, client, b"x" * (20 * MAX_BODY))


def cut_off(server: Server, client: Client, body: Any) -> bool:
    """Whether a body is refused as too long, or the server hangs up while more of it is sent."""
    try:
        return raw(server.port, "POST", "/api/next", headers=client.headers, body=body)[0] == 413
    except (BrokenPipeError, ConnectionResetError):
        return True


def test_a_body_without_a_length_that_never_ends(server: Server, client: Client) -> None:
    """In chunks: it is cut off at the limit, not read to its end."""
    sent = 0

    def chunks() -> Iterator[bytes]:
        nonlocal sent
        for _ in range(10_000):
            sent += 10_000
            yield b"x" * 10_000

    assert cut_off(server, client, chunks())
    assert sent < 100_000_000


@pytest.mark.parametrize("length", ["-1", "1e3", "abc", "９"])
def test_a_length_that_is_none(server: Server, length: str) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        head = f"POST /api/next HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nContent-Length: {length}\r\n\r\n"
        connection.sendall(head.encode())
        assert connection.recv(100).split()[1] in (b"400", b"401", b"403", b"413")


@pytest.mark.parametrize(
    "path",
    ["/static/../server.py", "/static/..%2fserver.py", "/static/%2e%2e/server.py", "/static//etc/passwd",
     "/static/....//server.py", "/static/style.css%00", "/static/style.css/", "/static/", "/static/STYLE.CSS",
     "/static/..\\server.py", "//evil.example/", "/../../etc/passwd", "/static/label.html"],
)  # fmt: skip
def test_paths_that_lead_elsewhere(server: Server, client: Client, path: str) -> None:
    status, _, body = raw(server.port, "GET", path, headers={"Cookie": client.headers["Cookie"]})
    assert status in (400, 404)
    assert b"root:" not in body
    assert b"import" not in body


@pytest.mark.parametrize(
    "body",
    [b"", b"null", b"[]", b"{", b'{"annotator": "ann"}', b'{"annotator": 1, "tab": "t"}', b"\xff\xfe",
     b'{"annotator": "ann", "tab": "t", "more": 1}', b'{"annotator": "ann", "tab": "../t"}',
     b'{"annotator": "\\ud800", "tab": "t"}', b'{"annotator": "ann", "tab": "t", "item": "%s"}' % (b"x" * 65),
     b"[" * 100_000, b'{"annotator": "", "tab": "t"}', b'{"annotator": "a\\u0000b", "tab": "t"}', b"NaN"],
)  # fmt: skip
def test_forms_that_are_none(client: Client, body: bytes) -> None:
    status, told = client.post("/api/next", body)
    assert status == 400
    assert "Traceback" not in told["message"]


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "", None, "multipart/form-data"]
)
def test_only_json_is_read(client: Client, kind: str | None) -> None:
    """Kinds that a form of another site may send without being asked first."""
    assert client.post("/api/next", NEXT, Content_Type=kind)[0] == 415


@pytest.mark.parametrize(
    "changes",
    [{"showing": "nothing"}, {"showing": "0" * 24}, {"annotator": "eve"}],
)
def test_ids_that_do_not_exist(client: Client, changes: dict[str, Any]) -> None:
    told = client.next("ann")
    status, answer = client.post("/api/answer", reply(told, "ann", key="k1") | changes)
    assert (status, answer["message"]) == (404, "There is no such item of yours.")
    flag = {"annotator": "ann", "key": "k2", "showing": "nothing", "reason": "x"} | changes
    assert client.post("/api/flag", flag)[0] == 404


def test_undo_and_items_that_do_not_exist(client: Client) -> None:
    for event in (0, 1, 10**9):
        assert client.post("/api/undo", NEXT | {"key": "k", "event": event})[0] == 404
    assert client.post("/api/undo", NEXT | {"key": "k", "event": -1})[0] == 400
    assert client.post("/api/next", NEXT | {"item": "0" * 32})[0] == 404


@pytest.mark.parametrize(
    "changes",
    [{"version": -1}, {"version": True}, {"version": "0"}, {"verdict": "best"}, {"ranking": [[0], [9]]},
     {"strength": 0}, {"ranking": [[0, 1]]}, {"ranking": [[0]]}, {"reason": "x" * 4001}, {"edit": "a\0b"},
     {"key": "a b"}, {"ranking": [[0.0], [1]]}],
)  # fmt: skip
def test_answers_that_are_none(client: Client, changes: dict[str, Any]) -> None:
    told = client.next("ann")
    assert client.post("/api/answer", reply(told, "ann", key="k3") | changes)[0] == 400
    assert client.next("ann")["item"] == told["item"]


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
def test_other_methods_do_nothing(server: Server, client: Client, method: str) -> None:
    for path in ("/", "/api/next"):
        assert raw(server.port, method, path, headers=client.headers)[0] == 405
        assert raw(server.port, method, path)[0] in (401, 403)


def test_two_tabs_that_answer_one_item(server: Server, client: Client) -> None:
    """The later one is told, and changes nothing."""
    told = client.next("race")
    other = server.client(client.headers["Cookie"].partition("=")[2])
    assert client.post("/api/answer", reply(told, "race", key="r1", first=0))[0] == 200
    status, answer = other.post("/api/answer", reply(told, "race", key="r2", tab="other", first=1))
    assert status == 409
    assert "another tab" in answer["message"]
    assert client.post("/api/answer", reply(told, "race", key="r1", first=0))[0] == 200, (
        "sent twice, it happened once"
    )
    other.close()


def test_many_tabs_that_answer_one_item_at_the_same_moment(server: Server, client: Client) -> None:
    """One is taken, whichever it is; all others are told; the store has one label."""
    cookie = client.headers["Cookie"].partition("=")[2]
    told = client.next("crowd")
    start = threading.Barrier(8)
    heard: list[int] = []

    def answer(number: int) -> None:
        tab = server.client(cookie)
        body = reply(told, "crowd", key=f"c{number}", tab=f"tab{number}", first=number % 2)
        start.wait()
        heard.append(tab.post("/api/answer", body)[0])
        tab.close()

    tabs = [threading.Thread(target=answer, args=(number,)) for number in range(8)]
    for tab in tabs:
        tab.start()
    for tab in tabs:
        tab.join()
    assert sorted(heard) == [200] + [409] * 7
    assert client.post("/api/export", {})[0] == 200
    rows = [
        row for row in server.rows(".events.jsonl") if row["annotator"] == "crowd" and row["kind"] == "answer"
    ]
    assert len(rows) == 1


def test_what_is_sent_goes_out_at_once() -> None:
    """asyncio turns Nagle's algorithm off only on sockets that name their protocol: else each response takes 40 ms."""
    with bind("127.0.0.1", 0) as listening:
        assert listening.proto == socket.IPPROTO_TCP


def test_nothing_went_wrong_meanwhile(server: Server) -> None:
    assert server.process.poll() is None
    assert [line for line in server.said if "fault" in line or "Traceback" in line] == []


def test_nonsense_on_the_wire_does_not_stop_it(server: Server, client: Client) -> None:
    long = f"GET / HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nX: {'a' * 100_000}\r\n\r\n".encode()
    for sent in (b"\0\xff\r\n\r\n", b"GET /\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"A" * 70_000, long):
        with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
            connection.sendall(sent)
    assert client.get("/")[0] == 200
