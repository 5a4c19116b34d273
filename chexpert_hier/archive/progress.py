"""A line that a person can read over hours: films, rate, time left, errors."""

import collections
import logging
import sys
import time
from collections.abc import Callable

WINDOW = 600.0  # seconds over which the present rate is taken
EVERY = 60.0  # seconds between lines where stderr is no terminal; the first minutes have more


class Progress:
    """Counts finished films and shows how far the job is.

    On a terminal one line is redrawn; elsewhere (a log file) a line appears after 10 s, then at most
    once a minute. Silent when the package's logger is above INFO (`--quiet`).

    Attributes:
        total: films of the job.
        done, errors: films finished, and those of them with an error, with what an earlier session finished.
    """

    def __init__(self, total: int, done: int = 0, errors: int = 0, clock: Callable[[], float] = time.monotonic):
        self.total, self.done, self.errors, self.clock = total, done, errors, clock
        self.first, self.start = done, clock()
        self.marks: collections.deque[tuple[float, int]] = collections.deque()  # (when, done); starting up is no rate
        self.next = self.start + 10
        self.terminal = sys.stderr.isatty()
        self.quiet = logging.getLogger("chexpert_hier").getEffectiveLevel() > logging.INFO

    def add(self, films: int, errors: int) -> None:
        """Count finished films, and those of them with an error."""
        now = self.clock()
        self.done, self.errors = self.done + films, self.errors + errors
        self.marks.append((now, self.done))
        while len(self.marks) > 2 and now - self.marks[0][0] > WINDOW:
            self.marks.popleft()
        if not self.quiet and (self.terminal or now >= self.next):
            self.next = now + (EVERY if now - self.start > 60 else 10)
            self._show(self.line())

    def line(self) -> str:
        """How far the job is, in one line."""
        share = f"archive: {self.done:,} of {self.total:,} films ({100 * self.done / max(self.total, 1):.1f} %)"
        errors = f"{self.errors:,} with an error"
        (since, before), (now, done) = self.marks[0], self.marks[-1]
        if done == before:
            return f"{share}, {errors}"
        rate = (done - before) / max(now - since, 1e-9)
        left = (self.total - done) / rate
        when = time.strftime("%a %H:%M", time.localtime(time.time() + left))
        return f"{share}, {rate:.1f}/s, {duration(left)} left (until {when}), {errors}"

    def close(self) -> None:
        """Show the last state and end the line."""
        if not self.quiet:
            seconds = self.clock() - self.start
            self._show(f"archive: {self.done:,} of {self.total:,} films, {self.done - self.first:,} of them in "
                       f"{duration(seconds)}, {self.errors:,} with an error", end="\n")

    def _show(self, line: str, end: str | None = None) -> None:
        end = end or ("" if self.terminal else "\n")
        print(f"\r{line:<110}" if self.terminal else line, end=end, file=sys.stderr, flush=True)


def duration(seconds: float) -> str:
    """Seconds as a person says them: 42 s, 7 min, 3 h 20 min, 2 days 5 h."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 120:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min"
    return f"{hours // 24} days {hours % 24} h"
