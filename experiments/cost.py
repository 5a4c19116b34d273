"""What the full reproduction costs: measured rates -> hours and gigabytes for Table 1 and Table 2.

    python -m experiments.cost --write

Measures, on this machine, decode-and-crop and DenseNet-121's training and inference at 224 pixels. Other networks are
scaled by their multiply-adds, counted from their layers. Cards that are not at hand are estimated from their published
rate and an assumed share of it, and named as estimates. Writes docs/cost.md.
"""

import argparse
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from chexpert_hier import commands
from chexpert_hier.files import write_text
from chexpert_hier.recipes import SIX
from experiments.benchmarks import machine
from experiments.pages import wrapped

if TYPE_CHECKING:
    import keras

DOCS = Path(__file__).resolve().parents[1] / "docs" / "cost.md"
TRAIN, VALID, TEST = 191_027, 202, 518  # CheXpert's frontal films, counted in its tables
# Rows of stage 1: python -m chexpert_hier.datasets --counts
CONDITIONAL = {"u-ignore": 98_882, "u-zeros": 98_882, "u-ones": 107_475}
# Row of Table 1 -> films that go through the whole network in training (5 epochs), and once for stage 2's features.
EPOCHS, DRAWS = 5, 10
FULL_SIZE = Path(__file__).with_name("results") / "full_size.json"
# From prepared crops to float inputs, films per second on two cores: `input_path` in experiments/benchmarks/results.md.
CACHE = 10_427
# Published dense rates in TFLOP/s and the share of it that is assumed; nothing here was measured on these cards.
CARDS = {"RTX 2080 Ti, 11 GB, float16 (estimate)": (53.8, 0.15), "H200, bfloat16 (estimate)": (989.0, 0.10)}


def main(argv: list[str] | None = None) -> int:
    args = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    args.add_argument("--steps", type=int, default=4, help="timed training steps")
    args.add_argument("--write", action="store_true", help="write docs/cost.md")
    args = args.parse_args(argv)
    flops = {arch: multiply_adds(arch) for arch in SIX}
    crops = crop_rate()
    train, infer = network_rates(args.steps)
    text = page(flops, crops, train, infer)
    print(text)
    if args.write:
        write_text(DOCS, wrapped(text))
    return 0


def multiply_adds(arch: str, image_size: int = 224) -> float:
    """Multiply-adds of one film's forward pass through the convolutions, in billions."""
    from chexpert_hier.network.backbones import BACKBONES

    return multiply_adds_of(BACKBONES[arch].build(image_size))


def multiply_adds_of(network: "keras.Model") -> float:
    """The same of a network that is built."""
    import keras

    total = 0
    for layer in network.layers:
        if not isinstance(layer, keras.layers.Conv2D | keras.layers.SeparableConv2D | keras.layers.DepthwiseConv2D):
            continue
        places = int(np.prod(layer.output.shape[1:3]))
        total += places * sum(int(np.prod(weight.shape)) for weight in layer.weights if len(weight.shape) == 4)
    return total / 1e9


def crop_rate(films: int = 400) -> float:
    """Films per second from 390 x 320 JPEG bytes to crops on all cores."""
    import cv2

    from chexpert_hier.films.batches import FilmSource
    from chexpert_hier.films.template import Cropper

    random = np.random.default_rng(0)
    grey = cv2.GaussianBlur(random.integers(0, 256, (320, 390), dtype=np.uint8), (0, 0), 6)
    data = cv2.imencode(".jpg", cv2.normalize(grey, None, 0, 255, cv2.NORM_MINMAX))[1].tobytes()
    template = np.ascontiguousarray(cv2.resize(grey, (224, 224)))
    source = FilmSource([data] * films, Cropper("template", template))
    source(np.arange(16))
    began = time.perf_counter()
    source(np.arange(films))
    return films / (time.perf_counter() - began)


def network_rates(steps: int, batch: int = 32) -> tuple[float, float]:
    """DenseNet-121 at 224: films per second in training and in inference, tracing excluded."""
    from chexpert_hier.labels import CHEXPERT_LABELS
    from chexpert_hier.network import kernels, losses, model

    network = model.build_model("densenet121", CHEXPERT_LABELS)
    network.compile(kernels.adam(1e-4), losses.LOSSES["bce"](), jit_compile=False)
    network.optimizer.build(network.trainable_variables)
    films = np.random.default_rng(0).normal(size=(batch, 224, 224, 3)).astype(np.float32)
    targets = np.zeros((batch, 14), np.float32)
    rates = []
    for step in (lambda: network.train_on_batch(films, targets), lambda: network.predict_on_batch(films)):
        step()
        seconds = []
        for _ in range(steps):
            began = time.perf_counter()
            step()
            seconds.append(time.perf_counter() - began)
        rates.append(batch / float(np.median(seconds)))
    return rates[0], rates[1]


def table1_films() -> tuple[int, int]:
    """Films through the whole network, forward and back, and forward alone, for the ten rows."""
    back = forward = 0
    for base in ("u-ignore", "u-zeros", "u-ones"):
        rows = 2 if base == "u-ignore" else 4
        back += EPOCHS * (rows // 2) * (TRAIN + CONDITIONAL[base])
        forward += (rows // 2) * TRAIN  # features for stage 2 of the conditional rows
    return back, forward


def table2_films() -> tuple[int, int]:
    """The same for one member of the ensemble, with ten views of the validation and test films."""
    return EPOCHS * CONDITIONAL["u-ones"], TRAIN + (DRAWS + 1) * (VALID + TEST)


def page(flops: dict, crops: float, train: float, infer: float) -> str:
    """docs/cost.md."""
    relative = {arch: flops[arch] / flops["densenet121"] for arch in SIX}
    back1, forward1 = table1_films()
    back2, forward2 = table2_films()
    six = sum(relative.values())
    rates = {f"this machine ({machine()})": (train, infer)}
    for card, (peak, share) in CARDS.items():
        per_film = 2 * flops["densenet121"] / 1e3  # TFLOP of a forward pass
        rates[card] = (peak * share / (3 * per_film), peak * share / per_film)
    shares = ", ".join(f"{card.partition(',')[0]}: {share:.0%}" for card, (_, share) in CARDS.items())
    lines = [
        "# What the full reproduction costs", "",
        "Made by `python -m experiments.cost --write`. Rates on this machine are measured; those of the two "
        "cards are **estimates** from their published rate and an assumed share of it "
        f"({shares}); measure before you plan.", "",
        f"Films: {TRAIN:,} training frontals, {CONDITIONAL['u-ones']:,} of them in stage 1 under u-ones. Prepared once "
        f"at {crops:,.0f} films/s on this machine ({TRAIN / crops / 60:.0f} minutes) into "
        f"{TRAIN * 224 ** 2 / 1e9:.1f} GB. Stage 2 is fitted on features that are computed once.", "",
        "| network at 224 | billion multiply-adds a film | relative to DenseNet-121 |", "|---|---|---|"]
    lines += [f"| {arch} | {flops[arch]:.2f} | {relative[arch]:.2f} |" for arch in SIX]
    lines += ["", "| where | DenseNet-121 training, films/s | inference, films/s | Table 1 (ten rows), hours | "
              "Table 2 (six members, 10 views), hours |", "|---|---|---|---|---|"]
    for where, (back, forward) in rates.items():
        table1 = (back1 / back + forward1 / forward) / 3600
        table2 = six * (back2 / back + forward2 / forward) / 3600
        lines.append(f"| {where} | {back:,.1f} | {forward:,.1f} | {table1:,.1f} | {table2:,.1f} |")
    return "\n".join([
        *lines, "",
        "How it grows: linear in films, epochs and rows; with the square of the pixels' side; members by the first "
        "table; test-time views only with films predicted, not with training. One seed is counted; three cost "
        "three times as much.", "", *cards_and_cache(rates),
        *workstation(back1 / train / 10 / 3600)])


def workstation(hours: float) -> list[str]:
    """Whether a workstation of 16 GB can do it, from the rehearsal of experiments/full_size.py; nothing without one.

    Args:
        hours: that the mean row of Table 1 trains on this machine's processor.
    """
    if not FULL_SIZE.is_file():
        return [""]
    found = json.loads(FULL_SIZE.read_text())
    run = found["runs"][-1]
    crops = run["phases"]["template and crops"]["seconds"]
    return ["", "## Can my workstation with 16 GB do this?", "",
            f"1. Memory: yes. A whole run on a table of {run['rows']:,} rows, report included, held "
            f"{run['bytes'] / 2**30:.1f} GiB at most, beside a network that hardly counts "
            "(experiments/results/full_size.md); DenseNet-121 at 224 pixels adds 5.9 for its batch of 32, or 1.6 with "
            "`--micro-batch 8` (docs/memory.md).",
            f"2. Disk: CheXpert-v1.0-small takes 11 GB, its crops {TRAIN * 224 ** 2 / 1e9:.1f} GB.",
            f"3. Time: all but the network took {(run['seconds'] - crops) / 60:.0f} minutes in that run, beside "
            f"preparing crops; one row of Table 1 trains for about {hours:.0f} hours on two cores, so use a card: "
            "divide by the films/s above.", ""]


def cards_and_cache(rates: dict[str, tuple[float, float]]) -> list[str]:
    """What one device needs in a second, against what the cache gives."""
    lines = ["## What a card needs, and what the cache gives", "",
             "Training DenseNet-121 at 224 on several devices ([scale.md](scale.md)), each process reads its own "
             f"films. Prepared crops in memory become inputs at {CACHE:,} films/s on two cores "
             "([measured](../experiments/benchmarks/results.md), `input_path`); a film is 50,176 bytes in the cache "
             "and 602,112 on its way to the card.", "",
             "| a device | films/s it needs | cores that feed it | MB/s read from the cache | MB/s to the device |",
             "|---|---|---|---|---|"]
    for where, (back, _) in rates.items():
        lines.append(f"| {where} | {back:,.0f} | {back / (CACHE / 2):.2f} | {back * 224 ** 2 / 1e6:,.1f} | "
                     f"{back * 224 ** 2 * 12 / 1e6:,.0f} |")
    return [*lines, "", "A cache that fits the memory (9.6 GB for all training frontals) is read from the disk once."]


if __name__ == "__main__":
    raise SystemExit(commands.answer(main))
