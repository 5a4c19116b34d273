"""A batch taken in pieces, for networks whose training step does not fit the memory at the whole batch.

The loss of each piece is divided by what counts in the whole batch, gradients are summed over the pieces, and the
optimizer makes one step a batch: the step of the whole batch, but for BatchNormalization, which sees the piece alone
(a deviation; a network without it trains as with the whole batch). Says `keras` only.
"""

from dataclasses import dataclass

import keras
import numpy as np
from keras import ops

from ..network.losses import MaskedLoss


@dataclass(frozen=True)
class Pieces:
    """How a batch of `batch_size` films is cut into `count` pieces of `size` films each.

    Attributes:
        devices: that share a piece.
    """

    batch_size: int
    count: int
    size: int
    devices: int = 1

    @classmethod
    def of(cls, batch_size: int, most: int, devices: int = 1) -> "Pieces":
        """Equal pieces of at most `most` films; one piece when `most` is 0."""
        count = -(-batch_size // most) if most else 1
        return cls(batch_size, count, -(-batch_size // count), devices)

    @property
    def flagged(self) -> bool:
        """Whether targets say which films count: they go through `cut`, and the loss is `PieceLoss`."""
        return self.count > 1 or self.devices > 1

    def cut(self, rows: np.ndarray, targets: np.ndarray, loss: MaskedLoss) -> tuple[np.ndarray, np.ndarray]:
        """Rows and targets such that films in batches of `size` are the pieces of batches of `batch_size`.

        A batch that does not fill its pieces is filled up with its own films once more, which do not count; a single
        piece is as long as its batch.

        Args:
            rows: int (n,), in the epoch's order.
            targets: float32 (n, ...), NaN where a cell does not count.
            loss: counts what counts in a whole batch.

        Returns:
            rows: int (batches * count * size,).
            targets: float32 (the same, cells + counts + 1): the cells flattened, the whole batch's normaliser, and 1
                for a film that counts, else 0; `PieceLoss` reads them. See `filled` for -1.
        """
        out_rows, out_targets = [], []
        for start in range(0, len(rows), self.batch_size):
            part, truth = rows[start:start + self.batch_size], targets[start:start + self.batch_size]
            full = self.count * self.size if self.count > 1 else len(part)
            counts = np.ravel(ops.convert_to_numpy(loss.normaliser(truth))).astype(np.float32)
            table = np.full((full, truth[0].size + len(counts) + 1), np.nan, np.float32)
            table[:len(part), :truth[0].size] = truth.reshape(len(part), -1)
            table[:, truth[0].size:-1] = counts
            table[:, -1] = np.arange(full) < len(part)
            out_rows.append(np.resize(part, full))
            out_targets.append(table)
        return np.concatenate(out_rows), np.concatenate(out_targets)


def filled(targets: np.ndarray, padded: np.ndarray) -> np.ndarray:
    """Mark films that only make the devices' parts of a batch equal, in targets from `Pieces.cut`.

    Their flag is -1: they count in nothing. Films with flag 0 fill up a piece as on one device, where
    BatchNormalization sees them.
    """
    targets = targets.copy()
    targets[padded, -1] = -1.0
    return targets


class PieceLoss(keras.losses.Loss):
    """The whole batch's loss as the mean over its pieces of what this gives.

    Args:
        loss: of the whole batch.
        cells: shape of one film's targets, e.g. (labels,).
        pieces: how many a batch has; Keras' optimizers take the mean of accumulated gradients, the sum is meant.
    """

    def __init__(self, loss: MaskedLoss, cells: tuple[int, ...], pieces: int):
        super().__init__(name=loss.name, reduction="sum", dtype="float32")
        self.loss, self.cells, self.pieces = loss, tuple(cells), pieces

    def __call__(self, y_true, y_pred, sample_weight=None):
        y_true, y_pred = ops.cast(y_true, "float32"), ops.cast(y_pred, "float32")
        width = int(np.prod(self.cells))
        truth = ops.reshape(y_true[:, :width], (-1, *self.cells))
        counts = y_true[0, width:-1]
        counts = counts[0] if counts.shape[0] == 1 else counts
        real = ops.reshape(y_true[:, -1] > 0, (-1, *(1 for _ in self.cells)))
        truth = ops.where(real, truth, np.nan)
        y_pred = ops.where(real, y_pred, 0.5)  # the same for all labels: no penalty between them either
        return self.pieces * self.loss.share(truth, y_pred, counts)


class WholeSteps(keras.callbacks.Callback):
    """Under loss scaling, drop a batch of which a piece overflowed, as the whole batch would have been dropped.

    The scaling optimizer skips such a piece; without this the pieces of two batches would share a step.
    """

    def __init__(self, pieces: int):
        super().__init__()
        self.pieces = pieces

    def on_train_batch_begin(self, batch: int, logs: dict | None = None) -> None:
        """Where the batch before stopped short of its step, forget what it had summed."""
        optimizer = getattr(self.model.optimizer, "inner_optimizer", self.model.optimizer)
        if batch % self.pieces or not optimizer.built:
            return
        steps = int(ops.convert_to_numpy(optimizer._iterations))
        if steps % self.pieces:
            optimizer._iterations.assign(steps - steps % self.pieces)
            for total in optimizer._accumulated_gradients:
                total.assign(ops.zeros_like(total))
