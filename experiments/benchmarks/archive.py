"""The archive's rate against `predict`'s own, both after starting up, taken in turns in one run.

    python -m experiments.benchmarks.archive --model RUN [--films FOLDER] [--workers 1] [--write]

`predict` answers in this process, warm; the archive is the command with a Ray of its own, timed between
its first and its last finished block. On a busy machine wall time says little: the ratio at the end is
that of the processor's time, which is the rates' own where nothing else runs and all cores are kept busy.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

from . import Measured, find_films, report, spread

MARK = "CHEXPERT_HIER_BENCHMARK"
TICK = os.sysconf("SC_CLK_TCK")


def main(argv: list[str] | None = None) -> int:
    """Measure, print, and write if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True, help="a finished run")
    parser.add_argument("--films", type=Path)
    parser.add_argument("--count", type=int, default=512)
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args(argv)
    files, what = find_films(args.films)
    files = [files[k % len(files)].resolve() for k in range(args.count)]
    predict = Predict(args.model, files)
    arch, size = predict.engine.recipe.arch, predict.engine.recipe.image_size
    systems = {"predict": predict, "archive": lambda: archive(args, files)}
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in systems}
    for repeat in range(args.repeats):
        for name in sorted(systems, reverse=bool(repeat % 2)):  # each goes first every other time
            found[name].append(systems[name]())
            print(name, found[name][-1], flush=True)
    theirs, ours = (np.array(found[name]) for name in systems)
    ratio, low, high = spread(ours[:, 0] / theirs[:, 0])
    busy, *quartiles = spread(theirs[:, 1] / ours[:, 1])
    lines = ["| system | films a second, median (quartiles) | processor seconds a film |", "|---|---|---|"]
    for name, values in found.items():
        rate, slow, fast = spread([one for one, _ in values])
        lines.append(f"| {name} | {rate:.1f} ({slow:.1f} to {fast:.1f}) | "
                     f"{spread([one for _, one in values])[0]:.4f} |")
    lines += ["", f"Archive over predict, pair by pair: {ratio:.2f} ({low:.2f} to {high:.2f}) by the wall's clock, "
                  f"{busy:.2f} ({quartiles[0]:.2f} to {quartiles[1]:.2f}) by the processor's time."]
    words = f"{arch} at {size} pixels, {args.count} films out of {what}; archive with {args.workers} workers, " \
            f"blocks of {args.rows}"
    command = f"python -m experiments.benchmarks.archive --model RUN --count {args.count} --rows {args.rows} " \
              f"--workers {args.workers} --repeats {args.repeats}"
    report(Measured("archive", command, words, lines, busy,
                    ("tensorflow", "keras", "ray", "pyarrow")), args.write)
    return 0


class Predict:
    """`predict` in this process; the first answer, which traces the network, is not timed."""

    def __init__(self, model: Path, files: list[Path]):
        from chexpert_hier.finished.asked import Film
        from chexpert_hier.predict.engine import Engine

        self.engine = Engine.open([model])
        self.films = [Film(file, str(file)) for file in files]
        self._answer(self.films[:64])

    def __call__(self) -> tuple[float, float]:
        began, worked = time.perf_counter(), time.process_time()
        self._answer(self.films)
        count = len(self.films)
        return count / (time.perf_counter() - began), (time.process_time() - worked) / count

    def _answer(self, films) -> None:
        from chexpert_hier.predict.predicting import CHUNK, answer_files

        for start in range(0, len(films), CHUNK):
            answer_files(self.engine, films[start:start + CHUNK])


def archive(args: argparse.Namespace, files: list[Path]) -> tuple[float, float]:
    """Films a second and processor seconds a film, from the first finished block to the last."""
    folder = Path(tempfile.mkdtemp(prefix="archive_rate"))
    try:
        pd.DataFrame({"Path": [str(file) for file in files]}).to_parquet(folder / "films.parquet")
        command = [sys.executable, "-m", "chexpert_hier.archive", folder / "films.parquet", "--model", args.model,
                   "--out", folder / "out", "--rows-per-file", args.rows, "--workers", args.workers, "--quiet"]
        process = subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL,
                                   env={**os.environ, MARK: str(folder)})
        done = folder / "out" / "checkpoint"
        marks: list[tuple[float, int, float]] = []  # when, blocks, processor seconds
        while process.poll() is None:
            blocks = len([file for file in done.glob("*.parquet") if ".pending" not in file.name])
            if blocks and (not marks or blocks > marks[-1][1]):
                marks.append((time.perf_counter(), blocks, _worked(folder)))
            time.sleep(0.05)
        if process.returncode:
            raise SystemExit("the archive command failed; see above")
        (began, first, before), (ended, last, after) = marks[0], marks[-1]
        count = min(last * args.rows, len(files)) - first * args.rows
        return count / (ended - began), (after - before) / count
    finally:
        shutil.rmtree(folder)


def _worked(folder: Path) -> float:
    """Processor seconds of this job's workers that score, known by the environment that they inherited."""
    mine = f"{MARK}={folder}".encode()
    total = 0.0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            if b"ray::MapWorker" in (stat.parent / "cmdline").read_bytes() and \
                    mine in (stat.parent / "environ").read_bytes():
                total += sum(map(int, stat.read_text().rsplit(")", 1)[1].split()[11:13])) / TICK
        except (OSError, ValueError):
            continue
    return total


if __name__ == "__main__":
    sys.exit(main())
