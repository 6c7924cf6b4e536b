"""Who is let in: this machine alone, by a link that is good once, from the page's own origin.

Another site open in the same browser can reach a server on loopback. So every request must name this server as its
host (no DNS name can be pointed at it), whatever changes something must come from the page's own origin, and all but
the style sheet needs a cookie that only this server's link gives, and that no other site's request carries.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Callable
from ipaddress import ip_address

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import cookie_parser
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from likelier.errors import UsageError
from likelier.labelling.store import Store

SESSION_SECONDS = 14 * 24 * 3600.0
OPEN_PATHS = ("/static/", "/enter")
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types likelier"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Cache-Control": "no-store",
}

NO_LINK = "This page opens with the link that stands in the server's terminal."
USED_LINK = "This link has been used, or is of an earlier server. The terminal shows one that is good."


def require_loopback(host: str) -> str:
    """`host`, if it names this machine alone.

    Raises:
        UsageError: any other; the page has no place on a network.

    >>> require_loopback("127.0.0.1")
    '127.0.0.1'
    """
    if host != "localhost" and not _is_loopback(host):
        raise UsageError(
            f"--host {host}: the labelling page is for this machine alone (127.0.0.1 or ::1); from another, tunnel "
            "to it: ssh -L 8765:127.0.0.1:8765 THIS-MACHINE"
        )
    return host


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def own_hosts(port: int) -> frozenset[str]:
    """What a request may call this server by.

    >>> sorted(own_hosts(80))
    ['127.0.0.1:80', '[::1]:80', 'localhost:80']
    """
    return frozenset(f"{name}:{port}" for name in ("127.0.0.1", "localhost", "[::1]"))


class Sessions:
    """Links that are good once, and the browsers that came by one; kept as digests."""

    def __init__(self, store: Store, *, on_link: Callable[[str], None]) -> None:
        self._store = store
        self._sessions = store.sessions()
        self._on_link = on_link
        self._link = ""
        self.new_link()

    def new_link(self) -> None:
        """Makes the one link that is good now, and hands its token to `on_link`."""
        token = secrets.token_urlsafe(32)
        self._link = _digest(token)
        self._on_link(token)

    def redeem(self, token: str) -> str | None:
        """A cookie for the token of the link; the next browser needs the next link."""
        if not secrets.compare_digest(_digest(token), self._link):
            return None
        cookie = secrets.token_urlsafe(32)
        until = time.time() + SESSION_SECONDS
        self._sessions[_digest(cookie)] = until
        self._store.add_session(_digest(cookie), until)
        self.new_link()
        return cookie

    def knows(self, cookie: str) -> bool:
        """Whether the cookie is of a browser that came by a link."""
        given = _digest(cookie)
        found = [until for known, until in self._sessions.items() if secrets.compare_digest(known, given)]
        return any(until > time.time() for until in found)


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


class Guard:
    """Refuses what comes from elsewhere before any of it is read, and marks every response."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        port: int,
        sessions: Sessions,
        refuse: Callable[[Scope, int, str], ASGIApp],
    ) -> None:
        self._app = app
        self._hosts = own_hosts(port)
        self._cookie = cookie_name(port)
        self._sessions = sessions
        self._refuse = refuse

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""

        async def marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        if scope["type"] != "http":
            return
        headers = Headers(scope=scope)
        fault = self._foreign(scope, headers) or self._unknown(scope, headers)
        app = self._refuse(scope, *fault) if fault else self._app
        await app(scope, receive, marked)

    def _foreign(self, scope: Scope, headers: Headers) -> tuple[int, str] | None:
        hosts = headers.getlist("host")
        if len(hosts) != 1 or hosts[0].lower() not in self._hosts:
            return 421, "This server answers to 127.0.0.1 and localhost alone."
        changes = scope["method"] not in ("GET", "HEAD")
        site, mode = headers.get("sec-fetch-site", "same-origin"), headers.get("sec-fetch-mode", "")
        if changes and (headers.getlist("origin") != [f"http://{hosts[0]}"] or site != "same-origin"):
            return 403, "This request does not come from the labelling page."
        if site not in ("same-origin", "none") and mode != "navigate":
            return 403, "This request comes from another site."
        return None

    def _unknown(self, scope: Scope, headers: Headers) -> tuple[int, str] | None:
        if scope["path"].startswith(OPEN_PATHS):
            return None
        given = cookie_parser(headers.get("cookie", "")).get(self._cookie, "")
        return None if given and self._sessions.knows(given) else (401, NO_LINK)


def cookie_name(port: int) -> str:
    """Cookies are shared by all ports of a host: each server has its own.

    >>> cookie_name(8765)
    'likelier-8765'
    """
    return f"likelier-{port}"
