"""One training step and one inference batch: our DenseNet-121 in Keras against PyTorch's of the same shape.

    python -m experiments.benchmarks.step [--image-size 224] [--batch-size 8] [--repeats 7] [--xla] [--write]
        [--precision float32|mixed_bfloat16|mixed_float16] [--compile]

The same layers, sizes and number of parameters, Adam, masked binary cross-entropy of 14 outputs. Without a GPU both run
on all cores. PyTorch is measured with either layout of its memory and the faster one counts; `--compile` gives it
torch.compile.
"""

import argparse
import sys
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from chexpert_hier import commands
from chexpert_hier.errors import InputError
from chexpert_hier.labels import CHEXPERT_LABELS

from . import CLOCKS, Measured, report, spread, typed

OUTPUTS = len(CHEXPERT_LABELS)


def torch_densenet121():
    """DenseNet-121 as Huang et al. 2017 (arXiv 1608.06993, table 1) and torchvision have it, with sigmoid outputs."""
    from torch import cat, nn

    class Layer(nn.Module):
        def __init__(self, channels):
            super().__init__()
            self.work = nn.Sequential(
                nn.BatchNorm2d(channels), nn.ReLU(inplace=True), nn.Conv2d(channels, 128, 1, bias=False),
                nn.BatchNorm2d(128), nn.ReLU(inplace=True), nn.Conv2d(128, 32, 3, padding=1, bias=False))

        def forward(self, x):
            return cat([x, self.work(x)], 1)

    parts = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1)]
    channels = 64
    for place, layers in enumerate((6, 12, 24, 16)):
        if place:
            parts += [nn.BatchNorm2d(channels), nn.ReLU(inplace=True),
                      nn.Conv2d(channels, channels // 2, 1, bias=False), nn.AvgPool2d(2)]
            channels //= 2
        for _ in range(layers):
            parts.append(Layer(channels))
            channels += 32
    parts += [nn.BatchNorm2d(channels), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
              nn.Linear(channels, OUTPUTS)]
    return nn.Sequential(*parts)


class Steps(NamedTuple):
    """A network's training step, its inference, and its number of trained parameters."""

    train: Callable
    infer: Callable
    parameters: int


def theirs(args: argparse.Namespace, films: np.ndarray, targets: np.ndarray, channels_last: bool) -> Steps:
    """Training step, inference, and number of trained parameters in PyTorch, in either layout of its memory."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    kind = {"mixed_bfloat16": torch.bfloat16, "mixed_float16": torch.float16}.get(args.precision)
    network = torch_densenet121().to(device)
    x = torch.from_numpy(films.transpose(0, 3, 1, 2).copy()).to(device)
    if channels_last:
        network, x = network.to(memory_format=torch.channels_last), x.to(memory_format=torch.channels_last)
    y = torch.from_numpy(targets).to(device)
    optimizer = torch.optim.Adam(network.parameters(), 1e-4, eps=1e-7)
    call = torch.compile(network) if args.compile else network

    def finish():
        if device == "cuda":
            torch.cuda.synchronize()

    def forward():
        with torch.autocast(device, kind, enabled=kind is not None):
            return call(x)

    def train():
        network.train()
        known = ~torch.isnan(y)
        cells = torch.nn.functional.binary_cross_entropy_with_logits(forward().float(), torch.nan_to_num(y),
                                                                     reduction="none")
        loss = (cells * known).sum() / known.sum().clamp(min=1)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        finish()

    def infer():
        network.eval()
        with torch.inference_mode():
            torch.sigmoid(forward().float()).cpu().numpy()

    return Steps(train, infer, sum(value.numel() for value in network.parameters()))


def ours(args: argparse.Namespace, films: np.ndarray, targets: np.ndarray) -> Steps:
    """The same in Keras, as training and prediction compile it."""
    keras = commands.import_keras()
    keras.config.set_dtype_policy(args.precision)
    from chexpert_hier.network import kernels, losses, model

    network = model.build_model("densenet121", CHEXPERT_LABELS, "none", args.image_size, seed=0)
    network.compile(kernels.adam(1e-4), losses.BCE(), jit_compile=args.xla)
    network.optimizer.build(network.trainable_variables)

    def infer():
        network.predict_on_batch(films)

    trained = sum(int(np.prod(value.shape)) for value in network.trainable_variables)
    return Steps(lambda: network.train_on_batch(films, targets), infer, trained)


def main(argv: list[str] | None = None) -> int:
    """Measure, print, and write if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--precision", default="float32", choices=("float32", "mixed_bfloat16", "mixed_float16"))
    parser.add_argument("--xla", action="store_true", help="compile ours with XLA")
    parser.add_argument("--compile", action="store_true", help="compile theirs with torch.compile")
    parser.add_argument("--clock", default="wall", choices=CLOCKS, help="on a busy machine: processor")
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args(argv)
    random = np.random.default_rng(0)
    films = random.normal(size=(args.batch_size, args.image_size, args.image_size, 3)).astype(np.float32)
    targets = random.choice(np.array([0, 1, np.nan], np.float32), (args.batch_size, OUTPUTS), p=[.5, .3, .2])
    try:
        systems = {"PyTorch": theirs(args, films, targets, False),
                   "PyTorch, channels last": theirs(args, films, targets, True), "ours": ours(args, films, targets)}
    except ImportError:
        raise InputError("PyTorch is not here; this benchmark compares with it: pip install torch") from None
    if len({parameters for *_, parameters in systems.values()}) > 1:
        raise InputError(f"the networks differ: {[parameters for *_, parameters in systems.values()]} parameters")
    seconds = _times(systems, CLOCKS[args.clock], args.repeats)
    lines, ratio = _table(args, seconds, systems["ours"][2])
    import keras

    name = "step" if args.precision == "float32" and not args.xla else f"step {args.precision}{' XLA' * args.xla}"
    report(Measured(name, typed("step", argv), "noise films (the time does not depend on pixels)", lines, ratio,
                    (keras.backend.backend(), "keras", "torch")), args.write)
    return 0


def _times(systems: dict[str, Steps], clock: Callable[[], float], repeats: int) -> dict[tuple[str, str], list[float]]:
    """Seconds of every (system, kind of step), the systems in turn."""
    seconds = {(name, what): [] for what in ("training step", "inference") for name in systems}
    for repeat in range(-2, repeats):  # the first two warm up and trace
        for name, (train, infer, _) in systems.items():
            for what, work in (("training step", train), ("inference", infer)):
                began = clock()
                work()
                if repeat >= 0:
                    seconds[name, what].append(clock() - began)
    return seconds


def _table(args: argparse.Namespace, seconds: dict[tuple[str, str], list[float]], parameters: int
           ) -> tuple[list[str], float]:
    """Milliseconds and films a second, and the ratio of training."""
    lines = [f"| what | system | ms a batch ({args.clock} time), median (quartiles) | films/s |",
             "| --- | --- | --- | --- |"]
    for (name, what), values in seconds.items():
        middle, low, high = spread(1e3 * np.array(values))
        rate = 1e3 * args.batch_size / middle
        lines.append(f"| {what} | {name} | {middle:.0f} ({low:.0f} to {high:.0f}) | {rate:.1f} |")
    best = {what: min(("PyTorch", "PyTorch, channels last"), key=lambda name: np.median(seconds[name, what]))
            for what in ("training step", "inference")}
    ratios = {what: spread(np.divide(seconds[name, what], seconds["ours", what])) for what, name in best.items()}
    lines += ["", f"DenseNet-121, {parameters:,} parameters, {args.image_size} pixels, batch "
              f"{args.batch_size}, {args.precision}, XLA {'on' if args.xla else 'off'}, {args.repeats} repeats, "
              "one after the other in each. "
              + "; ".join(f"{what}: time of {best[what]} to ours {middle:.2f} ({low:.2f} to {high:.2f})"
                          for what, (middle, low, high) in ratios.items()) + ". The ratio is that of training."]
    return lines, ratios["training step"][0]


if __name__ == "__main__":
    sys.exit(commands.answer(main))
