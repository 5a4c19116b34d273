"""Walk the recipe's stages: learning rates, checkpoints after and within epochs, resume, the log.

Knows crops, targets and stages; which paper a stage comes from it does not know. Says `keras` only, so that it trains
on every backend of Keras. The order of the films is a function of seed, stage and epoch alone, and a checkpoint holds
weights, optimizer and log together, so that a resumed run goes on where the killed one stood.
"""

import csv
import io
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np

from .. import hierarchy, labels
from ..commands import Bar
from ..errors import InputError
from ..evaluate import auroc
from ..files import write_text
from ..films.batches import film_errors
from ..network import losses
from ..network.model import (
    feature_model,
    freeze_all_but_head,
    freeze_backbone,
    head_model,
    present,
    reset_head,
    unfreeze,
)
from ..prepare.sources import Films
from ..recipes import Recipe, Stage
from .callbacks import LearningRateDrop, Shown, StopWhereLossBreaks, WithinEpoch, plateau_rate
from .checkpoint import (
    BEST,
    CHECKPOINT,
    State,
    restore_optimizer,
    restore_weights,
    running_loss,
    save_checkpoint,
    save_model,
)
from .microbatch import PieceLoss, Pieces, WholeSteps

log = logging.getLogger("chexpert_hier.training")
# A stage's `layers`: what trains.
FREEZE = {"all": unfreeze, "head": freeze_all_but_head, "behind-backbone": freeze_backbone}
TRAINS = {"all": "all layers", "head": "final Dense layer only", "behind-backbone": "all but the backbone"}

LOG_COLUMNS = ("stage", "epoch", "learning_rate", "films", "loss", "valid_loss", "valid_auroc", "valid_auroc_labels",
               "seconds")


def epoch_order(count: int, seed: int, stage: int, epoch: int) -> np.ndarray:
    """The order of `count` films in an epoch: a permutation that depends on nothing but its arguments."""
    return np.random.default_rng([seed, stage, epoch]).permutation(count)


def stage_targets(recipe: Recipe, tree: hierarchy.Tree, films: Films, stage: Stage, epoch: int = 0,
                  selftrained: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Which films a stage learns from, and what it learns of them.

    Args:
        recipe: policy, smoothing, blanks, closure and reading of conditional training.
        tree: the hierarchy of `films.labels`.
        films: the training films.
        stage: its `rows` decide.
        epoch: changes the smoothed targets where the recipe draws them afresh per epoch.
        selftrained: float (n, labels), a finished run's probabilities, for the policy u-selftrained.

    Returns:
        rows: int (m,), ascending indices of films.
        targets: float32 (m, labels), or (m, labels, 3) for u-multiclass; NaN where a cell does not count.

    Source: Pham et al. 2019, sections 3.2 and 3.3.
    """
    raw = hierarchy.close_upward(films.raw, tree) if recipe.closure else films.raw
    targets = labels.targets(raw, films.keys, films.labels, recipe.labelling, epoch=epoch, selftrained=selftrained)
    counts = ~np.isnan(targets).reshape(*raw.shape, -1).any(axis=2)  # u-multiclass has three numbers a cell
    opened = counts.any(axis=1)
    if recipe.drop_uncertain_rows:
        opened &= ~(raw == -1).any(axis=1)
    hard = labels.hard_targets(raw, recipe.policy, blank=recipe.blank)
    conditional, cells = hierarchy.stage_one(hard, tree, recipe.ct_rows)
    learned = cells.any(axis=0)  # (labels,), by stage 1
    if stage.rows != "conditional":
        cells = np.ones_like(cells)
    if stage.rows == "random":  # a control: as many films, none of the conditions
        chosen = np.random.default_rng([recipe.seed, 7]).permutation(len(films))[:int(conditional.sum())]
        conditional = np.isin(np.arange(len(films)), chosen)
    if stage.cells == "conditional":
        cells = cells & hierarchy.conditional_cells(hard, tree)
    if stage.labels == "parents":
        cells = cells & ~learned
    if stage.rows != "all":
        opened &= conditional
    opened &= (cells & counts).any(axis=1)
    targets = np.where(cells if targets.ndim == 2 else cells[..., None], targets, np.float32(np.nan))
    rows = np.flatnonzero(opened)
    return rows, targets[rows]


def train(recipe: Recipe, tree: hierarchy.Tree, model: keras.Model, films: Films, valid: Films, folder: Path, *,
          resume: bool = False, selftrained: np.ndarray | None = None, tensorboard: bool = False,
          checkpoint_every: int = 0, seen: Callable[[str, int, np.ndarray], None] | None = None) -> keras.Model:
    """Train `model` through the recipe's stages.

    Args:
        recipe: what to do.
        tree: the hierarchy of the labels.
        model: from model.build_model, with its first weights.
        films: training films.
        valid: films for the log; never trained on, and chosen on only where a stage's `keep` says so.
        folder: the run folder; gets checkpoint.npz after every epoch, log.csv, `<stage>.keras`, model.keras.
        resume: go on from the folder's checkpoint if there is one.
        selftrained: see stage_targets.
        tensorboard: also write TensorBoard logs.
        checkpoint_every: also save after every so many batches; 0 saves after epochs only. A stage on features, whose
            epochs take seconds, is saved after epochs.
        seen: given (stage's name, epoch from 1, p(finding is present) of the validation films (n, labels)) after every
            epoch.

    Returns:
        the same model, trained.

    Raises:
        InputError: no film is left to learn from, the loss is not finite, or the disk is full.
    """
    state = State()
    if resume and (folder / CHECKPOINT).exists():
        state = restore_weights(folder / CHECKPOINT, model)
    for number, stage in enumerate(recipe.plan()):
        if number < state.stage:
            continue
        began = state.epoch > 0 or state.batch > 0
        if stage.fresh_head and not began:
            reset_head(model, recipe.seed + number)
        FREEZE[stage.layers](model)
        _train_stage(recipe, tree, model, films, valid, folder, number, state, selftrained, tensorboard,
                     checkpoint_every, seen)
        if stage.keep != "last":
            restore_weights(folder / BEST, model)
        save_model(model, folder / f"{stage.name}.keras")  # before the checkpoint after which it is not written again
        write_log(folder / "log.csv", state.log)  # once more: the process may have died between checkpoint and log
        state.stage, state.epoch = number + 1, 0
        save_checkpoint(folder / CHECKPOINT, model, None, state)
    unfreeze(model)
    save_model(model, folder / "model.keras")
    (folder / BEST).unlink(missing_ok=True)
    return model


def _train_stage(recipe, tree, model, films, valid, folder, number, state, selftrained, tensorboard, every,
                 seen) -> None:
    stage = recipe.plan()[number]
    rows, targets = stage_targets(recipe, tree, films, stage, selftrained=selftrained)
    if not len(rows):
        raise InputError(f"{stage.name}: no film to learn from; expected at least one whose parents are present "
                         f"(--ct-rows {recipe.ct_rows}, policy {recipe.policy})")
    log.info("%s: %s films, %s, %s", stage.name, f"{len(rows):,}",
             TRAINS[stage.layers], stage.loss)
    valid_targets = labels.hard_targets(valid.raw, "u-ignore", blank=recipe.blank)
    loss = stage_loss(stage.loss, targets, tree)
    on_features = stage.layers == "head" and not recipe.augment
    if on_features:  # the frozen part gives the same features in every epoch: compute them once
        trained, inputs, valid_inputs = _head_on_features(model, films, valid, rows, stage)
    else:
        trained = model
    pieces = Pieces.of(stage.batch_size, 0 if on_features else recipe.micro_batch)
    _compile(trained, stage, recipe, loss, pieces, targets.shape[1:])
    running = restore_optimizer(folder / CHECKPOINT, trained) if state.epoch or state.batch else []
    for epoch in range(state.epoch, stage.epochs):
        if _stopped_early(stage, state.losses(stage.name)):
            break
        if recipe.lsr_draw == "epoch":
            targets = stage_targets(recipe, tree, films, stage, epoch, selftrained)[1]
        order = epoch_order(len(rows), recipe.seed, number, epoch)
        done, total = state.batch, -(-len(rows) // stage.batch_size)
        left = order[done * stage.batch_size:]
        began = time.monotonic() - state.seconds
        bar = Bar(f"{stage.name} epoch {epoch + 1}/{stage.epochs}", len(rows), done=len(rows) - len(left))
        bar.quiet |= on_features  # its epochs take a second

        def save(trained, batch, began=began):
            state.batch, state.seconds = batch, time.monotonic() - began
            save_checkpoint(folder / CHECKPOINT, model, trained.optimizer, state, running_loss(trained))

        callbacks = [_schedule(stage, state), Shown(bar, len(left), pieces.size),
                     StopWhereLossBreaks(stage.name, films.keys[rows[order]], stage.batch_size, pieces.count, done),
                     WithinEpoch(save, 0 if on_features else every, pieces.count, done, total, running)]
        running = []
        if pieces.count > 1 and recipe.precision == "mixed_float16":
            callbacks.append(WholeSteps(pieces.count))
        if tensorboard:
            callbacks.append(keras.callbacks.TensorBoard(folder / "tensorboard" / stage.name, write_graph=False))
        if on_features:
            history = trained.fit(inputs[order], targets[order], batch_size=stage.batch_size, shuffle=False, verbose=0,
                                  initial_epoch=epoch, epochs=epoch + 1, callbacks=callbacks)
            outputs = trained.predict(valid_inputs, batch_size=1024, verbose=0)
        else:
            draw = (recipe.seed, number, epoch)
            some, truth = rows[left], targets[left]
            if pieces.count > 1:
                some, truth = pieces.cut(some, truth, loss)
            batches = films.batches(some, truth, pieces.size, recipe.augment, draw)
            with film_errors():
                history = trained.fit(batches, shuffle=False, verbose=0, initial_epoch=epoch, epochs=epoch + 1,
                                      callbacks=callbacks)
            outputs = _outputs(trained, valid, pieces.size)
        bar.close()
        if seen is not None:
            seen(stage.name, epoch + 1, present(outputs))
        row = {"stage": stage.name, "epoch": epoch + 1, "learning_rate": float(trained.optimizer.learning_rate),
               "films": len(rows), "loss": history.history["loss"][-1],
               **_validated(loss, outputs, valid_targets, valid.labels), "seconds": time.monotonic() - began}
        improved = not row["valid_loss"] >= min(state.losses(stage.name), default=np.inf)
        state.log.append(row)
        state.epoch, state.batch, state.seconds = epoch + 1, 0, 0.0
        if stage.keep != "last" and improved:
            save_checkpoint(folder / BEST, model, None, state)
        save_checkpoint(folder / CHECKPOINT, model, trained.optimizer, state)
        write_log(folder / "log.csv", state.log)
        log.log(logging.DEBUG if on_features and epoch + 1 < stage.epochs else logging.INFO,
                "%s epoch %d: loss %.4f, valid loss %.4f, valid AUROC %.3f, rate %.0e", stage.name, epoch + 1,
                row["loss"], row["valid_loss"], row["valid_auroc"], row["learning_rate"])


def stage_loss(name: str, targets: np.ndarray, tree: hierarchy.Tree) -> losses.MaskedLoss:
    """The loss a stage names, with the numbers that it takes from the training targets or from the tree.

    Args:
        name: a row of losses.LOSSES, perhaps with options (see losses.build).
        targets: float (n, labels) or (n, labels, 3), the stage's own, NaN where a cell does not count.
        tree: the hierarchy of the labels.

    Raises:
        InputError: there is no such loss.
    """
    return losses.build(name, targets, tree)


def outputs_of(model: keras.Model, films: Films, batch_size: int = 32) -> np.ndarray:
    """p(finding is present) for all films in their own order, before any chain rule: float32 (n, labels)."""
    return present(_outputs(model, films, batch_size))


def _outputs(model: keras.Model, films: Films, batch_size: int) -> np.ndarray:
    with film_errors():
        return model.predict(films.batches(np.arange(len(films)), batch_size=batch_size), verbose=0)


def _validated(loss, outputs: np.ndarray, targets: np.ndarray, names: tuple[str, ...]) -> dict:
    """Loss and AUROC of the validation films.

    Args:
        loss: the stage's own; three classes are judged as two, by the cross-entropy of positive against negative
            (CheXpertNet, section 4.3).
        outputs: (n, labels) or (n, labels, 3).
        targets: (n, labels), never smoothed: 1, 0, NaN where the label is uncertain or does not count.
        names: of the labels.
    """
    loss, outputs = (losses.BCE(), present(outputs)) if outputs.ndim == 3 else (loss, outputs)
    value = float(keras.ops.convert_to_numpy(loss(targets, outputs)))
    five = [names.index(label) for label in labels.COMPETITION_LABELS if label in names] or list(range(len(names)))
    areas = np.array([auroc(outputs[counts, k], targets[counts, k])
                      for k in five for counts in [~np.isnan(targets[:, k])]])
    known = ~np.isnan(areas)
    return {"valid_loss": value, "valid_auroc": float(areas[known].mean()) if known.any() else float("nan"),
            "valid_auroc_labels": int(known.sum())}


def _head_on_features(model, films, valid, rows, stage):
    features = feature_model(model)
    bar = Bar(f"{stage.name} features", len(rows) + len(valid))
    parts = []
    for chosen, source in ((rows, films), (np.arange(len(valid)), valid)):
        with film_errors():
            values = features.predict(source.batches(chosen, batch_size=stage.batch_size), verbose=0)
        bar.add(len(chosen))
        parts.append(values.astype(np.float32))
    bar.close()
    return head_model(model), *parts


def _compile(trained: keras.Model, stage: Stage, recipe: Recipe, loss: losses.MaskedLoss, pieces: Pieces,
             cells: tuple[int, ...]) -> None:
    """Compile; a network that is compiled for this loss already only gets its optimizer reset, for tracing a large
    network once more takes longer than many a small training (experiments train one network many times)."""
    if (trained.compiled and recipe.precision == "float32" and isinstance(trained.loss, losses.MaskedLoss)
            and trained.loss.get_config() == loss.get_config() and trained.optimizer.built
            and trained.optimizer.epsilon == stage.epsilon
            and len(trained.optimizer.variables) == 2 * len(trained.trainable_variables) + 2):
        for variable in trained.optimizer.variables[:1] + trained.optimizer.variables[2:]:  # all but the learning rate
            variable.assign(keras.ops.zeros_like(variable))
        return
    if pieces.count > 1:
        loss = PieceLoss(loss, cells, pieces.count)
    trained.compile(optimizer=_optimizer(stage, recipe, pieces), loss=loss, jit_compile=_jit())


def _optimizer(stage: Stage, recipe: Recipe, pieces: Pieces):
    adam = keras.optimizers.Adam(stage.learning_rate, beta_1=0.9, beta_2=0.999, epsilon=stage.epsilon,
                                 gradient_accumulation_steps=pieces.count if pieces.count > 1 else None)
    return keras.optimizers.LossScaleOptimizer(adam) if recipe.precision == "mixed_float16" else adam


def _schedule(stage: Stage, state: State):
    if stage.schedule == "divide":
        return LearningRateDrop(stage.learning_rate, stage.learning_rate_drop, stage.drop_every)
    rate = stage.learning_rate
    if stage.schedule == "plateau":
        rate = plateau_rate(stage, state.losses(stage.name))
    return LearningRateDrop(rate, 1.0)


def _stopped_early(stage: Stage, valid_losses: list[float]) -> bool:
    if not stage.stop_after or not valid_losses:
        return False
    return len(valid_losses) - 1 - int(np.argmin(valid_losses)) >= stage.stop_after


def _jit() -> str | bool:
    # XLA takes minutes to compile a DenseNet-121 for TensorFlow on the CPU; elsewhere Keras' own choice is good.
    if keras.backend.backend() == "tensorflow" and not keras.distribution.list_devices("gpu"):
        return False
    return "auto"


def write_log(path: Path, rows: list[dict]) -> None:
    """Write log.csv whole: one row per finished epoch of every stage."""
    text = io.StringIO()
    table = csv.DictWriter(text, LOG_COLUMNS, lineterminator=os.linesep)
    table.writeheader()
    for row in rows:
        table.writerow({name: f"{value:.6g}" if isinstance(value, float) else value for name, value in row.items()})
    write_text(path, text.getvalue())
