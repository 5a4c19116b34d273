"""What all commands share: exit codes, one-line errors, progress. Imports nothing heavy."""

import argparse
import logging
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, ModuleType
from typing import TYPE_CHECKING, NoReturn, TypeVar, cast

from .errors import InputError, did_you_mean
from .files import raise_if_disk

if TYPE_CHECKING:
    from rich.progress import Progress

log = logging.getLogger("chexpert_hier")
Item = TypeVar("Item")
QUIET_FOR = 4.0  # seconds without a line in a step that is new
LONGEST = 1000  # characters of an error's line
# The option's one meaning, in every command that has it.
RESUME = ("go on with the job in --out, if it is this very one: what is finished is kept; another job there, or "
          "something else, is refused")
INTERRUPTED = "interrupted; what is finished is kept, run the command again (with --resume where it has one)"
TERMINATED = INTERRUPTED.replace("interrupted", "stopped by SIGTERM", 1)
# What a terminal would obey or break a line at, except the line's end and the tab.
_CONTROL = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def at_least(least: int, args: argparse.Namespace, *names: str) -> None:
    """Refuse numbers below `least`; an option that is None was not given.

    Raises:
        InputError: names the first option that is below.
    """
    for name in names:
        value = getattr(args, name)
        if value is not None and value < least:
            raise InputError(f"--{name.replace('_', '-')} is {value}; expected {least} or more")


class Parser(argparse.ArgumentParser):
    """A command's arguments; a mistake in them gets two lines: what is wrong, and where it says what is right."""

    def error(self, message: str) -> NoReturn:
        """End the command with exit code 2."""
        unknown = re.search(r"unrecognized arguments: (--[\w-]+)", message)
        hint = did_you_mean(unknown[1], re.findall(r"--[\w-]+", self.format_help())) if unknown else ""
        self.exit(2, printable(f"error: {message}{hint}\n{self.prog} --help lists what there is\n"))

    def add_quiet(self, left: str = "only warnings and the result") -> None:
        """Add --quiet, which `hush` obeys; `left` is what the command still says, for the help."""
        self.add_argument("--quiet", action="store_true", help=left)


def hush(args: argparse.Namespace) -> None:
    """With --quiet, say nothing below warnings from now on."""
    if args.quiet:
        log.setLevel(logging.WARNING)


class Terminated(KeyboardInterrupt):
    """SIGTERM: ends the command the way Ctrl-C does, with its own line and exit code."""


def printable(text: str) -> str:
    """Text as a terminal may show it: no control character from a file name or a cell reaches the screen.

    >>> print(printable("film\\x1b[2Jone"))
    film\\x1b[2Jone
    """
    return _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text)


def answer_early_interrupts() -> None:
    """From now until `answer` takes over, Ctrl-C and SIGTERM end the process with one line: nothing has been begun yet.

    The seconds in which a command's modules are imported would otherwise end in a traceback out of any of them.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not where it is ignored, as under nohup
        signal.signal(signal.SIGINT, _stop_early)
        signal.signal(signal.SIGTERM, _stop_early)


def _stop_early(number: int, frame: FrameType | None) -> None:
    os.write(2, f"{TERMINATED if number == signal.SIGTERM else INTERRUPTED}\n".encode())
    os._exit(128 + number)


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Ctrl-C and SIGTERM while a command is answered."""
    if _swallows(frame):
        threading.Timer(0.05, os.kill, (os.getpid(), number)).start()
    elif number == signal.SIGTERM:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # one is enough, and a second must not hurt what cleans up
        raise Terminated
    else:
        raise KeyboardInterrupt


def _swallows(frame: FrameType | None) -> bool:
    """Whether Python would report an exception raised here and forget it: in finalizers and weakref callbacks."""
    while frame is not None:
        if frame.f_code.co_name == "__del__" or Path(frame.f_code.co_filename).name in ("weakref.py", "_weakrefset.py"):
            return True
        frame = frame.f_back
    return False


def answer(main: Callable[[list[str] | None], int | None], argv: list[str] | None = None) -> int:
    """Run a command's main and give its exit code.

    Args:
        main: the command; raises InputError for what the user can mend.
        argv: the arguments without the program's name; None takes the process's own.

    Returns:
        0 done, 2 bad input (one line), 130 interrupted, 143 stopped by SIGTERM.
    """
    own_process = signal.getsignal(signal.SIGINT) is _stop_early
    if own_process:
        signal.signal(signal.SIGINT, _interrupt)
        signal.signal(signal.SIGTERM, _interrupt)
    code = _answer(main, argv)
    if own_process and _AT_ONCE.is_set():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    if own_process:  # what is left is the interpreter's end, which nobody need interrupt: the answer stands
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    return code


_AT_ONCE = threading.Event()


def end_at_once() -> None:
    """From now on, end this process without the interpreter's clean-up, in which foreign threads may abort."""
    _AT_ONCE.set()


class _Screen:
    """What stderr shows: when it last said something, and the bars that are open, the innermost last."""

    def __init__(self) -> None:
        self.said = time.monotonic()
        self.bars: list[Bar] = []
        self.kept: int | None = None  # a copy of the file descriptor 2 while that leads nowhere

    def say(self, line: str) -> None:
        """A line that forges nothing."""
        self.said = time.monotonic()
        if self.kept is not None and sys.stderr is sys.__stderr__:
            os.write(self.kept, f"{printable(line)}\n".encode())
        else:
            print(printable(line), file=sys.stderr, flush=True)


_SCREEN = _Screen()


class _ToStderr(logging.Handler):
    """Log records as lines that forge nothing; on whatever stderr is by then, which a progress bar exchanges."""

    def emit(self, record: logging.LogRecord) -> None:
        _SCREEN.say(self.format(record))


def _answer(main: Callable[[list[str] | None], int | None], argv: list[str] | None) -> int:
    # TensorFlow's start-up notes are not the user's business, nor which instructions oneDNN has chosen.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    logging.basicConfig(level=logging.INFO, handlers=[_ToStderr()], format="%(message)s")
    logging.getLogger("tensorflow").setLevel(logging.ERROR)  # nor where it puts a SavedModel's parts, nor its retracing
    try:
        return main(argv) or 0
    except InputError as error:
        return _stop(f"error: {error}", 2)
    except Terminated:
        return _stop(TERMINATED, 128 + signal.SIGTERM)
    except KeyboardInterrupt:
        return _stop(INTERRUPTED, 128 + signal.SIGINT)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        try:
            raise_if_disk(error, error.filename or "the output folder")
        except InputError as clear:
            return _stop(f"error: {clear}", 2)
        raise


def start_worker() -> None:
    """Begin a worker process: it leaves Ctrl-C to the process that started it, and ends when that one does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the first process is interrupted and ends the others
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    import multiprocessing

    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def import_keras(find_devices: bool = True) -> ModuleType:
    """Import Keras and its backend, and find the devices, without the notes that TensorFlow's C++ code prints.

    Those notes (no CUDA found, which instructions the processor has) go past Python's logging straight to file
    descriptor 2. What goes wrong still raises.

    Args:
        find_devices: False where other processes are to be joined first.

    Returns:
        the module keras.
    """
    sys.stderr.flush()
    kept = _SCREEN.kept = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        import keras

        if find_devices and keras.backend.backend() != "torch":  # which has no such list, and prints no notes
            keras.distribution.list_devices()
        return cast(ModuleType, keras)
    finally:
        _SCREEN.kept = None
        os.dup2(kept, 2)
        os.close(kept)


def _stop(line: str, code: int) -> int:
    line = printable(" ".join(line.split("\n")))
    if len(line) > LONGEST:  # a cell of a damaged table, say
        line = f"{line[:LONGEST * 3 // 4]} ... {line[-LONGEST // 4:]}"
    print(line, file=sys.stderr)
    return code


def progress(items: Iterable[Item], what: str, total: int | None = None, unit: str = "films",
             done: int = 0) -> Iterator[Item]:
    """Go through `items`, showing what is done, the rate and the time left on stderr; see `Bar`.

    Args:
        items: anything to iterate over.
        what: what is being done, e.g. "phantom".
        total: how many items there are; len(items) when None.
        unit: what an item is, in the plural.
        done: how many were finished before, on resuming.
    """
    total = len(cast(Sized, items)) if total is None else total
    bar = Bar(what, total, unit, done)
    try:
        for item in items:
            yield item
            bar.add(1)
    finally:
        bar.close()


class Bar:
    """Progress that is moved by hand.

    On a terminal one line is redrawn; elsewhere (a log file) a line appears at most every 30 s, which rich has no form
    for. Rate and time left appear from the second item on: the first may have waited for other things. Silent when the
    package's logger is above INFO (`--quiet`).

    Args:
        what: what is being done, e.g. "phantom".
        total: how many items there are.
        unit: what an item is, in the plural.
        done: how many were finished before, on resuming.
        quiet: show nothing.
    """

    def __init__(self, what: str, total: int, unit: str = "films", done: int = 0, quiet: bool = False):
        self.what, self.total, self.unit = what, total, unit
        self.first = self.done = done
        self.start = self.shown = time.monotonic()
        self.begun: float | None = None  # when the first item was done
        self.quiet = quiet or logging.getLogger("chexpert_hier").getEffectiveLevel() > logging.INFO
        self.counted = done  # by then
        self.live: Progress | None = None
        if sys.stderr.isatty() and not self.quiet:
            self._begin_live()
        _SCREEN.bars.append(self)

    def add(self, count: int = 1) -> None:
        """Count `count` more items as done."""
        self.done += count
        if self.begun is None:
            self.begun, self.counted = time.monotonic(), self.done
        if self.live is not None:
            self.live.update(self.task, completed=self.done, rate=self._rate())
        elif time.monotonic() - self.shown >= 30.0:
            self.show()

    def show(self) -> None:
        """A line with the state of things, where no line on a terminal is redrawn."""
        self.shown = time.monotonic()
        if self.live is None and not self.quiet:
            self._print(self._rate())

    def close(self) -> None:
        """Show the last state and end the line; a second call does nothing."""
        seconds = time.monotonic() - self.start
        if self.live is not None:
            self.live.stop()
        if self in _SCREEN.bars:
            _SCREEN.bars.remove(self)
        if not self.quiet:
            self._print(f"{seconds:.0f} s")
        self.quiet, self.live = True, None

    def _begin_live(self) -> None:
        from rich import console, progress

        live = progress.Progress(
            progress.SpinnerColumn(), progress.TextColumn("{task.description}", markup=False),
            progress.BarColumn(bar_width=24),
            progress.MofNCompleteColumn(), progress.TextColumn(self.unit, markup=False),
            progress.TextColumn("{task.fields[rate]}", markup=False), transient=True,
            console=console.Console(stderr=True))
        self.task = live.add_task(self.what, total=self.total, completed=self.done, rate="")
        live.start()
        self.live = live

    def _rate(self) -> str:
        """Such as "12/s, 40 s left" or "3.2 s each, 40 s left"; nothing before the second item."""
        done = self.done - self.counted
        if self.begun is None or not done:
            return ""
        each = (time.monotonic() - self.begun) / done
        rate = f"{1 / max(each, 1e-9):.0f}/s" if each < 0.5 else f"{each:.1f} s each"
        return f"{rate}, {_duration((self.total - self.done) * each)} left"

    def _print(self, end: str) -> None:
        line = f"{self.what}: {self.done:,}/{self.total:,} {self.unit}" + (f", {end}" if end else "")
        _SCREEN.say(line)


class Steps:
    """The steps of a long command, each announced as "step 4 of 8: training", none silent for long.

    While a step goes on and nothing else is said, a line tells what it is at: every 4 s in the first ten minutes, then
    less often, in the end every 30 s.

    Args:
        names: all steps, in order.
    """

    def __init__(self, names: Sequence[str]):
        self.names = list(names)

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """The step of that name, from beginning to end."""
        log.info("step %d of %d: %s", self.names.index(name) + 1, len(self.names), name)
        over = threading.Event()
        beat = threading.Thread(target=_speak, args=(name, over), daemon=True)
        if log.isEnabledFor(logging.INFO):
            beat.start()
        try:
            yield
        finally:
            over.set()


def _speak(name: str, over: threading.Event) -> None:
    """Say how a step stands whenever nothing else is said, until it is over."""
    began = time.monotonic()
    while not over.wait(0.5):
        now = time.monotonic()
        if now - _SCREEN.said < min(max(QUIET_FOR, (now - began) / 150), 30.0):
            continue
        if not _SCREEN.bars:
            _SCREEN.say(f"{name}: {now - began:.0f} s")
        elif _SCREEN.bars[-1].live is None:  # else its line moves
            _SCREEN.bars[-1].show()


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"
