"""Stage 2, five epochs of the last layer: on features computed once, against fitting through the frozen network.

    python -m experiments.benchmarks.stage2 [--arch densenet121] [--image-size 64] [--films 2000]
        [--repeats 3] [--write]

The same batches in the same order, the same optimizer; functions are traced before the clock starts, on both sides.
Ours counts the time that the features take.
"""

import argparse
import sys

import numpy as np

from chexpert_hier import commands
from chexpert_hier.films import batches, normalisation
from chexpert_hier.labels import CHEXPERT_LABELS

from . import CLOCKS, report, spread

BATCH, EPOCHS, RATE = 32, 5, 1e-4  # Pham et al. 2019, section 4.3


def reset(network, start: list[np.ndarray]) -> None:
    """Weights and optimizer as they were at the start, without a new trace."""
    network.set_weights(start)
    for variable in network.optimizer.variables:
        if "learning_rate" not in variable.path:
            variable.assign(np.zeros(variable.shape, "float32"))


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
    clock = CLOCKS[args.clock]
    keras = commands.import_keras()
    from chexpert_hier.network import losses, model
    from chexpert_hier.training.targets import epoch_order

    random = np.random.default_rng(0)
    crops = batches.CropSource(random.integers(0, 256, (args.films, 224, 224), dtype=np.uint8))
    targets = random.integers(0, 2, (args.films, len(CHEXPERT_LABELS))).astype(np.float32)
    network = model.build_model(args.arch, CHEXPERT_LABELS, "none", args.image_size, seed=0)
    model.freeze_all_but_head(network)
    features, head = model.feature_model(network), model.head_model(network)
    loss = losses.BCE()
    for trained in (network, head):
        trained.compile(keras.optimizers.Adam(RATE), loss, jit_compile=False)
    begin, begin_head = ([np.array(value) for value in trained.get_weights()] for trained in (network, head))

    def stream(rows, truth=None):
        return batches.stream(batches.Batches(crops, rows, BATCH, normalisation.IMAGENET, args.image_size, truth))

    def order(epoch):
        return epoch_order(args.films, 0, 1, epoch)

    def through(epochs=EPOCHS, films=None):
        for epoch in range(epochs):
            rows = order(epoch)[:films]
            network.fit(stream(rows, targets[rows]), shuffle=False, verbose=0)

    def on_features(epochs=EPOCHS, films=None):
        values = features.predict(stream(np.arange(args.films)[:films]), verbose=0)
        for epoch in range(epochs):
            rows = order(epoch)
            rows = rows[rows < len(values)]
            head.fit(values[rows], targets[rows], batch_size=BATCH, shuffle=False, verbose=0)

    for warm in (through, on_features):
        warm(1, 2 * BATCH + 5)  # whole batches and a smaller last one
    seconds = {"through the frozen network": [], "on features (ours)": []}
    for _ in range(args.repeats):
        ends = []
        for name, work, trained, start in (("through the frozen network", through, network, begin),
                                           ("on features (ours)", on_features, head, begin_head)):
            reset(trained, start)
            began = clock()
            work()
            seconds[name].append(clock() - began)
            ends.append([np.array(value) for value in head.get_weights()])  # copies: both share the variables
        worst = max(float(np.abs(a - b).max()) for a, b in zip(*ends))
        moved = max(float(np.abs(a - b).max()) for a, b in zip(ends[0], begin_head))
    ratio, low, high = spread(np.divide(*seconds.values()))
    lines = [f"| stage 2 | seconds ({args.clock} time), median (quartiles) |", "| --- | --- |"]
    lines += ["| {} | {:.1f} ({:.1f} to {:.1f}) |".format(name, *spread(values)) for name, values in seconds.items()]
    lines += ["", f"{args.arch}, {args.image_size} pixels, {args.films:,} films, {EPOCHS} epochs, batch {BATCH}, "
              f"{args.repeats} repeats; times faster: {ratio:.2f} ({low:.2f} to {high:.2f}). The two ends differ by "
              f"{worst:.1e} at most, weights that moved by {moved:.1e} (expected: at most 1e-5 apart)."]
    report("stage2", "python -m experiments.benchmarks.stage2 " + " ".join(sys.argv[1:] if argv is None else argv),
           "noise films (the time does not depend on pixels)", lines, ratio,
           (keras.backend.backend(), "keras", "numpy"), args.write)
    return int(worst > 1e-5)


if __name__ == "__main__":
    sys.exit(commands.answer(main))
