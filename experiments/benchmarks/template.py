"""The template search, per film: ours against cv2.matchTemplate on uint8, paired in one process on one core.

    python -m experiments.benchmarks.template [--data FOLDER] [--films 300] [--repeats 5] [--write]
"""

import argparse
import os
import sys
import time
from pathlib import Path

import cv2
import numpy as np

from chexpert_hier import commands
from chexpert_hier.films.decode import read_film
from chexpert_hier.films.rescaling import rescale
from chexpert_hier.films.template import Cropper, learn_template

from . import Measured, find_films, report, spread


def theirs(film: np.ndarray, template: np.ndarray) -> tuple[int, int, float]:
    """What one would write: row, column and score of the best place."""
    _, score, _, (column, row) = cv2.minMaxLoc(cv2.matchTemplate(film, template, cv2.TM_CCOEFF_NORMED))
    return row, column, score


def exact_place(cropper: Cropper, film: np.ndarray) -> tuple[int, int, float]:
    """The place by integer sums everywhere."""
    sums, squares = cropper._window_sums(film)
    energy = cropper.size ** 2 * squares - np.square(sums, dtype=np.float64)
    return cropper._find_exactly(film, sums, energy)


def measure(films: list[np.ndarray], cropper: Cropper, repeats: int) -> tuple[np.ndarray, np.ndarray]:
    """Seconds per film, ours and theirs one after the other on the same film: (repeats, films) each."""
    seconds = np.empty((2, repeats, len(films)))
    for repeat in range(repeats):
        for number, film in enumerate(films):
            for place, search in enumerate((cropper.find, lambda film: theirs(film, cropper.template))):
                began = time.perf_counter()
                search(film)
                seconds[place, repeat, number] = time.perf_counter() - began
    return seconds[0], seconds[1]


def main(argv: list[str] | None = None) -> int:
    """Measure, print, and write if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--films", type=int, default=300)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args(argv)
    cv2.setNumThreads(1)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    files, what = find_films(args.data)
    everything = [rescale(read_film(file)) for file in files]
    cropper = Cropper(template=learn_template(everything))
    films = everything[:args.films]
    measure(films[:20], cropper, 1)  # warm
    ours, other = measure(films, cropper, args.repeats)
    found = [cropper.find(film) for film in everything]
    exact = [exact_place(cropper, film) for film in everything]
    usual = [theirs(film, cropper.template) for film in everything]
    lines = ["| search | ms per film, median (quartiles) | other place than integers give | largest error of score |",
             "| --- | --- | --- | --- |"]
    for name, seconds, answers in (("ours", ours, found), ("cv2.matchTemplate", other, usual)):
        middle, low, high = spread(1e3 * seconds.ravel())
        moved = sum(a[:2] != b[:2] for a, b in zip(answers, exact))
        error = max(abs(a[2] - b[2]) for a, b in zip(answers, exact))
        lines.append(f"| {name} | {middle:.3f} ({low:.3f} to {high:.3f}) | {moved} of {len(exact)} | {error:.1e} |")
    ratio, low, high = spread(np.median(other, axis=1) / np.median(ours, axis=1))
    lines += ["", f"One core, {len(films)} films, {args.repeats} repeats, both on each film in turn; times faster in "
              f"each repeat: {ratio:.2f} ({low:.2f} to {high:.2f})"]
    report(Measured("template", "python -m experiments.benchmarks.template", what, lines, ratio,
                    ("opencv-python-headless", "numpy")), args.write)
    return 0


if __name__ == "__main__":
    sys.exit(commands.answer(main))
