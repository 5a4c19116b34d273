"""One script per claim of speed: ours, theirs, median and spread of repeats, and `ratio: X` as the last line.

    python -m experiments.benchmarks.template [--write]

`--write` puts the result into results.md beside this file. PyTorch is needed only where it is what is compared with.
"""

import importlib.metadata
import os
import platform
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np

# On a busy machine the processor's time (all threads of this process) tells what work costs; only without a GPU.
CLOCKS = {"wall": time.perf_counter, "processor": time.process_time}
RESULTS = Path(__file__).with_name("results.md")


def find_films(folder: Path | None) -> tuple[list[Path], str]:
    """Film files to measure on and what they are: `folder`, else the shared real films, else synthetic ones."""
    shared = Path(os.environ.get("CHEXPERT_HIER_DATA", Path(__file__).parents[3] / "shared" / "data")) / "nih_600"
    folder = folder or (shared if shared.is_dir() else None)
    if folder is None:
        from chexpert_hier.datasets import reading
        from chexpert_hier.phantom import making

        films = reading.read(making.ensure(patients=400, valid_patients=100, seed=0)).files
        return films, f"{len(films)} synthetic films"
    films = sorted(path for path in Path(folder).rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    return films, f"{len(films)} films of {Path(folder).name}"


def spread(values: Sequence[float]) -> tuple[float, float, float]:
    """Median and the two quartiles."""
    low, middle, high = np.percentile(values, [25, 50, 75])
    return float(middle), float(low), float(high)


def machine() -> str:
    """The processor and its number of cores, in words."""
    name = platform.processor() or platform.machine()
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
        name = next(line.split(":", 1)[1].strip() for line in text.splitlines() if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    return f"{name}, {os.cpu_count()} cores"


def versions(*names: str) -> str:
    """`name version` of the packages that are there."""
    found = [f"Python {platform.python_version()}"]
    for name in names:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return ", ".join(found)


def typed(script: str, argv: Sequence[str] | None) -> str:
    """The command of a script as it was typed; without `argv` the process's own arguments."""
    return " ".join([f"python -m experiments.benchmarks.{script}", *(sys.argv[1:] if argv is None else argv)])


@dataclass(frozen=True)
class Measured:
    """What a script has measured.

    Attributes:
        name: the section of results.md.
        command: as it was typed.
        what: it was measured on.
        lines: of the table.
        ratio: theirs to ours.
        packages: whose versions matter.
    """

    name: str
    command: str
    what: str
    lines: Sequence[str]
    ratio: float
    packages: Sequence[str]

    def section(self) -> str:
        """The section of results.md, without "## "."""
        load = f"load {os.getloadavg()[0]:.1f} when it ended" if hasattr(os, "getloadavg") else ""
        command = self.command.replace(" --write", "").strip()
        return "\n".join([self.name, "", f"`{command}` · {machine()}, {load} · {versions(*self.packages)} · "
                          f"{date.today().isoformat()} · {self.what}", "", *self.lines, "", f"ratio: {self.ratio:.2f}",
                          ""])


def report(measured: Measured, write: bool) -> None:
    """Print the table and, last, the ratio; with `write` also replace the script's section in results.md."""
    text = measured.section()
    print(f"## {text}".rsplit("\nratio:", 1)[0])
    if write:
        parts = RESULTS.read_text(encoding="utf-8").split("\n## ") if RESULTS.exists() else ["# Benchmarks\n"]
        kept = [part.rstrip("\n") for part in parts if part.split("\n", 1)[0].strip() != measured.name]
        RESULTS.write_text("\n\n## ".join([*kept, text]), encoding="utf-8")
    print(f"ratio: {measured.ratio:.2f}")
