"""Films answered end to end in ONNX Runtime, against ONNX Runtime alone on crops that are ready.

    python -m experiments.benchmarks.answers [--arch densenet121] [--films 96] [--repeats 5] [--write]

End to end: one film's file is read, checked, cropped and answered again and again, 32 at a time, as `predict` does it.
Alone: the same network's outputs in a session with ONNX Runtime's own settings, for each of some batch sizes; the
fastest counts. Rounds alternate. Random weights, for time does not depend on them.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from chexpert_hier import commands

from . import Measured, find_films, report, spread, typed
from .serve import bare, onnx_of, untrained

BATCHES = (1, 2, 8)


def alone(session, side: int, batch: int, films: int) -> float:
    """Films/s of ONNX Runtime itself."""
    crops = np.random.default_rng(0).integers(0, 256, (batch, side, side), dtype=np.uint8)
    name, rounds = session.get_inputs()[0].name, max(1, films // batch)
    start = time.perf_counter()
    for _ in range(rounds):
        session.run(["probabilities"], {name: crops})
    return rounds * batch / (time.perf_counter() - start)


def main(argv: list[str] | None = None) -> int:
    """Measure, print, and with --write keep the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--arch", default="densenet121")
    parser.add_argument("--films", type=int, default=96, help="in a round")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args(argv)
    import onnxruntime

    files, what = find_films(None)
    film = Path(files[0]).read_bytes()
    rates: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        run = untrained(Path(folder), args.arch)
        model, crops = onnx_of(run, Path(folder) / "model.onnx"), onnx_of(run, Path(folder) / "crops.onnx", "--crops")
        session = onnxruntime.InferenceSession(str(crops), providers=["CPUExecutionProvider"])
        side = session.get_inputs()[0].shape[1]
        for _ in range(args.repeats + 1):  # the first warms up
            rates.setdefault("predict's engine, from files", []).append(bare(model, film, args.films))
            for batch in BATCHES:
                rates.setdefault(f"ONNX Runtime alone, {batch} crops at once", []).append(
                    alone(session, side, batch, args.films))
    middles = {name: spread(values[1:]) for name, values in rates.items()}
    lines = ["| system | films/s, median (quartiles) | ms a film |", "| --- | --- | --- |"]
    lines += [f"| {name} | {middle:.1f} ({low:.1f} to {high:.1f}) | {1000 / middle:.0f} |"
              for name, (middle, low, high) in middles.items()]
    ours, *theirs = (np.array(values[1:]) for values in rates.values())
    ratio = spread(ours / np.max(theirs, axis=0))
    lines += ["", "Times ONNX Runtime's best, round by round: {:.2f} ({:.2f} to {:.2f})".format(*ratio)]
    what = f"{args.arch} at 224 pixels, one of {what}, {args.repeats} rounds of {args.films} films"
    report(Measured("answers", typed("answers", argv), what, lines, ratio[0], ("onnxruntime", "numpy")), args.write)
    return 0


if __name__ == "__main__":
    sys.exit(commands.answer(main))
