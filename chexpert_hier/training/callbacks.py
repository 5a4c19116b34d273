"""What watches an epoch: the learning rate's drop, a loss that breaks, progress, checkpoints within the epoch."""

from collections.abc import Callable

import keras
import numpy as np

from ..commands import Bar
from ..errors import InputError
from ..recipes import Stage
from .checkpoint import running_loss


class LearningRateDrop(keras.callbacks.Callback):
    """Divide the learning rate after every epoch (or every few).

    Epoch e, counted from 0, runs at `first / drop ** (e // every)`: a function of the epoch alone, so that a resumed
    run has the rate that it would have had.

    Args:
        first: rate of epoch 0.
        drop: the divisor; 10 in Pham et al. 2019, section 4.3.
        every: epochs between two drops.
    """

    def __init__(self, first: float, drop: float = 10.0, every: int = 1):
        super().__init__()
        self.first, self.drop, self.every = first, drop, every

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Set the epoch's rate."""
        self.model.optimizer.learning_rate = self.first / self.drop ** (epoch // self.every)


def plateau_rate(stage: Stage, valid_losses: list[float]) -> float:
    """The rate of the next epoch under the schedule "plateau".

    Args:
        stage: gives first rate, divisor, patience and lowest rate.
        valid_losses: one number per finished epoch.

    Returns:
        the first rate, divided once for every time that the loss had not fallen for more than `patience` epochs.
    """
    rate, best, waited = stage.learning_rate, np.inf, 0
    for loss in valid_losses:
        best, waited = (loss, 0) if loss < best else (best, waited + 1)
        if waited > stage.patience:
            rate, waited = rate / stage.learning_rate_drop, 0
    return max(rate, stage.min_learning_rate)


class StopWhereLossBreaks(keras.callbacks.Callback):
    """Stop at the first batch whose loss is not finite, naming stage, epoch, batch and films.

    Raises:
        InputError: the loss is NaN or infinite.
    """

    def __init__(self, stage: str, keys: np.ndarray, batch_size: int, pieces: int = 1, done: int = 0):
        super().__init__()
        self.stage, self.keys, self.batch_size, self.epoch = stage, keys, batch_size, 0
        self.pieces, self.done = pieces, done

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Remember the epoch for the message."""
        self.epoch = epoch

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Check the running loss."""
        if not np.isfinite((logs or {}).get("loss", 0.0)):
            number = self.done + batch // self.pieces
            films = self.keys[number * self.batch_size:(number + 1) * self.batch_size]
            raise InputError(f"{self.stage}, epoch {self.epoch + 1}, batch {number + 1}: the loss is not finite; "
                             f"films: {', '.join(map(str, films))}. Try a lower learning rate or --precision float32")


class Shown(keras.callbacks.Callback):
    """Move the progress line, batch by batch, in training and in prediction."""

    def __init__(self, bar: Bar, films: int, batch_size: int):
        super().__init__()
        self.bar, self.left, self.batch_size = bar, films, batch_size

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        count = min(self.batch_size, self.left)
        self.left -= count
        self.bar.add(count)

    on_predict_batch_end = on_train_batch_end


class WithinEpoch(keras.callbacks.Callback):
    """Save every so many batches, and go on with the running loss of the batches that were done before."""

    def __init__(self, save: Callable[[keras.Model, int], None], every: int, pieces: int, done: int, total: int,
                 running: list[np.ndarray]):
        super().__init__()
        self.save, self.every, self.pieces, self.done, self.total = save, every, pieces, done, total
        self.running = running

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        for variable, value in zip(running_loss(self.model), self.running):
            variable.assign(value)

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        number, rest = divmod(batch + 1, self.pieces)
        number += self.done
        if self.every and not rest and number % self.every == 0 and number < self.total:
            self.save(self.model, number)  # asking for the model makes JAX write its state back into it
