"""The labelling page over HTTP: a few routes around a desk, on loopback.

Endpoints only translate: `requests.py` says what may be sent, `desk.py` what happens, `view.py` what is shown.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

import uvicorn
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, Router
from starlette.types import ASGIApp, Receive, Scope, Send

from likelier.errors import UsageError, WorkError
from likelier.labelling.desk import Desk
from likelier.labelling.export import Exported
from likelier.labelling.pages import entered_page, label_page, message_page, results_page
from likelier.labelling.requests import (
    AnswerBody,
    EmptyBody,
    FlagBody,
    LeaveBody,
    NextBody,
    UndoBody,
    body_of,
)
from likelier.labelling.safety import SESSION_SECONDS, USED_LINK, Guard, Sessions, cookie_name
from likelier.labelling.turns import Given, RefusalError
from likelier.labelling.view import turn_view

STATIC = {
    "style.css": "text/css",
    "label.js": "text/javascript",
    "item.js": "text/javascript",
    "keys.js": "text/javascript",
    "words.js": "text/javascript",
    "server.js": "text/javascript",
    "results.js": "text/javascript",
    "icon.svg": "image/svg+xml",
}
"""Everything that is served as it lies; nothing else of the disk can be asked for."""

UNREAD = (401, 403, 413, 415, 421)
"""What is said before a body is read to its end: the connection ends there, so that no more is sent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """What the pages need beside the desk."""

    guidelines: str
    """Markdown."""
    exported: Callable[[], Exported]
    """What would be written now."""
    write: Callable[[], str]
    """Writes the files; gives a line that says what."""
    say: Callable[[str], None]
    """Prints a line for whoever runs the server."""


def bind(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes any that is free.

    Raises:
        UsageError: the port is taken, or is not ours to take.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With its protocol named: asyncio sends at once only on sockets that say TCP, and else each response takes 40 ms.
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        if os.name == "posix":  # elsewhere it would let two servers share a port
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen(128)
    except (OSError, OverflowError) as error:
        listening.close()
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"--port {port} cannot be used ({reason}); name another, or 0 for any") from None
    return listening


def build_app(desk: Desk, page: Page, *, sessions: Sessions, port: int) -> ASGIApp:
    """The application behind its guard."""
    handlers = _Handlers(desk, page, sessions, port)
    routes = [
        Route("/", handlers.label, methods=["GET"]),
        Route("/enter", handlers.enter, methods=["GET"]),
        Route("/results", handlers.results, methods=["GET"]),
        Route("/static/{name}", handlers.static, methods=["GET"]),
        Route("/api/next", handlers.next, methods=["POST"]),
        Route("/api/answer", handlers.answer, methods=["POST"]),
        Route("/api/undo", handlers.undo, methods=["POST"]),
        Route("/api/flag", handlers.flag, methods=["POST"]),
        Route("/api/leave", handlers.leave, methods=["POST"]),
        Route("/api/export", handlers.export, methods=["POST"]),
    ]
    app = Router(routes, redirect_slashes=False)
    return Guard(_Faults(app, page.say), port=port, sessions=sessions, refuse=_refusal)


def serve(app: ASGIApp, listening: socket.socket) -> None:
    """Answers until Ctrl-C or SIGTERM; requests under way are finished."""
    config = uvicorn.Config(
        app,
        http="h11",
        ws="none",
        loop="asyncio",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=5,
    )
    _Server(config).run(sockets=[listening])


class _Server(uvicorn.Server):
    """Stops on a signal and returns: uvicorn would raise it once more, before the files are written."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        before = {
            number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)
        }
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


class _Handlers:
    def __init__(self, desk: Desk, page: Page, sessions: Sessions, port: int) -> None:
        self._desk = desk
        self._page = page
        self._sessions = sessions
        self._cookie = cookie_name(port)

    async def enter(self, request: Request) -> Response:
        """The link's token for a cookie; the address with the token does not stay in the history."""
        cookie = await run_in_threadpool(self._sessions.redeem, request.query_params.get("token", ""))
        if cookie is None:
            given = request.cookies.get(self._cookie, "")
            if self._sessions.knows(given):
                return entered_page()
            return message_page(USED_LINK, status=401)
        response = entered_page()
        response.set_cookie(
            self._cookie, cookie, max_age=int(SESSION_SECONDS), path="/", httponly=True, samesite="strict"
        )
        return response

    async def label(self, request: Request) -> Response:
        return label_page(self._desk.plan, guidelines=self._page.guidelines)

    async def results(self, request: Request) -> Response:
        return await run_in_threadpool(self._results)

    def _results(self) -> Response:
        with self._desk.lock:
            return results_page(self._desk.state, self._page.exported())

    async def static(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name not in STATIC:
            raise RefusalError(404, "There is no such page.")
        return Response(_static(name), media_type=STATIC[name])

    async def next(self, request: Request) -> Response:
        body = await body_of(request, NextBody)
        name = self._desk.name(body.annotator)
        if body.item is not None:
            return await self._turn(self._desk.adjudicate, name, body.tab, body.item)
        return await self._turn(self._desk.next, name, body.tab)

    async def answer(self, request: Request) -> Response:
        body = await body_of(request, AnswerBody)
        given = Given(**body.model_dump(exclude={"annotator", "tab", "key"}))
        name = self._desk.name(body.annotator)
        return await self._turn(self._desk.answer, name, body.tab, body.key, given)

    async def undo(self, request: Request) -> Response:
        body = await body_of(request, UndoBody)
        name = self._desk.name(body.annotator)
        return await self._turn(self._desk.undo, name, body.tab, body.key, body.event)

    async def flag(self, request: Request) -> Response:
        body = await body_of(request, FlagBody)
        name = self._desk.name(body.annotator)
        await run_in_threadpool(self._desk.flag, name, body.key, body.showing, body.reason)
        return JSONResponse({"message": "Flagged."})

    async def leave(self, request: Request) -> Response:
        body = await body_of(request, LeaveBody)
        self._desk.leave(body.tab, body.showing)
        return JSONResponse({"message": "Left."})

    async def export(self, request: Request) -> Response:
        await body_of(request, EmptyBody)
        return JSONResponse({"message": await run_in_threadpool(self._page.write)})

    async def _turn(self, ask: Callable[..., Any], name: str, *more: Any) -> Response:
        def told() -> dict[str, Any]:
            turn = ask(name, *more)
            with self._desk.lock:
                return {"annotator": name, **turn_view(turn, self._desk.state)}

        return JSONResponse(await run_in_threadpool(told))


@cache
def _static(name: str) -> bytes:
    return resources.files("likelier.labelling").joinpath("static", name).read_bytes()


def _refusal(scope: Scope, status: int, message: str) -> Response:
    if scope["path"].startswith("/api/"):
        response: Response = JSONResponse({"message": message}, status)
    else:
        response = message_page(message, status=status)
    if status in UNREAD:
        response.headers["Connection"] = "close"
    return response


class _Faults:
    """Turns what goes wrong into an answer for the page and, where it is ours, a line in the terminal."""

    def __init__(self, app: ASGIApp, say: Callable[[str], None]) -> None:
        self._app = app
        self._say = say

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._app(scope, receive, send)
        except ClientDisconnect:
            return
        except RefusalError as error:
            answer = _refusal(scope, error.status, error.message)
            await answer(scope, receive, send)
        except WorkError as error:
            self._say(str(error))
            await _refusal(scope, 503, f"Not saved: {error}. Your answer is sent again.")(
                scope, receive, send
            )
        except Exception as error:  # a bug: the page is told, the others go on
            self._say(f"fault in {scope['path']}: {type(error).__name__}: {error}")
            await _refusal(scope, 500, "Something is wrong on the server; its terminal says what.")(
                scope, receive, send
            )
