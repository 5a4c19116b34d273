"""Trains with every loss on one device and on several of this process, and prints how far apart they come.

    KERAS_BACKEND=jax XLA_FLAGS=--xla_force_host_platform_device_count=4 python tests/devices/every_loss.py

For each case: the largest difference of any weight or BatchNormalization statistic, and of the epochs' losses.
"""

import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np

from chexpert_hier import hierarchy, recipes
from chexpert_hier.devices.alone import Devices
from chexpert_hier.devices.joining import joined
from chexpert_hier.devices.launch import Place
from chexpert_hier.films import normalisation
from chexpert_hier.films.batches import Batches, CropSource, crop_batches
from chexpert_hier.labels import CHEXPERT_LABELS
from chexpert_hier.network import losses
from chexpert_hier.training import stages
from chexpert_hier.training.targets import StageTargets

FILMS, BATCH, SIDE = 19, 8, 8  # batches of 8, 8 and 3: over four devices the last one gets a film that must not count
FIRST = recipes.Stage("stage1", epochs=2, batch_size=BATCH, learning_rate=1e-2)
SECOND = recipes.Stage("stage2", layers="head", epochs=2, batch_size=BATCH, learning_rate=1e-2)
RECIPE = replace(recipes.PHAM2019, arch="tiny", stages=(FIRST, SECOND), policy="u-ones")


class Films:
    """Random crops and labels."""

    labels = CHEXPERT_LABELS

    def __init__(self, count: int, seed: int):
        random = np.random.default_rng(seed)
        self.raw = random.choice(np.array([1, 0], np.float32), (count, 14))
        self.keys = np.array([f"patient{k:05d}/study1/view1_frontal.jpg" for k in range(count)], object)
        self.crops = random.integers(0, 256, (count, SIDE, SIDE), dtype=np.uint8)

    def __len__(self):
        return len(self.raw)

    def batches(self, rows, targets=None, batch_size=32, augment=(), draw=(0, 0)):
        return crop_batches(Batches(CropSource(self.crops), np.asarray(rows), batch_size, normalisation.IMAGENET, SIDE,
                                    targets))


def network(three: bool) -> keras.Model:
    """Convolution, BatchNormalization, dropout."""
    from chexpert_hier.network.model import Findings, ThreeClass

    keras.utils.set_random_seed(0)
    films = keras.Input((SIDE, SIDE, 3))
    x = keras.layers.Conv2D(4, 3, 2, use_bias=False)(films)
    x = keras.layers.BatchNormalization(momentum=0.5)(x)
    x = keras.layers.GlobalAveragePooling2D(name="pool")(keras.layers.Activation("relu")(x))
    x = keras.layers.Dropout(0.5, seed=1)(x)
    if three:
        return keras.Model(films, ThreeClass((0,))(Findings(42, CHEXPERT_LABELS, name="findings")(x)))
    return keras.Model(films, Findings(14, CHEXPERT_LABELS, activation="sigmoid", name="findings")(x))


def uneven(three: bool) -> np.ndarray:
    """Targets of which each film keeps 1 to 14 cells, and whole columns nearly none."""
    random = np.random.default_rng(5)
    targets = random.random((FILMS, 14)).astype(np.float32)
    targets[random.random((FILMS, 14)) < np.linspace(0, 0.95, 14)] = np.nan
    targets[np.isnan(targets).all(axis=1), 0] = 1.0
    targets[:BATCH // 2, 1:] = np.nan  # one device gets single cells where another one gets whole rows
    if not three:
        return targets
    classes = np.eye(3, dtype=np.float32)[random.integers(0, 3, (FILMS, 14))]
    classes[np.isnan(targets)] = np.nan
    return classes


def trained(devices: Devices, loss: str, micro_batch: int) -> tuple[list[np.ndarray], list[float], np.ndarray]:
    """Weights and statistics, the epochs' losses, the validation films' outputs."""
    three = loss == "three_class"
    stage = [replace(each, loss=loss) for each in RECIPE.stages]
    recipe = replace(RECIPE, stages=tuple(stage), micro_batch=micro_batch)
    targets, model = uneven(three), network(three)
    stages.stage_targets = lambda *arguments: StageTargets(np.arange(FILMS), targets)
    films, valid = Films(FILMS, 1), Films(7, 2)
    with tempfile.TemporaryDirectory() as folder:
        stages.train(stages.Training(recipe, hierarchy.CHEXPERT_TREE, model, films, valid, Path(folder),
                                     devices=devices))
        rows = [line.split(",") for line in (Path(folder) / "log.csv").read_text().splitlines()[1:]]
    outputs = stages.outputs_of(model, valid, devices=devices)
    return [np.array(value) for value in model.get_weights()], [float(v) for row in rows for v in row[4:6]], outputs


def main() -> int:
    cases = [(loss, 0) for loss in losses.LOSSES] + [("bce", 3)]
    alone = [trained(Devices(), *case) for case in cases]
    found = {}
    with joined(Place()) as devices:
        for (loss, micro), (weights, log, outputs) in zip(cases, alone):
            ours, own_log, own_outputs = trained(devices, loss, micro)
            start = network(loss == "three_class").get_weights()
            found[f"{loss} {micro}"] = {
                "weights": max(float(np.abs(a - b).max()) for a, b in zip(weights, ours)),
                "moved": min(float(np.abs(a - b).max()) for a, b in zip(start, ours) if a.dtype == np.float32),
                "log": float(np.abs(np.array(log) - own_log).max()),
                "outputs": float(np.abs(outputs - own_outputs).max())}
        print(json.dumps({"devices": devices.count, **found}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
