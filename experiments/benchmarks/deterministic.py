"""What `--deterministic` costs, and that it keeps its word: the same training with and without it, twice each.

    python -m experiments.benchmarks.deterministic [--arch tiny] [--image-size 64] [--films 1000]
        [--repeats 2] [--write]

Each training is a process of its own; the second epoch is timed, after the functions are traced. The ratio is the time
with it to the time without.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from chexpert_hier import commands
from chexpert_hier.films import batches, normalisation
from chexpert_hier.labels import CHEXPERT_LABELS

from . import CLOCKS, Measured, report, spread, typed


def train(args: argparse.Namespace) -> None:
    """Two epochs as `training` has them; weights and the time of the second epoch go into `args.child`."""
    keras = commands.import_keras()
    keras.utils.set_random_seed(0)
    if args.deterministic:
        import tensorflow as tf

        tf.config.experimental.enable_op_determinism()
    from chexpert_hier.network import kernels, losses, model
    from chexpert_hier.training.targets import epoch_order

    random, clock = np.random.default_rng(0), CLOCKS[args.clock]
    targets = random.choice(np.array([1, 0], np.float32), (args.films, len(CHEXPERT_LABELS)))
    crops = batches.CropSource(random.integers(0, 256, (args.films, 224, 224), dtype=np.uint8))
    network = model.build_model(args.arch, CHEXPERT_LABELS, "none", args.image_size, seed=0)
    network.compile(kernels.adam(1e-3), losses.BCE(), jit_compile=False)
    network.optimizer.build(network.trainable_variables)
    for epoch in range(2):
        rows = epoch_order(args.films, 0, 0, epoch)
        began = clock()
        order = batches.Batches(crops, rows, 32, normalisation.IMAGENET, args.image_size, targets[rows])
        network.fit(batches.stream(order),
                    shuffle=False, verbose=0)
        seconds = clock() - began
    weights = {f"weights/{k}": value for k, value in enumerate(network.get_weights())}
    np.savez(args.child, seconds=np.array(seconds), **weights)


def main(argv: list[str] | None = None) -> int:
    """Measure, print, and write if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--arch", default="tiny")
    parser.add_argument("--image-size", type=int, default=64)
    parser.add_argument("--films", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--clock", default="wall", choices=CLOCKS, help="on a busy machine: processor")
    parser.add_argument("--deterministic", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args(argv)
    if args.child:
        train(args)
        return 0
    given = [word for word in (sys.argv[1:] if argv is None else argv) if word != "--write"]
    seconds: dict[str, list[float]] = {"": [], "--deterministic": []}
    same = {}
    with tempfile.TemporaryDirectory() as folder:
        for repeat in range(args.repeats):
            for flag, values in seconds.items():
                out = Path(folder) / f"{flag}{repeat}.npz"
                subprocess.run([sys.executable, "-m", "experiments.benchmarks.deterministic", *given, "--child",
                                str(out), *([flag] if flag else [])], check=True)
                with np.load(out, allow_pickle=False) as arrays:
                    values.append(float(arrays["seconds"]))
                    weights = [arrays[name].tobytes() for name in sorted(set(arrays.files) - {"seconds"})]
                same.setdefault(flag, []).append(weights)
    lines = [f"| training | seconds an epoch ({args.clock} time), median (quartiles) | same weights in all repeats |",
             "| --- | --- | --- |"]
    for flag, values in seconds.items():
        middle, low, high = spread(values)
        equal = all(weights == same[flag][0] for weights in same[flag])
        lines.append(f"| {flag or 'without'} | {middle:.2f} ({low:.2f} to {high:.2f}) | {'yes' if equal else 'no'} |")
    ratio, low, high = spread(np.divide(seconds["--deterministic"], seconds[""]))
    lines += ["", f"{args.arch}, {args.image_size} pixels, {args.films:,} films, {args.repeats} processes each; time "
              f"with it to time without: {ratio:.2f} ({low:.2f} to {high:.2f})."]
    report(Measured("deterministic", typed("deterministic", argv),
                    "noise films (the time does not depend on pixels)", lines, ratio,
                    ("tensorflow", "keras", "numpy")), args.write)
    return int(not all(weights == same["--deterministic"][0] for weights in same["--deterministic"]))


if __name__ == "__main__":
    sys.exit(commands.answer(main))
