"""One command at a time in a folder of an object store, which has no locks: a lease that must be renewed.

A lease is an object `.lease-<number>` that only one command can create (a conditional write) and that its holder
rewrites every `EVERY` seconds. Who finds one watches it for `PATIENCE` seconds, by its own clock: one that changes is
held, and the command is refused; one that does not is a dead command's, and is passed over by creating the next
number. A holder that sees a newer number, or its own gone, ends. What remains: a command that is stopped for longer
than `PATIENCE` (a suspended machine) and goes on may write for up to `EVERY` seconds beside the one that took over.
"""

import _thread
import contextlib
import json
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator

from ..errors import InputError
from .places import Place

log = logging.getLogger("chexpert_hier.archive")
EVERY, PATIENCE = 15.0, 60.0  # seconds; three renewals may fail before a lease is taken for dead
LOOK = 1.0  # seconds between two looks at another's
PREFIX = ".lease-"


@contextlib.contextmanager
def held(out: Place, every: float = EVERY, patience: float = PATIENCE) -> Iterator[None]:
    """Hold a folder of an object store.

    Args:
        out: the folder.
        every: seconds between two renewals.
        patience: seconds without one after which another's lease is taken for dead.

    Raises:
        InputError: another command holds it, or the store refuses conditional writes.
    """
    lease = _taken(out, patience)
    over = threading.Event()
    renewing = threading.Thread(target=_renew, args=(out, lease, every, over), daemon=True)
    renewing.start()
    try:
        yield
    finally:
        over.set()
        renewing.join()
        lease.remove()


def _taken(out: Place, patience: float) -> Place:
    """This command's own lease."""
    others = _leases(out)
    if others:
        log.info("%s: held by another command; waiting up to %.0f s to see whether it is alive", out, patience)
        _require_dead(out, others[-1], patience)
    number = int(others[-1].name.removeprefix(PREFIX)) + 1 if others else 1
    lease = out / f"{PREFIX}{number:06d}"
    try:
        lease.create(_content(0))
    except FileExistsError:
        raise _refusal(out) from None
    except (TypeError, NotImplementedError) as error:
        raise InputError(f"{out}: this store has no conditional writes ({error}), so that nothing would keep two "
                         "commands apart; choose an --out on a disk or in another store") from None
    for other in others:  # all dead by now
        other.remove()
    return lease


def _require_dead(out: Place, lease: Place, patience: float) -> None:
    """Watch a lease: nothing where it goes or does not change.

    Raises:
        InputError: its holder lives.
    """
    first, start = _read(lease), time.monotonic()
    while first is not None and time.monotonic() - start < patience:
        time.sleep(min(LOOK, patience / 10))
        now = _read(lease)
        if now is None:
            return
        if now != first or _leases(out)[-1:] != [lease]:
            raise _refusal(out)


def _renew(out: Place, lease: Place, every: float, over: threading.Event) -> None:
    """Rewrite the lease until it is over; end this command where another one has taken the folder."""
    count = 0
    while not over.wait(every):
        try:
            if _leases(out)[-1:] != [lease]:
                log.error("%s: another command has taken this folder over; this one ends", out)
                _thread.interrupt_main()
                return
            count += 1
            lease.write(_content(count))
        except OSError as error:
            log.warning("%s: the lease could not be renewed (%s); trying again", out, error)


def _content(count: int) -> bytes:
    return json.dumps({"host": socket.gethostname(), "process": os.getpid(), "renewed": count,
                       "mark": uuid.uuid4().hex}).encode()


def _leases(out: Place) -> list[Place]:
    """All leases in the folder, the newest last."""
    return [file for file in out.files() if file.name.startswith(PREFIX) and file.name[len(PREFIX):].isdigit()]


def _read(lease: Place) -> bytes | None:
    try:
        return lease.read()
    except FileNotFoundError:
        return None


def _refusal(out: Place) -> InputError:
    return InputError(f"{out}: another command is working in this folder; wait for it or choose another --out")
