"""Damaged and hostile input for an hour: films, tables, run folders, model files, predictions.

    python -m experiments.fuzz --minutes 60 --seed 1 [--cases 10000] [--write]
    python -m experiments.fuzz --reproduce films:1:4711 --keep here

Each case damages one file and gives it to a command that reads it. It must end with exit code 0, or with exit code 2
and one line that begins with "error: ". Anything else is a failure, and so is more than 60 s of processor time or more
than 2 GB of memory: its files are kept (`--keep`) beside a line that goes through it again. The small run whose files
are damaged is trained first, within half a minute. `--write` puts the counts into results/fuzz.csv and fuzz.md.
"""

import argparse
import csv
import io
import itertools
import os
import shutil
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

from chexpert_hier import commands
from chexpert_hier.errors import InputError
from chexpert_hier.files import locked, remove_held, write_text
from experiments.benchmarks import machine, versions
from experiments.fuzzing import place, pool
from experiments.fuzzing.classes import CLASSES
from experiments.fuzzing.pool import Case, Outcome

RESULTS = Path(__file__).parent / "results"
COLUMNS = ("class", "cases", "answered", "refused", "failed", "mean", "slowest", "largest", "command", "versions",
           "machine", "date")


@dataclass
class Counts:
    """What came of the cases of one class."""

    ends: Counter = field(default_factory=Counter)  # exit code -> cases; "failed" for failures
    seconds: float = 0.0  # processor time
    slowest: float = 0.0
    largest: float = 0.0  # megabytes

    def add(self, outcome: Outcome) -> None:
        """Count one."""
        self.ends["failed" if outcome.problem else outcome.code] += 1
        self.seconds += outcome.seconds
        self.slowest = max(self.slowest, outcome.seconds)
        self.largest = max(self.largest, outcome.megabytes)


def cases(kinds: list[str], seed: int, most: int, until: float) -> Iterator[Case]:
    """The cases in turn, until the time is up or each class has had `most`."""
    for number in itertools.count() if most == 0 else range(most):
        for kind in kinds:
            if time.monotonic() > until:
                return
            yield Case(kind, seed, number)


def row(kind: str, found: Counts, command: str) -> dict[str, str]:
    """One class in results/fuzz.csv."""
    total = sum(found.ends.values())
    ends = [total, found.ends[0], found.ends[2], found.ends["failed"]]
    return dict(zip(COLUMNS, (kind, *map(str, ends), f"{found.seconds / max(total, 1):.3f}", f"{found.slowest:.1f}",
                              f"{found.largest:.0f}", command,
                              versions("tensorflow", "keras", "numpy", "onnxruntime"), machine(),
                              date.today().isoformat())))


def page(rows: list[dict[str, str]]) -> str:
    """The rows as a page."""
    lines = ["# Damaged and hostile input", "",
             "Written by `python -m experiments.fuzz --write`, which says what is damaged and what is a failure: "
             "anything but exit code 0, or 2 and one line; more than 60 s of processor time; more than 2 GB. A run "
             "replaces the rows of its classes.", "",
             "| class | cases | answered (exit 0) | refused in one line (exit 2) | failed | processor time, mean s | "
             "slowest, s | most memory, MB |", "|---|---|---|---|---|---|---|---|"]
    for one in rows:
        counts = " | ".join(f"{int(one[name]):,}" for name in ("cases", "answered", "refused", "failed"))
        lines.append(f"| {one['class']} | {counts} | {one['mean']} | {one['slowest']} | {one['largest']} |")
    lines.append("")
    for one in rows:
        about = (CLASSES[one["class"]].__doc__ or "").splitlines()[0]
        lines.append(f"* {one['class']}: {about} `{one['command']}` · {one['machine']}, no GPU · {one['versions']} · "
                     f"{one['date']}")
    return "\n".join(lines) + "\n"


def write(counts: dict[str, Counts], command: str) -> None:
    """Replace the rows of these classes in results/fuzz.csv, and make results/fuzz.md anew."""
    with locked(RESULTS / "fuzz.work", wait=True):  # several runs may share the page
        file = RESULTS / "fuzz.csv"
        kept = {}
        if file.exists():
            with open(file, encoding="utf-8", newline="") as handle:
                kept = {one["class"]: one for one in csv.DictReader(handle)}
        kept |= {kind: row(kind, found, command) for kind, found in counts.items()}
        rows = [kept[kind] for kind in CLASSES if kind in kept]
        text = io.StringIO()
        table = csv.DictWriter(text, COLUMNS, lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
        write_text(file, text.getvalue())
        write_text(RESULTS / "fuzz.md", page(rows))
        remove_held(RESULTS / "fuzz.work")


def reproduce(name: str, found: place.Place, keep: Path) -> int:
    """Go through one case in this process; its files stay in `keep`."""
    kind, seed, number = name.split(":")
    outcome = pool.run(Case(kind, int(seed), int(number)), found, keep.resolve() / "files")
    print(f"{outcome.line}\nexit code {outcome.code}, {outcome.seconds:.1f} s, {outcome.megabytes:.0f} MB\n"
          f"{outcome.problem or 'no failure'}")
    print((keep / "files.said").read_text("utf-8", "replace")[-3000:])
    return int(bool(outcome.problem))


def parser() -> argparse.ArgumentParser:
    """The arguments."""
    words = argparse.ArgumentParser(prog="python -m experiments.fuzz", description=__doc__.splitlines()[0])
    words.add_argument("--minutes", type=float, default=60.0)
    words.add_argument("--seed", type=int, default=0)
    words.add_argument("--cases", type=int, default=0, help="at most so many of each class (0: until the time is up)")
    words.add_argument("--classes", nargs="+", choices=CLASSES, default=list(CLASSES))
    words.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    words.add_argument("--keep", type=Path, default=Path("fuzz-failures"), help="gets the files of cases that fail")
    words.add_argument("--place", type=Path, help="keep the whole films and models there, and use them again")
    words.add_argument("--reproduce", metavar="CASE", help="only this case, as failure.txt names it")
    words.add_argument("--write", action="store_true", help="put the counts into results/fuzz.csv and fuzz.md")
    return words


def main(argv: list[str] | None = None) -> int:
    """Go through the cases; 1 when one failed."""
    args = parser().parse_args(argv)
    if sys.platform != "linux":
        raise InputError("the fuzz suite reads /proc, so it needs Linux")
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"  # TensorFlow's notes, in all processes
    work = place.scratch()
    try:
        found = place.make((args.place or work / "place").resolve())
        if args.reproduce:
            return reproduce(args.reproduce, found, args.keep)
        counts, failed = {kind: Counts() for kind in args.classes}, 0
        command = (f"python -m experiments.fuzz --minutes {args.minutes:g} --seed {args.seed} --cases {args.cases} "
                   f"--classes {' '.join(args.classes)} --processes {args.processes}")
        shown = time.monotonic()
        until = shown + 60 * args.minutes
        for outcome in pool.through(cases(args.classes, args.seed, args.cases, until), found, work, args.keep,
                                    args.processes):
            counts[outcome.case.kind].add(outcome)
            if outcome.problem:
                failed += 1
                print(f"{outcome.case.name}: {commands.printable(outcome.problem.strip().splitlines()[-1][:300])}",
                      flush=True)
            if time.monotonic() - shown > 60:
                shown = time.monotonic()
                print(", ".join(f"{kind} {sum(one.ends.values()):,}" for kind, one in counts.items()), flush=True)
                if args.write:
                    write(counts, command)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    print(page([row(kind, one, command) for kind, one in counts.items()]))
    if args.write:
        write(counts, command)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(commands.answer(main))
