"""Latency of the network in ONNX Runtime and in TensorFlow, on the same uint8 crops, one after the other.

    python -m experiments.benchmarks.onnx_latency [--arch densenet121] [--batches 1 8] [--repeats 15] [--write]

Random weights, for time does not depend on them. TensorFlow runs the traced graph.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from chexpert_hier import commands, hierarchy, labels, recipes
from chexpert_hier.films import normalisation
from chexpert_hier.films.template import Cropper
from chexpert_hier.finished.members import Member

from . import Measured, report


def made_up(arch: str) -> Member:
    """A run of the paper's recipe with random weights."""
    commands.import_keras()
    from chexpert_hier.network.model import build_model

    recipe = recipes.change(recipes.named("pham2019"), arch=arch)
    network = build_model(arch, labels.CHEXPERT_LABELS, seed=0)
    return Member(Path("."), recipe, labels.CHEXPERT_LABELS, hierarchy.CHEXPERT_TREE, {"Frontal": Cropper("centre")},
                  normalisation.IMAGENET, network, Path("model.keras"))


def measure(member: Member, batches: list[int], repeats: int) -> list[tuple]:
    """(films in a batch, TensorFlow ms, ONNX Runtime ms, both medians per batch; largest difference of outputs)."""
    import onnxruntime
    import tensorflow as tf

    from chexpert_hier.export.graph import of_crops
    from chexpert_hier.export.onnx_answer import of_member
    from chexpert_hier.export.onnx_graph import Graph

    cropper = member.croppers["Frontal"]
    side = cropper.size
    graph = tf.function(lambda crops: of_crops([member], member.labels, {cropper.identity: crops}),
                        input_signature=[tf.TensorSpec((None, side, side, 1), tf.uint8)])
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.onnx"
        written = Graph()
        answer = of_member(written, member, member.labels, written.input("crops", "uint8", ["n", side, side]), side)
        written.output(answer.probabilities, "probabilities", "float32", ["n", len(member.labels)])
        file.write_bytes(written.model("network", {}).SerializeToString())
        session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    rows, random = [], np.random.default_rng(0)
    for batch in batches:
        crops = random.integers(0, 256, (batch, side, side, 1), dtype=np.uint8)
        runs = [lambda crops=crops: graph(tf.constant(crops))["probabilities"].numpy(),
                lambda crops=crops: session.run(["probabilities"], {"crops": crops[..., 0]})[0]]
        worst = float(np.abs(runs[0]() - runs[1]()).max())
        seconds = np.empty((2, repeats))
        for repeat in range(repeats):
            for place, run in enumerate(runs):
                start = time.perf_counter()
                run()
                seconds[place, repeat] = time.perf_counter() - start
        rows.append((batch, *np.median(seconds, axis=1) * 1000, worst))
    return rows


def main(argv: list[str] | None = None) -> int:
    """Measure, print, and with --write keep the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--arch", default="densenet121")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args(argv)
    rows = measure(made_up(args.arch), args.batches, args.repeats)
    lines = ["| films in a batch | TensorFlow, ms | ONNX Runtime, ms | largest difference |",
             "| --- | --- | --- | --- |"]
    lines += [f"| {batch} | {ours:.0f} | {theirs:.0f} | {worst:.0e} |" for batch, ours, theirs, worst in rows]
    report(Measured("onnx_latency", f"python -m experiments.benchmarks.onnx_latency --arch {args.arch}",
                    f"{args.arch}, 224 x 224, random weights, median of {args.repeats}", lines, rows[0][1] / rows[0][2],
                    ("tensorflow", "keras", "onnxruntime")), args.write)
    return 0


if __name__ == "__main__":
    sys.exit(commands.answer(main))
