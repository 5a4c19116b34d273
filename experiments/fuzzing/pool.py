"""Processes that go through cases, each case watched: what it says, how it ends, its processor time, its memory."""

import contextlib
import importlib
import logging
import multiprocessing
import os
import random
import shutil
import sys
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import numpy as np

from .place import Place, emptied

SECONDS, MEGABYTES = 60, 2048  # of processor time and of resident memory, Python's and TensorFlow's own included
HANGS = 900  # seconds without an answer, whatever the processor time
RESTED = 1100  # megabytes held between two cases, from which a process gives way to a new one
PRELOADED = ["numpy", "pandas", "cv2", "tensorflow", "keras", "chexpert_hier.console", "experiments.fuzzing.classes"]


@dataclass(frozen=True)
class Case:
    """One case: what is drawn, and where.

    Attributes:
        kind: a key of classes.CLASSES.
        seed, number: of the draws.
    """

    kind: str
    seed: int
    number: int

    @property
    def name(self) -> str:
        """As `--reproduce` takes it."""
        return f"{self.kind}:{self.seed}:{self.number}"


@dataclass(frozen=True)
class Outcome:
    """How a case ended.

    Attributes:
        case: which.
        code: the exit code, None where the process died.
        problem: why it is a failure, "" for none.
        line: the command, as one would type it, or the function.
        seconds: of processor time.
        megabytes: the most that was resident.
    """

    case: Case
    code: int | None
    problem: str
    line: str = ""
    seconds: float = 0.0
    megabytes: float = 0.0


def run(case: Case, place: Place, folder: Path) -> Outcome:
    """Go through one case in this process; its files stay in `folder`."""
    from . import classes

    draw = np.random.default_rng([list(classes.CLASSES).index(case.kind), case.seed, case.number])
    random.seed(case.number)
    _reset_peak()
    began, code, said, line, problem = time.process_time(), None, "", "", ""
    with _captured(folder.with_suffix(".said")) as heard:
        try:
            line, answer = classes.CLASSES[case.kind](place, emptied(folder), draw)
            code = answer()
        except BaseException:  # whatever escapes the command's own handling
            problem = traceback.format_exc()
        said = heard()
    seconds, megabytes = time.process_time() - began, _memory("VmHWM")
    problem = problem or judged(code, said)
    if not problem and (seconds > SECONDS or megabytes > MEGABYTES):
        problem = f"{seconds:.0f} s of processor time, {megabytes:.0f} MB"
    return Outcome(case, code, problem, line, seconds, megabytes)


def judged(code: int | None, said: str) -> str:
    """Why an end is a failure: anything but 0, or 2 and one line that begins with "error: ", the last one."""
    lines = [line for line in said.splitlines() if line.strip()]
    if "Traceback (most recent call last)" in said:
        return f"a traceback: {said[-3000:]}"
    if code not in (0, 2):
        return f"exit code {code}: {said[-3000:]}"
    errors = [place for place, line in enumerate(lines) if line.startswith("error: ")]
    if errors != ([len(lines) - 1] if code == 2 else []):
        return f"exit code {code}, but not one line: {said[-3000:]}"
    return "a line of more than 1,500 characters: " + lines[-1][:200] if code == 2 and len(lines[-1]) > 1500 else ""


@contextlib.contextmanager
def _captured(file: Path) -> Iterator[Any]:
    """What goes to file descriptor 2, C libraries' lines too; standard output is not kept."""
    sys.stderr.flush()
    kept = [os.dup(1), os.dup(2)]
    with open(file, "wb") as to, open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(to.fileno(), 2)
        try:
            yield lambda: (sys.stdout.flush(), sys.stderr.flush(), file.read_text("utf-8", "replace"))[2]
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for number, old in enumerate(kept, 1):
                os.dup2(old, number)
                os.close(old)


def _reset_peak() -> None:
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _memory(field: str, pid: int | str = "self") -> float:
    """Megabytes of VmHWM or VmRSS; 0 where the system does not say."""
    with contextlib.suppress(OSError, ValueError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith(field):
                return int(line.split()[1]) / 1024
    return 0.0


def _cpu(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except (OSError, IndexError):
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


# ---------------------------------------------------------------------------------------------------- processes

def _serve(pipe: Connection, place: Place, folder: Path) -> None:
    """A worker: cases in, outcomes out, until it holds too much memory."""
    logging.captureWarnings(True)
    logging.getLogger("py.warnings").addHandler(logging.NullHandler())
    logging.getLogger("py.warnings").propagate = False
    while (case := pipe.recv()) is not None:
        outcome = run(case, place, folder)
        tired = _memory("VmRSS") > RESTED
        pipe.send((outcome, tired))
        if tired:
            return


class Worker:
    """One process at work, and the case that it is at."""

    def __init__(self, place: Place, folder: Path):
        self.place, self.folder = place, folder
        self.case: Case | None = None
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("forkserver")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, self.place, self.folder), daemon=True)
        self.process.start()
        theirs.close()

    def begin(self, case: Case) -> None:
        """Give it a case."""
        self.case, self.began = case, time.monotonic()
        self.pipe.send(case)
        self.before = _cpu(self.process.pid or 0)

    def finished(self) -> Outcome | None:
        """The outcome, once there is one; a process that died or had to be ended is replaced."""
        assert self.case is not None
        problem = ""
        if self.pipe.poll():
            try:
                outcome, tired = self.pipe.recv()
                if tired:
                    self._replace()
                self.case = None
                return outcome
            except (EOFError, ConnectionResetError):
                self.process.join()
                problem = f"the process died with exit code {self.process.exitcode}"
        elif self.process.pid is not None:
            used, held = _cpu(self.process.pid) - self.before, _memory("VmRSS", self.process.pid)
            if used > SECONDS + 5 or held > 1.5 * MEGABYTES or time.monotonic() - self.began > HANGS:
                problem = f"ended after {used:.0f} s of processor time with {held:.0f} MB"
        if not problem:
            return None
        said = self.folder.with_suffix(".said")
        text = said.read_text("utf-8", "replace")[-2000:] if said.exists() else ""
        case, self.case = self.case, None
        self._replace()
        return Outcome(case, None, f"{problem}: {text}")

    def _replace(self) -> None:
        self.close()
        self._start()

    def close(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.join()
        self.pipe.close()


def through(cases: Iterator[Case], place: Place, work: Path, keep: Path, processes: int) -> Iterator[Outcome]:
    """Go through cases with several processes; the files of those that fail are moved to `keep`.

    Args:
        cases: which.
        place: what is damaged.
        work: a folder for the files of the cases under way.
        keep: gets a folder per failure.
        processes: how many at once.

    Yields:
        the outcomes, as they come.
    """
    multiprocessing.get_context("forkserver").set_forkserver_preload(PRELOADED)
    workers = [Worker(place, work / f"case{number}") for number in range(processes)]
    try:
        for worker in workers:
            if (case := next(cases, None)) is not None:
                worker.begin(case)
        while busy := [worker for worker in workers if worker.case is not None]:
            wait([worker.pipe for worker in busy], timeout=0.5)
            for worker in busy:
                outcome = worker.finished()
                if outcome is None:
                    continue
                if outcome.problem and worker.folder.exists():
                    _keep(worker.folder, keep / outcome.case.name.replace(":", "-"), outcome)
                yield outcome
                if (case := next(cases, None)) is not None:
                    worker.begin(case)
    finally:
        for worker in workers:
            worker.close()


def _keep(folder: Path, target: Path, outcome: Outcome) -> None:
    emptied(target)
    shutil.copytree(folder, target / "files", symlinks=True)
    text = f"python -m experiments.fuzz --reproduce {outcome.case.name}\n{outcome.line}\n\n{outcome.problem}\n"
    (target / "failure.txt").write_text(text, encoding="utf-8", errors="backslashreplace")


def warm(name: str) -> Any:
    """A command's `main`."""
    from chexpert_hier import console

    return importlib.import_module(console.module_of(name)).main
