"""What a killed run goes on from: weights, optimizer and the state of training, in one file."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import keras
import numpy as np

from ..errors import InputError
from ..files import written_whole
from ..network.saving import save

CHECKPOINT = "checkpoint.npz"
BEST = "best.npz"


@dataclass
class State:
    """How far training has come; travels with the weights in one checkpoint."""

    stage: int = 0  # stages finished
    epoch: int = 0  # epochs finished in the present stage
    batch: int = 0  # batches finished in the present epoch
    seconds: float = 0.0  # that these took
    log: list[dict] = field(default_factory=list)

    @property
    def began(self) -> bool:
        """Whether the present stage has been trained on for a while."""
        return self.epoch > 0 or self.batch > 0

    def losses(self, name: str) -> list[float]:
        """Validation losses of a stage, one per finished epoch."""
        return [row["valid_loss"] for row in self.log if row["stage"] == name]


def save_model(model: keras.Model, path: Path) -> None:
    """Write a `.keras` file whole or not at all: layers and weights, without optimizer and loss.

    Those would depend on whether this process trained the model or took it over finished.
    """
    plain = keras.Model(model.input, model.output, name=model.name)
    with written_whole(path) as beside:
        save(plain, beside)


def running_loss(model: keras.Model) -> list:
    """The variables of the mean loss of the epoch in progress (Keras puts the loss's own mean first)."""
    return model.metrics[0].variables


def save_checkpoint(path: Path, model: keras.Model, optimizer: keras.optimizers.Optimizer | None, state: State,
                    running: Sequence[keras.Variable] = ()) -> None:
    """Write a checkpoint whole or not at all.

    Args:
        path: the file.
        model: its weights are kept.
        optimizer: its variables are kept too; None between stages.
        state: how far training has come.
        running: of `running_loss`, within an epoch.
    """
    arrays = {f"model/{k}": keras.ops.convert_to_numpy(v) for k, v in enumerate(model.variables)}
    if optimizer is not None:
        arrays |= {f"optimizer/{k}": keras.ops.convert_to_numpy(v) for k, v in enumerate(optimizer.variables)}
    arrays |= {f"running/{k}": keras.ops.convert_to_numpy(v) for k, v in enumerate(running)}
    text = json.dumps(dataclasses.asdict(state))
    with written_whole(path) as beside:
        np.savez(beside, state=np.array(text), **arrays)


def restore_weights(path: Path, model: keras.Model) -> State:
    """Put a checkpoint's weights back into the model; give how far training had come.

    Raises:
        InputError: they are another network's.
    """
    with np.load(path, allow_pickle=False) as arrays:
        _assign(path, model.variables, arrays, "model")
        return State(**json.loads(str(arrays["state"])))


def restore_optimizer(path: Path, model: keras.Model) -> list[np.ndarray]:
    """Put the optimizer back; give the running loss of the epoch in progress, none after a whole epoch."""
    model.optimizer.build(model.trainable_variables)
    with np.load(path, allow_pickle=False) as arrays:
        _assign(path, model.optimizer.variables, arrays, "optimizer")
        return [arrays[name] for name in arrays.files if name.startswith("running/")]


def _assign(path: Path, variables: list[keras.Variable], arrays: Mapping[str, np.ndarray], kind: str) -> None:
    stored = [arrays[f"{kind}/{k}"] for k in range(sum(name.startswith(f"{kind}/") for name in arrays))]
    if [v.shape for v in stored] != [tuple(v.shape) for v in variables]:
        raise InputError(f"{path}: holds another network's {kind} ({len(stored)} arrays, expected {len(variables)} of "
                         "this recipe's shapes); resume with the recipe the run was started with")
    for variable, value in zip(variables, stored):
        variable.assign(value)
