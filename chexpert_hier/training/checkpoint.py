"""What a killed run goes on from: weights, optimizer and the state of training, in one file.

The checkpoint before the last is kept beside it: a run whose last one is damaged goes on from there.
"""

import dataclasses
import io
import json
import logging
import os
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np

from .. import schema
from ..devices.alone import ALONE, Devices
from ..errors import InputError
from ..files import written_whole
from ..network.saving import save

log = logging.getLogger("chexpert_hier.training")
CHECKPOINT, BEFORE = "checkpoint.npz", "checkpoint.before.npz"
BEST = "best.npz"
NEEDED = ("stage", "epoch", "valid_loss")  # of every row of the log, by what goes on from it


@dataclass
class State:
    """How far training has come; travels with the weights in one checkpoint."""

    stage: int = 0  # stages finished
    epoch: int = 0  # epochs finished in the present stage
    batch: int = 0  # batches finished in the present epoch
    seconds: float = 0.0  # that these took
    log: list[dict[str, Any]] = field(default_factory=list)

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
    """Write a checkpoint whole or not at all; the one before it is kept as BEFORE.

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
        if path.name == CHECKPOINT and path.exists():
            os.replace(path, path.with_name(BEFORE))  # a process that dies here leaves this one to go on from


def resume(folder: Path, model: keras.Model, devices: Devices = ALONE) -> State:
    """Go on from a folder's last checkpoint, or from the one before where the last is missing or damaged.

    Args:
        folder: the run folder.
        model: gets the weights.
        devices: whose first process has the folder.

    Returns:
        how far training had come; nothing yet where there is no checkpoint.

    Raises:
        InputError: what there is, is damaged or another network's.
    """
    if devices.first:
        _choose(folder / CHECKPOINT, folder / BEFORE, model)
    content = devices.read(folder / CHECKPOINT)
    return State() if content is None else restore_weights(folder / CHECKPOINT, model, content)


def _choose(last: Path, before: Path, model: keras.Model) -> None:
    """Put the checkpoint before into the place of a last one that is missing or damaged."""
    if not last.exists() and not before.exists():
        return
    try:
        _weights(last, model)
        return
    except InputError as error:
        if not before.exists():
            raise
        _weights(before, model)
        if last.exists():
            log.warning("%s; going on from the checkpoint before", error)
    os.replace(before, last)  # so that the next one does not push it out


def restore_weights(path: Path, model: keras.Model, content: bytes | None = None) -> State:
    """Put a checkpoint's weights back into the model, all or none; give how far training had come.

    Args:
        path: the file.
        model: of the same recipe.
        content: the file's, where another process has read it.

    Raises:
        InputError: it is damaged, or another network's.
    """
    state, values = _weights(path, model, content)
    for variable, value in zip(model.variables, values):
        variable.assign(value)
    return state


def restore_optimizer(path: Path, model: keras.Model, content: bytes | None = None) -> list[np.ndarray]:
    """Put the optimizer back; give the running loss of the epoch in progress, none after a whole epoch.

    Raises:
        InputError: the checkpoint is damaged, or another optimizer's.
    """
    model.optimizer.build(model.trainable_variables)
    arrays = _read(path, content)
    for variable, value in zip(model.optimizer.variables, _checked(path, model.optimizer.variables, arrays,
                                                                   "optimizer")):
        variable.assign(value)
    return [arrays[f"running/{k}"] for k in range(_count(arrays, "running"))]


def _weights(path: Path, model: keras.Model, content: bytes | None = None) -> tuple[State, list[np.ndarray]]:
    """How far training had come, and the weights then; the model stays as it is."""
    arrays = _read(path, content)
    return _state(path, arrays.get("state")), _checked(path, model.variables, arrays, "model")


def _read(path: Path, content: bytes | None = None) -> dict[str, np.ndarray]:
    """All arrays of a checkpoint, compared with their checksums.

    The parts lie in the file as they are, so that what is read is never larger than the file.
    """
    try:
        with zipfile.ZipFile(path if content is None else io.BytesIO(content)) as archive:
            parts = archive.infolist()
            if any(part.compress_type != zipfile.ZIP_STORED for part in parts):
                raise ValueError("its parts are packed")
            return {part.filename.removesuffix(".npy"): np.lib.format.read_array(
                io.BytesIO(archive.read(part)), allow_pickle=False) for part in parts}
    except Exception as error:  # damaged files end in errors of zipfile, NumPy and Python's own parser
        raise InputError(f"{path}: is damaged or cannot be read ({' '.join(str(error).split())[:200]}); start the run "
                         "anew in another --out") from None


def _state(path: Path, text: np.ndarray | None) -> State:
    try:
        state = schema.read(State, json.loads(str(text)), f"{path}: state")
    except (ValueError, RecursionError) as error:
        raise error if isinstance(error, InputError) else InputError(f"{path}: its state cannot be read") from None
    if min(state.stage, state.epoch, state.batch) < 0 or any(name not in row for row in state.log for name in NEEDED):
        raise InputError(f"{path}: its state is none that training can go on from")
    return state


def _count(arrays: Mapping[str, np.ndarray], kind: str) -> int:
    """How many arrays are numbered on from 0."""
    return next(k for k in range(len(arrays) + 1) if f"{kind}/{k}" not in arrays)


def _checked(path: Path, variables: list[keras.Variable], arrays: Mapping[str, np.ndarray], kind: str
             ) -> list[np.ndarray]:
    """The arrays of one kind, which fit the variables."""
    stored = [arrays[f"{kind}/{k}"] for k in range(_count(arrays, kind))]
    theirs, ours = ([(tuple(v.shape), str(v.dtype)) for v in values]
                    for values in (stored, variables))
    if theirs != ours:
        raise InputError(f"{path}: holds another network's {kind} ({len(stored)} arrays, expected {len(variables)} of "
                         "this recipe's shapes); resume with the recipe the run was started with")
    return stored
