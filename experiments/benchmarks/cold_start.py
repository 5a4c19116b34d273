"""One film from a cold start: the predict command against the least a program must do, one after the other.

    python -m experiments.benchmarks.cold_start --model RUN --film FILM [--repeats 5] [--write]

The least: import Keras on TensorFlow, load model.keras, run it once on a blank input.
"""

import argparse
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from chexpert_hier import commands

from . import report, spread

LEAST = """
import sys, numpy as np
from chexpert_hier.model import load_model
model = load_model(sys.argv[1])
print(np.asarray(model(np.zeros((1, *model.input_shape[1:]), "float32"), training=False)).shape)
"""


def seconds(*command: str) -> tuple[float, float]:
    """Wall time and processor time of a process."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([sys.executable, *command], check=True, capture_output=True)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main(argv: list[str] | None = None) -> int:
    """Measure, print, and with --write keep the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True, help="a finished run")
    parser.add_argument("--film", type=Path, required=True)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args(argv)
    processes = {"import Keras and TensorFlow, load, run once": ("-c", LEAST, str(args.model / "model.keras")),
                 "predict, one film": ("-m", "chexpert_hier.predict", str(args.film), "--model", str(args.model))}
    times = np.array([[seconds(*command) for command in processes.values()] for _ in range(args.repeats + 1)])[1:]
    lines = ["| process | wall s, median (quartiles) | processor s |", "| --- | --- | --- |"]  # times (pairs, 2, 2)
    for place, name in enumerate(processes):
        cells = ["{:.2f} ({:.2f} to {:.2f})".format(*spread(times[:, place, kind])) for kind in (0, 1)]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    over = ["{:.2f} s ({:.2f} to {:.2f})".format(*spread(times[:, 1, kind] - times[:, 0, kind])) for kind in (0, 1)]
    lines += ["", f"Overhead, pair by pair: {over[0]} wall, {over[1]} processor."]
    report("cold_start", "python -m experiments.benchmarks.cold_start --model RUN --film FILM",
           f"{args.film.suffix.strip('.')} film, {args.repeats} pairs", lines,
           float(np.median(times[:, 1, 1] / times[:, 0, 1])), ("tensorflow", "keras", "pandas", "numpy"), args.write)
    return 0


if __name__ == "__main__":
    sys.exit(commands.answer(main))
