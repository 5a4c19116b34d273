"""TensorFlow's fused kernels against Keras' own layers and Adam: the same network, the same weights, one process.

    python -m experiments.benchmarks.kernels [--image-size 224] [--batch-size 8] [--repeats 7] [--clock processor]
        [--precision float32|mixed_bfloat16|mixed_float16] [--arch densenet121] [--write]

The first step, which traces, is timed once each; then training step and inference alternate. "Keras" has the variables
of its optimizer made within the first step, as `fit` does by itself.
"""

import argparse
import sys
import time
from typing import Any

import numpy as np

from chexpert_hier import commands
from chexpert_hier.labels import CHEXPERT_LABELS

from . import CLOCKS, Measured, report, spread, typed

SYSTEMS = ("Keras", "ours")


def network(args: argparse.Namespace, system: str) -> Any:
    """The compiled network; "Keras" computes with its own layers and optimizer."""
    import keras

    from chexpert_hier.network import kernels, losses, model

    built = model.build_model(args.arch, CHEXPERT_LABELS, "none", args.image_size, seed=0)
    if system == "Keras":
        for layer in built.layers:
            vars(layer).pop("call", None)  # what kernels.fuse had put there
    optimizer = keras.optimizers.Adam(1e-4) if system == "Keras" else kernels.adam(1e-4)
    built.compile(optimizer, losses.BCE(), jit_compile=False)
    if system == "ours":
        optimizer.build(built.trainable_variables)  # as training.compiling does
    return built


def main(argv: list[str] | None = None) -> int:
    """Measure, print, and write if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--arch", default="densenet121")
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--precision", default="float32", choices=("float32", "mixed_bfloat16", "mixed_float16"))
    parser.add_argument("--clock", default="wall", choices=CLOCKS, help="on a busy machine: processor")
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args(argv)
    clock = CLOCKS[args.clock]
    commands.import_keras().config.set_dtype_policy(args.precision)
    random = np.random.default_rng(0)
    films = random.normal(size=(args.batch_size, args.image_size, args.image_size, 3)).astype(np.float32)
    targets = random.choice(np.array([0, 1, np.nan], np.float32), (args.batch_size, len(CHEXPERT_LABELS)),
                            p=[.5, .3, .2])
    networks, first, losses = {}, {}, {}
    for system in SYSTEMS:
        networks[system] = network(args, system)
        began = clock()
        losses[system] = [float(networks[system].train_on_batch(films, targets))]
        first[system] = clock() - began
    seconds: dict[tuple[str, str], list[float]] = {}
    for repeat in range(-1, args.repeats):  # the first warms up, and traces inference
        for system, built in networks.items():
            for what, work in (("training step", built.train_on_batch), ("inference", built.predict_on_batch)):
                began = clock()
                answer = work(films, targets) if what == "training step" else work(films)
                if repeat >= 0:
                    seconds.setdefault((what, system), []).append(clock() - began)
                if what == "training step":
                    losses[system].append(float(answer))
    lines, ratio = _table(args, seconds, first, losses)
    report(Measured(f"kernels {args.precision} {args.image_size}", typed("kernels", argv),
                    f"noise films (the time does not depend on pixels), {time.strftime('%H:%M')}", lines, ratio,
                    ("tensorflow", "keras")), args.write)
    return 0


def _table(args: argparse.Namespace, seconds: dict[tuple[str, str], list[float]], first: dict[str, float],
           losses: dict[str, list[float]]) -> tuple[list[str], float]:
    """Every step's milliseconds, and the ratio of the training step."""
    ratios = {what: spread(np.divide(seconds[what, "Keras"], seconds[what, "ours"]))
              for what in ("training step", "inference")}
    lines = [f"| what | Keras, ms ({args.clock} time) | ours, ms | ratio, median (quartiles) |",
             "| --- | --- | --- | --- |",
             f"| first step, with tracing | {1e3 * first['Keras']:,.0f} | {1e3 * first['ours']:,.0f} | "
             f"{first['Keras'] / first['ours']:.2f} |"]
    for what, (middle, low, high) in ratios.items():
        keras_ms, ours_ms = (1e3 * spread(seconds[what, system])[0] for system in SYSTEMS)
        lines.append(f"| {what} | {keras_ms:,.0f} | {ours_ms:,.0f} | {middle:.2f} ({low:.2f} to {high:.2f}) |")
    lines += ["", f"{args.arch}, {args.image_size} pixels, batch {args.batch_size}, {args.precision}, {args.repeats} "
              f"repeats, alternating. Loss of the first step: {losses['Keras'][0]:.6f} and {losses['ours'][0]:.6f}; of "
              f"the last: {losses['Keras'][-1]:.5f} and {losses['ours'][-1]:.5f}. The ratio is that of training."]
    return lines, ratios["training step"][0]


if __name__ == "__main__":
    sys.exit(commands.answer(main))
