"""Ten test-time draws against ten bare forward passes of the same network over crops that are prepared and normalised.

    python -m experiments.benchmarks.tta [--arch densenet121] [--image-size 224] [--films 64] [--repeats 5] [--write]
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from chexpert_hier import commands, hierarchy, recipes
from chexpert_hier.films import normalisation
from chexpert_hier.labels import CHEXPERT_LABELS

from . import CLOCKS, Measured, report, spread, typed

DRAWS = 10  # Pham et al. 2019, section 4.4


def main(argv: list[str] | None = None) -> int:
    """Measure, print, and write if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--arch", default="densenet121")
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--films", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--clock", default="wall", choices=CLOCKS, help="on a busy machine: processor")
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args(argv)
    clock = CLOCKS[args.clock]
    keras = commands.import_keras()
    from chexpert_hier.finished import members
    from chexpert_hier.network import model

    recipe = replace(recipes.PHAM2019, arch=args.arch, image_size=args.image_size, weights="none")
    network = model.build_model(args.arch, CHEXPERT_LABELS, "none", args.image_size, seed=0)
    member = members.Member(Path("benchmark"), recipe, CHEXPERT_LABELS, hierarchy.CHEXPERT_TREE, {},
                            normalisation.IMAGENET,
                            network)
    crops = np.random.default_rng(0).integers(0, 256, (args.films, 224, 224), dtype=np.uint8)
    keys = np.array([f"patient{k:05d}/study1/view1_frontal.jpg" for k in range(args.films)], object)
    inputs, views = member.inputs(crops), members.Views(DRAWS)

    def bare():
        for _ in range(DRAWS):
            network.predict(inputs, batch_size=views.batch_size, verbose=0)

    systems = {"ten bare forward passes": bare, "ten draws (ours)": lambda: member.conditional(crops, keys, views)}
    seconds: dict[str, list[float]] = {name: [] for name in systems}
    network.predict(inputs, batch_size=views.batch_size, verbose=0)  # traced before the clock starts
    for repeat in range(args.repeats):
        for name in sorted(systems, reverse=bool(repeat % 2)):  # each goes first every other time
            began = clock()
            systems[name]()
            seconds[name].append(clock() - began)
    lines, ratio = _table(args, seconds)
    report(Measured("tta", typed("tta", argv), "noise films (the time does not depend on pixels)", lines, ratio,
                    (keras.backend.backend(), "keras", "opencv-python-headless", "numpy")), args.write)
    return 0


def _table(args: argparse.Namespace, seconds: dict[str, list[float]]) -> tuple[list[str], float]:
    """Seconds of both, theirs first, and the ratio of ours to theirs."""
    theirs, ours = map(np.array, seconds.values())
    ratio, low, high = spread(ours / theirs)
    lines = [f"| system | seconds ({args.clock} time), median (quartiles) | films a second and draw |",
             "| --- | --- | --- |"]
    for name, values in seconds.items():
        middle, first, third = spread(values)
        lines.append(f"| {name} | {middle:.2f} ({first:.2f} to {third:.2f}) | {DRAWS * args.films / middle:.1f} |")
    lines += ["", f"{args.arch}, {args.image_size} pixels, {args.films} films, {args.repeats} repeats. The ratio is "
              f"ours to theirs: the cost of ten draws in bare passes ({low:.2f} to {high:.2f}; expected: at most 1.1)."]
    return lines, ratio


if __name__ == "__main__":
    sys.exit(commands.answer(main))
