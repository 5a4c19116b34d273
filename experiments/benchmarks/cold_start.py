"""One film from a cold start: `predict` in ONNX Runtime and in Keras, against the least a program with Keras must do.

    python -m experiments.benchmarks.cold_start [--model RUN] [--film FILM] [--repeats 5] [--write]

The least: import Keras on TensorFlow, load model.keras, run it once on a blank input. Without --model a DenseNet-121
with random weights is made; the run must hold model.onnx. The three take turns; processor time is that of all threads.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from chexpert_hier import commands

from . import Measured, find_films, report, spread

LEAST = """
import sys, numpy as np
from chexpert_hier.network.model import load_model
model = load_model(sys.argv[1])
print(np.asarray(model(np.zeros((1, *model.input_shape[1:]), "float32"), training=False)).shape)
"""


def seconds(*command: str) -> tuple[float, float]:
    """Wall time and processor time of a process."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([sys.executable, *command], check=True, capture_output=True)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def made_up(folder: Path) -> Path:
    """A run of a DenseNet-121 with random weights and its ONNX file, made in a process of its own."""
    code = ("import sys; from pathlib import Path; from experiments.benchmarks.serve import onnx_of, untrained; "
            "run = untrained(Path(sys.argv[1]), 'densenet121'); onnx_of(run, run / 'model.onnx')")
    subprocess.run([sys.executable, "-c", code, str(folder)], check=True, capture_output=True)
    return folder / "run"


def main(argv: list[str] | None = None) -> int:
    """Measure, print, and with --write keep the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, help="a finished run that holds model.onnx")
    parser.add_argument("--film", type=Path)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args(argv)
    film = args.film or Path(find_films(None)[0][0])
    with tempfile.TemporaryDirectory() as folder:
        run = args.model or made_up(Path(folder))
        ask = ("-m", "chexpert_hier.predict", str(film), "--model", str(run), "--engine")
        processes = {"import Keras and TensorFlow, load, run once": ("-c", LEAST, str(run / "model.keras")),
                     "predict --engine keras": (*ask, "keras"), "predict --engine onnx": (*ask, "onnx")}
        # (repeats, processes, 2); the first of each warms up
        times = np.array([[seconds(*command) for command in processes.values()] for _ in range(args.repeats + 1)])[1:]
    lines = ["| process | wall s, median (quartiles) | processor s |", "| --- | --- | --- |"]
    for place, name in enumerate(processes):
        cells = ["{:.2f} ({:.2f} to {:.2f})".format(*spread(times[:, place, kind])) for kind in (0, 1)]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += ["", "The ratio: processor time of the least with Keras to that of predict in ONNX Runtime."]
    command = "python -m experiments.benchmarks.cold_start" + " --model RUN" * bool(args.model)
    what = f"{film.suffix[1:]} film, {'a finished run' if args.model else 'DenseNet-121'}, {args.repeats} rounds"
    report(Measured("cold_start", command, what, lines, float(np.median(times[:, 0, 1] / times[:, 2, 1])),
                    ("tensorflow", "keras", "onnxruntime", "pandas", "numpy")), args.write)
    return 0


if __name__ == "__main__":
    sys.exit(commands.answer(main))
