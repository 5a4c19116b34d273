"""A CheXpert-size table prepared and read back: films/s, gigabytes, memory.

    python -m experiments.benchmarks.prepare [--films DIR] [--rows 223414] [--work DIR] [--write]

The films at hand are linked under as many names as the table has rows, in CheXpert's folders. `prepare` runs as a
process of its own; then the cache is opened and verified, and read once in a shuffled order of training, as uint8
batches of 32. Needs 50 kB a row in --work. The ratio is films/s read to films/s prepared: what every epoch after the
first one saves.
"""

import argparse
import csv
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from chexpert_hier import commands, recipes
from chexpert_hier.datasets import reading
from chexpert_hier.labels import CHEXPERT_LABELS
from chexpert_hier.prepare import cache
from chexpert_hier.training.targets import epoch_order

from . import Measured, find_films, report, typed

# A small process starts it and asks for its memory: what this one has loaded would count as the child's at its start.
ASK = ("import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True); "
       "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)")
VALID = 234  # CheXpert's validation films


def lay_out(films: list[Path], rows: int, home: Path) -> Path:
    """A folder like CheXpert's with so many films, each a link to a copy of one of `films`; three films a patient."""
    data, random = home / "CheXpert-v1.0-small", np.random.default_rng(0)
    (home / "films").mkdir()
    copies = [home / "films" / f"{k}{film.suffix}" for k, film in enumerate(films)]
    for film, copy in zip(films, copies):
        copy.write_bytes(film.read_bytes())
    for split, first, count in (("train", 1, rows - VALID), ("valid", 100_001, VALID)):
        codes = random.choice(["", "1.0", "0.0", "-1.0"] if split == "train" else ["1.0", "0.0"],
                              (count, len(CHEXPERT_LABELS)))
        data.mkdir(exist_ok=True)
        with open(data / f"{split}.csv", "w", newline="", encoding="utf-8") as file:
            table = csv.writer(file)
            table.writerow(["Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", *CHEXPERT_LABELS])
            for k in range(count):
                name = f"{split}/patient{first + k // 3:06d}/study{k % 3 + 1}/view1_frontal{copies[0].suffix}"
                (data / name).parent.mkdir(parents=True)
                os.link(copies[k % len(copies)], data / name)
                table.writerow([f"{data.name}/{name}", "Female", 60, "Frontal", "PA", *codes[k]])
    return data


def main(argv: list[str] | None = None) -> int:
    """Measure, print, and write if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--films", type=Path)
    parser.add_argument("--rows", type=int, default=223_414, help="CheXpert's training images")
    parser.add_argument("--work", type=Path, help="where to lay out films and cache (default: the system's place)")
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args(argv)
    films, what = find_films(args.films)
    with tempfile.TemporaryDirectory(prefix="prepare_", dir=args.work) as home:
        data, place = lay_out(films, args.rows, Path(home)), Path(home) / "cache"
        command = [sys.executable, "-m", "chexpert_hier.prepare", "--data", data, "--out", place, "--quiet"]
        began = time.perf_counter()
        asked = subprocess.run([sys.executable, "-c", ASK, *map(str, command)], check=True, stdout=subprocess.PIPE)
        prepared, peak = time.perf_counter() - began, int(asked.stdout.split()[-1]) / 1024
        size = sum(file.stat().st_size for file in place.iterdir()) / 1e9

        began = time.perf_counter()
        dataset = reading.read(data)
        table = time.perf_counter() - began
        began = time.perf_counter()
        source = cache.Cache.open(place, dataset, recipes.PHAM2019).source(dataset)
        opened = time.perf_counter() - began
        order = epoch_order(len(dataset), 0, 0, 0)
        began = time.perf_counter()
        for start in range(0, len(order), 32):
            source(order[start:start + 32])
        read = time.perf_counter() - began
    rows = len(dataset)
    lines = ["| what | seconds | films/s |", "| --- | --- | --- |",
             f"| prepare: check the table, learn the template, decode, match and crop | {prepared:.0f} | "
             f"{rows / prepared:,.0f} |",
             f"| read the table | {table:.1f} | |",
             f"| open the cache, verify that it belongs to this table, split and size | {opened:.1f} | |",
             f"| read all crops once, shuffled, uint8 batches of 32 | {read:.1f} | {rows / read:,.0f} |", "",
             f"{rows:,} rows; {size:.2f} GB; peak memory of one of prepare's processes {peak:.0f} MB."]
    report(Measured("prepare", typed("prepare", argv),
                    f"{what}, repeated", lines, prepared / read,
                    ("opencv-python-headless", "numpy", "pandas")), args.write)
    return 0


if __name__ == "__main__":
    sys.exit(commands.answer(main))
