"""The command: ``python -m chexpert_hier.serve --model RUN [...]``."""

import argparse
import contextlib
import ipaddress
import logging
import re
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

from .. import commands
from ..errors import InputError, install
from ..finished.arguments import add_models
from ..predict.answers import NOT_A_DEVICE
from .batching import Limits

log = logging.getLogger("chexpert_hier.serve")

def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    args = commands.Parser(prog="python -m chexpert_hier.serve", description="The model over HTTP, and a page "
                                   "on which a person reads films. Films stay in memory and go nowhere.")
    add = args.add_argument
    add_models(args)
    add("--name", default="chest", help="the model's name in addresses: /v1/models/NAME:predict (default: chest)")
    add("--host", default="127.0.0.1", help="address to listen on; anything but this machine needs --token "
        "(default: 127.0.0.1)")
    add("--port", type=int, default=8080, help="port to listen on; 0 takes any free one (default: 8080)")
    add("--token", default="", metavar="TOKEN|@FILE", help="what clients must send as `Authorization: Bearer TOKEN`; "
        "@FILE reads it from a file, where other users of the machine cannot see it")
    add("--batch-size", type=int, default=Limits.batch, help="films through the network at once (default: %(default)s)")
    add("--most-megabytes", type=int, default=Limits.body // 2 ** 20, metavar="MB", help="largest size of a "
        "request (default: %(default)s)")
    args.add_quiet("only warnings")
    return args


def main(argv: list[str] | None = None) -> int:
    """Serve until told to stop; 0 after the requests in progress were answered."""
    args = parser().parse_args(argv)
    token = _token(args.token)
    _check(args, token)
    commands.hush(args)
    try:
        import fastapi  # noqa: F401
        import prometheus_client  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise InputError(f"serve needs {error.name}; {install('serve')}") from None
    with _listening(args.host, args.port) as ear:  # before the model is loaded: a taken port need not wait for that
        _serve(args, token, ear)
    return 0


def _check(args: argparse.Namespace, token: str) -> None:
    commands.at_least(1, args, "batch_size", "most_megabytes")
    if not 0 <= args.port <= 65535:
        raise InputError(f"--port is {args.port}; expected a port up to 65535")
    if not re.fullmatch(r"[\w.-]{1,64}", args.name):
        raise InputError(f"--name is {args.name!r}; expected letters, digits, dots, dashes")
    if not token and not _is_this_machine(args.host):
        raise InputError(f"--host {args.host}: other machines could reach the server; give it a --token, or leave "
                         "--host at 127.0.0.1")


def _token(given: str) -> str:
    if not given.startswith("@"):
        token = given
    else:
        try:
            token = Path(given[1:]).read_text(encoding="utf-8").strip()
        except (OSError, ValueError) as error:
            raise InputError(f"--token {given}: cannot be read ({error})") from None
    if given and not re.fullmatch(r"[!-~]{8,512}", token):
        raise InputError("--token: expected 8 to 512 letters, digits or signs without spaces")
    return token


def _is_this_machine(host: str) -> bool:
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


@contextlib.contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        ear = socket.create_server((host, port), family=family, backlog=512)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"--host {host} --port {port}: cannot listen there ({reason}); choose another") from None
    with ear:
        yield ear


def _serve(args: argparse.Namespace, token: str, ear: socket.socket) -> None:
    from .model import ServedModel
    from .running import quiet, run
    from .service import Service

    quiet()
    log.info("loading %d model%s", len(args.model), "s" * (len(args.model) > 1))
    model = ServedModel(args.model, args.engine)
    limits = Limits(batch=args.batch_size, body=args.most_megabytes * 2 ** 20,
                    bodies=max(Limits.bodies, args.most_megabytes * 2 ** 20))
    log.info("%s", NOT_A_DEVICE)
    where = f"[{args.host}]" if ":" in args.host else args.host
    run(Service(model, args.name, limits), token, ear,
        lambda: print(f"ready: http://{where}:{ear.getsockname()[1]}/", flush=True))
    log.info("stopped")


if __name__ == "__main__":
    sys.exit(commands.answer(main))
