"""What all commands share: exit codes, one-line errors, a progress bar. Imports nothing heavy."""

import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator

from .errors import InputError
from .files import raise_if_disk

INTERRUPTED = "interrupted; what is finished is kept, go on with --resume"


def answer_early_interrupts() -> None:
    """From now until `answer` takes over, Ctrl-C ends the process with one line: nothing has been begun yet.

    The seconds in which a command's modules are imported would otherwise end in a traceback out of any of them.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not where it is ignored, as under nohup
        signal.signal(signal.SIGINT, _stop_early)


def _stop_early(*_) -> None:
    os.write(2, f"{INTERRUPTED}\n".encode())
    os._exit(130)


def answer(main: Callable[[list[str] | None], int | None], argv: list[str] | None = None) -> int:
    """Run a command's main and give its exit code: 0 done, 2 bad input (one line), 130 interrupted.

    Args:
        main: the command; raises InputError for what the user can mend.
        argv: the arguments without the program's name; None takes the process's own.
    """
    own_process = signal.getsignal(signal.SIGINT) is _stop_early
    if own_process:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    code = _answer(main, argv)
    if own_process:  # what is left is the interpreter's end, which nobody need interrupt: the answer stands
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    return code


def _answer(main, argv) -> int:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # TensorFlow's start-up notes are not the user's business
    logging.basicConfig(format="%(message)s", level=logging.INFO, stream=sys.stderr)
    logging.getLogger("tensorflow").setLevel(logging.ERROR)  # nor where it puts a SavedModel's parts, nor its retracing
    try:
        return main(argv) or 0
    except InputError as error:
        return _stop(f"error: {error}", 2)
    except KeyboardInterrupt:
        return _stop(INTERRUPTED, 130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        try:
            raise_if_disk(error, error.filename or "the output folder")
        except InputError as clear:
            return _stop(f"error: {clear}", 2)
        raise


def import_keras():
    """Import Keras and its backend, and find the devices, without the notes that TensorFlow's C++ code prints.

    Those notes (no CUDA found, which instructions the processor has) go past Python's logging straight to file
    descriptor 2. What goes wrong still raises.

    Returns:
        the module keras.
    """
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        import keras

        if keras.backend.backend() != "torch":  # which has no such list, and prints no notes
            keras.distribution.list_devices()
        return keras
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _stop(line: str, code: int) -> int:
    print(" ".join(line.split("\n")), file=sys.stderr)
    return code


def progress(items: Iterable, what: str, total: int | None = None, unit: str = "films", done: int = 0) -> Iterator:
    """Go through `items`, showing what is done, the rate and the time left on stderr.

    On a terminal one line is redrawn; elsewhere (a log file) a line appears at most every 30 s. Silent when the
    package's logger is above INFO (`--quiet`).

    Args:
        items: anything to iterate over; an item with a length counts as that many when `unit` is in batches.
        what: what is being done, e.g. "phantom".
        total: how many items there are; len(items) when None.
        unit: what an item is.
        done: how many were finished before, on resuming.
    """
    total = len(items) if total is None else total
    bar = Bar(what, total, unit, done)
    for item in items:
        yield item
        bar.add(1)
    bar.close()


class Bar:
    """A progress line that is moved by hand; see `progress`."""

    def __init__(self, what: str, total: int, unit: str = "films", done: int = 0):
        self.what, self.total, self.unit = what, total, unit
        self.first = self.done = done
        self.start = self.shown = time.monotonic()
        self.terminal = sys.stderr.isatty()
        self.quiet = logging.getLogger("chexpert_hier").getEffectiveLevel() > logging.INFO

    def add(self, count: int = 1) -> None:
        """Count `count` more items as done."""
        self.done += count
        if time.monotonic() - self.shown >= (0.2 if self.terminal else 30.0):
            self._show()

    def close(self) -> None:
        """Show the last state and end the line."""
        self._show(last=True)

    def _show(self, last: bool = False) -> None:
        if self.quiet:
            return
        self.shown = time.monotonic()
        seconds = max(self.shown - self.start, 1e-9)
        rate = (self.done - self.first) / seconds
        left = f"{seconds:.0f} s" if last else f"{(self.total - self.done) / max(rate, 1e-9):.0f} s left"
        line = f"{self.what}: {self.done}/{self.total} {self.unit}, {rate:.0f}/s, {left}"
        end = "\n" if last or not self.terminal else ""
        print(f"\r{line:<78}" if self.terminal else line, end=end, file=sys.stderr, flush=True)
