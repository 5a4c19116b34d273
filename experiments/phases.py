"""A command of this package, timed from outside: its own lines with their times, the phases between them, its memory.

For first_command.py and full_size.py.
"""

import itertools
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

# What a run does, and the last line of its log that belongs to it. Lines that a run does not print are passed over.
RUN = (
    ("synthetic films", r"phantom: ([\d,]+)/\1 patients"),
    ("tables, TensorFlow, network", r"crops are prepared|stage1: "),
    ("template and crops", r"crops: ([\d,]+)/\1 films"),
    ("looking at the crops, targets", r"stage1: "),
    ("stage 1, first epoch, with tracing", r"stage1 epoch 1: "),
    ("stage 1, other epochs", r"stage1 epoch \d+: "),
    ("stage 2, features", r"stage2 features: ([\d,]+)/\1 films"),
    ("stage 2, epochs", r"stage2 epoch \d+: "),
    ("answers and their evaluation", r"mean of (five|the \w+)"),
    ("ONNX file, checked", r"export: .*model\.onnx \("),
    ("SavedModel, written, loaded and checked", r"reloaded in TensorFlow"),
    ("pictures and report", r"^report: "),
)


@dataclass
class Timed:
    """What came out.

    Attributes:
        lines: (seconds since the start, line).
        seconds: from start to end.
        processor: seconds of processor time, of all its processes.
        memory: (seconds since the start, bytes) of what its processes hold beside files' pages, once a second.
    """

    lines: list[tuple[float, str]] = field(default_factory=list)
    seconds: float = 0.0
    processor: float = 0.0
    memory: list[tuple[float, int]] = field(default_factory=list)

    @property
    def silence(self) -> float:
        """The longest time without a line."""
        at = [0.0, *(second for second, _ in self.lines), self.seconds]
        return max(later - before for before, later in itertools.pairwise(at))

    def peak(self, start: float = 0.0, end: float = float("inf")) -> int:
        """The most bytes held at once between two times."""
        return max((size for second, size in self.memory if start <= second <= end), default=0)


def timed(arguments: Sequence[str], folder: Path, environment: dict[str, str]) -> Timed:
    """Run `python ARGUMENTS` in a folder and show its lines as they come.

    Raises:
        subprocess.CalledProcessError: it failed.
    """
    found, began, before = Timed(), time.monotonic(), os.times()
    command = [sys.executable, "-u", *arguments]
    with subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          text=True, errors="replace") as process:
        threading.Thread(target=_watch, args=(process, found, began), daemon=True).start()
        for line in process.stdout:
            found.lines.append((time.monotonic() - began, line.rstrip("\n")))
            print(f"{found.lines[-1][0]:7.1f}  {line}", end="", flush=True)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    found.seconds, after = time.monotonic() - began, os.times()
    found.processor = sum(after[2:4]) - sum(before[2:4])
    return found


def _watch(process: subprocess.Popen, found: Timed, began: float) -> None:
    while process.poll() is None:
        found.memory.append((time.monotonic() - began, held(process.pid)))
        time.sleep(1)


def held(process: int) -> int:
    """Bytes of memory of a process and its children, without the pages of files; 0 where the system does not say."""
    try:
        status = Path(f"/proc/{process}/status").read_text()
        children = [int(child) for task in Path(f"/proc/{process}/task").iterdir()
                    for child in (task / "children").read_text().split()]
    except OSError:
        return 0
    own = re.search(r"RssAnon:\s+(\d+) kB", status)
    return (1024 * int(own[1]) if own else 0) + sum(map(held, children))


def phases(found: Timed, marks: Sequence[tuple[str, str]] = RUN) -> list[tuple[str, float, float]]:
    """(phase, its start, its end) in seconds; the last one ends with the process."""
    rows, start = [], 0.0
    for name, pattern in marks:
        ends = [second for second, line in found.lines if second >= start and re.search(pattern, line)]
        if ends:
            end = ends[-1] if "other epochs" in name else ends[0]
            rows.append((name, start, end))
            start = end
    return [*rows, ("leaving", start, found.seconds)]
