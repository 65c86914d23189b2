"""What stands in front of every route: the bearer token, the limit on bodies, the log and the figures.

Plain ASGI, since Starlette's own base class reads whole bodies. The log holds no text, no query and no unknown path.
"""

from __future__ import annotations

import hmac
import json
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from entailor.serving.metrics import ServerMetrics

OPEN_ROUTES = ("/", "/docs", "/healthz", "/readyz", "/openapi.json")
"""Need no token: they show nothing of classifiers and texts."""

MOST_DIGITS = 20  # of a length


def error_response(status: int, kind: str, message: str, headers: dict[str, str] | None = None) -> JSONResponse:
    """Return the answer for anything that went wrong."""
    return JSONResponse({"error": {"type": kind, "message": message}}, status, headers)


class TokenCheck:
    """Lets requests pass that carry the bearer token.

    Args:
        app: what stands behind.
        token: what is expected.
    """

    def __init__(self, app: ASGIApp, token: str) -> None:
        self.app, self.expected = app, f"Bearer {token}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 401, or pass the request on."""
        if scope["type"] == "http" and scope["path"] not in OPEN_ROUTES:
            found = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
            if not hmac.compare_digest(found, self.expected):
                refusal = error_response(
                    401,
                    "unauthorized",
                    "the header Authorization: Bearer TOKEN was expected",
                    {"WWW-Authenticate": "Bearer"},
                )
                await refusal(scope, receive, send)
                return
        await self.app(scope, receive, send)


class BodyTooLargeError(Exception):
    """A body is larger than allowed."""


class BodyLimit:
    """Refuses bodies that are too large: by their header before a byte is read, else while they come.

    Args:
        app: what stands behind.
        limit: most bytes.
    """

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self.app, self.limit = app, limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 413, or pass the request on."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        length = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
        refusal = error_response(
            413, "too_large", f"a body of at most {self.limit:,} bytes was expected. Send fewer inputs at a time"
        )
        if not length.isdigit() or len(length) > MOST_DIGITS or int(length) > self.limit:
            await refusal(scope, receive, send)
            return
        seen = 0

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > self.limit:
                raise BodyTooLargeError
            return message

        async def noted(message: Message) -> None:
            if seen <= self.limit:  # else it is what the application makes of a body it could not read
                await send(message)

        with suppress(BodyTooLargeError):
            await self.app(scope, counted, noted)
        if seen > self.limit:
            await refusal(scope, receive, send)


class RequestLog:
    """Writes one line of JSON a request, and counts it.

    Args:
        app: what stands behind.
        write: takes a line.
        metrics: where it is counted.
    """

    def __init__(self, app: ASGIApp, write: Callable[[str], None], metrics: ServerMetrics) -> None:
        self.app, self.write, self.metrics = app, write, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and say what became of it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started, status = time.monotonic(), 500

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, noted)
        finally:
            seconds = time.monotonic() - started
            # a path that is no route, and a method nobody knows, are the client's own words
            route = getattr(scope.get("route"), "path", None) or (
                scope["path"] if scope["path"] in OPEN_ROUTES else "other"
            )
            method = scope["method"] if scope["method"] in ("GET", "POST", "DELETE", "HEAD", "OPTIONS") else "other"
            self.metrics.requests.labels(route, method, str(status)).inc()
            self.metrics.latency.labels(route).observe(seconds)
            facts = scope.get("state", {}).get("facts", {})
            self.write(log_line("request", route=route, method=method, status=status, ms=seconds * 1000, **facts))


def log_line(event: str, **facts: Any) -> str:
    """Return one line of the log."""
    rounded = {name: round(value, 3) if isinstance(value, float) else value for name, value in facts.items()}
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return json.dumps({"time": stamp, "event": event, **rounded})
