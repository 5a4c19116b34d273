"""Walk the recipe's stages: epochs, validation, checkpoints after and within epochs, resume, the log.

Knows crops, targets and stages; which paper a stage comes from it does not know. Says `keras` only, so that it trains
on every backend of Keras. The order of the films is a function of seed, stage and epoch alone, and a checkpoint holds
weights, optimizer and log together, so that a resumed run goes on where the killed one stood.
"""

import logging
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np

from .. import labels
from ..commands import Bar
from ..devices.alone import ALONE, Devices
from ..films.batches import film_errors
from ..hierarchy import Tree
from ..network import losses
from ..network.model import freeze_all_but_head, freeze_backbone, halves, present, reset_head, unfreeze
from ..prepare.sources import Films
from ..recipes import Recipe
from .callbacks import Shown, StopWhereLossBreaks, WithinEpoch
from .checkpoint import (
    BEST,
    CHECKPOINT,
    State,
    restore_optimizer,
    restore_weights,
    resume,
    running_loss,
    save_checkpoint,
    save_model,
)
from .compiling import compile_for, schedule, stopped_early
from .history import validated, write_log
from .microbatch import Pieces, WholeSteps, filled
from .targets import epoch_order, stage_targets

log = logging.getLogger("chexpert_hier.training")
# A stage's `layers`: what trains.
FREEZE = {"all": unfreeze, "head": freeze_all_but_head, "behind-backbone": freeze_backbone}
TRAINS = {"all": "all layers", "head": "final Dense layer only", "behind-backbone": "all but the backbone"}
ANSWERED = (32, 224)  # films of so many pixels a side that a network answers at once
SAVED_EVERY = 10.0  # seconds between checkpoints where epochs are shorter


@dataclass(frozen=True)
class Training:
    """What all stages of one training share.

    Attributes:
        recipe: what to do.
        tree: the hierarchy of the labels.
        model: from model.build_model, with its first weights; is trained in place.
        films: training films.
        valid: films for the log; never trained on, and chosen on only where a stage's `keep` says so.
        folder: the run folder; gets checkpoint.npz after every epoch (the one before is kept), log.csv,
            `<stage>.keras`, model.keras.
        resume: go on from the folder's checkpoint if there is one.
        selftrained: see targets.stage_targets.
        devices: that share every batch.
        tensorboard: also write TensorBoard logs.
        checkpoint_every: also save after every so many batches; 0 saves after epochs only. A stage on features, whose
            epochs take seconds, is saved after epochs.
        seen: given (stage's name, epoch from 1, p(finding is present) of the validation films (n, labels)) after every
            epoch.
    """

    recipe: Recipe
    tree: Tree
    model: keras.Model
    films: Films
    valid: Films
    folder: Path
    resume: bool = False
    selftrained: np.ndarray | None = None
    tensorboard: bool = False
    checkpoint_every: int = 0
    seen: Callable[[str, int, np.ndarray], None] | None = None
    devices: Devices = ALONE


class Part(NamedTuple):
    """A process's part of every batch: places of films, targets as the compiled loss takes them, films in a part."""

    rows: np.ndarray
    targets: np.ndarray
    size: int


def train(training: Training) -> keras.Model:
    """Train through the recipe's stages.

    Returns:
        the same model, trained.

    Raises:
        InputError: no film is left to learn from, the loss is not finite, or the disk is full.
    """
    recipe, model, folder, devices = training.recipe, training.model, training.folder, training.devices
    state = resume(folder, model, devices) if training.resume else State()
    for number, stage in enumerate(recipe.plan()):
        if number < state.stage:
            continue
        if stage.fresh_head and not state.began:
            reset_head(model, recipe.seed + number)
        FREEZE[stage.layers](model)
        # The frozen part gives the same features in every epoch, unless films are changed at random.
        kind = HeadRun if stage.layers == "head" and not recipe.augment else StageRun
        kind(training, number, state).run()
        if stage.keep != "last":
            restore_weights(folder / BEST, model, devices.read(folder / BEST))
        state.stage, state.epoch = number + 1, 0
        if devices.first:
            # Before the checkpoint after which it is not written again.
            save_model(model, folder / f"{stage.name}.keras")
            write_log(folder / "log.csv", state.log)  # once more: the process may have died between checkpoint and log
            save_checkpoint(folder / CHECKPOINT, model, None, state)
    unfreeze(model)
    if devices.first:
        save_model(model, folder / "model.keras")
        (folder / BEST).unlink(missing_ok=True)
    return model


class StageRun:
    """One stage of a training: its films once an epoch through all layers, the validation films after each.

    Args:
        training: what the stages share.
        number: the stage's place in the recipe.
        state: how far the training has come; is moved on.
    """

    quick = False  # whether an epoch takes seconds: it is then neither shown nor saved within

    def __init__(self, training: Training, number: int, state: State):
        self.training, self.number, self.state = training, number, state
        self.recipe, self.stage = training.recipe, training.recipe.plan()[number]
        self.rows, self.targets = self._targets(epoch=0)
        log.info("%s: %s films, %s, %s", self.stage.name, f"{len(self.rows):,}", TRAINS[self.stage.layers],
                 self.stage.loss)
        self.loss = losses.build(self.stage.loss, self.targets, training.tree)
        # Never smoothed: what is uncertain does not count.
        self.valid_targets = labels.hard_targets(training.valid.raw, "u-ignore", blank=self.recipe.blank)
        self.devices = training.devices
        self.pieces = Pieces.of(self.stage.batch_size, self.recipe.micro_batch, self.devices.count)
        self.network = training.model
        self.prepare()
        compile_for(self.network, self.recipe, self.stage, self.loss, self.pieces, self.targets.shape[1:])
        self.devices.adapt(self.network)
        content = self.devices.read(training.folder / CHECKPOINT) if state.began else None
        self.running = [] if content is None else restore_optimizer(training.folder / CHECKPOINT, self.network, content)
        self.saved = -np.inf  # when the last epoch was kept

    def _targets(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        return stage_targets(self.recipe, self.training.tree, self.training.films, self.stage, epoch,
                             self.training.selftrained)

    def prepare(self) -> None:
        """What is done once, before the first epoch."""

    def run(self) -> None:
        """All epochs that are left, unless validation says that the stage is over."""
        for epoch in range(self.state.epoch, self.stage.epochs):
            if stopped_early(self.stage, self.state.losses(self.stage.name)):
                break
            self.epoch(epoch)

    def epoch(self, epoch: int) -> None:
        """Learn from every film once, validate, and keep what came out.

        Args:
            epoch: counted from 0.
        """
        if self.recipe.lsr_draw == "epoch":
            self.targets = self._targets(epoch)[1]
        self.began = time.monotonic() - self.state.seconds
        loss = self.fit(epoch)
        outputs = self.validate()
        if self.training.seen is not None:
            self.training.seen(self.stage.name, epoch + 1, present(outputs))
        self.keep(self.devices.agreed(
            {"stage": self.stage.name, "epoch": epoch + 1,
             "learning_rate": float(self.network.optimizer.learning_rate), "films": len(self.rows), "loss": loss,
             **validated(self.loss, outputs, self.valid_targets, self.training.valid.labels),
             "seconds": time.monotonic() - self.began}))

    def fit(self, epoch: int) -> float:
        """Learn from the epoch's films that are left; their mean loss, with that of those before a stop."""
        order = epoch_order(len(self.rows), self.recipe.seed, self.number, epoch)
        left = order[self.state.batch * self.stage.batch_size:]
        name = f"{self.stage.name} epoch {epoch + 1}/{self.stage.epochs}"
        bar = Bar(name, len(order), done=len(order) - len(left), quiet=self.quick)
        with closing(bar), film_errors():
            history = self.network.fit(
                **self.inputs(left, epoch), shuffle=False, verbose=0, initial_epoch=epoch, epochs=epoch + 1,
                callbacks=self.callbacks(order, Shown(bar, len(left), self.pieces.size)))
        self.running = []
        return history.history["loss"][-1]

    def inputs(self, order: np.ndarray, epoch: int) -> dict:
        """What Keras' `fit` reads: films decoded and drawn batch by batch.

        Args:
            order: int (m,), places in `rows`.
            epoch: decides the augmentations' draws.
        """
        rows, targets, size = self.share(self.rows[order], self.targets[order])
        draw = (self.recipe.seed, self.number, epoch)
        return {"x": self.training.films.batches(rows, targets, size, self.recipe.augment, draw)}

    def share(self, rows: np.ndarray, targets: np.ndarray) -> Part:
        """This process's part of every batch."""
        if not self.pieces.flagged:
            return Part(rows, targets, self.pieces.size)
        rows, targets = self.pieces.cut(rows, targets, self.loss)
        share = self.devices.share(len(rows), self.pieces.size)
        return Part(rows[share.places], filled(targets[share.places], share.padded), share.size)

    def callbacks(self, order: np.ndarray, shown: Shown) -> list[keras.callbacks.Callback]:
        """The rate, the checks, the checkpoints within the epoch."""
        done, count = self.state.batch, self.pieces.count
        total = -(-len(order) // self.stage.batch_size)
        every = 0 if self.quick else self.training.checkpoint_every
        found = [schedule(self.stage, self.state.losses(self.stage.name)), shown,
                 StopWhereLossBreaks(self.stage.name, self.training.films.keys[self.rows[order]],
                                     self.stage.batch_size, count, done),
                 WithinEpoch(self.save_batch, every, count, done, total, self.running)]
        if count > 1 and self.recipe.precision == "mixed_float16":
            found.append(WholeSteps(count))
        if self.training.tensorboard and self.devices.first:
            found.append(keras.callbacks.TensorBoard(self.training.folder / "tensorboard" / self.stage.name,
                                                     write_graph=False))
        return found

    def validate(self) -> np.ndarray:
        """The network's outputs for the validation films: float32 (n, labels), or (n, labels, 3)."""
        return _outputs(self.training.model, self.training.valid, answered_at_once(self.recipe), self.devices)

    def save_batch(self, network: keras.Model, batch: int) -> None:
        """A checkpoint within the epoch.

        Args:
            network: what is trained.
            batch: batches that are done.
        """
        self.state.batch, self.state.seconds = batch, time.monotonic() - self.began
        if self.devices.first:
            save_checkpoint(self.training.folder / CHECKPOINT, self.training.model, network.optimizer, self.state,
                            running_loss(network))

    def keep(self, row: dict) -> None:
        """Write the finished epoch's row and weights, and those of the best epoch so far where the recipe keeps it."""
        folder, state = self.training.folder, self.state
        improved = not row["valid_loss"] >= min(state.losses(self.stage.name), default=np.inf)
        state.log.append(row)
        state.epoch, state.batch, state.seconds = row["epoch"], 0, 0.0
        if not self.devices.first:
            return
        if self.stage.keep != "last" and improved:
            save_checkpoint(folder / BEST, self.training.model, None, state)
        if not self.quick or time.monotonic() - self.saved >= SAVED_EVERY:
            save_checkpoint(folder / CHECKPOINT, self.training.model, self.network.optimizer, state)
            self.saved = time.monotonic()
        write_log(folder / "log.csv", state.log)
        self.say(row)

    def say(self, row: dict, level: int = logging.INFO) -> None:
        """The epoch in one line."""
        log.log(level, "%s epoch %d: loss %.4f, valid loss %.4f, valid AUROC %.3f, rate %.0e", self.stage.name,
                row["epoch"], row["loss"], row["valid_loss"], row["valid_auroc"], row["learning_rate"])


class HeadRun(StageRun):
    """A stage that trains the last Dense layer alone: on features, which the frozen layers give once for all epochs.

    Source: Pham et al. 2019, section 3.2, second stage.
    """

    quick = True

    def prepare(self) -> None:
        """Compute the features of all films."""
        self.network = halves(self.training.model).head
        self.pieces = Pieces.of(self.stage.batch_size, 0, self.devices.count)
        valid = np.arange(len(self.training.valid))
        with closing(Bar(f"{self.stage.name} features", len(self.rows) + len(valid))) as bar:
            self.features, self.valid_features = (
                features_of(self.training.model, films, rows, answered_at_once(self.recipe), bar, self.devices)
                for films, rows in ((self.training.films, self.rows), (self.training.valid, valid)))

    def inputs(self, order: np.ndarray, epoch: int) -> dict:
        """Features, in the epoch's order."""
        rows, targets, size = self.share(order, self.targets[order])
        return {"x": self.features[rows], "y": targets, "batch_size": size}

    def validate(self) -> np.ndarray:
        """Outputs from the validation films' features."""
        return _answers(self.network, self.valid_features, self.devices)

    def say(self, row: dict, level: int = logging.INFO) -> None:
        """The last epoch in one line."""
        super().say(row, logging.INFO if row["epoch"] == self.stage.epochs else logging.DEBUG)


def answered_at_once(recipe: Recipe) -> int:
    """Films in a batch where nothing is learned: more of them where films are small, no more than a micro-batch."""
    films, side = ANSWERED
    return recipe.micro_batch or max(films, min(4 * films, films * side**2 // recipe.image_size**2))


def features_of(model: keras.Model, films: Films, rows: np.ndarray, batch_size: int, bar: Bar | None = None,
                devices: Devices = ALONE) -> np.ndarray:
    """What goes into the last Dense layer: float32 (len(rows), k).

    Args:
        model: the whole network.
        films: where the films come from.
        rows: int (n,), places in `films`.
        batch_size: films at once.
        bar: a progress line to move on.
        devices: that share every batch.
    """
    shown = [] if bar is None else [Shown(bar, len(rows), batch_size)]
    network, share = halves(model).features, devices.share(len(rows), batch_size)
    devices.adapt(network)
    with film_errors():
        batches = films.batches(rows[share.places], batch_size=share.size)
        return network.predict(batches, verbose=0, callbacks=shown)[share.kept].astype(np.float32)


def outputs_of(model: keras.Model, films: Films, batch_size: int = 32, devices: Devices = ALONE) -> np.ndarray:
    """p(finding is present) for all films in their own order, before any chain rule: float32 (n, labels)."""
    return present(_outputs(model, films, batch_size, devices))


def _outputs(model: keras.Model, films: Films, batch_size: int, devices: Devices) -> np.ndarray:
    features = features_of(model, films, np.arange(len(films)), batch_size, devices=devices)
    return _answers(halves(model).head, features, devices)


def _answers(head: keras.Model, features: np.ndarray, devices: Devices) -> np.ndarray:
    """The last layer's outputs for features (n, k)."""
    share = devices.share(len(features), 1024)
    devices.adapt(head)
    return head.predict(features[share.places], batch_size=share.size, verbose=0)[share.kept]
