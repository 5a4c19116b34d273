"""What a training step of each network takes at 224 pixels, calculated and measured: docs/memory.md.

    python -m experiments.memory [--arch densenet121 ...] [--write]

Calculated from the layers' shapes (`backbones.memory_per_film`). Measured: each network trains some steps in a process
of its own, with few films in a batch and with twice as many; what the peak of resident memory grows by is the memory
per film. That is the processor's memory under TensorFlow; on a card its libraries' workspace comes on top.
"""

import argparse
import json
import subprocess
import sys
import time
from datetime import date
from pathlib import Path

import numpy as np

from chexpert_hier import commands
from chexpert_hier.files import write_text
from chexpert_hier.recipes import SIX
from experiments.benchmarks import machine, versions
from experiments.pages import wrapped

PAGE = Path(__file__).parents[1] / "docs" / "memory.md"
SIZE, BATCH, PIECE = 224, 32, 8  # pixels, films in a batch (Pham et al. 2019, section 4.3), films in a micro-batch
FILMS = {"nasnetlarge": 3}  # in the smaller of the two measured batches; others 6
STEPS = 2


def main(argv: list[str] | None = None) -> int:
    args = parser().parse_args(argv)
    if args.child:
        print(json.dumps(measure(args.child, args.precision)))
        return 0
    rows = {}
    for arch in args.arch:
        rows[arch] = {precision: _ask(arch, precision) for precision in ("float32", "mixed_float16")}
        print(arch, json.dumps(rows[arch]), flush=True)
    text = page(rows)
    print(text)
    if args.write:
        write_text(PAGE, wrapped(text))
    return 0


def parser() -> argparse.ArgumentParser:
    answer = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    answer.add_argument("--arch", nargs="+", default=list(SIX))
    answer.add_argument("--write", action="store_true")
    answer.add_argument("--child", help=argparse.SUPPRESS)
    answer.add_argument("--precision", default="float32", help=argparse.SUPPRESS)
    return answer


def _ask(arch: str, precision: str) -> dict:
    command = [sys.executable, "-m", "experiments.memory", "--child", arch, "--precision", precision]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def measure(arch: str, precision: str) -> dict:
    """Bytes by calculation and, in float32 where the system tells it, bytes a film by measurement, and the losses."""
    keras = commands.import_keras()
    keras.config.set_dtype_policy(precision)
    from chexpert_hier.films import normalisation
    from chexpert_hier.films.batches import Batches, CropSource, stream
    from chexpert_hier.labels import CHEXPERT_LABELS
    from chexpert_hier.network import backbones, kernels, losses, model

    network = model.build_model(arch, CHEXPERT_LABELS, "none", SIZE, seed=0)
    answer = {"calculated": backbones.memory_per_film(network)}
    if precision != "float32" or not Path("/proc/self/clear_refs").exists():
        return answer
    random = np.random.default_rng(0)
    few = FILMS.get(arch, 6)
    crops = CropSource(random.integers(0, 256, (2 * few * STEPS, SIZE, SIZE), dtype=np.uint8))
    targets = random.integers(0, 2, (2 * few * STEPS, len(CHEXPERT_LABELS))).astype(np.float32)
    network.compile(kernels.adam(1e-4), losses.BCE(), jit_compile=False)
    network.optimizer.build(network.trainable_variables)

    def train(films: int) -> tuple[int, float, float]:
        rows = np.arange(films * STEPS)
        Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
        began = time.monotonic()
        batches = stream(Batches(crops, rows, films, normalisation.IMAGENET, SIZE, targets[rows]), 1, 1)
        loss = network.fit(batches, shuffle=False, verbose=0).history["loss"][-1]
        return _peak(), float(loss), time.monotonic() - began

    train(few)  # traced, and the optimizer has its variables
    small, large = train(few), train(2 * few)
    return answer | {"films": few, "measured": (large[0] - small[0]) / few, "losses": [small[1], large[1]],
                     "seconds_per_film": large[2] / (2 * few * STEPS)}


def _peak() -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return 1024 * int(line.split()[1])


def page(rows: dict) -> str:
    """docs/memory.md."""
    def whole(facts: dict, films: int) -> float:
        parts = facts["calculated"]
        return (films * parts["activations"] + parts["weights"] + parts["gradients"] + parts["optimizer"]) / 2 ** 30

    lines = [
        "# Memory of a training step", "",
        "Made by `python -m experiments.memory --write`; its first lines say what is calculated and what is measured. "
        f"{machine()} · {versions('tensorflow', 'keras')} · {date.today().isoformat()}", "",
        f"{SIZE} pixels, Adam, GiB. A card of 11 GB has about 10 for this. The calculation counts what may be kept for "
        "back-propagation; the last two columns set it beside the measurement, per film in float32. "
        f"`--micro-batch {PIECE}` takes the batch of {BATCH} in pieces of {PIECE} (same loss and gradients; "
        "BatchNormalization sees the pieces: a deviation). `--precision mixed_float16` has loss scaling.", "",
        f"| network | weights, gradients, Adam | float32, {BATCH} films | float32, micro-batch {PIECE} | float16, "
        f"{BATCH} films | float16, micro-batch {PIECE} | MiB a film, calculated | MiB a film, measured |",
        "|---|---|---|---|---|---|---|---|"]
    for arch, row in rows.items():
        single, half = row["float32"], row["mixed_float16"]
        measured = f"{single['measured'] / 2 ** 20:.0f}" if "measured" in single else ""
        lines.append(f"| {arch} | {whole(single, 0):.1f} | {whole(single, BATCH):.1f} | {whole(single, PIECE):.1f} | "
                     f"{whole(half, BATCH):.1f} | {whole(half, PIECE):.1f} | "
                     f"{single['calculated']['activations'] / 2 ** 20:.0f} | {measured} |")
    tight = [arch for arch, row in rows.items() if whole(row["float32"], BATCH) > 10]
    if tight:
        lines += ["", f"Above 10 GiB at {BATCH} films in float32: {', '.join(tight)}."]
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    raise SystemExit(commands.answer(main))
