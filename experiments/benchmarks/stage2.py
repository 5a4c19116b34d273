"""Stage 2, five epochs of the last layer: on features computed once, against fitting through the frozen network.

    python -m experiments.benchmarks.stage2 [--arch densenet121] [--image-size 64] [--films 2000]
        [--repeats 3] [--write]

The same batches in the same order, the same optimizer; functions are traced before the clock starts, on both sides.
Ours counts the time that the features take.
"""

import argparse
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from chexpert_hier import commands
from chexpert_hier.films import batches, normalisation
from chexpert_hier.labels import CHEXPERT_LABELS

from . import CLOCKS, Measured, report, spread, typed

BATCH, EPOCHS, RATE = 32, 5, 1e-4  # Pham et al. 2019, section 4.3


SIDES = ("through the frozen network", "on features (ours)")


class Bench:
    """Noise films, a frozen network, and its last layer with the same weights.

    Args:
        args: arch, image_size and films.
    """

    def __init__(self, args: argparse.Namespace):
        keras = commands.import_keras()
        from chexpert_hier.network import losses, model

        random = np.random.default_rng(0)
        self.crops = batches.CropSource(random.integers(0, 256, (args.films, 224, 224), dtype=np.uint8))
        self.targets = random.integers(0, 2, (args.films, len(CHEXPERT_LABELS))).astype(np.float32)
        self.films, self.image_size = args.films, args.image_size
        self.network = model.build_model(args.arch, CHEXPERT_LABELS, "none", args.image_size, seed=0)
        model.freeze_all_but_head(self.network)
        self.features, self.head = model.feature_model(self.network), model.head_model(self.network)
        loss = losses.BCE()
        for trained in (self.network, self.head):
            trained.compile(keras.optimizers.Adam(RATE), loss, jit_compile=False)

    def stream(self, rows: np.ndarray, truth: np.ndarray | None = None) -> Any:
        """The films of some rows in batches."""
        return batches.stream(batches.Batches(self.crops, rows, BATCH, normalisation.IMAGENET, self.image_size, truth))

    def order(self, epoch: int) -> np.ndarray:
        """The films' order in an epoch of stage 2."""
        from chexpert_hier.training.targets import epoch_order

        return epoch_order(self.films, 0, 1, epoch)

    def through(self, epochs: int = EPOCHS, films: int | None = None) -> None:
        """Fit through the frozen network."""
        for epoch in range(epochs):
            rows = self.order(epoch)[:films]
            self.network.fit(self.stream(rows, self.targets[rows]), shuffle=False, verbose=0)

    def on_features(self, epochs: int = EPOCHS, films: int | None = None) -> None:
        """Compute the features, then fit the last layer on them."""
        values = self.features.predict(self.stream(np.arange(self.films)[:films]), verbose=0)
        for epoch in range(epochs):
            rows = self.order(epoch)
            rows = rows[rows < len(values)]
            self.head.fit(values[rows], self.targets[rows], batch_size=BATCH, shuffle=False, verbose=0)


def weights_of(network: Any) -> list[np.ndarray]:
    """Copies: both sides share the variables."""
    return [np.array(value) for value in network.get_weights()]


def reset(network: Any, start: list[np.ndarray]) -> None:
    """Weights and optimizer as they were at the start, without a new trace."""
    network.set_weights(start)
    for variable in network.optimizer.variables:
        if "learning_rate" not in variable.path:
            variable.assign(np.zeros(variable.shape, "float32"))


class Found(NamedTuple):
    """Seconds of either side, how far their last layers end apart, and how far these have moved."""

    seconds: dict[str, list[float]]
    apart: float
    moved: float


def measure(bench: Bench, clock: Callable[[], float], repeats: int) -> Found:
    """Both sides in turn, each from the start."""
    begin, begin_head = weights_of(bench.network), weights_of(bench.head)
    for warm in (bench.through, bench.on_features):
        warm(1, 2 * BATCH + 5)  # whole batches and a smaller last one
    sides = ((bench.through, bench.network, begin), (bench.on_features, bench.head, begin_head))
    seconds: dict[str, list[float]] = {name: [] for name in SIDES}
    for _ in range(repeats):
        ends = []
        for name, (work, trained, start) in zip(SIDES, sides):
            reset(trained, start)
            began = clock()
            work()
            seconds[name].append(clock() - began)
            ends.append(weights_of(bench.head))
    return Found(seconds, max(float(np.abs(a - b).max()) for a, b in zip(*ends)),
                 max(float(np.abs(a - b).max()) for a, b in zip(ends[0], begin_head)))


def main(argv: list[str] | None = None) -> int:
    """Measure, print, and write if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--arch", default="densenet121")
    parser.add_argument("--image-size", type=int, default=64)
    parser.add_argument("--films", type=int, default=2000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--clock", default="wall", choices=CLOCKS, help="on a busy machine: processor")
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args(argv)
    found = measure(Bench(args), CLOCKS[args.clock], args.repeats)
    ratio, low, high = spread(np.divide(*found.seconds.values()))
    lines = [f"| stage 2 | seconds ({args.clock} time), median (quartiles) |", "| --- | --- |"]
    lines += ["| {} | {:.1f} ({:.1f} to {:.1f}) |".format(name, *spread(values))
              for name, values in found.seconds.items()]
    lines += ["", f"{args.arch}, {args.image_size} pixels, {args.films:,} films, {EPOCHS} epochs, batch {BATCH}, "
              f"{args.repeats} repeats; times faster: {ratio:.2f} ({low:.2f} to {high:.2f}). The two ends differ by "
              f"{found.apart:.1e} at most, weights that moved by {found.moved:.1e} (expected: at most 1e-5 apart)."]
    import keras

    report(Measured("stage2", typed("stage2", argv), "noise films (the time does not depend on pixels)", lines, ratio,
                    (keras.backend.backend(), "keras", "numpy")), args.write)
    return int(found.apart > 1e-5)


if __name__ == "__main__":
    sys.exit(commands.answer(main))
