"""The process: Uvicorn with nothing of a request in its logs, and an end that answers what is in progress."""

import asyncio
import contextlib
import signal
import socket
from collections.abc import Callable, Iterator

import uvicorn

from ..films.quiet import quiet as quiet_films
from .app import make_app
from .service import Service

DRAIN = 30  # seconds that requests in progress get when the server is told to stop
CONNECTIONS = 1024  # more are answered with 503


def make_server(service: Service, token: str) -> uvicorn.Server:
    """Uvicorn for one service; `token` as in app.make_app."""
    return uvicorn.Server(uvicorn.Config(
        make_app(service, token), access_log=False, log_config=None, log_level="critical", server_header=False,
        timeout_graceful_shutdown=DRAIN, timeout_keep_alive=30, limit_concurrency=CONNECTIONS))


def run(service: Service, token: str, ear: socket.socket, ready: Callable[[], None]) -> None:
    """Serve until SIGTERM or Ctrl-C, then take nothing new, answer what is in progress, and return.

    Args:
        service: the model.
        token: as in app.make_app.
        ear: a socket that listens.
        ready: called when requests are answered.
    """
    server = make_server(service, token)
    server.capture_signals = lambda: _draining(server, service)  # its own ends the process by the signal afterwards

    async def serve() -> None:
        serving = asyncio.create_task(server.serve(sockets=[ear]))
        while not (server.started or serving.done()):
            await asyncio.sleep(0.01)
        if server.started:
            ready()
        await serving

    asyncio.run(serve())


@contextlib.contextmanager
def _draining(server: uvicorn.Server, service: Service) -> Iterator[None]:
    def stop(number: int, frame: object) -> None:
        service.draining = True
        server.handle_exit(number, frame)

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def quiet() -> None:
    """Silence what would print something of a request or of a film's file."""
    quiet_films("uvicorn", "uvicorn.access", "uvicorn.error", "asyncio")
