"""What stands before every route: the token, bounded bodies, errors as one line of JSON, headers, counters.

Nothing of a request reaches a log: neither addresses, names and headers, nor what a film's file says.
"""

import asyncio
import contextlib
import hmac
import logging
import time
import traceback
from collections.abc import AsyncIterator

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..errors import InputError
from .batching import BusyError
from .service import BadFilmsError, Service

log = logging.getLogger("chexpert_hier.serve")

OPEN = ("/", "/v2/health/live", "/v2/health/ready")  # without a token: the empty page, and what watches the process
HEADERS = {
    # Scripts, styles and connections from here alone: a film cannot leave, whatever the page is made to do.
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
                               "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "cache-control": "no-store",  # nor stays behind in the browser's cache
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "cross-origin-resource-policy": "same-origin",
}


class TooLargeError(Exception):
    """A request of more bytes than the server takes."""


class Guard:
    """The middleware: token, headers, counters, and a last resort for what nobody foresaw."""

    def __init__(self, app: ASGIApp, service: Service, token: str):
        self.app, self.service = app, service
        self._expected = f"Bearer {token}".encode() if token else b""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start, code = time.perf_counter(), 500

        async def sending(message: Message) -> None:
            nonlocal code
            if message["type"] == "http.response.start":
                code = message["status"]
                message["headers"] = [*message["headers"], *((name.encode(), value.encode())
                                                             for name, value in HEADERS.items())]
            await send(message)

        if self._allowed(scope):
            await self._within(scope, receive, sending)
        else:
            text = "a token is needed: send the header `Authorization: Bearer TOKEN`"
            await JSONResponse({"error": text}, 401, {"www-authenticate": "Bearer"})(scope, receive, sending)
        route = getattr(scope.get("route"), "path", "other")
        self.service.requests.labels(route, code).inc()
        self.service.seconds.labels(route).observe(time.perf_counter() - start)

    def _allowed(self, scope: Scope) -> bool:
        if not self._expected or scope["path"] in OPEN or scope["path"].startswith("/static/"):
            return True
        sent = dict(scope["headers"]).get(b"authorization", b"")
        return hmac.compare_digest(sent, self._expected)

    async def _within(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self.app(scope, receive, send)
        except ClientDisconnect:
            pass
        except Exception as error:  # its text may quote a request or a film; where it happened does not
            frames = traceback.extract_tb(error.__traceback__)
            where = ", ".join(f"{frame.name}:{frame.lineno}" for frame in frames[-4:])
            log.error("internal error: %s in %s", type(error).__name__, where)
            await JSONResponse({"error": "internal error; the server's log says where"}, 500)(scope, receive, send)


def on_errors(app: FastAPI) -> None:
    """Answer every error as both protocols do: {"error": "one line"}."""
    codes = {InputError: 400, BadFilmsError: 422, LookupError: 404, TooLargeError: 413, BusyError: 503,
             TimeoutError: 408}

    async def answer(request: Request, error: Exception) -> JSONResponse:
        code = next(code for kind, code in codes.items() if isinstance(error, kind))
        return JSONResponse({"error": str(error)}, code, {"retry-after": "2"} if code == 503 else None)

    async def of_framework(request: Request, error: Exception) -> JSONResponse:
        code = error.status_code if isinstance(error, HTTPException) else 400
        text = error.detail if isinstance(error, HTTPException) else "the address or its parameters are not known"
        return JSONResponse({"error": text}, code, getattr(error, "headers", None))

    for kind in codes:
        app.add_exception_handler(kind, answer)
    app.add_exception_handler(HTTPException, of_framework)
    app.add_exception_handler(RequestValidationError, of_framework)


@contextlib.asynccontextmanager
async def body_of(request: Request, service: Service) -> AsyncIterator[bytes]:
    """A request's body, held against the limits until the block ends.

    Raises:
        TooLargeError: it is larger than one request may be.
        BusyError: all requests together hold too much.
        TimeoutError: it did not arrive in time.
        InputError: it is compressed or empty.
    """
    limits, held = service.limits, 0
    if request.headers.get("content-encoding", "identity") != "identity":
        raise InputError("content-encoding: compressed bodies are not taken; films are compressed already")
    too_large = TooLargeError(f"the body is too large; expected at most {limits.body:,} bytes")
    declared = request.headers.get("content-length", "0")
    if declared.isdecimal() and int(declared) > limits.body:
        raise too_large
    try:
        parts = bytearray()
        try:
            async with asyncio.timeout(limits.read):
                async for part in request.stream():
                    held += len(part)
                    service.body_bytes += len(part)
                    service.bodies.set(service.body_bytes)
                    if held > limits.body:
                        raise too_large
                    if service.body_bytes > limits.bodies:
                        raise BusyError("too many large requests at once; try again in a few seconds")
                    parts += part
        except TimeoutError:
            raise TimeoutError(f"the body did not arrive within {limits.read:g} s") from None
        if not parts:
            raise InputError("the body is empty")
        yield bytes(parts)
    finally:
        service.body_bytes -= held
        service.bodies.set(service.body_bytes)
