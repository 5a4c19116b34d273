"""What training over several cards costs in communication, and what it leaves: a calculation, nothing was timed.

    KERAS_BACKEND=jax python -m experiments.scaling [--write]

From the networks themselves: weights whose gradients are summed over all cards in every step, BatchNormalizations whose
statistics are, multiply-adds. From a small network compiled for two devices: how many sums XLA makes of one
BatchNormalization. Assumed: the cards' speed (as in `experiments.cost`), the links' rates and delays.
"""

import argparse
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from chexpert_hier import commands
from chexpert_hier.files import write_text
from chexpert_hier.recipes import SIX
from experiments.cost import CARDS, multiply_adds_of

RESULTS = Path(__file__).with_name("results") / "scaling.md"
CARD = "H200, bfloat16 (estimate)"
NUMBER = 4  # bytes: gradients and statistics travel as float32
LABELS = 14


@dataclass(frozen=True)
class Links:
    """How cards are joined.

    Attributes:
        name: in the table.
        cards: in all.
        rate: bytes a second out of each card, and into it, over the slowest link of the ring.
        delay: seconds until a small sum over all cards is everywhere.
    """

    name: str
    cards: int
    rate: float
    delay: float


# Rates are the links' nominal ones: NVLink 4 has 450 GB/s each way (NVIDIA's H200 data sheet), PCIe 4 x16 32 GB/s,
# InfiniBand NDR 400 Gbit/s for each card. Ethernet: 25 Gbit/s for a machine's eight cards together. Delays are
# assumed, of the order that NCCL's tests show.
LINKS = (
    Links("8 cards, one board, NVLink 4", 8, 450e9, 15e-6),
    Links("8 cards, one board, PCIe 4", 8, 32e9, 30e-6),
    Links("2 machines of 8, InfiniBand", 16, 50e9, 30e-6),
    Links("2 machines of 8, 25 Gbit/s Ethernet", 16, 25e9 / 8 / 8, 100e-6),
    Links("16 machines of 8, InfiniBand", 128, 50e9, 50e-6),
    Links("16 machines of 8, 25 Gbit/s Ethernet", 128, 25e9 / 8 / 8, 200e-6),
)


@dataclass(frozen=True)
class Network:
    """What a step moves and computes.

    Attributes:
        weights: that are trained.
        layers: BatchNormalizations.
        channels: of all these together.
        work: multiply-adds of a film's forward pass, in billions.
    """

    weights: int
    layers: int
    channels: int
    work: float


def main(argv: list[str] | None = None) -> int:
    args = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    args.add_argument("--write", action="store_true", help=f"write {RESULTS.name}")
    args = args.parse_args(argv)
    os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=2"  # before JAX looks for devices
    sums = sums_of_a_layer()
    text = page({arch: counted(arch) for arch in SIX}, sums)
    print(text)
    if args.write:
        write_text(RESULTS, text)
    return 0


def counted(arch: str) -> Network:
    """Count a network at 224 pixels."""
    import keras

    from chexpert_hier.network.backbones import BACKBONES

    with keras.StatelessScope(initialize_variables=False):  # shapes are enough
        network = BACKBONES[arch].build(224)
    norms = [layer for layer in network.layers if isinstance(layer, keras.layers.BatchNormalization)]
    weights = sum(int(np.prod(weight.shape)) for weight in network.trainable_weights)
    head = (network.output.shape[-1] + 1) * LABELS
    return Network(weights + head, len(norms), sum(int(layer.moving_mean.shape[0]) for layer in norms),
                   multiply_adds_of(network))


def sums_of_a_layer() -> float:
    """Sums over devices that XLA makes of one BatchNormalization in a training step: counted in compiled programs of
    networks with one and with five such layers."""
    few, many = sums_in_step(1), sums_in_step(5)
    return (many - few) / 4


def sums_in_step(layers: int) -> int:
    """All-reduces in the compiled step of a small network with so many BatchNormalizations."""
    import jax
    import keras

    from chexpert_hier.devices.joining import joined
    from chexpert_hier.devices.launch import Place
    from chexpert_hier.network.losses import BCE
    from chexpert_hier.training.microbatch import PieceLoss

    with joined(Place(2)) as devices:
        x = films = keras.Input((8, 8, 3))
        for _ in range(layers):
            x = keras.layers.BatchNormalization()(keras.layers.Conv2D(4, 3, padding="same", use_bias=False)(x))
            x = keras.layers.Activation("relu")(x)
        x = keras.layers.Dense(LABELS, "sigmoid")(keras.layers.GlobalAveragePooling2D()(x))
        network = keras.Model(films, x)
        network.compile(keras.optimizers.Adam(), PieceLoss(BCE(), (LABELS,), 1))
        network.optimizer.build(network.trainable_variables)
        devices.adapt(network)
        spread = devices.distribution.get_data_layout((8, 8, 8, 3)).backend_layout
        flat = devices.distribution.get_data_layout((8, LABELS + 2)).backend_layout
        data = (jax.device_put(np.zeros((8, 8, 8, 3), np.float32), spread),
                jax.device_put(np.ones((8, LABELS + 2), np.float32), flat))
        state = tuple([v.value for v in variables] for variables in (
            network.trainable_variables, network.non_trainable_variables, network.optimizer.variables,
            network.metrics_variables))
        program = jax.jit(network.train_step).lower(state, data).compile().as_text()
    return program.count(" all-reduce(") + program.count(" all-reduce-start(")


class Seconds(NamedTuple):
    """Of a step: computing, summing gradients, summing statistics."""

    computing: float
    gradients: float
    statistics: float


def step(network: Network, links: Links, films: int, sums: float) -> Seconds:
    """How long a step takes.

    Args:
        network: what is trained.
        links: how cards are joined.
        films: on each card.
        sums: over all cards for one BatchNormalization.
    """
    peak, share = CARDS[CARD]
    computing = films * 3 * 2 * network.work / 1e3 / (peak * share)
    ring = 2 * (links.cards - 1) / links.cards / links.rate
    gradients = network.weights * NUMBER * ring + links.delay
    statistics = network.layers * sums * links.delay + sums * network.channels * NUMBER * ring
    return Seconds(computing, gradients, statistics)


def page(networks: dict[str, Network], sums: float) -> str:
    """results/scaling.md."""
    peak, share = CARDS[CARD]
    lines = [
        "# Training over several cards: a calculation", "",
        "`KERAS_BACKEND=jax python -m experiments.scaling --write`. **Nothing here was timed.** Counted from the "
        "networks: trained weights, BatchNormalizations, multiply-adds at 224 pixels; counted in XLA's compiled step "
        f"of small networks: {sums:g} sums over all cards for one BatchNormalization. Assumed: {CARD.split(' ')[0]} "
        f"cards at {share:.0%} of {peak:g} TFLOP/s, rings at the links' nominal rates, a delay for each small sum.", "",
        "| network | weights, million | gradients a step, MB | BatchNormalizations | statistics a step, MB | small "
        "sums a step |", "|---|---|---|---|---|---|"]
    for arch, network in networks.items():
        lines.append(f"| {arch} | {network.weights / 1e6:.1f} | {network.weights * NUMBER / 1e6:.0f} | "
                     f"{network.layers} | {sums * network.channels * NUMBER / 1e6:.2f} | {network.layers * sums:.0f} |")
    for films in (4, 32):
        lines += ["", f"## {films} films on each card", "",
                  "Share of the cards' speed that is left, in percent: when nothing is hidden behind the computing, "
                  "and (in brackets) when the gradients' sums are.", "",
                  "| network | computing, ms | " + " | ".join(f"{links.name} (delay {links.delay * 1e6:.0f} µs)"
                                                               for links in LINKS) + " |",
                  "|---|---|" + "---|" * len(LINKS)]
        for arch, network in networks.items():
            cells = [left(network, links, films, sums) for links in LINKS]
            lines.append(f"| {arch} | {step(network, LINKS[0], films, sums)[0] * 1e3:.1f} | {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def left(network: Network, links: Links, films: int, sums: float) -> str:
    """A cell such as "71 (80)"."""
    computing, gradients, statistics = step(network, links, films, sums)
    hidden = max(computing, gradients) + statistics
    return f"{computing / (computing + gradients + statistics):.0%} ({computing / hidden:.0%})".replace("%", "")


if __name__ == "__main__":
    sys.exit(commands.answer(main))
