"""Processes that watch each other: when one dies, all end with a line that names it.

JAX's own service notices a death too, but says it in a page of C++, or not at all while a collective waits. Here every
process holds one connection to process 0 (the port after the coordinator's) and says every few seconds that it is
alive; process 0 passes on who died. Nothing but these words goes over it.
"""

import ctypes
import json
import os
import select
import signal
import socket
import sys
import threading
import time
from typing import NamedTuple

from ..commands import Terminated, printable
from ..errors import InputError
from .launch import Place

COMING = 300.0  # seconds in which all processes must have come
BEAT, SILENCE = 5.0, 30.0  # seconds between two words, and after which a process without one counts as dead
LONGEST = 4096  # bytes of a line
AGAIN = "all processes stop. Start them again with --resume"


class Peer(NamedTuple):
    """A process as the others name it."""

    process: int
    host: str
    pid: int


class Watch:
    """What one process knows of the others; ends this process when another one dies.

    Args:
        place: this process's.
        peers: of all processes, by number.
        lines: connections; to all others from process 0, to process 0 from the others.
        silence: seconds without a word after which a process counts as dead.
    """

    def __init__(self, place: Place, peers: dict[int, Peer], lines: dict[int, socket.socket],
                 silence: float = SILENCE):
        self.place, self.peers, self.lines, self.silence = place, peers, lines, silence
        self.over = threading.Event()  # nothing that others do concerns this process any more
        self.leaving = threading.Lock()
        self.listening = [threading.Thread(target=self._listen, args=(process,), daemon=True) for process in lines]
        for thread in self.listening:
            thread.start()
        threading.Thread(target=self._beat, daemon=True).start()

    @classmethod
    def begin(cls, place: Place, wait: float = COMING, silence: float = SILENCE) -> "Watch":
        """Meet the other processes.

        Raises:
            InputError: some have not come in `wait` seconds, or were started with another number of processes.
        """
        meet = _await_all if place.process == 0 else _report
        peers, lines = meet(place, time.monotonic() + wait, wait)
        return cls(place, peers, lines, silence)

    def name(self, process: int) -> str:
        """Such as "process 1 of 4 (node2, pid 77)"."""
        peer = self.peers[process]
        return f"process {process} of {self.place.processes} ({peer.host}, pid {peer.pid})"

    def done(self) -> None:
        """This process has done its part; that it ends is no death."""
        self.over.set()
        self._tell("done")

    def await_done(self) -> None:
        """Wait until all that this process hears of are done; if one dies instead, all end."""
        for thread in self.listening:
            thread.join()

    def ended(self, error: BaseException) -> None:
        """This process ends with an error; the others learn of which."""
        self.over.set()
        self._tell(f"ended {_reason(error)}")

    def _tell(self, text: str) -> None:
        line = " ".join(printable(text).split()).encode()[:LONGEST - 1] + b"\n"
        for connection in self.lines.values():
            try:
                connection.sendall(line)
            except OSError:  # gone already
                continue

    def _beat(self) -> None:
        while not self.over.wait(BEAT):
            self._tell("alive")

    def _listen(self, process: int) -> None:
        """Hear what one process says, until it is done or dead."""
        connection = self.lines[process]
        connection.settimeout(self.silence)
        try:
            with connection.makefile("rb") as lines:
                while line := lines.readline(LONGEST):
                    word, _, rest = line.decode(errors="replace").strip().partition(" ")
                    if word == "done":
                        return
                    if word == "ended":
                        return self._stop(f"{self.name(process)} {rest}")
                    if word == "stop":
                        return self._leave(rest)
            reason = "died"
        except TimeoutError:
            reason = f"said nothing for {self.silence:.0f} s"
        except OSError:
            reason = "died"
        self._stop(f"{self.name(process)} {reason}")

    def _stop(self, line: str) -> None:
        self._tell(f"stop {line}")
        self._leave(line)

    def _leave(self, line: str) -> None:
        """End this process, whatever it is in; files are whole at any moment (`files.written_whole`)."""
        with self.leaving:
            if not self.over.is_set():
                print(printable(f"error: {line}; {AGAIN}"), file=sys.stderr, flush=True)
                os._exit(1)


def hold_aborts() -> None:
    """From now on an abort of C++ code waits some seconds, in which a watch may name the process that died and end this
    one."""
    if os.name == "posix":
        ctypes.CDLL(None).signal(signal.SIGABRT, _held)


@ctypes.CFUNCTYPE(None, ctypes.c_int)
def _held(number: int) -> None:
    time.sleep(10.0)  # lets the other threads run, whoever held Python's lock


def _reason(error: BaseException) -> str:
    if isinstance(error, InputError):
        return f"ended: {error}"
    if isinstance(error, KeyboardInterrupt):
        return "was stopped by SIGTERM" if isinstance(error, Terminated) else "was interrupted"
    return f"failed: {type(error).__name__}: {error}"[:500]


def _await_all(place: Place, until: float, wait: float) -> tuple[dict[int, Peer], dict[int, socket.socket]]:
    """Process 0: let all others come."""
    host, port = place.coordinator
    own = host in ("127.0.0.1", "localhost")
    try:
        server = socket.create_server(("127.0.0.1" if own else "", port + 1))
    except OSError as error:
        raise InputError(f"--coordinator: port {port + 1} (the one after {port}) cannot be opened here "
                         f"({error.strerror}); choose another port, and process 0 on that machine") from None
    peers, lines = {0: Peer(0, socket.gethostname(), os.getpid())}, {}
    with server:
        while len(peers) < place.processes:
            missing = sorted(set(range(place.processes)) - set(peers))
            if not select.select([server], [], [], max(0.0, until - time.monotonic()))[0]:
                raise InputError(f"{len(missing)} of {place.processes} processes have not come in {wait:.0f} s: "
                                 f"{', '.join(map(str, missing))}; is the same command running for each --process?")
            connection = server.accept()[0]
            peer = _introduced(connection, place, missing)
            if peer is None:
                connection.close()
            else:
                peers[peer.process], lines[peer.process] = peer, connection
    for connection in lines.values():
        connection.sendall(json.dumps([*peers.values()]).encode() + b"\n")
    return peers, lines


def _introduced(connection: socket.socket, place: Place, missing: list[int]) -> Peer | None:
    """Who has come; None where it is none of those awaited."""
    connection.settimeout(10.0)
    try:
        said = json.loads(_line(connection))
        peer, processes = Peer(int(said[0]), str(said[1]), int(said[2])), int(said[3])
    except (OSError, ValueError, TypeError, LookupError):
        return None
    if processes != place.processes or peer.process not in missing:
        why = (f"process 0 was started with --processes {place.processes}, this one with {processes}"
               if processes != place.processes else f"another process is --process {peer.process} already")
        connection.sendall(json.dumps(why).encode() + b"\n")
        return None
    return peer


def _report(place: Place, until: float, wait: float) -> tuple[dict[int, Peer], dict[int, socket.socket]]:
    """Any other process: go to process 0, and wait until it has seen all."""
    host, port = place.coordinator
    while True:
        try:
            connection = socket.create_connection((host, port + 1), timeout=10.0)
            break
        except OSError as error:
            if time.monotonic() > until:
                raise InputError(f"process 0 is not reached at {host}, port {port + 1}, in {wait:.0f} s "
                                 f"({error.strerror or error}); is it running, and are both ports open?") from None
            time.sleep(0.5)
    me = [place.process, socket.gethostname(), os.getpid(), place.processes]
    try:
        connection.sendall(json.dumps(me).encode() + b"\n")
        connection.settimeout(max(1.0, until - time.monotonic()) + 10.0)
        answer = json.loads(_line(connection))
    except (OSError, ValueError):
        raise InputError(f"process 0 at {host} ended before all processes had come; see its own line") from None
    if isinstance(answer, str):
        raise InputError(f"--process {place.process}: {answer}")
    return {peer[0]: Peer(*peer) for peer in answer}, {0: connection}


def _line(connection: socket.socket) -> bytes:
    """One line, byte by byte, so that nothing behind it is lost.

    Raises:
        ConnectionError: the other side has closed before the line's end.
    """
    line = b""
    while not line.endswith(b"\n"):
        byte = connection.recv(1)
        if not byte or len(line) > 1 << 20:
            raise ConnectionError("closed")
        line += byte
    return line
